//! The client's side of SCRAM-SHA-256 as MQTT 5's enhanced authentication (4.12), with a device token as its password. The cryptography is the
//! library's; when a message goes is the client's affair.

use crate::{packets::PacketError, spec::Login};
use rsasl::{config::SASLConfig, mechname::Mechname, prelude::SASLClient};
use std::{fmt::Display, io::Cursor};

/// Its name as an authentication method.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";

/// An exchange under way.
pub(crate) struct Exchange(rsasl::prelude::Session);

fn failed(error: &dyn Display) -> PacketError {
    PacketError(format!("SCRAM-SHA-256 with the broker failed: {error}"))
}

impl Exchange {
    /// Begins one; gives the client's first message.
    ///
    /// # Errors
    /// When the login is none for SCRAM.
    pub(crate) fn begin(login: &Login) -> Result<(Self, Vec<u8>), PacketError> {
        let name = format!("{}/{}", login.username, login.token_id);
        let config = SASLConfig::with_credentials(None, name, login.password.clone());
        let config = config.map_err(|error| failed(&error))?;
        let method = Mechname::parse(METHOD.as_bytes()).map_err(|error| failed(&error))?;
        let session = SASLClient::new(config)
            .start_suggested(&[method])
            .map_err(|error| failed(&error))?;
        let mut exchange = Self(session);
        let first = exchange.step(None)?;
        Ok((exchange, first))
    }

    /// What answers the server's challenge: the proof. Costs 4,096 rounds of HMAC, about a millisecond.
    ///
    /// # Errors
    /// When the server's message is none.
    pub(crate) fn prove(&mut self, challenge: &[u8]) -> Result<Vec<u8>, PacketError> {
        self.step(Some(challenge))
    }

    fn step(&mut self, said: Option<&[u8]>) -> Result<Vec<u8>, PacketError> {
        let mut answer = Cursor::new(Vec::new());
        self.0.step(said, &mut answer).map_err(|error| failed(&error))?;
        Ok(answer.into_inner())
    }
}
