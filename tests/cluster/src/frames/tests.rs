//! Frames made by hand: which are recognised, and what becomes of them.

use super::*;

fn frame(begins: u8, stream: i16, opcode: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![begins, 0];
    all.extend(stream.to_be_bytes());
    all.push(opcode);
    all.extend((body.len() as u32).to_be_bytes());
    all.extend(body);
    all
}

fn long_string(text: &str) -> Vec<u8> {
    let mut all = (text.len() as u32).to_be_bytes().to_vec();
    all.extend(text.as_bytes());
    all
}

fn execute(id: &[u8], consistency: u16) -> Vec<u8> {
    let mut all = (id.len() as u16).to_be_bytes().to_vec();
    all.extend(id);
    all.extend(consistency.to_be_bytes());
    all.push(0);
    all
}

fn prepared(id: &[u8]) -> Vec<u8> {
    let mut all = PREPARED.to_be_bytes().to_vec();
    all.extend((id.len() as u16).to_be_bytes());
    all.extend(id);
    all
}

fn fates(out: &[(Bytes, Fate)]) -> Vec<&str> {
    let name = |fate: &Fate| match fate {
        Fate::Passes => "passes",
        Fate::Lost | Fate::Late(_) => "not",
    };
    out.iter().map(|(_, fate)| name(fate)).collect()
}

const HERE: Moved = Moved {
    from: Ipv4Addr::LOCALHOST,
    to: Ipv4Addr::new(9, 9, 9, 9),
};

#[test]
fn only_answers_of_lightweight_transactions_and_serial_reads_are_lost_or_late() {
    let claims = Arc::new(Claims::default());
    claims.lose(MILLION);
    let (mut asks, mut answers) = readers(&claims, HERE);
    let conditional = long_string("UPDATE own.views SET body = ? WHERE cluster = ? IF nonce = ?");
    let plain = long_string("INSERT INTO a (b) VALUES (?)");
    let mut sent = frame(REQUEST, 1, PREPARE, &conditional);
    sent.extend(frame(REQUEST, 2, PREPARE, &plain));
    assert_eq!(asks.take(&sent), [(Bytes::from(sent.clone()), Fate::Passes)]);
    let mut said = frame(RESPONSE, 2, RESULT, &prepared(b"plain"));
    said.extend(frame(RESPONSE, 1, RESULT, &prepared(b"claim")));
    // In pieces, one of them within a header.
    assert_eq!(answers.take(&said[..4]), []);
    assert_eq!(fates(&answers.take(&said[4..])), ["passes"]);
    // Another connection knows them, too.
    let (mut asks, mut answers) = readers(&claims, HERE);
    asks.take(&frame(REQUEST, 7, EXECUTE, &execute(b"plain", 4)));
    asks.take(&frame(REQUEST, 8, EXECUTE, &execute(b"claim", 4)));
    asks.take(&frame(REQUEST, 9, EXECUTE, &execute(b"plain", 8)));
    let mut said = Vec::new();
    for stream in [8, 7, 9, 7, 8] {
        said.extend(frame(RESPONSE, stream, RESULT, &[0, 0, 0, 1]));
    }
    assert_eq!(fates(&answers.take(&said)), ["not", "passes", "not", "passes"]);
    let counts = claims.counts();
    assert_eq!(
        (counts.seen, counts.lost + counts.late, counts.unreadable),
        (2, 2, 0)
    );
}

#[test]
fn a_server_that_says_where_it_is_is_looked_for_at_the_proxy() {
    let claims = Arc::new(Claims::default());
    let (mut asks, mut answers) = readers(&claims, HERE);
    let text = long_string("SELECT rpc_address FROM system.local WHERE key='local'");
    let row = |address: [u8; 4]| [&[0, 0, 0, 2, 0, 0, 0, 4][..], &address].concat();
    asks.take(&frame(REQUEST, 1, PREPARE, &text));
    answers.take(&frame(RESPONSE, 1, RESULT, &prepared(b"local")));
    asks.take(&frame(REQUEST, 1, QUERY, &text));
    asks.take(&frame(REQUEST, 2, EXECUTE, &execute(b"local", 1)));
    asks.take(&frame(REQUEST, 3, EXECUTE, &execute(b"other", 1)));
    for (stream, address) in [(1, [9, 9, 9, 9]), (2, [9, 9, 9, 9]), (3, [127, 0, 0, 1])] {
        let said = answers.take(&frame(RESPONSE, stream, RESULT, &row([127, 0, 0, 1])));
        assert_eq!(
            said,
            [(
                frame(RESPONSE, stream, RESULT, &row(address)).into(),
                Fate::Passes
            )]
        );
    }
}

#[test]
fn one_change_of_the_schema_is_late_when_it_is_asked_for() {
    let claims = Arc::new(Claims::default());
    claims.delay_schema(Duration::from_secs(9));
    let (mut asks, mut answers) = readers(&claims, HERE);
    let table = long_string("CREATE TABLE IF NOT EXISTS a (b int PRIMARY KEY)");
    for fate in [Fate::Late(Duration::from_secs(9)), Fate::Passes] {
        asks.take(&frame(REQUEST, 3, QUERY, &table));
        let said = frame(RESPONSE, 3, RESULT, &[0, 0, 0, 5]);
        assert_eq!(answers.take(&said), [(Bytes::from(said.clone()), fate)]);
    }
}

#[test]
fn what_is_no_cql_passes_as_it_comes_and_is_counted() {
    let claims = Arc::new(Claims::default());
    let (mut asks, _) = readers(&claims, HERE);
    assert_eq!(
        asks.take(b"\x05\x00"),
        [(Bytes::from_static(b"\x05\x00"), Fate::Passes)]
    );
    assert_eq!(asks.take(b"x"), [(Bytes::from_static(b"x"), Fate::Passes)]);
    assert_eq!(claims.counts().unreadable, 1);
}

#[test]
fn nothing_is_lost_until_it_is_asked_for() {
    let claims = Arc::new(Claims::default());
    let (mut asks, mut answers) = readers(&claims, HERE);
    asks.take(&frame(
        REQUEST,
        3,
        QUERY,
        &long_string("DELETE FROM a WHERE b = 1 IF EXISTS"),
    ));
    assert_eq!(
        fates(&answers.take(&frame(RESPONSE, 3, RESULT, &[0, 0, 0, 1]))),
        ["passes"]
    );
    assert_eq!(claims.counts().seen, 1);
}
