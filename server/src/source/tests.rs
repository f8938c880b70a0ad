//! Tests of what the index reads: which entries are texts, lists in pages, and where logs end among several nodes.

use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Op, blocking::Client};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{MessageId, UserId};

use super::*;

fn message(conversation: Uuid, sequence_number: u64, content: chat::message::Content) -> Bytes {
    let message = chat::Message {
        conversation_id: ConversationId(conversation).to_bytes(),
        sequence_number,
        message_id: MessageId::fresh().to_bytes(),
        sender_id: UserId::fresh().to_bytes(),
        content: Some(content),
        created_at: 1_800_000_000_000,
        ..chat::Message::default()
    };
    LoggedEntry::message(message)
        .unwrap()
        .to_stored(&RetryKeys::default())
}

fn member(conversation: Uuid, sequence_number: u64) -> Bytes {
    let member = chat::Member {
        conversation_id: ConversationId(conversation).to_bytes(),
        sequence_number,
        user_id: UserId::fresh().to_bytes(),
        by: UserId::fresh().to_bytes(),
        ..chat::Member::default()
    };
    LoggedEntry::member(member)
        .unwrap()
        .to_stored(&RetryKeys::default())
}

struct Fixture {
    _temp: tempfile::TempDir,
    client: Client,
    source: StoreSource,
    unreadable: Counter,
}

fn fixture() -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&temp.path().join("s"), Options::default()).unwrap());
    let unreadable = Counter::default();
    let source = StoreSource::new(store.clone(), unreadable.clone(), None);
    Fixture {
        _temp: temp,
        client: Client::new(store, 0),
        source,
        unreadable,
    }
}

impl Fixture {
    fn append(&self, conversation: Uuid, rows: Vec<Bytes>) {
        let ops = (1..).zip(rows).map(|(seq, row)| Op::Append {
            log: log(conversation),
            view: 1,
            seq,
            row,
        });
        self.client.write(ops.collect()).unwrap();
    }

    fn insert(&self, table: Table, conversations: &[Uuid]) {
        let insert = |id: &Uuid| Op::Insert {
            table,
            partition: tail_partition(Key::Conversation(ConversationId(*id)).shard()),
            element: Bytes::copy_from_slice(id.as_bytes()),
            value: Bytes::new(),
        };
        self.client
            .write(conversations.iter().map(insert).collect())
            .unwrap();
    }
}

#[test]
fn only_texts_and_captions_are_indexed_but_every_position_counts() {
    use chat::message::Content;
    let (fixture, id) = (fixture(), Uuid::now_v7());
    let media = |caption: &str| {
        Content::Media(chat::Media {
            caption: caption.into(),
            ..chat::Media::default()
        })
    };
    fixture.append(
        id,
        vec![
            member(id, 1),
            message(id, 2, Content::Text("hello".into())),
            message(id, 3, media("a cat")),
            message(id, 4, media("")),
            message(id, 5, Content::Ciphertext(Bytes::from_static(b"x"))),
            Bytes::from_static(b"\xff\xff damaged"),
        ],
    );
    let page = fixture.source.read(id, 0, 6, 100).unwrap();
    let texts: Vec<_> = page
        .docs
        .iter()
        .map(|doc| (doc.sequence_number, doc.text.as_str()))
        .collect();
    assert_eq!(texts, [(2, "hello"), (3, "a cat")]);
    assert_eq!((page.read_up_to, fixture.unreadable.get()), (6, 1));
    let page = fixture.source.read(id, 2, 6, 1).unwrap();
    assert_eq!((page.docs.len(), page.read_up_to), (1, 3));
    let page = fixture.source.read(id, 6, 6, 10).unwrap();
    assert_eq!((page.docs.len(), page.read_up_to), (0, 6));
}

