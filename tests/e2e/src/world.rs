//! Who talks to whom: users with device tokens, conversations of two, groups of eight, two groups of everybody, and one
//! group in which a member comes and goes. Made over REST, before any fault.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::mqtt::Version;
use crate::rest::Api;

/// Registrations and logins at a time: each hashes a password on a core.
const AT_ONCE: usize = 4;
/// Groups of everybody.
const LARGE: usize = 2;
/// Members of a small group.
const EIGHT: usize = 8;

/// A user with what its devices need.
#[derive(Debug, Clone)]
pub struct User {
    /// User name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Device token with all scopes.
    pub token: String,
}

/// How large a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One-to-one.
    Two,
    /// A group of eight.
    Eight,
    /// A group of everybody.
    All,
    /// A group of eight in which one comes and goes.
    Changing,
}

/// A conversation.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// Id.
    pub id: String,
    /// How large.
    pub size: Size,
    /// Indices of users; the first one made it and stays in it.
    pub members: Vec<usize>,
}

/// In which form a session sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Protobuf.
    Plain,
    /// JSON.
    Json,
    /// Bare text.
    Text,
}

impl Encoding {
    /// What is added to a topic.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Json => "/json",
            Self::Text => "/text",
        }
    }
}

/// Everybody and everything; conversations can only be added before the clients start.
#[derive(Debug)]
pub struct World {
    /// Users.
    pub users: Vec<User>,
    /// Conversations.
    pub conversations: Vec<Conversation>,
    /// User → its conversations, by size: two, eight, all.
    pub of_user: Vec<[Vec<usize>; 3]>,
}

/// The protocol and encoding of a user's session: all six pairs are there, the two sessions of one user differ.
pub fn form_of(user: usize, second: bool) -> (Version, Encoding) {
    let number = user + if second { 4 } else { 0 };
    let version = if number.is_multiple_of(2) {
        Version::V3
    } else {
        Version::V5
    };
    let encoding = match number % 3 {
        0 => Encoding::Plain,
        1 => Encoding::Json,
        _ => Encoding::Text,
    };
    (version, encoding)
}

/// Registers users and makes their tokens.
///
/// # Errors
/// When one is refused.
pub fn make_users(api: &Api, count: usize, prefix: &str) -> Result<Vec<User>> {
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<Option<User>>> = Mutex::new(vec![None; count]);
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    match make_user(api, &format!("{prefix}{number}")) {
                        Ok(user) => {
                            if let Ok(mut made) = made.lock() {
                                made[number] = Some(user);
                            }
                        }
                        Err(error) => {
                            if let Ok(mut failed) = failed.lock() {
                                failed.get_or_insert(error);
                            }
                            next.store(count, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Ok(Some(error)) = failed.into_inner() {
        return Err(error);
    }
    let made = made
        .into_inner()
        .map_err(|_| anyhow!("a registration panicked"))?;
    made.into_iter()
        .collect::<Option<Vec<User>>>()
        .context("a user is missing")
}

/// Registers one user and makes its token.
///
/// # Errors
/// When it is refused.
pub fn make_user(api: &Api, name: &str) -> Result<User> {
    let password = format!("{name} horse staple");
    let id = api
        .register(name, &password)
        .with_context(|| format!("POST /users for {name}"))?;
    let token = api
        .device_token(name, &password)
        .with_context(|| format!("a device token for {name}"))?;
    Ok(User {
        name: name.to_owned(),
        id,
        token,
    })
}

impl World {
    /// Users only.
    ///
    /// # Errors
    /// When one is refused.
    pub fn of_users(api: &Api, count: usize) -> Result<Self> {
        let users = make_users(api, count, "u")?;
        let of_user = users.iter().map(|_| Default::default()).collect();
        Ok(Self {
            users,
            conversations: Vec::new(),
            of_user,
        })
    }

    /// Makes the conversations: each user in one with a neighbour, in one with a random other, in a group of eight and in
    /// the groups of everybody.
    ///
    /// # Errors
    /// When one is refused.
    pub fn make_conversations(&mut self, api: &Api, random: &mut StdRng) -> Result<()> {
        let count = self.users.len();
        let mut pairs: Vec<(usize, usize)> = (0..count / 2).map(|half| (2 * half, 2 * half + 1)).collect();
        for user in (0..count).step_by(4) {
            let other = random.random_range(0..count);
            let pair = (user.min(other), user.max(other));
            if user != other && !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        for (one, other) in pairs {
            let id = api.direct(&self.users[one].token, &self.users[other].id)?;
            self.add(id, Size::Two, vec![one, other]);
        }
        for first in (0..count).step_by(EIGHT) {
            let members: Vec<usize> = (first..count.min(first + EIGHT)).collect();
            if members.len() > 1 {
                self.make_group(api, Size::Eight, members)?;
            }
        }
        for _ in 0..LARGE {
            self.make_group(api, Size::All, (0..count).collect())?;
        }
        self.make_group(api, Size::Changing, (0..count.min(EIGHT)).collect())
    }

    fn make_group(&mut self, api: &Api, size: Size, members: Vec<usize>) -> Result<()> {
        let others: Vec<&str> = members[1..].iter().map(|&user| &*self.users[user].id).collect();
        let name = format!("{size:?} {}", self.conversations.len());
        let id = api.group(&self.users[members[0]].token, &name, &others)?;
        self.add(id, size, members);
        Ok(())
    }

    /// Knows a conversation.
    pub fn add(&mut self, id: String, size: Size, members: Vec<usize>) {
        let class = match size {
            Size::Two => 0,
            Size::Eight | Size::Changing => 1,
            Size::All => 2,
        };
        for &member in &members {
            self.of_user[member][class].push(self.conversations.len());
        }
        self.conversations.push(Conversation { id, size, members });
    }

    /// The group in which a member comes and goes, and who that is: the last member whose sessions both tell refusals
    /// apart (bare text does not).
    pub fn changing(&self) -> Option<(&Conversation, usize)> {
        let conversation = self.conversations.iter().find(|one| one.size == Size::Changing)?;
        let guest = conversation.members[1..].iter().copied().rev();
        let guest = guest.into_iter().find(|&user| {
            form_of(user, false).1 != Encoding::Text && form_of(user, true).1 != Encoding::Text
        })?;
        Some((conversation, guest))
    }

    /// A conversation of a user for its next send: mostly of two, some of eight, few of everybody.
    pub fn choose(&self, user: usize, random: &mut StdRng) -> Option<usize> {
        let class = match random.random_range(0..1_000) {
            0..12 => 2,
            12..250 => 1,
            _ => 0,
        };
        let of_user = &self.of_user[user];
        let fallback = of_user.iter().find(|list| !list.is_empty())?;
        let list = if of_user[class].is_empty() {
            fallback
        } else {
            &of_user[class]
        };
        list.get(random.random_range(0..list.len())).copied()
    }
}
