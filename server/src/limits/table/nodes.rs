//! Limits that are met on nodes of a cluster alone: at the door of a node that is not the client's home, and while a
//! home moves.

use super::{At, Limit};

fn of_nodes(name: &'static str, at: At, effect: &'static str, tests: &'static [&'static str]) -> Limit {
    Limit::new(name, at, effect, tests).alone("it needs other nodes")
}

pub(super) fn between() -> Vec<Limit> {
    vec![
        of_nodes(
            "connections that wait at a node's door for their user's home on another, each 8 s at most",
            At::Source("broker/src/net/relay.rs", "WAITING", "on a worker"),
            "turned away, and told where the home is if that is known",
            &["broker/src/net/tests/spliced.rs::who_cannot_be_passed_on_in_time_is_turned_away"],
        )
        .told("CONNACK 0x9C or 0x88", "CONNACK 3")
        .counted("godwit_mqtt_refused{reason=\"elsewhere\"}"),
        of_nodes(
            "bytes under way in a direction of a connection that is passed on",
            At::Source("links/src/channel.rs", "WINDOW", "bytes"),
            "who does not read is not written to, and the other side is not read: as over a socket",
            &["broker/src/net/tests/spliced.rs::who_does_not_read_holds_up_its_home_and_who_is_not_read_its_client"],
        )
        .uncounted("as of a socket's buffer"),
        of_nodes(
            "how long a request waits for a home that is nobody's",
            At::Source("cluster/src/away.rs", "WAITS_MS", "ms"),
            "refused",
            &["cluster/tests/nodes.rs::what_is_nobodys_for_too_long_is_refused"],
        )
        .told("PUBACK 0x83", "closed")
        .http("503")
        .counted("godwit_mqtt_publishes_refused"),
        of_nodes(
            "requests that wait so",
            At::Source("cluster/src/away.rs", "WAITING", "on a worker"),
            "the same, at once",
            &[],
        )
        .told("PUBACK 0x83", "closed")
        .http("503")
        .counted("godwit_mqtt_publishes_refused"),
        of_nodes(
            "requests that other nodes were asked and have not answered",
            At::Source("cluster/src/away.rs", "ASKED", "on a worker"),
            "the worker reads no client until some are",
            &[],
        )
        .told("not read", "not read")
        .counted("godwit_mqtt_congested"),
        of_nodes(
            "requests of one node that lie behind full workers' inboxes",
            At::Source("cluster/src/lanes.rs", "LYING_REQUESTS", "of 8 MiB at most; of one worker an eighth of both, more on a node of fewer than 8"),
            "what is beyond a worker's part is refused; beyond all of it the link stands still",
            &[
                "cluster/src/router/tests.rs::behind_a_full_worker_others_go_on_and_what_is_beyond_its_part_is_refused",
                "cluster/src/router/tests.rs::a_link_stands_still_only_where_all_workers_are_full",
            ],
        )
        .told("PUBACK 0x83", "closed")
        .http("503")
        .counted("godwit_workers_full_refused"),
        of_nodes(
            "publishes and subscriptions that wait until a topic's home knows all nodes' interest",
            At::Source("broker/src/topics/parked.rs", "PARKED", "on a worker"),
            "refused; so is what waits for 5 s",
            &["broker/src/topics/tests/nodes.rs::a_publish_waits_for_a_node_that_cannot_be_asked_and_goes_on_when_it_is_no_member"],
        )
        .told("PUBACK 0x83, SUBACK 0x83", "closed, SUBACK 0x80")
        .counted("godwit_mqtt_publishes_refused"),
    ]
}