#[test]
fn the_lists_give_every_conversation_once_in_pages_of_any_size() {
    let fixture = fixture();
    let ids: Vec<Uuid> = (0..50).map(|_| Uuid::now_v7()).collect();
    fixture.insert(CONVERSATIONS, &ids);
    fixture.insert(OPEN_TAILS, &ids[..7]);
    fixture.append(ids[0], vec![member(ids[0], 1), member(ids[0], 2)]);
    for limit in [1, 3, 50, 256] {
        let mut all = Vec::new();
        loop {
            let page = fixture
                .source
                .conversations(Which::All, all.last().copied(), limit)
                .unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        let mut found: Vec<Uuid> = all.iter().map(|tail| tail.conversation).collect();
        found.sort();
        assert_eq!(found, ids);
        let first = all.iter().find(|tail| tail.conversation == ids[0]).unwrap();
        assert_eq!(first.confirmed_up_to, 2);
    }
    assert_eq!(fixture.source.open_tails(Which::All, None, 256).unwrap().len(), 7);
}

/// Homes that say so, but for those that do not answer.
struct Said(Vec<(Uuid, u64)>);

impl Ends for Said {
    fn of(&self, conversations: &[Uuid]) -> Result<Vec<u64>, SourceError> {
        let said = |id: &Uuid| self.0.iter().find(|(of, _)| of == id).map(|(_, end)| *end);
        Ok(conversations
            .iter()
            .map(|id| said(id).unwrap_or(UNKNOWN_END))
            .collect())
    }
}

#[test]
fn among_several_nodes_nothing_is_read_above_what_is_known_to_be_confirmed() {
    use chat::message::Content;
    let Fixture {
        _temp,
        client,
        source,
        unreadable,
    } = fixture();
    let (quiet, open, silent) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let fixture = Fixture {
        _temp,
        client,
        source: StoreSource {
            ends: Some(Box::new(Said(vec![(open, 4)]))),
            ..source
        },
        unreadable,
    };
    for id in [quiet, open, silent] {
        let text = |seq| message(id, seq, Content::Text("word".into()));
        fixture.append(id, (1..=5).map(text).collect());
    }
    fixture.insert(CONVERSATIONS, &[quiet, open, silent]);
    fixture.insert(OPEN_TAILS, &[open, silent]);
    // Its home stored that everything up to 3 was fanned out (protobuf: field 1).
    let Read::Row {
        table,
        partition,
        name,
    } = fan_out_mark_of(ConversationId(quiet))
    else {
        panic!("a row")
    };
    let mark = Op::Put {
        table,
        partition,
        name,
        view: 1,
        value: Some(Bytes::from_static(&[8, 3])),
    };
    fixture.client.write(vec![mark]).unwrap();

    let shard = |id: Uuid| u32::from(Key::Conversation(ConversationId(id)).shard());
    let mut shards: Vec<u32> = [quiet, open, silent].map(shard).to_vec();
    shards.sort_unstable();
    shards.dedup();
    let end_of = |tails: &[Tail], id: Uuid| {
        let found = tails.iter().find(|tail| tail.conversation == id);
        found.map(|tail| tail.confirmed_up_to)
    };
    let source = &fixture.source;
    let all = source.conversations(Which::These(&shards), None, 256).unwrap();
    assert_eq!((end_of(&all, quiet), end_of(&all, open)), (Some(3), Some(0)));
    let tails = source.open_tails(Which::These(&shards), None, 256).unwrap();
    assert_eq!(
        [quiet, open, silent].map(|id| end_of(&tails, id)),
        [None, Some(4), Some(UNKNOWN_END)]
    );
    let other = (0..).find(|shard| !shards.contains(shard)).unwrap();
    assert!(
        source
            .conversations(Which::These(&[other]), None, 256)
            .unwrap()
            .is_empty()
    );

    assert_eq!(source.read(quiet, 0, 3, 100).unwrap().read_up_to, 3);
    assert_eq!(source.read(open, 0, UNKNOWN_END, 100).unwrap().docs.len(), 4);
    assert_eq!(source.read(open, 4, UNKNOWN_END, 100).unwrap().read_up_to, 4);
    assert!(
        source.read(silent, 0, UNKNOWN_END, 100).is_err(),
        "nobody says so"
    );
}
