//! Enhanced authentication (MQTT 5, 4.12): the exchange between CONNECT and CONNACK, and re-authentication of an open
//! connection. What is proved, and by what, is the accounts' (docs/decisions/0008-enhanced-authentication.md).

use bytes::Bytes;
use godwit_accounts::scram::{self, ClientFirst, Exchange};
use godwit_cluster::Cx;
use godwit_wire::account::{AccountAnswer, AccountCommand, Principal, ScramKeys, Secret};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::{Key, UserId};
use uuid::Uuid;

use super::conn::{Conn, Stage};
use super::{Event, Net, TICKS, Up};
use crate::codec::{self, reason};
use crate::packet::{Auth as Packet, Connack, Connect, Incoming, Outgoing, Version};
use crate::part::Part;
use crate::wire_trait::{CloseReason, ConnId, Wire as _};

/// Time from the first AUTH of a re-authentication to its end, seconds: as much as a CONNECT has. Then the connection is
/// closed (0x87; 0x89 if it is we who did not answer).
const RENEWAL_SECONDS: u32 = 5;
/// Re-authentications of a connection at once; one more a second. A token has to be judged, and an exchange costs the node
/// more than the client; tokens live 15 minutes.
const RENEWALS: u32 = 5;
/// Longest token as authentication data, bytes: ours have about 300.
const TOKEN_BYTES: usize = 1_024;

/// Reason codes of AUTH (3.15.2.1).
mod code {
    pub(super) const SUCCESS: u8 = 0x00;
    pub(super) const CONTINUE: u8 = 0x18;
    pub(super) const AGAIN: u8 = 0x19;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Scram,
    /// The authentication data is a device token or an access token.
    Token,
}

impl Method {
    fn named(name: &str) -> Option<Self> {
        match name {
            scram::METHOD => Some(Self::Scram),
            "TOKEN" => Some(Self::Token),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Scram => scram::METHOD,
            Self::Token => "TOKEN",
        }
    }
}

/// How far an exchange is.
#[derive(Debug)]
enum Step {
    /// None runs.
    Rest,
    /// The keys are asked for.
    Begun(Box<ClientFirst>),
    /// The client was asked for its proof of this token.
    Challenged(Box<Exchange>, Option<Uuid>),
    /// The accounts judge; behind their yes this goes to the client.
    Judging(Bytes),
}

/// What a connection has that named a method in its CONNECT.
#[derive(Debug)]
pub(super) struct Auth {
    method: Method,
    /// The user, as the CONNECT named it: a re-authentication is for the same one.
    name: Box<str>,
    user: UserId,
    step: Step,
    /// The second at which a re-authentication is given up; 0: none runs.
    until: u32,
    /// The tick at which all that there were are within their rate.
    paid_at: u32,
}

impl Auth {
    /// What a CONNECT asks for, `None` without a method. Afterwards it names its user, as one without a method does, and
    /// with `TOKEN` the token is its password.
    ///
    /// # Errors
    /// The reason code with which it is refused.
    pub(super) fn of(connect: &mut Connect) -> Result<Option<Box<Self>>, u8> {
        let Some(method) = connect.authentication_method.as_deref() else {
            return Ok(None);
        };
        let method = Method::named(method).ok_or(reason::BAD_AUTH_METHOD)?;
        let data = connect.authentication_data.take();
        let step = match method {
            Method::Token => {
                connect.password = Some(data.ok_or(reason::BAD_CREDENTIAL)?);
                Step::Rest
            }
            Method::Scram => {
                let first = data.and_then(|data| ClientFirst::read(&data));
                let first = first.ok_or(reason::BAD_CREDENTIAL)?;
                if connect
                    .username
                    .as_deref()
                    .is_some_and(|name| *name != *first.user)
                {
                    return Err(reason::BAD_CREDENTIAL);
                }
                connect.password = None;
                connect.username = Some(first.user.clone());
                Step::Begun(Box::new(first))
            }
        };
        Ok(Some(Box::new(Self {
            method,
            name: connect.username.clone().ok_or(reason::BAD_CREDENTIAL)?,
            user: UserId(Uuid::nil()),
            step,
            until: 0,
            paid_at: 0,
        })))
    }

