//! SCRAM-SHA-256 (RFC 5802, 7677) with a device token as its password: what is stored of a token, and the server's side of
//! an exchange. All cryptography is the libraries'; who is who, and when a token is good, is said elsewhere.

use std::io::Cursor;

use godwit_wire::account::{ScramKeys, Secret};
use godwit_wire::ids::UserId;
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::mechanisms::scram::SCRAM_SHA256;
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::mechanisms::scram::tools;
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism, Registry, SASLServer, Session, SessionError};
use rsasl::validate::{Validate, Validation, ValidationError};
use sha2_for_rsasl::{Digest as _, Sha256};
use uuid::Uuid;

use crate::tokens::Tokens;

/// Its name as an authentication method.
pub const METHOD: &str = "SCRAM-SHA-256";
/// Iterations of PBKDF2: the least that RFC 7677 lets clients take. The secret has 190 random bits.
pub const ITERATIONS: u32 = 4_096;
/// Longest message of a client, bytes: a user name of 36, a token id of 36 and a nonce leave most of it unused.
pub const MESSAGE_BYTES: usize = 1_024;
/// Longest part of SCRAM's user name that stands for a token, bytes: an id has 36.
const TOKEN_BYTES: usize = 64;

static MECHANISMS: [Mechanism; 1] = [SCRAM_SHA256];

impl Tokens {
    /// What is stored of a device token for SCRAM. Takes about a millisecond: not for a worker.
    pub fn scram_keys(&self, user: UserId, id: Uuid, secret: &Secret) -> ScramKeys {
        keys(&secret.0, self.scram_salt(user, &id.to_string()), ITERATIONS)
    }

    /// What is said instead of a token that is not there: the salt that it would have, and keys that nobody knows.
    pub(crate) fn scram_of_nobody(&self, user: UserId, token: &str) -> ScramKeys {
        let mut random = [[0; 32]; 2];
        for key in &mut random {
            rand::rng().fill(key);
        }
        let [stored_key, server_key] = random;
        // However it is written: as it is written in the salt of one that is there.
        let token = token
            .parse::<Uuid>()
            .map_or_else(|_| token.to_owned(), |id| id.to_string());
        ScramKeys {
            salt: self.scram_salt(user, &token),
            iterations: ITERATIONS,
            stored_key,
            server_key,
        }
    }

    /// The same for ever, and told by nobody without the signing key: whether there is such a token cannot be seen of it.
    fn scram_salt(&self, user: UserId, token: &str) -> [u8; 16] {
        let mut salt = [0; 16];
        // HMAC takes keys of every length.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.seed) {
            mac.update(b"godwit scram salt\0");
            mac.update(user.0.as_bytes());
            mac.update(token.as_bytes());
            salt.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        salt
    }
}

fn keys(password: &str, salt: [u8; 16], iterations: u32) -> ScramKeys {
    let mut salted = [0; 32].into();
    tools::hash_password::<Sha256>(password.as_bytes(), iterations, &salt, &mut salted);
    let (client_key, server_key) = tools::derive_keys::<Sha256>(&salted);
    ScramKeys {
        salt,
        iterations,
        stored_key: Sha256::digest(client_key).into(),
        server_key: server_key.into(),
    }
}

/// A client's first message, looked at as far as it says who wants to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// User name or id, as it was written; not yet looked at.
    pub user: Box<str>,
    /// What names the device token; may be anything, at most 64 bytes.
    pub token: Box<str>,
    message: Box<str>,
}

impl ClientFirst {
    /// Reads one: `n,,n={user}/{token id},r={nonce}`. `None` if it is anything else, also with channel binding, with an
    /// extension, or for somebody else than who authenticates. The library reads no message that is not read here: it
    /// panics on some.
    pub fn read(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message.get(..message.len().min(MESSAGE_BYTES + 1))?).ok()?;
        if text.len() > MESSAGE_BYTES {
            return None;
        }
        let rest = text.strip_prefix("n,").or_else(|| text.strip_prefix("y,"))?;
        let mut attributes = rest.split(',');
        let acts_as = attributes.next()?;
        let name = attributes.next()?.strip_prefix("n=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let (user, token) = name.split_once('/').unwrap_or((name, ""));
        let formed = !user.is_empty() && token.len() <= TOKEN_BYTES && !nonce.is_empty();
        let itself = acts_as.is_empty() || acts_as.strip_prefix("a=") == Some(user);
        (formed && itself && attributes.next().is_none()).then(|| Self {
            user: user.into(),
            token: token.into(),
            message: text.into(),
        })
    }
}

