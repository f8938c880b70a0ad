//! What operators see and do: sessions are listed, connections and sessions ended; and clients that are sent to another node.

use godwit_wire::command::{Answer, SessionInfo, UserCommand};
use godwit_wire::ids::Key;

use super::clients::{clean, persistent, publish, user};
use super::ends::with_will;
use super::rig::Rig;
use crate::packet::Outgoing;
use crate::packet::Version::{V5, V311};
use crate::wire_trait::CloseReason;

fn ask(rig: &mut Rig, of: &godwit_wire::account::Principal, command: UserCommand) -> Vec<SessionInfo> {
    let mut answer = rig.ask_user(of.user, command);
    match answer.try_recv() {
        Ok(Answer::Sessions(sessions)) => sessions,
        other => panic!("{other:?}"),
    }
}

fn kick(client: Option<&str>, forget: bool) -> UserCommand {
    UserCommand::Kick {
        client_id: client.map(Into::into),
        forget,
    }
}

#[test]
fn an_operator_sees_each_session_with_what_it_has_and_is_owed() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let phone = rig.connect(&alice, persistent(V5, "phone"));
    rig.subscribe(phone, "me/inbox/json", 1);
    rig.subscribe(phone, "iot/alice/#", 1);
    rig.vanish(phone);
    rig.connect(&alice, clean(V311, "board"));
    let b = rig.connect(&bob, clean(V5, "b"));
    rig.packet(b, publish(&format!("c/{conversation}/send/text"), "hello", 1, 1));
    rig.packet(b, publish("iot/alice/x", "twelve bytes", 1, 2));
    let sessions = ask(&mut rig, &alice, UserCommand::Sessions);
    let [board, phone] = &sessions[..] else {
        panic!("{sessions:?}")
    };
    assert_eq!((&*board.client_id, board.expiry, board.owed), ("board", 0, 0));
    assert!(
        board
            .live
            .as_ref()
            .is_some_and(|live| !live.is_v5 && live.since > 0 && live.via.is_none())
    );
    assert_eq!((&*phone.client_id, phone.live.as_ref()), ("phone", None));
    assert!(phone.disconnected_at > 0 && phone.expiry > 0);
    assert_eq!(phone.filters, ["me/inbox/json", "iot/alice/#"]);
    assert_eq!(phone.subscriptions, 2);
    assert!(phone.owed >= 1, "the message of the conversation: {phone:?}");
}

#[test]
fn who_is_kicked_is_told_and_its_session_goes_on_unless_it_is_forgotten() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "phone"));
    let other = rig.connect(&alice, persistent(V5, "tablet"));
    rig.subscribe(conn, "iot/alice/#", 1);
    let kicked = ask(&mut rig, &alice, kick(Some("phone"), false));
    assert_eq!(kicked.len(), 1);
    assert!(kicked[0].live.is_some(), "as it was before");
    rig.run();
    assert!(matches!(
        rig.out(conn).last(),
        Some(Outgoing::Disconnect(0x98, _))
    ));
    assert!(rig.is_closed(conn) && !rig.is_closed(other));
    let conn = rig.connect(&alice, persistent(V5, "phone"));
    assert!(matches!(&rig.out(conn)[0], Outgoing::Connack(c) if c.session_present));
    ask(&mut rig, &alice, kick(None, true));
    rig.run();
    assert!(rig.is_closed(conn) && rig.is_closed(other));
    assert!(rig.routes.is_empty(), "{:?}", rig.routes);
    assert!(ask(&mut rig, &alice, UserCommand::Sessions).is_empty());
    rig.crash();
    assert!(ask(&mut rig, &alice, UserCommand::Sessions).is_empty());
    let conn = rig.connect(&alice, persistent(V5, "phone"));
    assert!(matches!(&rig.out(conn)[0], Outgoing::Connack(c) if !c.session_present));
}

#[test]
fn a_client_that_is_not_there_is_not_kicked() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "phone"));
    assert!(ask(&mut rig, &alice, kick(Some("tablet"), true)).is_empty());
    assert!(!rig.is_closed(conn));
}

#[test]
fn whose_home_goes_and_who_waits_for_an_answer_is_said_to_the_sockets() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let quiet = rig.connect(&alice, persistent(V5, "quiet"));
    let waits = rig.connect(&alice, persistent(V5, "waits"));
    let conversation = rig.make_conversation(&[alice.user]);
    rig.deaf = true;
    rig.packet(
        waits,
        publish(&format!("c/{conversation}/send/text"), "hello", 1, 1),
    );
    let live = rig.metrics.live.get();
    let shard = Key::User(alice.user).shard();
    rig.users.given_up(&mut rig.wire, &[shard].into());
    assert_eq!(rig.wire.lines[&quiet].moved, Some((alice.user, false)));
    assert_eq!(rig.wire.lines[&waits].moved, Some((alice.user, true)));
    assert_eq!(rig.metrics.live.get(), live - 2);
}

#[test]
fn the_will_of_a_client_that_was_sent_to_another_node_waits_whether_it_comes() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 0));
    rig.close(conn, CloseReason::Moved);
    rig.pass(20_000);
    assert!(rig.published.is_empty());
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 0));
    rig.pass(60_000);
    assert!(rig.published.is_empty(), "it came");
    rig.close(conn, CloseReason::Moved);
    rig.pass(40_000);
    assert_eq!(rig.published.len(), 1, "it did not");
}
