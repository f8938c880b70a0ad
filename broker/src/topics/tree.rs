//! The topic tree: which subscriptions match a topic name. The cost of a match grows with the levels of the topic, not
//! with the number of subscriptions. Agrees with `wire::topic::matches`, by a property test.

use std::collections::HashMap;

use godwit_wire::command::Route;
use godwit_wire::ids::SessionId;
use godwit_wire::topic::is_reserved_first_level;

type NodeId = u32;
const ROOT: NodeId = 0;
/// Routes of one filter up to which one is found by a look at each; more have an index.
const SCANNED: usize = 16;

/// The routes of one filter.
#[derive(Debug, Default)]
struct Ends {
    routes: Vec<Route>,
    #[expect(
        clippy::box_collection,
        reason = "most filters have one route: one pointer, not the whole map"
    )]
    places: Option<Box<HashMap<SessionId, usize>>>,
}

impl Ends {
    fn place(&self, session: SessionId) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&session).copied(),
            None => self.routes.iter().position(|route| route.session == session),
        }
    }

    fn insert(&mut self, route: Route) -> Option<Route> {
        if let Some(old) = self.place(route.session).and_then(|at| self.routes.get_mut(at)) {
            return Some(std::mem::replace(old, route));
        }
        let at = self.routes.len();
        if let Some(places) = &mut self.places {
            places.insert(route.session, at);
        }
        self.routes.push(route);
        if self.places.is_none() && at >= SCANNED {
            let all = self.routes.iter().enumerate();
            self.places = Some(Box::new(all.map(|(at, route)| (route.session, at)).collect()));
        }
        None
    }

    fn remove(&mut self, session: SessionId, route_id: Option<u64>) -> Option<Route> {
        let at = self.place(session)?;
        if route_id.is_some_and(|id| self.routes[at].route_id != id) {
            return None;
        }
        let route = self.routes.swap_remove(at);
        if let Some(places) = &mut self.places {
            places.remove(&session);
            if let Some(moved) = self.routes.get(at) {
                places.insert(moved.session, at);
            }
            if self.routes.len() < SCANNED / 2 {
                self.places = None;
            }
        }
        Some(route)
    }
}

/// Literal levels below a node. Most nodes have none or one, which needs no hash.
#[derive(Debug, Default)]
enum Literals {
    #[default]
    None,
    One(Box<str>, NodeId),
    #[expect(
        clippy::box_collection,
        reason = "most nodes are none of these: one pointer, not the whole map"
    )]
    Many(Box<HashMap<Box<str>, NodeId>>),
}

impl Literals {
    fn get(&self, level: &str) -> Option<NodeId> {
        match self {
            Self::None => None,
            Self::One(only, child) => (**only == *level).then_some(*child),
            Self::Many(all) => all.get(level).copied(),
        }
    }

    fn insert(&mut self, level: &str, child: NodeId) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(level.into(), child),
            Self::One(only, of_only) => {
                Self::Many(Box::new(HashMap::from([(only, of_only), (level.into(), child)])))
            }
            Self::Many(mut all) => {
                all.insert(level.into(), child);
                Self::Many(all)
            }
        };
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Many(all) if all.len() > 1 => {
                all.remove(level);
            }
            _ if self.get(level).is_some() => *self = Self::None,
            _ => {}
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    /// The level `+`; [`ROOT`], which is nobody's child: none.
    plus: NodeId,
    literals: Literals,
    /// Of filters that end here.
    exact: Ends,
    /// Of filters that end with `#` here: they match this level and all below.
    below: Ends,
}

impl Node {
    /// Of a filter's level.
    fn child(&self, level: &str) -> Option<NodeId> {
        match level {
            "+" => self.any(),
            literal => self.literals.get(literal),
        }
    }

    /// Of `+`.
    fn any(&self) -> Option<NodeId> {
        (self.plus != ROOT).then_some(self.plus)
    }

    fn is_empty(&self) -> bool {
        self.exact.routes.is_empty()
            && self.below.routes.is_empty()
            && self.plus == ROOT
            && matches!(self.literals, Literals::None)
    }
}

/// A tree of routes by filter.
#[derive(Debug)]
pub struct TopicTree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    routes: usize,
}

impl Default for TopicTree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
            routes: 0,
        }
    }
}