/// The server's side of an exchange, waiting for the proof.
pub struct Exchange {
    session: Session<Proved>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchange(…)")
    }
}

impl Exchange {
    /// Begins one; gives the server's first message. `None`: the client's has characters that may not be there.
    pub fn begin(keys: ScramKeys, first: &ClientFirst) -> Option<(Self, Vec<u8>)> {
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(&MECHANISMS))
            .with_callback(Keys(keys))
            .ok()?;
        let name = Mechname::parse(METHOD.as_bytes()).ok()?;
        let mut session = SASLServer::<Proved>::new(config).start_suggested(name).ok()?;
        let answer = step(&mut session, first.message.as_bytes())?;
        Some((Self { session }, answer))
    }

    /// Takes the client's final message; gives the server's, which proves that it has the keys. `None`: no proof.
    pub fn finish(mut self, message: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(message).ok()?;
        if text.len() > MESSAGE_BYTES {
            return None;
        }
        // As above: exactly these reach the library.
        let mut attributes = text.split(',');
        for expected in ["c=", "r=", "p="] {
            attributes.next()?.strip_prefix(expected)?;
        }
        if attributes.next().is_some() {
            return None;
        }
        let answer = step(&mut self.session, message)?;
        // A wrong proof is no error of the library: what it says then is for the client.
        self.session.validation().map(|()| answer)
    }
}

fn step(session: &mut Session<Proved>, message: &[u8]) -> Option<Vec<u8>> {
    let mut answer = Cursor::new(Vec::new());
    session.step(Some(message), &mut answer).ok()?;
    Some(answer.into_inner())
}

/// Said by the library when the proof holds.
struct Proved;

impl Validation for Proved {
    type Value = ();
}

/// Gives the library the keys that it asks for.
struct Keys(ScramKeys);

impl SessionCallback for Keys {
    fn callback(
        &self,
        _session: &SessionData,
        _context: &Context,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        let Self(keys) = self;
        let stored =
            ScramStoredPassword::new(keys.iterations, &keys.salt, &keys.stored_key, &keys.server_key);
        request.satisfy::<ScramStoredPassword<'_>>(&stored)?;
        Ok(())
    }

