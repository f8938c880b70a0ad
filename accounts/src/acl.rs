//! Who may publish and subscribe to which ordinary topics: rules of the configuration. What a rule denies is refused, what
//! none allows too; their order says nothing. Reserved first levels are never decided here (they are refused).

use godwit_wire::account::Principal;
use godwit_wire::topic;
use serde::{Deserialize, Serialize};

/// Most rules: each is looked at for every publish.
pub const MAX_RULES: usize = 256;

/// Whether a rule lets through or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Lets through.
    Allow,
    /// Refuses.
    Deny,
}

/// Which doors a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// PUBLISH and wills.
    Publish,
    /// SUBSCRIBE and delivery.
    Subscribe,
    /// Both.
    #[default]
    Both,
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Clients that are logged in.
    #[default]
    Users,
    /// Clients that are not.
    Anonymous,
    /// Both.
    Everyone,
}

/// One rule. In the filter `%u` is the user name and `%c` the client id; a value that is empty or holds `/ + #` or
/// U+0000 makes it match nothing. Written `{ effect = "deny", filter = "a/#" }` or `{ deny = "a/#" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Rule {
    /// Allow or deny.
    pub effect: Effect,
    /// Publish, subscribe or both.
    pub access: Access,
    /// Topic filter.
    pub filter: String,
    /// Users, anonymous clients or everyone.
    pub who: Who,
}

/// A rule as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    effect: Option<Effect>,
    filter: Option<String>,
    allow: Option<String>,
    deny: Option<String>,
    #[serde(default)]
    access: Access,
    #[serde(default)]
    who: Who,
}

impl TryFrom<Written> for Rule {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { access, who, .. } = written;
        let (effect, filter) = match (written.effect, written.filter, written.allow, written.deny) {
            (Some(effect), Some(filter), None, None) => (effect, filter),
            (None, None, Some(filter), None) => (Effect::Allow, filter),
            (None, None, None, Some(filter)) => (Effect::Deny, filter),
            _ => return Err("an acl rule has one of allow, deny, or effect with filter"),
        };
        Ok(Self {
            effect,
            access,
            filter,
            who,
        })
    }
}

/// The rules of an installation that says nothing: `iot/{user name}/#` is mine, an anonymous client (where they are
/// let in at all) has every ordinary topic.
pub fn default_rules() -> Vec<Rule> {
    let allow = |filter: &str, who| Rule {
        effect: Effect::Allow,
        access: Access::Both,
        filter: filter.into(),
        who,
    };
    vec![allow("iot/%u/#", Who::Users), allow("#", Who::Anonymous)]
}

/// A rule that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Not a topic filter, or in a reserved first level.
    #[error("acl rule {index}: \"{filter}\" is not a filter of ordinary topics")]
    Filter {
        /// Which rule, from 0.
        index: usize,
        /// Its filter.
        filter: String,
    },
    /// More than [`MAX_RULES`].
    #[error("there are more than {MAX_RULES} acl rules")]
    TooMany,
}

/// The rules, ready for use.
#[derive(Clone, Debug)]
pub struct Acl {
    rules: Vec<Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    rule: Rule,
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
enum Level {
    Literal(Box<str>),
    One,
    Rest,
    /// Exactly `%u` or `%c`: the common case, compared without making a string.
    User,
    Client,
    /// Holds `%u` or `%c` among other characters.
    Mixed(Box<str>),
}

impl Level {
    fn of(level: &str) -> Self {
        match level {
            "+" => Self::One,
            "#" => Self::Rest,
            "%u" => Self::User,
            "%c" => Self::Client,
            mixed if mixed.contains("%u") || mixed.contains("%c") => Self::Mixed(mixed.into()),
            literal => Self::Literal(literal.into()),
        }
    }

    fn is(&self, name: &str, user: &str, client_id: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *name,
            Self::One | Self::Rest => true,
            Self::User => !user.is_empty() && user == name,
            Self::Client => !client_id.is_empty() && client_id == name,
            Self::Mixed(pattern) => {
                topic::expand_acl(pattern, user, client_id).is_some_and(|expanded| *expanded == *name)
            }
        }
    }
}

impl Default for Acl {
    fn default() -> Self {
        let rules = default_rules().into_iter().map(Compiled::new).collect();
        Self { rules }
    }
}

impl Compiled {
    fn new(rule: Rule) -> Self {
        let levels = rule.filter.split('/').map(Level::of).collect();
        Self { rule, levels }
    }

    fn is_for(&self, principal: &Principal, access: Access) -> bool {
        let who = match self.rule.who {
            Who::Users => !principal.is_anonymous(),
            Who::Anonymous => principal.is_anonymous(),
            Who::Everyone => true,
        };
        who && (self.rule.access == Access::Both || self.rule.access == access)
    }

