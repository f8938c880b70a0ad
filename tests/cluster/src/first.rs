//! Who a run's clients are, and their first connections: after them every session is owed whatever comes. What they do then is `client`'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use godwit_e2e::world::{Encoding, World};

use crate::client::{Came, Who, connect, subscribe_once};

/// For all first connections.
const FIRST: Duration = Duration::from_secs(60);

/// The form in which a user sends.
pub(crate) fn encoding_of(user: usize) -> Encoding {
    if user.is_multiple_of(3) {
        Encoding::Json
    } else {
        Encoding::Plain
    }
}

/// What its session subscribes to.
pub(crate) fn inbox(user: usize) -> String {
    format!("me/inbox{}", encoding_of(user).suffix())
}

/// How it connects.
pub(crate) fn who(world: &World, user: usize, nodes: &Arc<[SocketAddr]>) -> Who {
    let of = &world.users[user];
    Who {
        user: of.name.clone(),
        token: of.token.clone(),
        client: "phone".to_owned(),
        nodes: Arc::clone(nodes),
        roams: Arc::default(),
    }
}

/// Every session subscribes once before there is any conversation: its cursor then owes it everything.
///
/// # Errors
/// When one is not let in for a minute.
pub(crate) async fn make_cursors(world: &World, nodes: &Arc<[SocketAddr]>) -> Result<()> {
    let mut all = tokio::task::JoinSet::new();
    for user in 0..world.users.len() {
        let (who, filter) = (who(world, user, nodes), inbox(user));
        all.spawn(async move {
            let until = Instant::now() + FIRST;
            let mut at = user % who.nodes.len();
            let mut to = who.nodes[at];
            loop {
                let why = match connect(&who, to).await {
                    Came::In(mut wire, _) => match subscribe_once(&mut wire, &filter).await {
                        Ok(()) => return Ok(()),
                        Err(error) => format!("{error:#}"),
                    },
                    Came::Elsewhere(other) => {
                        to = other;
                        continue;
                    }
                    Came::No(why) => why,
                };
                if Instant::now() > until {
                    bail!("{} cannot subscribe to {filter}: {why}", who.user);
                }
                at = (at + 1) % who.nodes.len();
                to = who.nodes[at];
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(())
}