    fn validate(
        &self,
        _session: &SessionData,
        _context: &Context,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        validate.finalize::<Proved>(());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD as BASE64;
    use rsasl::prelude::SASLClient;
    use rsasl::validate::NoValidation;

    use super::*;

    fn client(name: &str, password: &str) -> Session<NoValidation> {
        let config = SASLConfig::with_credentials(None, name.into(), password.into()).unwrap();
        let method = Mechname::parse(METHOD.as_bytes()).unwrap();
        SASLClient::new(config).start_suggested(&[method]).unwrap()
    }

    fn say(client: &mut Session<NoValidation>, message: Option<&[u8]>) -> Vec<u8> {
        let mut said = Cursor::new(Vec::new());
        client.step(message, &mut said).unwrap();
        said.into_inner()
    }

    /// What our side answers to a whole exchange, and whether the client took it.
    fn exchange(keys: ScramKeys, password: &str) -> Option<bool> {
        let mut client = client("alice/some-token", password);
        let first = ClientFirst::read(&say(&mut client, None)).unwrap();
        assert_eq!((&*first.user, &*first.token), ("alice", "some-token"));
        let (exchange, answer) = Exchange::begin(keys, &first).unwrap();
        let proof = say(&mut client, Some(&answer));
        let last = exchange.finish(&proof)?;
        Some(client.step(Some(&last), &mut Cursor::new(Vec::new())).is_ok())
    }

    #[test]
    fn who_knows_the_token_comes_in_and_learns_that_the_server_has_its_keys() {
        let (tokens, user, id) = (Tokens::ephemeral(), UserId::fresh(), Uuid::now_v7());
        let keys = tokens.scram_keys(user, id, &Secret("gdt_secret".into()));
        assert_eq!(exchange(keys.clone(), "gdt_secret"), Some(true));
        assert_eq!(exchange(keys.clone(), "gdt_secreu"), None);
        assert_eq!(
            exchange(tokens.scram_of_nobody(user, &id.to_string()), "gdt_secret"),
            None
        );
        let other = ScramKeys {
            server_key: [7; 32],
            ..keys
        };
        assert_eq!(
            exchange(other, "gdt_secret"),
            Some(false),
            "a server without the keys is found out"
        );
    }

    #[test]
    fn the_salt_says_nothing_about_whether_there_is_a_token() {
        let (tokens, user, id) = (Tokens::ephemeral(), UserId::fresh(), Uuid::now_v7());
        let there = tokens.scram_keys(user, id, &Secret("x".into()));
        let nobody = tokens.scram_of_nobody(user, &id.to_string().to_ascii_uppercase());
        assert_eq!((there.salt, there.iterations), (nobody.salt, nobody.iterations));
        assert_ne!(
            nobody.salt,
            tokens.scram_of_nobody(UserId::fresh(), &id.to_string()).salt
        );
        assert_ne!(
            nobody.salt,
            Tokens::ephemeral().scram_of_nobody(user, &id.to_string()).salt
        );
    }

    /// RFC 7677, section 3: the exchange of `user` with the password `pencil`.
    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let salt: [u8; 16] = BASE64
            .decode("W22ZaJ0SNY7soEsUEjb6gQ==")
            .unwrap()
            .try_into()
            .unwrap();
        let keys = keys("pencil", salt, 4_096);
        let (mut client, mut server) = ([0; 32].into(), [0; 32].into());
        tools::compute_signatures::<Sha256>(
            &keys.stored_key.into(),
            &keys.server_key.into(),
            "user",
            b"rOprNGfwEbeRWgbNEkqO",
            b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            b"W22ZaJ0SNY7soEsUEjb6gQ==",
            b"4096",
            b"biws",
            &mut client,
            &mut server,
        );
        assert_eq!(
            BASE64.encode(server),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let proof = BASE64
            .decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
            .unwrap();
        let client_key: Vec<u8> = proof.iter().zip(client).map(|(one, other)| one ^ other).collect();
        assert_eq!(Sha256::digest(client_key)[..], keys.stored_key[..]);
    }

    #[test]
    fn other_forms_of_the_first_message_are_refused_and_never_reach_the_library() {
        assert!(ClientFirst::read(b"n,,n=al/id,r=abc").is_some());
        assert!(ClientFirst::read(b"y,a=al,n=al/id,r=abc").is_some());
        let long = format!("n,,n=al/id,r={}", "x".repeat(MESSAGE_BYTES));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "n,x,n=a,r=b",
            "n,,n",
            "n,,n=",
            "n,,n=a",
            "n,,n=a,",
            "n,,n=a,r",
            "n,,n=a,r=",
            "n,,m=x,n=a,r=b",
            "p=tls-exporter,,n=a,r=b",
            "n,a=other,n=a,r=b",
            "n,,n=a,r=b,x=c",
            "n,,n=/id,r=b",
            &long,
        ] {
            assert_eq!(ClientFirst::read(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(ClientFirst::read(b"n,,n=\xff,r=b"), None);
        let first = ClientFirst::read("n,,n=al/id,r=ä".as_bytes()).unwrap();
        let keys = Tokens::ephemeral().scram_of_nobody(UserId::fresh(), "id");
        assert!(
            Exchange::begin(keys, &first).is_none(),
            "a nonce has printable characters"
        );
    }

    #[test]
    fn whatever_comes_as_proof_is_refused_without_a_panic() {
        let keys = keys("secret", [1; 16], ITERATIONS);
        let first = ClientFirst::read(b"n,,n=al/id,r=abc").unwrap();
        for bad in [
            "",
            "c",
            "c=",
            "c=biws",
            "c=biws,r=abc",
            "c=biws,r=abc,p=",
            "c=biws,r=abc,p=AAAA",
            "c=biws,r=abc,x,p=AAAA",
            "c=!,r=abc,p=!",
            "c=biws,r=,p=AAAA,",
            "c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "r=,c=,p=",
        ] {
            let (exchange, answer) = Exchange::begin(keys.clone(), &first).unwrap();
            // With the right nonce too.
            let nonce = String::from_utf8(answer).unwrap();
            let nonce = nonce.split(',').next().unwrap().to_owned();
            assert_eq!(exchange.finish(bad.as_bytes()), None, "{bad:?}");
            let (exchange, _) = Exchange::begin(keys.clone(), &first).unwrap();
            assert_eq!(
                exchange.finish(bad.replace("r=abc", &nonce).as_bytes()),
                None,
                "{bad:?}"
            );
        }
    }
}