impl TopicTree {
    /// How many routes it holds.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// Puts a route in; the one it replaces (same session, same filter) comes back.
    pub fn insert(&mut self, route: Route) -> Option<Route> {
        let mut node = ROOT;
        let (path, below) = split(&route.filter);
        for level in path {
            node = match self.nodes[node as usize].child(level) {
                Some(child) => child,
                None => self.add_child(node, level),
            };
        }
        let node = &mut self.nodes[node as usize];
        let ends = if below { &mut node.below } else { &mut node.exact };
        let old = ends.insert(route);
        self.routes += usize::from(old.is_none());
        old
    }

    fn add_child(&mut self, parent: NodeId, level: &str) -> NodeId {
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            // Far below 2^32 nodes: each takes more than 50 bytes.
            (self.nodes.len() - 1) as NodeId
        });
        let parent = &mut self.nodes[parent as usize];
        match level {
            "+" => parent.plus = child,
            literal => parent.literals.insert(literal, child),
        }
        child
    }

    /// The route of a session and filter.
    pub fn get(&self, session: SessionId, filter: &str) -> Option<&Route> {
        let (mut path, below) = split(filter);
        let node = path.try_fold(ROOT, |node, level| self.nodes[node as usize].child(level))?;
        let node = &self.nodes[node as usize];
        let ends = if below { &node.below } else { &node.exact };
        ends.routes.get(ends.place(session)?)
    }

    /// Takes the route of a session and filter out; with a `route_id` only if it is still that one.
    pub fn remove(&mut self, session: SessionId, filter: &str, route_id: Option<u64>) -> Option<Route> {
        let (path, below) = split(filter);
        let mut nodes = vec![ROOT];
        let mut levels = Vec::new();
        for level in path {
            let last = *nodes.last()?;
            nodes.push(self.nodes[last as usize].child(level)?);
            levels.push(level);
        }
        let node = &mut self.nodes[*nodes.last()? as usize];
        let ends = if below { &mut node.below } else { &mut node.exact };
        let route = ends.remove(session, route_id)?;
        self.routes -= 1;
        self.prune(&nodes, &levels);
        Some(route)
    }

    fn prune(&mut self, nodes: &[NodeId], levels: &[&str]) {
        for depth in (1..nodes.len()).rev() {
            let node = nodes[depth];
            if !self.nodes[node as usize].is_empty() {
                return;
            }
            self.nodes[node as usize] = Node::default();
            self.free.push(node);
            let parent = &mut self.nodes[nodes[depth - 1] as usize];
            match levels[depth - 1] {
                "+" => parent.plus = ROOT,
                literal => parent.literals.remove(literal),
            }
        }
    }

    /// Calls `found` for every route whose filter matches the topic name. How many nodes it went through, which is what
    /// it costs: usually not more than twice the topic's levels, but with `+` in many places a multiple of the routes.
    pub fn matching<'t>(&'t self, topic: &str, found: &mut impl FnMut(&'t Route)) -> usize {
        let mut visited = 0;
        if self.routes > 0 {
            let hidden = is_reserved_first_level(topic);
            self.descend(ROOT, Some(topic), hidden, found, &mut visited);
        }
        visited
    }

    /// `rest`: the levels still to match; `hidden`: no wildcard matches the next one. Depth is bounded by TOPIC_LEVELS.
    fn descend<'t>(
        &'t self,
        node: NodeId,
        rest: Option<&str>,
        hidden: bool,
        found: &mut impl FnMut(&'t Route),
        visited: &mut usize,
    ) {
        *visited += 1;
        let node = &self.nodes[node as usize];
        if !hidden {
            node.below.routes.iter().for_each(&mut *found);
        }
        let Some(rest) = rest else {
            node.exact.routes.iter().for_each(found);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        // No level of a topic name is "+".
        if let Some(child) = node.literals.get(level) {
            self.descend(child, rest, false, found, visited);
        }
        if !hidden && let Some(child) = node.any() {
            self.descend(child, rest, false, found, visited);
        }
    }

    /// Every route.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.nodes
            .iter()
            .flat_map(|node| node.exact.routes.iter().chain(&node.below.routes))
    }
}

/// The levels that lead to a filter's node, and whether it is one with `#`.
fn split(filter: &str) -> (impl Iterator<Item = &str>, bool) {
    let below = filter == "#" || filter.ends_with("/#");
    let depth = filter.split('/').count() - usize::from(below);
    (filter.split('/').take(depth), below)
}

#[cfg(test)]
pub(crate) mod tests {
    use godwit_wire::ids::UserId;
    use godwit_wire::topic::{is_filter, is_topic_name, matches};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn route(filter: &str) -> Route {
        Route {
            user: UserId::fresh(),
            session: SessionId::fresh(),
            route_id: 1,
            filter: filter.into(),
            persistent: true,
            qos: 1,
            no_local: false,
            retain_as_published: false,
            subscription_id: None,
        }
    }

