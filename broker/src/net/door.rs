//! The door: from the first packet to a CONNECT that a user's home can answer. Who is it, where does the user live, is the
//! credential good. A bad credential and an unknown user get the same answer.

use std::any::Any;

use godwit_accounts::USER_NAMES;
use godwit_cluster::Cx;
use godwit_store::{Read, ReadAnswer};
use godwit_wire::account::{AccountAnswer, AccountCommand, Principal, ScramKeys, Secret};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::{Key, SessionId, UserId};
use godwit_wire::topic::is_user_name;

use super::auth::Auth;
use super::conn::{Arrival, Conn, Stage};
use super::transport::Transport;
use super::{Event, Listener, Net, NewConnection, Place, StopListening, Up, VerifyAgain};
use crate::codec::{self, reason};
use crate::packet::{Connack, Connect, Outgoing, Version};
use crate::part::Part;
use crate::wire_trait::{CloseReason, Closed, ConnId, Wire};

/// A connection on its way to its user's worker, with what was already read.
struct Moved {
    transport: Transport,
    input: Vec<u8>,
    arrival: Box<Arrival>,
    place: Place,
    auth: Option<Box<Auth>>,
    /// Ticks that are left to its CONNACK.
    ticks: u32,
    ended: bool,
}

impl Net {
    /// Takes what was handed to this worker. `None`: it was for the sockets.
    pub(crate) fn handed(&mut self, cx: &mut Cx<'_>, item: Box<dyn Any + Send>) {
        self.tell_time(cx);
        let Some(item) = self.handed_pipe(cx, item) else {
            return;
        };
        let item = match item.downcast::<Moved>() {
            Ok(moved) => return self.arrive(cx, *moved),
            Err(item) => item,
        };
        let item = match item.downcast::<Listener>() {
            Ok(listener) => return self.listen(cx, *listener),
            Err(item) => item,
        };
        let item = match item.downcast::<NewConnection>() {
            Ok(new) => return self.welcome(cx, *new),
            Err(item) => item,
        };
        let item = match item.downcast::<VerifyAgain>() {
            Ok(again) => return self.verify_again(cx, *again),
            Err(item) => item,
        };
        match item.downcast::<StopListening>() {
            Ok(_) => self.listeners.clear(),
            Err(_) => tracing::error!("the broker was handed something it does not know"),
        }
    }

    /// The first packet, which must be a CONNECT.
    pub(super) fn first_packet(&mut self, cx: &mut Cx<'_>, id: ConnId, frame: &[u8]) {
        if frame
            .first()
            .is_none_or(|first| first >> 4 != codec::kind::CONNECT)
        {
            self.metrics.protocol_errors.inc();
            self.drop_silently(id, "not_mqtt");
            return;
        }
        self.later.connects += 1;
        let mut connect = match codec::decode_connect(frame) {
            Ok(connect) => connect,
            Err(error) => {
                self.metrics.protocol_errors.inc();
                // Nothing is said to what is no CONNECT at all.
                let Some(version) = codec::answer_version(frame) else {
                    self.drop_silently(id, "not_mqtt");
                    return;
                };
                // 3.1.1 has no code for a malformed CONNECT: it is closed without a word (MQTT-3.1.4-1).
                let told = matches!(
                    error.reason,
                    reason::UNSUPPORTED_VERSION | reason::CLIENT_ID | reason::TOO_LARGE
                );
                if version == Version::V311 && !told {
                    self.drop_silently(id, "malformed");
                    return;
                }
                if let Some(conn) = self.get(id) {
                    conn.answer_in(version);
                }
                self.refuse(id, error.reason);
                return;
            }
        };
        let Some(conn) = self.get(id) else { return };
        conn.connected_by(&connect);
        if self.lapse.is_over {
            return self.refuse(id, reason::SERVER_UNAVAILABLE);
        }
        if let Some(refused) = self.place(id).refused() {
            self.say_no(id, refused.name(), refused.code());
            return;
        }
        match Auth::of(&mut connect) {
            Ok(None) => {}
            Ok(auth) => {
                if let Some(conn) = self.get(id) {
                    conn.special.get_or_insert_default().auth = auth;
                }
            }
            Err(reason) => {
                self.refuse(id, reason);
                return;
            }
        }
        if !self.is_as_certified(id, &mut connect) {
            self.refuse(id, reason::BAD_CREDENTIAL);
            return;
        }
        let told = self.get(id).and_then(|conn| conn.transport.told());
        if connect.client_id.is_empty() {
            let assigned = told.as_ref().and_then(|told| told.client_id.clone());
            let assigned = assigned.unwrap_or_else(|| SessionId::fresh().to_string().into());
            connect.client_id = assigned.as_ref().into();
            connect.client_id_assigned = true;
        }
        let is_known = connect.username.is_some();
        let arrival = Box::new(Arrival {
            connect,
            user: UserId(uuid::Uuid::nil()),
            principal: None,
            nobody: false,
            // What came from another node goes no further.
            raw: (cx.is_clustered() && told.is_none()).then(|| frame.into()),
            awaited: false,
        });
        match told {
            Some(told) if is_known => {
                let arrival = Arrival {
                    user: told.user,
                    nobody: told.nobody,
                    ..*arrival
                };
                self.bring_home(cx, id, Box::new(arrival));
            }
            _ => self.who_is_it(cx, id, arrival),
        }
    }