    fn packet(&self, reason: u8, data: Bytes) -> Outgoing {
        Outgoing::Auth(Box::new(Packet {
            reason,
            method: self.method.name().into(),
            data,
        }))
    }

    /// The CONNACK of a connection that comes in by this: it repeats the method and ends the exchange.
    pub(super) fn connack(&mut self, connack: &Connack) -> Outgoing {
        let data = match std::mem::replace(&mut self.step, Step::Rest) {
            Step::Judging(data) => data,
            _ => Bytes::new(),
        };
        Outgoing::Connack(Box::new(Connack {
            authentication: Some((self.method.name(), data)),
            ..connack.clone()
        }))
    }

    /// Whether the client's next AUTH is awaited.
    pub(super) fn is_challenged(&self) -> bool {
        matches!(self.step, Step::Challenged(..))
    }

    /// When a re-authentication that runs is given up.
    pub(super) fn until(&self) -> Option<u32> {
        (self.until != 0).then_some(self.until)
    }
}

impl Net {
    fn auth(&mut self, id: ConnId) -> Option<&mut Auth> {
        self.get(id)?.special.as_deref_mut()?.auth.as_deref_mut()
    }

    /// The CONNACK of a client that named a method, with what it says of that.
    pub(super) fn named(&mut self, id: ConnId, connack: &Outgoing) -> Option<Outgoing> {
        match connack {
            Outgoing::Connack(connack) => Some(self.auth(id)?.connack(connack)),
            _ => None,
        }
    }

    /// At the user's worker: what must be known of a device token before its owner is asked for a proof. `None`: the
    /// credential has come whole.
    pub(super) fn keys_wanted(&mut self, id: ConnId, user: UserId) -> Option<AccountCommand> {
        let auth = self.auth(id)?;
        auth.user = user;
        match &auth.step {
            Step::Begun(first) => Some(AccountCommand::ScramKeys {
                token: first.token.clone(),
            }),
            _ => None,
        }
    }

    /// The keys have come: asks the client for its proof. `false`: its first message was none.
    pub(super) fn challenge(&mut self, id: ConnId, keys: &ScramKeys) -> bool {
        let Some(auth) = self.auth(id) else { return false };
        let Step::Begun(first) = std::mem::replace(&mut auth.step, Step::Rest) else {
            return false;
        };
        let Some((exchange, data)) = Exchange::begin(keys.clone(), &first) else {
            return false;
        };
        auth.step = Step::Challenged(Box::new(exchange), first.token.parse().ok());
        let packet = auth.packet(code::CONTINUE, data.into());
        let _ = self.send(id, &packet);
        true
    }

    /// The client's proof: what is to be asked of the accounts if it holds.
    fn proof(&mut self, id: ConnId, packet: &Packet) -> Result<AccountCommand, u8> {
        let auth = self.auth(id).ok_or(reason::PROTOCOL_ERROR)?;
        if packet.reason != code::CONTINUE || *packet.method != *auth.method.name() {
            return Err(reason::PROTOCOL_ERROR);
        }
        let Step::Challenged(exchange, token) = std::mem::replace(&mut auth.step, Step::Rest) else {
            return Err(reason::PROTOCOL_ERROR);
        };
        let last = exchange.finish(&packet.data).ok_or(reason::BAD_CREDENTIAL)?;
        let id = token.ok_or(reason::BAD_CREDENTIAL)?;
        auth.step = Step::Judging(last.into());
        Ok(AccountCommand::CheckDeviceToken { id })
    }

    /// A packet between CONNECT and CONNACK: AUTH, or DISCONNECT (MQTT-3.1.2-30).
    pub(super) fn exchange_packet(&mut self, cx: &mut Cx<'_>, id: ConnId, frame: &[u8]) {
        let refused = match codec::decode(Version::V5, frame) {
            Ok(Incoming::Auth(packet)) => match self.proof(id, &packet) {
                Ok(command) => return self.judge_proof(cx, id, command),
                Err(reason) => reason,
            },
            Ok(Incoming::Disconnect { .. }) => return self.drop_silently(id, "disconnect"),
            Ok(_) => reason::PROTOCOL_ERROR,
            Err(error) => error.reason,
        };
        if refused != reason::BAD_CREDENTIAL {
            self.metrics.protocol_errors.inc();
        }
        self.refuse(id, refused);
    }

