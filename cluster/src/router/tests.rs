//! What links bring for full workers: others go on, order stays, nothing is refused but what is beyond a full worker's part.

use std::collections::{BTreeMap, HashMap, HashSet};

use godwit_wire::command::ConversationCommand as C;
use godwit_wire::ids::ConversationId;
use uuid::Uuid;

use super::*;
use crate::lanes::{LANES, LYING_REQUESTS};

struct Ends {
    router: Router,
    keys: Vec<Key>,
    _polls: Vec<mio::Poll>,
}

/// Workers without their threads, and a key of each.
fn ends(workers: u16) -> Ends {
    let polls: Vec<_> = (0..workers).map(|_| mio::Poll::new().expect("a poll")).collect();
    let inbox = |poll: &mio::Poll| {
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        Arc::new(Inbox::new(waker))
    };
    let router = Router::new(polls.iter().map(inbox).collect());
    let mut keys: BTreeMap<u16, Key> = BTreeMap::new();
    for n in 0.. {
        let key = Key::Conversation(ConversationId(Uuid::from_u128(n)));
        keys.entry(router.worker_of(&key)).or_insert(key);
        if keys.len() == usize::from(workers) {
            break;
        }
    }
    Ends {
        router,
        keys: keys.into_values().collect(),
        _polls: polls,
    }
}

fn node(n: u128) -> StartId {
    Uuid::from_u128(n + 1)
}

fn request(id: u64, key: &Key, number: u64) -> PeerRequest {
    PeerRequest {
        id,
        view: 1,
        key: key.clone(),
        command: Command::Conversation(C::Indexed { up_to: number }),
    }
}

fn number(envelope: &Envelope) -> u64 {
    match envelope.command {
        Command::Conversation(C::Indexed { up_to }) => up_to,
        _ => panic!("nothing else is asked here"),
    }
}

impl Ends {
    fn fill(&self, worker: usize) {
        let mut mail = self.router.inboxes[worker].lock();
        while mail.room() > 0 {
            mail.push(Envelope::of_this_node(
                self.keys[worker].clone(),
                request(0, &self.keys[worker], 0).command,
                Reply::nobody(),
            ));
        }
    }

    fn give(&self, from: u128, requests: &mut VecDeque<PeerRequest>) -> Vec<u64> {
        let mut refused = Vec::new();
        self.router.peer_asks(node(from), requests, &mut refused);
        refused
    }

    fn waiting(&self, worker: usize) -> usize {
        self.router.inboxes[worker].lock().waiting()
    }
}

#[test]
fn behind_a_full_worker_others_go_on_and_what_is_beyond_its_part_is_refused() {
    let ends = ends(16);
    ends.fill(3);
    let part = LYING_REQUESTS / LANES;
    let (full, other) = (&ends.keys[3], &ends.keys[4]);
    let mut requests: VecDeque<_> = (1..=part as u64 + 5).map(|id| request(id, full, id)).collect();
    requests.push_back(request(0, full, 9_999));
    requests.push_back(request(10_000, other, 1));
    let refused = ends.give(0, &mut requests);
    assert!(requests.is_empty(), "the link goes on");
    assert_eq!(refused, (part as u64 + 1..=part as u64 + 5).collect::<Vec<_>>());
    assert_eq!(ends.waiting(4), 1);
    assert_eq!(ends.waiting(3), INBOX_REQUESTS + part + 1, "told is not refused");
    let counts = ends.router.full_workers();
    assert_eq!((counts.lying, counts.refused), (part + 1, 5));
    // Another node has its own part.
    let mut requests = VecDeque::from([request(1, full, 1)]);
    assert!(ends.give(1, &mut requests).is_empty() && requests.is_empty());
    let mut mail = ends.router.inboxes[3].lock();
    assert_eq!(mail.room(), 0, "what lies takes nobody's room");
    drop(mail.take(INBOX_REQUESTS));
    assert_eq!(mail.room(), INBOX_REQUESTS);
    let lay = mail.take(usize::MAX);
    let numbers: Vec<u64> = lay.iter().map(number).collect();
    let expected = (1..=part as u64).chain([9_999, 1]);
    assert_eq!(numbers, expected.collect::<Vec<_>>());
    drop(mail);
    assert_eq!(ends.router.full_workers().lying, 0);
}

#[test]
fn of_what_comes_together_nothing_is_done_behind_what_was_refused() {
    let ends = ends(16);
    ends.fill(0);
    let part = LYING_REQUESTS / LANES;
    let large = "x".repeat(crate::LYING_BYTES / LANES);
    let mut requests: VecDeque<_> = (0..part as u64)
        .map(|id| request(id + 1, &ends.keys[0], 0))
        .collect();
    let large = Command::Topic(godwit_wire::command::TopicCommand::Retained { filter: large.into() });
    requests[1].command = large;
    let refused = ends.give(0, &mut requests);
    assert_eq!(refused, (2..=part as u64).collect::<Vec<_>>());
}