    fn who_is_it(&mut self, cx: &mut Cx<'_>, id: ConnId, mut arrival: Box<Arrival>) {
        let Some(name) = arrival.connect.username.clone() else {
            if !self.config.anonymous {
                self.refuse(id, reason::NOT_AUTHORIZED);
                return;
            }
            arrival.user = UserId::anonymous(&arrival.connect.client_id);
            arrival.principal = Some(Principal::anonymous(arrival.user));
            self.bring_home(cx, id, arrival);
            return;
        };
        // The made-up ids of those who are not there are nobody's (version 8; users' are version 7).
        if let Some(user) = name
            .parse::<UserId>()
            .ok()
            .filter(|user| user.0.get_version_num() != 8)
        {
            arrival.user = user;
            self.bring_home(cx, id, arrival);
            return;
        }
        if !is_user_name(&name) {
            self.refuse(id, reason::BAD_CREDENTIAL);
            return;
        }
        self.keep_arrival(id, arrival);
        let key = bytes::Bytes::copy_from_slice(name.as_bytes());
        cx.read(
            Part::Net.tag(id.to_tag()),
            vec![Read::Fact {
                table: USER_NAMES,
                key,
            }],
        );
    }

    /// The user behind a name was read.
    pub(crate) fn name_read(&mut self, cx: &mut Cx<'_>, tag: u64, answers: Option<Vec<ReadAnswer>>) {
        let Some(id) = self.of_tag(tag) else { return };
        let Some(mut arrival) = self.take_arrival(id) else {
            return;
        };
        match answers.as_deref() {
            Some([ReadAnswer::Fact(Some(user))]) => match UserId::from_slice(user) {
                Some(user) => {
                    arrival.user = user;
                    self.bring_home(cx, id, arrival);
                }
                None => self.refuse(id, reason::SERVER_UNAVAILABLE),
            },
            Some([ReadAnswer::Fact(None)]) => {
                // Nobody has such an id: the answer is made like that to a wrong password.
                arrival.user = UserId::anonymous(arrival.connect.username.as_deref().unwrap_or_default());
                arrival.nobody = true;
                self.bring_home(cx, id, arrival);
            }
            _ => self.refuse(id, reason::SERVER_UNAVAILABLE),
        }
    }

    fn bring_home(&mut self, cx: &mut Cx<'_>, id: ConnId, arrival: Box<Arrival>) {
        let worker = cx.worker_of(&Key::User(arrival.user));
        if worker == cx.worker() {
            self.judge(cx, id, arrival);
            return;
        }
        let place = self.place(id);
        let Some(conn) = self.remove(Some(cx), id) else {
            return;
        };
        let Conn {
            transport,
            input,
            until,
            ended,
            special,
            ..
        } = *conn;
        let auth = special.and_then(|special| special.auth);
        let ticks = until.saturating_sub(self.now);
        cx.hand_over(
            worker,
            Box::new(Moved {
                transport,
                input,
                arrival,
                place,
                auth,
                ticks,
                ended,
            }),
        );
    }

    fn arrive(&mut self, cx: &mut Cx<'_>, moved: Moved) {
        if self.stopping {
            return;
        }
        let Moved {
            transport,
            input,
            arrival,
            place,
            auth,
            ticks,
            ended,
        } = moved;
        let until = self.now + ticks;
        let mut conn = Box::new(Conn::new(transport, input, self.now, until));
        conn.connected_by(&arrival.connect);
        conn.ended = ended;
        if auth.is_some() {
            conn.special.get_or_insert_default().auth = auth;
        }
        if let Some(id) = self.add(cx, conn, place) {
            self.look_at(id, until);
            self.judge(cx, id, arrival);
        }
    }

    /// At the user's worker: is the credential good?
    pub(super) fn judge(&mut self, cx: &mut Cx<'_>, id: ConnId, arrival: Box<Arrival>) {
        let user = arrival.user;
        if arrival.principal.is_some() {
            self.let_in(cx, id, arrival);
            return;
        }
        if !self.is_good_now(id) {
            self.refuse(id, reason::BAD_CREDENTIAL);
            return;
        }
        if !cx.holds(&Key::User(user)) {
            self.elsewhere(cx, id, arrival);
            return;
        }
        let keys_wanted = self.keys_wanted(id, user);
        let password = arrival
            .connect
            .password
            .as_deref()
            .and_then(|password| std::str::from_utf8(password).ok());
        // A password counts where one is given; a certificate stands for itself.
        let secret = password.map(|text| Secret(text.into()));
        let command = match (keys_wanted, secret) {
            (Some(command), _) => command,
            (_, Some(secret)) => AccountCommand::Authenticate { secret },
            _ => match self.certificate_command(id) {
                Some(command) if arrival.connect.password.is_none() => command,
                _ => {
                    self.refuse(id, reason::BAD_CREDENTIAL);
                    return;
                }
            },
        };
        self.keep_arrival(id, arrival);
        let command = Command::Account(Box::new(command));
        cx.ask(Part::Net.tag(id.to_tag()), Key::User(user), command);
    }