    fn judge_proof(&mut self, cx: &mut Cx<'_>, id: ConnId, command: AccountCommand) {
        let Some(user) = self.auth(id).map(|auth| auth.user) else {
            return;
        };
        if let Some(conn) = self.get(id) {
            // Nothing more is read until its CONNACK.
            conn.stage = Stage::Judging;
        }
        ask(cx, id, user, command);
    }

    /// An AUTH of an open connection.
    pub(super) fn auth_packet(&mut self, cx: &mut Cx<'_>, id: ConnId, packet: &Packet, up: &mut Up<'_>) {
        match self.renewal(id, packet) {
            Ok((user, command)) => {
                self.look_for(id);
                ask(cx, id, user, command);
            }
            Err(reason) => self.not_renewed(cx, id, reason, up),
        }
    }

    fn renewal(&mut self, id: ConnId, packet: &Packet) -> Result<(UserId, AccountCommand), u8> {
        let until = self.now + RENEWAL_SECONDS * TICKS + 1;
        let now = self.now;
        let auth = self.auth(id).ok_or(reason::PROTOCOL_ERROR)?;
        let user = auth.user;
        if packet.reason != code::AGAIN {
            return self.proof(id, packet).map(|command| (user, command));
        }
        if *packet.method != *auth.method.name() || !matches!(auth.step, Step::Rest) {
            return Err(reason::PROTOCOL_ERROR);
        }
        auth.paid_at = auth.paid_at.max(now) + TICKS;
        if auth.paid_at > now + RENEWALS * TICKS {
            return Err(reason::RATE);
        }
        let (step, command) = match auth.method {
            Method::Token => {
                let data = Some(&*packet.data).filter(|data| data.len() <= TOKEN_BYTES);
                let token = data.and_then(|data| std::str::from_utf8(data).ok());
                let secret = Secret(token.ok_or(reason::NOT_AUTHORIZED)?.into());
                (
                    Step::Judging(Bytes::new()),
                    AccountCommand::Authenticate { secret },
                )
            }
            Method::Scram => {
                let first = ClientFirst::read(&packet.data).filter(|first| first.user == auth.name);
                let first = first.ok_or(reason::NOT_AUTHORIZED)?;
                let token = first.token.clone();
                (Step::Begun(Box::new(first)), AccountCommand::ScramKeys { token })
            }
        };
        auth.step = step;
        auth.until = until;
        Ok((user, command))
    }

    /// The accounts have answered an open connection.
    pub(super) fn renewal_judged(&mut self, cx: &mut Cx<'_>, id: ConnId, answer: Answer, up: &mut Up<'_>) {
        let open = self.peek(id).is_some_and(|conn| conn.stage == Stage::Open);
        if !open || self.auth(id).is_none() {
            return;
        }
        let reason = match answer {
            Answer::Account(answer) => match *answer {
                AccountAnswer::ScramKeys(ref keys) if self.challenge(id, keys) => return,
                AccountAnswer::Principal(who) if who.scopes.chat || who.scopes.topics => {
                    return self.renewed(cx, id, who, up);
                }
                _ => reason::NOT_AUTHORIZED,
            },
            Answer::Refused(refusal) if refusal.code == Code::Unavailable => reason::SERVER_BUSY,
            _ => reason::NOT_AUTHORIZED,
        };
        self.not_renewed(cx, id, reason, up);
    }

    fn renewed(&mut self, cx: &mut Cx<'_>, id: ConnId, who: Principal, up: &mut Up<'_>) {
        let Some(auth) = self.auth(id) else { return };
        let Step::Judging(data) = std::mem::replace(&mut auth.step, Step::Rest) else {
            return;
        };
        auth.until = 0;
        let packet = auth.packet(code::SUCCESS, data);
        if let Some(conn) = self.get(id) {
            conn.ends_by(&who);
        }
        self.metrics.renewals.inc();
        self.look_for(id);
        up(cx, self, id, Event::Renewed(who));
        let _ = self.send(id, &packet);
    }

