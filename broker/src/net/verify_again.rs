//! Certificates of connected clients, judged once more after the authorities or the revocation lists have changed: who
//! would not come in now is closed. A few at a time, since each costs a signature or two.

use std::sync::Arc;
use std::time::Duration;

use godwit_cluster::Cx;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;

use super::conn::Stage;
use super::{Net, TIMER_VERIFY, Up};
use crate::codec::reason;
use crate::packet::Outgoing;
use crate::part::Part;
use crate::wire_trait::{CloseReason, ConnId};

/// Certificates judged in a turn: some 5 ms of work.
const CERTIFICATES_A_TURN: usize = 64;
/// Connections looked at in a turn, most of which have none.
const CONNECTIONS_A_TURN: usize = 16_384;
/// Time for others between two turns.
const PAUSE_MS: u64 = 5;

/// Handed to a worker: connections by a client certificate that this verifier refuses are closed (MQTT 5: 0x87).
pub struct VerifyAgain(pub Arc<dyn ClientCertVerifier>);

/// How far it is.
pub(super) struct Verifying {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The next slot.
    next: usize,
}

impl Net {
    /// Begins; what began before begins anew, with the newer verifier.
    pub(super) fn verify_again(&mut self, cx: &mut Cx<'_>, VerifyAgain(verifier): VerifyAgain) {
        if self.verifying.is_none() {
            cx.after(0, Part::Net.tag(TIMER_VERIFY));
        }
        self.verifier = Some(verifier.clone());
        self.verifying = Some(Verifying { verifier, next: 0 });
    }

    /// Whether what a client showed in a handshake of earlier, if it showed a certificate, would let it in now: the handshake
    /// may have been finished long before its CONNECT, as on HTTPS, or on another worker.
    pub(super) fn is_good_now(&self, id: ConnId) -> bool {
        let verifier = self.verifier.as_deref();
        verifier.and_then(|verifier| self.is_still_good(id, verifier)) != Some(false)
    }

    /// A turn of it.
    pub(super) fn verify_some(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        let Some(Verifying { verifier, mut next }) = self.verifying.take() else {
            return;
        };
        let (mut judged, end) = (0, (next + CONNECTIONS_A_TURN).min(self.slots.len()));
        while next < end && judged < CERTIFICATES_A_TURN {
            if let Some(id) = self.in_slot(next)
                && let Some(good) = self.is_still_good(id, verifier.as_ref())
            {
                judged += 1;
                if !good {
                    self.turn_out(cx, id, up);
                }
            }
            next += 1;
        }
        if next < self.slots.len() {
            self.verifying = Some(Verifying { verifier, next });
            cx.after(PAUSE_MS, Part::Net.tag(TIMER_VERIFY));
        }
    }

    /// `None`: it has shown no certificate.
    fn is_still_good(&self, id: ConnId, verifier: &dyn ClientCertVerifier) -> Option<bool> {
        let (certificate, chain) = self.peek(id)?.transport.certificates()?.split_first()?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.unix.into()));
        Some(verifier.verify_client_cert(certificate, chain, now).is_ok())
    }

    fn turn_out(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        match self.peek(id).map(|conn| (conn.stage, conn.owned)) {
            Some((Stage::Open, _)) => {
                let last = Outgoing::Disconnect(reason::NOT_AUTHORIZED, Vec::new());
                self.end(cx, id, CloseReason::Revoked, Some(&last), up);
            }
            // Its home is on another node, and has a will to drop as well.
            Some((Stage::Relay, _)) => self.turn_out_relayed(cx, id),
            // Its home is about to answer: as if its deadline had come.
            Some((_, true)) => self.judged_too_late(cx, id, up),
            Some((Stage::Closing, _)) | None => {}
            Some((Stage::Greeting, _)) => self.drop_silently(id, "credential"),
            Some(_) => self.refuse(id, reason::BAD_CREDENTIAL),
        }
    }
}
