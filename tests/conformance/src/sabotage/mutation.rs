//! What a mutation is: a name, what it breaks in words, and what it does to each thing that passes.

use std::fmt;

use super::link::{Link, Turn};
use super::sent::{Asked, Opening, Posted, built};
use super::{
    acks, answers, closing, connecting, content, delivery, later, mending, mending_messages, publishing,
    subscribing, web,
};
use crate::wire::Packet;

type Hook = Box<dyn Fn(&mut Link, &[u8]) -> Turn + Send + Sync>;

/// Something that passes.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    FromClient(Vec<u8>),
    FromServer(Vec<u8>),
    /// The beginning of a client's packet whose end did not come yet.
    Piece(Vec<u8>),
    /// The server closed. `Turn::Instead`: the client is not told.
    ServerEnd,
    /// The client closed. `Turn::Instead`: its last words to the server.
    ClientEnd,
    /// The server's answer to a WebSocket upgrade.
    Head(Vec<u8>),
    FrameFromClient(Vec<u8>),
    FrameFromServer(Vec<u8>),
}

/// One way of breaking the protocol.
#[derive(Default)]
pub(crate) struct Mutation {
    pub(crate) name: String,
    pub(crate) says: String,
    /// Nobody may notice it.
    pub(crate) harmless: bool,
    on_client: Option<Hook>,
    on_server: Option<Hook>,
    piece: Option<Hook>,
    server_end: Option<Hook>,
    client_end: Option<Hook>,
    head: Option<Hook>,
    frame_on_client: Option<Hook>,
    frame_on_server: Option<Hook>,
}

impl fmt::Debug for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

macro_rules! hooks {
    ($($hook:ident),+) => {
        $(pub(crate) fn $hook(mut self, hook: impl Fn(&mut Link, &[u8]) -> Turn + Send + Sync + 'static) -> Self {
            self.$hook = Some(Box::new(hook));
            self
        })+
    };
}

impl Mutation {
    pub(crate) fn new(name: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            says: says.into(),
            ..Self::default()
        }
    }

    pub(crate) fn harmless(mut self) -> Self {
        self.harmless = true;
        self
    }

    hooks!(
        on_client,
        on_server,
        piece,
        server_end,
        client_end,
        head,
        frame_on_client,
        frame_on_server
    );

    pub(crate) fn turn(&self, link: &mut Link, event: &Event) -> Turn {
        let ask = |hook: &Option<Hook>, link: &mut Link, bytes: &[u8]| {
            hook.as_ref().map_or(Turn::Keep, |hook| hook(link, bytes))
        };
        match event {
            Event::FromClient(bytes) => {
                let turn = ask(&self.on_client, link, bytes);
                link.note_in(bytes);
                turn
            }
            Event::FromServer(bytes) if link.swallows(bytes) => Turn::Instead(Vec::new()),
            Event::FromServer(bytes) => {
                let turn = ask(&self.on_server, link, bytes);
                link.note_out(bytes);
                turn
            }
            Event::Piece(bytes) => ask(&self.piece, link, bytes),
            Event::ServerEnd => ask(&self.server_end, link, &[]),
            Event::ClientEnd => ask(&self.client_end, link, &[]),
            Event::Head(bytes) => ask(&self.head, link, bytes),
            Event::FrameFromClient(bytes) => ask(&self.frame_on_client, link, bytes),
            Event::FrameFromServer(bytes) => ask(&self.frame_on_server, link, bytes),
        }
    }
}

/// Nothing comes through.
pub(crate) fn nothing() -> Turn {
    Turn::Instead(Vec::new())
}

/// This in its place.
pub(crate) fn instead(bytes: Vec<u8>) -> Turn {
    Turn::Instead(vec![bytes])
}

/// This in its place, if there is anything.
pub(crate) fn maybe(bytes: Option<Vec<u8>>) -> Turn {
    bytes.map_or(Turn::Keep, instead)
}

/// A server's packet is changed where `change` says that it did.
pub(crate) fn answer(
    name: impl Into<String>,
    says: impl Into<String>,
    change: impl Fn(&mut Link, &mut Packet) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_server(move |link, bytes| {
        let changed = link
            .read(bytes)
            .and_then(|mut packet| change(link, &mut packet).then(|| built(link.version, &packet)));
        maybe(changed)
    })
}

/// A server's packet of one kind does not come through where `which` says so.
pub(crate) fn dropped(
    name: impl Into<String>,
    says: impl Into<String>,
    which: impl Fn(&mut Link, &Packet) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_server(move |link, bytes| match link.read(bytes) {
        Some(packet) if which(link, &packet) => nothing(),
        _ => Turn::Keep,
    })
}

/// A server's packet comes twice where `which` says so.
pub(crate) fn doubled(
    name: impl Into<String>,
    says: impl Into<String>,
    which: impl Fn(&mut Link, &Packet) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_server(move |link, bytes| match link.read(bytes) {
        Some(packet) if which(link, &packet) => Turn::Instead(vec![bytes.to_vec(), bytes.to_vec()]),
        _ => Turn::Keep,
    })
}

/// A CONNECT is changed where `change` says that it did.
pub(crate) fn opening(
    name: impl Into<String>,
    says: impl Into<String>,
    change: impl Fn(&mut Link, &mut Opening) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        let opening = Opening::of(bytes).filter(|_| link.connect.is_none());
        maybe(opening.and_then(|mut opening| change(link, &mut opening).then(|| opening.bytes())))
    })
}

/// A client's PUBLISH is changed where `change` says that it did.
pub(crate) fn posted(
    name: impl Into<String>,
    says: impl Into<String>,
    change: impl Fn(&mut Link, &mut Posted) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        let changed = Posted::of(link.version, bytes)
            .and_then(|mut posted| change(link, &mut posted).then(|| posted.bytes(link.version)));
        maybe(changed)
    })
}

/// A SUBSCRIBE (8) or UNSUBSCRIBE (10) is changed where `change` says that it did.
pub(crate) fn asked(
    kind: u8,
    name: impl Into<String>,
    says: impl Into<String>,
    change: impl Fn(&mut Link, &mut Asked) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        let asked = Asked::of(link.version, bytes).filter(|asked| asked.first >> 4 == kind);
        maybe(asked.and_then(|mut asked| change(link, &mut asked).then(|| asked.bytes(link.version))))
    })
}

/// Every mutation.
pub(crate) fn all() -> Vec<Mutation> {
    let mut all = vec![
        Mutation::new("nothing", "all is passed on as it is").harmless(),
        Mutation::new("server-in-pieces", "the server's packets come byte by byte")
            .on_server(|_, bytes| Turn::Instead(bytes.iter().map(|byte| vec![*byte]).collect()))
            .harmless(),
    ];
    for list in [
        answers::list(),
        acks::list(),
        closing::list(),
        delivery::list(),
        content::list(),
        later::list(),
        connecting::list(),
        publishing::list(),
        subscribing::list(),
        mending::list(),
        mending_messages::list(),
        web::list(),
    ] {
        all.extend(list);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_mutations_have_one_name() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() >= 60, "{}", all.len());
        for it in &all {
            assert!(
                !it.name.contains([' ', ',', '|']) && !it.says.is_empty(),
                "{}",
                it.name
            );
        }
    }
}