    /// A re-authentication that waits for its client.
    #[cfg(test)]
    pub(super) fn begin_challenge(&mut self, id: ConnId) {
        let keys = ScramKeys {
            salt: [1; 16],
            iterations: 4_096,
            stored_key: [2; 32],
            server_key: [3; 32],
        };
        let first = ClientFirst::read(b"n,,n=alice/id,r=abc").expect("a client's first message");
        let (exchange, _) = Exchange::begin(keys, &first).expect("an exchange");
        let until = self.now + RENEWAL_SECONDS * TICKS + 1;
        let auth = Auth {
            method: Method::Scram,
            name: "alice".into(),
            user: UserId(Uuid::nil()),
            step: Step::Challenged(Box::new(exchange), None),
            until,
            paid_at: 0,
        };
        if let Some(conn) = self.get(id) {
            conn.special.get_or_insert_default().auth = Some(Box::new(auth));
        }
        self.look_for(id);
    }

    /// The time of a re-authentication is over. `ours`: it is we who do not read, so that the client's next AUTH may wait
    /// in the socket; then it has its time once more. `false`: the connection stays.
    pub(super) fn renewal_over(&mut self, cx: &mut Cx<'_>, id: ConnId, ours: bool, up: &mut Up<'_>) -> bool {
        if self.peek(id).is_some_and(Conn::is_challenged) {
            if ours {
                self.more_time(id);
                return false;
            }
            // After a standstill of the process the clock runs before the sockets are looked at.
            if let Some(conn) = self.get(id) {
                conn.unread = true;
            }
            self.read(cx, id, up);
        }
        let now = self.now;
        let late = |conn: &Conn| conn.renewal_until().is_some_and(|until| now >= until);
        match self.peek(id).map(late) {
            Some(true) => self.renewal_late(cx, id, up),
            Some(false) => return false,
            None => {}
        }
        true
    }

    /// It is read again: what it had no way to say in time it may say now.
    pub(super) fn more_time(&mut self, id: ConnId) {
        let until = self.now + RENEWAL_SECONDS * TICKS + 1;
        if let Some(auth) = self.auth(id)
            && auth.until != 0
        {
            auth.until = until;
        }
    }

    /// A re-authentication that is not finished in time.
    pub(super) fn renewal_late(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let ours = self
            .auth(id)
            .is_some_and(|auth| !matches!(auth.step, Step::Challenged(..)));
        let reason = if ours {
            reason::SERVER_BUSY
        } else {
            reason::NOT_AUTHORIZED
        };
        self.not_renewed(cx, id, reason, up);
    }

    /// The connection ends (MQTT-4.12.1-2); the session stays.
    fn not_renewed(&mut self, cx: &mut Cx<'_>, id: ConnId, given: u8, up: &mut Up<'_>) {
        let reason = match given {
            reason::BAD_CREDENTIAL => reason::NOT_AUTHORIZED,
            given => given,
        };
        match reason {
            reason::PROTOCOL_ERROR => drop(self.metrics.protocol_errors.inc()),
            reason::RATE => drop(self.metrics.renewals_too_many.inc()),
            _ => {}
        }
        let last = Outgoing::Disconnect(reason, Vec::new());
        self.end(cx, id, CloseReason::Protocol(reason), Some(&last), up);
    }

    /// A credential was revoked. Who was let in by it and is not at its home yet is turned away here; the home closes the
    /// others.
    pub(crate) fn credential_ended(&mut self, user: UserId, credential: Uuid) {
        for id in self.arriving.of(user) {
            let arrival = self.peek(id).and_then(|conn| conn.arrival.as_deref());
            let who = arrival.and_then(|arrival| arrival.principal.as_ref());
            if who.is_some_and(|who| who.credential == Some(credential)) {
                self.refuse(id, reason::BAD_CREDENTIAL);
            }
        }
    }
}

fn ask(cx: &mut Cx<'_>, id: ConnId, user: UserId, command: AccountCommand) {
    let command = Command::Account(Box::new(command));
    cx.ask(Part::Net.tag(id.to_tag()), Key::User(user), command);
}