    /// As [`topic::matches`] with the expanded filter, without expanding it.
    fn matches(&self, name: &str, user: &str, client_id: &str) -> bool {
        let mut names = name.split('/');
        for level in &self.levels {
            match (level, names.next()) {
                (Level::Rest, _) => return true,
                (level, Some(name)) if level.is(name, user, client_id) => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl Acl {
    /// Rules in any order.
    ///
    /// # Errors
    /// A filter that is none, or that names a reserved first level; too many rules.
    pub fn new(rules: Vec<Rule>) -> Result<Self, AclError> {
        if rules.len() > MAX_RULES {
            return Err(AclError::TooMany);
        }
        for (index, rule) in rules.iter().enumerate() {
            if !topic::is_filter(&rule.filter) || topic::is_reserved_first_level(&rule.filter) {
                let filter = rule.filter.clone();
                return Err(AclError::Filter { index, filter });
            }
        }
        let mut rules: Vec<Compiled> = rules.into_iter().map(Compiled::new).collect();
        // What denies is looked at first, so that the first one that fits decides.
        rules.sort_by_key(|compiled| compiled.rule.effect == Effect::Allow);
        Ok(Self { rules })
    }

    /// Whether a PUBLISH (or a will) on this ordinary topic goes through.
    pub fn may_publish(&self, principal: &Principal, client_id: &str, topic: &str) -> bool {
        self.of_topic(principal, client_id, topic, Access::Publish)
    }

    /// Whether something on this topic may be delivered.
    pub fn may_receive(&self, principal: &Principal, client_id: &str, topic: &str) -> bool {
        self.of_topic(principal, client_id, topic, Access::Subscribe)
    }

    /// Whether a subscription is granted: only if every topic that the filter can match is allowed.
    pub fn may_subscribe(&self, principal: &Principal, client_id: &str, filter: &str) -> bool {
        if !has_topics(principal) || topic::is_reserved_first_level(filter) || !topic::is_filter(filter) {
            return false;
        }
        for compiled in &self.rules {
            if !compiled.is_for(principal, Access::Subscribe) {
                continue;
            }
            let Some(expanded) = topic::expand_acl(&compiled.rule.filter, &principal.name, client_id) else {
                continue;
            };
            match compiled.rule.effect {
                Effect::Allow if topic::covers(&expanded, filter) => return true,
                Effect::Allow => {}
                // Some of what it matches is denied: all of it is refused, or a client would take silence for peace.
                Effect::Deny if overlap(&expanded, filter) => return false,
                Effect::Deny => {}
            }
        }
        false
    }

    fn of_topic(&self, principal: &Principal, client_id: &str, name: &str, access: Access) -> bool {
        if !has_topics(principal) || topic::is_reserved_first_level(name) {
            return false;
        }
        self.rules
            .iter()
            .filter(|compiled| compiled.is_for(principal, access))
            .find(|compiled| compiled.matches(name, &principal.name, client_id))
            .is_some_and(|compiled| compiled.rule.effect == Effect::Allow)
    }
}

/// Anonymous clients have ordinary topics and nothing else.
fn has_topics(principal: &Principal) -> bool {
    principal.is_anonymous() || principal.scopes.topics
}

/// Whether two filters can match the same topic.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            // `a/#` also matches `a`.
            (Some("#"), _) | (_, Some("#")) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use godwit_wire::account::Scopes;
    use godwit_wire::ids::UserId;
    use uuid::Uuid;

    use super::*;

    fn user(name: &str) -> Principal {
        Principal {
            user: UserId::fresh(),
            name: Arc::from(name),
            credential: Some(Uuid::now_v7()),
            expires_at: 0,
            scopes: Scopes {
                chat: true,
                topics: true,
                rest: true,
            },
            admin: false,
        }
    }

    fn anonymous() -> Principal {
        Principal {
            credential: None,
            name: Arc::from(""),
            scopes: Scopes::default(),
            ..user("")
        }
    }

    fn rule(effect: Effect, access: Access, filter: &str) -> Rule {
        Rule {
            effect,
            access,
            filter: filter.into(),
            who: Who::Users,
        }
    }

    #[test]
    fn by_default_a_user_has_the_own_iot_tree_and_nothing_else() {
        let (acl, alice) = (Acl::default(), user("alice"));
        for mine in ["iot/alice", "iot/alice/t", "iot/alice/a/b"] {
            assert!(acl.may_publish(&alice, "c1", mine) && acl.may_receive(&alice, "c1", mine));
            assert!(acl.may_subscribe(&alice, "c1", mine));
        }
        for not in ["iot/bob/t", "iot", "iot/alicex", "news", "me/inbox", "$SYS/x"] {
            assert!(!acl.may_publish(&alice, "c1", not) && !acl.may_receive(&alice, "c1", not));
            assert!(!acl.may_subscribe(&alice, "c1", not));
        }
        assert!(acl.may_subscribe(&alice, "c1", "iot/alice/#"));
        assert!(acl.may_subscribe(&alice, "c1", "iot/alice/+/x"));
        for wider in ["iot/+/x", "iot/#", "#", "+/alice/x"] {
            assert!(!acl.may_subscribe(&alice, "c1", wider), "{wider}");
        }
    }

    #[test]
    fn an_anonymous_client_has_every_ordinary_topic_and_no_reserved_one() {
        let (acl, nobody) = (Acl::default(), anonymous());
        assert!(acl.may_publish(&nobody, "c", "a/b") && acl.may_subscribe(&nobody, "c", "#"));
        for reserved in ["me/inbox", "c/x/send", "u/x", "p/x", "$SYS/x"] {
            assert!(!acl.may_publish(&nobody, "c", reserved) && !acl.may_subscribe(&nobody, "c", reserved));
        }
        assert!(
            !acl.may_publish(&user("al"), "c", "a/b"),
            "logging in does not widen"
        );
    }

    #[test]
    fn a_token_without_the_scope_topics_has_none() {
        let mut alice = user("alice");
        alice.scopes.topics = false;
        assert!(!Acl::default().may_publish(&alice, "c", "iot/alice/x"));
        assert!(!Acl::default().may_subscribe(&alice, "c", "iot/alice/x"));
        assert!(!Acl::default().may_receive(&alice, "c", "iot/alice/x"));
    }

    #[test]
    fn what_a_rule_denies_is_refused_whatever_others_allow_and_in_whatever_order() {
        let mut rules = vec![
            rule(Effect::Allow, Access::Both, "a/#"),
            rule(Effect::Deny, Access::Subscribe, "a/+"),
            rule(Effect::Deny, Access::Both, "a/%u/%c/#"),
        ];
        for _ in 0..2 {
            let (acl, alice) = (Acl::new(rules.clone()).unwrap(), user("alice"));
            assert!(acl.may_publish(&alice, "c", "a/b") && !acl.may_receive(&alice, "c", "a/b"));
            assert!(acl.may_publish(&alice, "c", "a/b/d") && acl.may_receive(&alice, "c", "a/b/d"));
            assert!(
                !acl.may_publish(&alice, "c", "a/alice/c/x") && !acl.may_receive(&alice, "c", "a/alice/c")
            );
            assert!(
                acl.may_publish(&alice, "d", "a/alice/c/x")
                    && acl.may_publish(&user("bob"), "c", "a/alice/c")
            );
            for partly_denied in ["a/#", "a/b", "a/+", "a/alice/#", "a/+/c/x", "a/+/+/+"] {
                assert!(!acl.may_subscribe(&alice, "c", partly_denied), "{partly_denied}");
            }
            for not_denied in ["a/b/+/d", "a/b/d", "a/b/+"] {
                assert!(acl.may_subscribe(&alice, "c", not_denied), "{not_denied}");
            }
            rules.reverse();
        }
    }

    #[test]
    fn client_ids_that_could_widen_a_rule_match_nothing() {
        let acl = Acl::new(vec![
            rule(Effect::Allow, Access::Both, "dev/%c/#"),
            rule(Effect::Allow, Access::Both, "mixed/x-%c"),
        ])
        .unwrap();
        let alice = user("alice");
        assert!(acl.may_publish(&alice, "c1", "dev/c1/x") && acl.may_publish(&alice, "c1", "mixed/x-c1"));
        assert!(acl.may_subscribe(&alice, "c1", "dev/c1/#"));
        for bad in ["", "+", "#", "a/b", "a\0"] {
            assert!(!acl.may_publish(&alice, bad, "dev/x/y"), "{bad:?}");
            assert!(!acl.may_publish(&alice, bad, "dev//y"), "{bad:?}");
            assert!(!acl.may_publish(&alice, bad, "dev/a/b/y"), "{bad:?}");
            assert!(!acl.may_subscribe(&alice, bad, "dev/+/y"), "{bad:?}");
            assert!(!acl.may_subscribe(&alice, bad, "dev/#"), "{bad:?}");
        }
    }

    #[test]
    fn rules_about_reserved_levels_or_with_bad_filters_are_refused_at_start() {
        for bad in ["me/inbox", "c/#", "$SYS/#", "a/#/b", "", "a+"] {
            assert!(
                Acl::new(vec![rule(Effect::Allow, Access::Both, bad)]).is_err(),
                "{bad:?}"
            );
        }
        let many = vec![rule(Effect::Allow, Access::Both, "a"); MAX_RULES + 1];
        assert_eq!(Acl::new(many).unwrap_err(), AclError::TooMany);
    }
}
