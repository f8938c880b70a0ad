//! Clients of the REST door: senders with retries, and the one who takes a member out of a group and in again.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::chat::fresh_text;
use crate::record::{Line, hash, now};
use crate::rest::Api;
use crate::shared::Shared;
use crate::world::World;

/// Before a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Between two changes of membership.
const CHANGE_PAUSE: Duration = Duration::from_millis(300);
/// One in so many acknowledged posts is sent once more.
const REPEAT_ONE_IN: u32 = 50;

/// Posts messages as random users until told to stop, each until it is acknowledged or refused for good. At the
/// latest `give_up` after the stop it ends.
pub fn post(shared: &Arc<Shared>, world: &World, api: &Api, seed: u64, name: &str) {
    let mut random = StdRng::seed_from_u64(seed);
    while !shared.is_stopped() {
        let user = random.random_range(0..world.users.len());
        let Some(conversation) = world.choose(user, &mut random) else {
            continue;
        };
        let text = fresh_text(shared, conversation, &mut random);
        let number = text.split('.').next().unwrap_or_default().to_owned();
        shared.begin();
        let mut attempt = 0;
        let mut repeats = u32::from(random.random_ratio(1, REPEAT_ONE_IN));
        loop {
            attempt += 1;
            let id = format!("{name}-{number}~{attempt}");
            let sender = &world.users[user];
            let (client_id, to) = (format!("id-{number}"), &world.conversations[conversation].id);
            shared.recorder.write(&Line::Send {
                t: now(),
                id: &id,
                sender: &sender.id,
                conversation: to,
                client_message_id: Some(&client_id),
                door: "rest",
                hash: &hash(text.as_bytes()),
            });
            match api.send(&sender.token, to, &client_id, &text) {
                Ok((_, message, sequence)) => {
                    shared.recorder.write(&Line::Ack {
                        t: now(),
                        id: &id,
                        message_id: Some(&message),
                        sequence: Some(sequence),
                    });
                    if repeats == 0 {
                        shared.acknowledge();
                        break;
                    }
                    repeats -= 1;
                }
                Err(refused) => {
                    let code = if refused.status == 0 {
                        "closed"
                    } else {
                        &*refused.code
                    };
                    shared.recorder.write(&Line::Fail {
                        t: now(),
                        id: &id,
                        code,
                    });
                    shared.told_no(&format!("rest {code}"));
                    if !refused.is_unknown() {
                        shared.give_up();
                        break;
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
}

/// Takes the guest of the changing group out and in again until told to stop; ends with the guest inside or out, as it
/// comes. What really happened is read from history.
pub fn change(shared: &Arc<Shared>, world: &World, api: &Api) -> u64 {
    let Some((group, guest)) = world.changing() else {
        return 0;
    };
    let (admin, guest) = (&world.users[group.members[0]], &world.users[guest]);
    let mut changes = 0;
    while !shared.is_stopped() {
        let out = format!("/groups/{}/members/{}", group.id, guest.id);
        changes += u64::from(api.delete(&out, &admin.token).is_ok());
        std::thread::sleep(CHANGE_PAUSE);
        let body = serde_json::json!({ "user_id": guest.id });
        let inside = format!("/groups/{}/members", group.id);
        changes += u64::from(api.post(&inside, Some(&admin.token), &body).is_ok());
        std::thread::sleep(CHANGE_PAUSE);
    }
    changes
}