    /// The accounts have judged.
    pub(crate) fn judged(&mut self, cx: &mut Cx<'_>, tag: u64, answer: Answer, up: &mut Up<'_>) {
        let Some(id) = self.of_tag(tag) else { return };
        let Some(mut arrival) = self.take_arrival(id) else {
            self.renewal_judged(cx, id, answer, up);
            return;
        };
        if let Answer::Account(account) = &answer
            && let AccountAnswer::ScramKeys(keys) = &**account
        {
            self.ask_for_proof(id, arrival, keys.clone());
            return;
        }
        match answer {
            _ if arrival.nobody => self.refuse(id, reason::BAD_CREDENTIAL),
            Answer::Account(answer) => match *answer {
                AccountAnswer::Principal(principal) if principal.scopes.chat || principal.scopes.topics => {
                    arrival.principal = Some(principal);
                    self.let_in(cx, id, arrival);
                }
                AccountAnswer::Principal(_) => self.refuse(id, reason::NOT_AUTHORIZED),
                _ => self.refuse(id, reason::SERVER_UNAVAILABLE),
            },
            Answer::Refused(refusal)
                if refusal.code == Code::Unavailable && !cx.holds(&Key::User(arrival.user)) =>
            {
                // Its home has just gone to another node.
                self.elsewhere(cx, id, arrival);
            }
            Answer::Refused(refusal) if refusal.code == Code::Unavailable => {
                self.refuse(id, reason::SERVER_UNAVAILABLE);
            }
            _ => self.refuse(id, reason::BAD_CREDENTIAL),
        }
    }

    /// The keys have come: the client's AUTH is awaited.
    fn ask_for_proof(&mut self, id: ConnId, mut arrival: Box<Arrival>, keys: ScramKeys) {
        if !self.challenge(id, &keys) {
            self.refuse(id, reason::BAD_CREDENTIAL);
            return;
        }
        // The exchange is this node's: it cannot go elsewhere any more.
        arrival.raw = None;
        self.keep_arrival(id, arrival);
        if let Some(conn) = self.get(id) {
            conn.stage = Stage::Exchange;
            self.queue(id);
        }
    }

    fn let_in(&mut self, cx: &mut Cx<'_>, id: ConnId, arrival: Box<Arrival>) {
        let key = Key::User(arrival.user);
        if !cx.holds(&key) {
            self.elsewhere(cx, id, arrival);
            return;
        }
        if self.may_enter(id) {
            self.enter_home(cx, id, arrival);
        } else {
            self.keep_arrival(id, arrival);
        }
    }

    /// The home is in memory: what it attaches. `None`: the client is gone meanwhile.
    pub(crate) fn entered(&mut self, tag: u64) -> Option<(ConnId, Box<Connect>, Principal)> {
        let id = self.of_tag(tag)?;
        let Arrival {
            connect, principal, ..
        } = *self.take_arrival(id)?;
        let principal = principal?;
        let conn = self.get(id)?;
        conn.owned = true;
        conn.ends_by(&principal);
        Some((id, connect, principal))
    }

    /// No CONNACK came in time: the store or a home does not answer.
    pub(super) fn judged_too_late(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let owned = self.get(id).is_some_and(|conn| std::mem::take(&mut conn.owned));
        self.refuse(id, reason::SERVER_UNAVAILABLE);
        if owned {
            let closed = Closed {
                reason: CloseReason::Gone,
                unwritten: 0,
            };
            up(cx, self, id, Event::Closed(closed));
        }
    }

    /// A CONNACK that says no, and the end of the connection.
    pub(super) fn refuse(&mut self, id: ConnId, reason: u8) {
        let why = match reason {
            codec::reason::BAD_CREDENTIAL | codec::reason::NOT_AUTHORIZED => "credential",
            codec::reason::SERVER_UNAVAILABLE => "unavailable",
            codec::reason::UNSUPPORTED_VERSION => "version",
            codec::reason::TOO_LARGE => "too_large",
            codec::reason::CLIENT_ID => "client_id",
            codec::reason::BAD_AUTH_METHOD => "auth_method",
            codec::reason::QUOTA => "user_properties",
            _ => "malformed",
        };
        if self.config.server_reference.is_some() && self.stopping && reason == reason::SERVER_UNAVAILABLE {
            self.say_no(id, why, reason::USE_ANOTHER_SERVER);
        } else {
            self.say_no(id, why, reason);
        }
    }

    /// The same, counted under this name.
    fn say_no(&mut self, id: ConnId, why: &'static str, reason: u8) {
        self.metrics.count_refused(why);
        let elsewhere = self.config.server_reference.clone();
        let connack = Connack {
            reason,
            server_reference: elsewhere.filter(|_| reason == reason::USE_ANOTHER_SERVER),
            ..Connack::default()
        };
        self.close(id, Some(Outgoing::Connack(Box::new(connack))));
    }
}