#[test]
fn a_link_stands_still_only_where_all_workers_are_full() {
    for workers in [1, 2, 8] {
        let ends = ends(workers);
        (0..ends.keys.len()).for_each(|worker| ends.fill(worker));
        let all = LYING_REQUESTS as u64;
        let key = |id: u64| &ends.keys[id as usize % ends.keys.len()];
        let mut requests: VecDeque<_> = (1..=all + 3).map(|id| request(id, key(id), id)).collect();
        assert!(ends.give(0, &mut requests).is_empty());
        assert_eq!(
            requests.len(),
            3,
            "nobody is refused, and the other node keeps its work"
        );
        for inbox in ends.router.inboxes.iter() {
            drop(inbox.lock().take(INBOX_REQUESTS + 1));
        }
        assert!(ends.give(0, &mut requests).is_empty());
        assert!(requests.is_empty());
    }
}

#[test]
fn a_worker_that_has_ended_takes_nothing_and_stops_nobody() {
    let ends = ends(2);
    ends.router.close(0, false);
    let mut requests: VecDeque<_> = (1..9)
        .map(|id| request(id, &ends.keys[id as usize % 2], id))
        .collect();
    assert!(ends.give(0, &mut requests).is_empty() && requests.is_empty());
    assert_eq!((ends.waiting(0), ends.waiting(1)), (0, 4));
}

/// Numbers that look like chance, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Two links and this node's own workers ask three workers, which take at chance: each key's requests are done in the order of their asking, each
/// once or refused, and no full worker stops a link while there is room for what lies.
#[test]
fn whatever_is_full_each_request_is_done_once_in_order_or_refused() {
    for seed in 1..=4 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let ends = ends(3);
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
    let mut links: [VecDeque<PeerRequest>; 2] = Default::default();
    // By asker (two nodes, this one) and worker: given and not done yet, in order.
    let mut given: HashMap<(usize, usize), VecDeque<u64>> = HashMap::new();
    // One worker begins full.
    ends.fill(0);
    given.insert((2, 0), vec![0; INBOX_REQUESTS].into());
    let (mut last, mut done, mut refused_ids, mut stops) = (0, 0, 0, 0);
    for step in 0..600 {
        // One worker is slow for a while, then another.
        let slow = step / 200 % 3;
        let from = chance.below(2) as usize;
        for _ in 0..chance.below(400) {
            let worker = chance.below(3) as usize;
            last += 1;
            let id = if chance.below(20) == 0 { 0 } else { last };
            if links[from].len() < LYING_REQUESTS {
                links[from].push_back(request(id, &ends.keys[worker], last));
                given.entry((from, worker)).or_default().push_back(last);
            }
        }
        let lay = ends.router.full_workers().lying;
        let refused = ends.give(from as u128, &mut links[from]);
        assert!(!refused.contains(&0), "what is told is not refused");
        let these: HashSet<u64> = refused.iter().copied().collect();
        for worker in 0..3 {
            let of = given.entry((from, worker)).or_default();
            of.retain(|one| !these.contains(one));
        }
        refused_ids += refused.len();
        if !links[from].is_empty() {
            stops += 1;
            assert!(
                lay > 0 || ends.router.full_workers().lying >= LYING_REQUESTS,
                "{seed}"
            );
        }
        for (worker, key) in ends.keys.iter().enumerate() {
            let mut mail = ends.router.inboxes[worker].lock();
            // As `Turn::flush` does.
            for _ in 0..mail.room().min(chance.below(200) as usize) {
                last += 1;
                let own = Command::Conversation(C::Indexed { up_to: last });
                mail.push(Envelope::of_this_node(key.clone(), own, Reply::nobody()));
                given.entry((2, worker)).or_default().push_back(last);
            }
            assert!(mail.waiting() <= INBOX_REQUESTS + 2 * LYING_REQUESTS);
            let most = if worker == slow { 20 } else { 1_024 };
            for envelope in mail.take(chance.below(most) as usize) {
                let number = number(&envelope);
                let asker = (0..3).find(|from| {
                    let of = given.get(&(*from, worker));
                    of.is_some_and(|of| of.front() == Some(&number))
                });
                let asker = asker.unwrap_or_else(|| panic!("{seed}: {number} out of order, or twice"));
                given.entry((asker, worker)).or_default().pop_front();
                done += 1;
            }
        }
    }
    assert!(
        done > 10_000 && refused_ids > 100,
        "{seed}: {done} {refused_ids} {stops}"
    );
}