    fn found(tree: &TopicTree, topic: &str) -> Vec<String> {
        let mut filters = Vec::new();
        tree.matching(topic, &mut |route| filters.push(route.filter.to_string()));
        filters.sort();
        filters
    }

    #[test]
    fn a_filter_matches_its_parent_and_everything_below() {
        let mut tree = TopicTree::default();
        for filter in ["a/b/#", "a/+/c", "a/b/c", "#", "+/b", "$SYS/#"] {
            tree.insert(route(filter));
        }
        assert_eq!(found(&tree, "a/b"), ["#", "+/b", "a/b/#"]);
        assert_eq!(found(&tree, "a/b/c"), ["#", "a/+/c", "a/b/#", "a/b/c"]);
        assert_eq!(found(&tree, "$SYS/x"), ["$SYS/#"]);
        assert_eq!(found(&tree, "c/b"), Vec::<String>::new());
    }

    #[test]
    fn a_route_that_is_gone_leaves_no_nodes_behind() {
        let mut tree = TopicTree::default();
        let routes: Vec<_> = ["a/b/c/d", "a/b", "a/+/#", "x"].into_iter().map(route).collect();
        routes
            .iter()
            .for_each(|route| assert!(tree.insert(route.clone()).is_none()));
        for route in &routes {
            assert!(tree.remove(route.session, &route.filter, Some(2)).is_none());
            assert_eq!(
                tree.remove(route.session, &route.filter, None).as_ref(),
                Some(route)
            );
        }
        assert_eq!((tree.len(), tree.nodes.len() - tree.free.len()), (0, 1));
    }

    #[test]
    fn a_second_subscription_of_a_session_to_a_filter_replaces_the_first() {
        let mut tree = TopicTree::default();
        let first = route("a/b");
        let second = Route {
            route_id: 2,
            qos: 2,
            ..first.clone()
        };
        assert!(tree.insert(first.clone()).is_none());
        assert_eq!(tree.insert(second), Some(first));
        assert_eq!(tree.len(), 1);
    }

    #[test]
    fn many_sessions_on_one_filter_are_found_replaced_and_removed_one_by_one() {
        let mut tree = TopicTree::default();
        let routes: Vec<Route> = (0..20_000).map(|_| route("a/b/#")).collect();
        for route in &routes {
            assert!(tree.insert(route.clone()).is_none());
        }
        // Both ways through: what is removed moves others.
        for (n, route) in routes.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
            let again = Route {
                route_id: 2,
                ..route.clone()
            };
            assert_eq!(tree.insert(again.clone()).as_ref(), Some(route));
            assert!(tree.remove(route.session, "a/b/#", Some(1)).is_none());
            if n % 3 == 1 {
                assert_eq!(tree.remove(route.session, "a/b/#", Some(2)), Some(again));
            }
        }
        for (n, route) in routes.iter().enumerate() {
            let found = tree.get(route.session, "a/b/#").map(|found| found.route_id);
            assert_eq!(found, [Some(1), None, Some(2)][n % 3], "route {n}");
            tree.remove(route.session, "a/b/#", None);
        }
        assert_eq!((tree.len(), tree.nodes.len() - tree.free.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_naive_matcher(
            filters in prop::collection::vec(prop::collection::vec("[ab+]|#|\\$x|c|", 1..5), 1..40),
            topics in prop::collection::vec(prop::collection::vec("[abc]|\\$x|", 1..5), 1..20),
            dropped in prop::collection::vec(any::<bool>(), 40),
        ) {
            let filters: Vec<String> = filters.into_iter().map(|l| l.join("/")).filter(|f| is_filter(f)).collect();
            let mut tree = TopicTree::default();
            let routes: Vec<Route> = filters.iter().map(|filter| route(filter)).collect();
            for route in &routes {
                tree.insert(route.clone());
            }
            let mut kept = Vec::new();
            for (route, dropped) in routes.iter().zip(dropped) {
                if dropped {
                    tree.remove(route.session, &route.filter, None);
                } else {
                    kept.push(route.filter.to_string());
                }
            }
            for topic in topics.into_iter().map(|l| l.join("/")).filter(|t| is_topic_name(t)) {
                let mut expected: Vec<String> = kept.iter().filter(|f| matches(f, &topic)).cloned().collect();
                expected.sort();
                prop_assert_eq!(found(&tree, &topic), expected);
            }
        }
    }
}
