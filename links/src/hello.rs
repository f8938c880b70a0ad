//! How two nodes greet each other before the first frame, and what proves that both hold the cluster's key. What carries
//! the messages is `stream`'s.

use bytes::Bytes;
use godwit_wire::account::Secret;
use godwit_wire::proto::peer::peer_message::Message;
use godwit_wire::proto::peer::{Hello, Proof};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use sha2_for_rsasl::Sha256;
use uuid::Uuid;

use crate::StartId;
use crate::error::LinkError;
use crate::stream::Pair;
use crate::taken::CREDIT;

/// Of this protocol.
const VERSION: u32 = 1;
/// Of each side's nonce: never drawn twice.
const NONCE_BYTES: usize = 32;

/// This node, as it names itself.
#[derive(Debug)]
pub(crate) struct Me {
    pub(crate) cluster: String,
    pub(crate) start: StartId,
    pub(crate) node: String,
    pub(crate) key: Option<Secret>,
}

/// Who is at the other end.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) start: StartId,
    pub(crate) node: String,
    /// So many requests it takes to begin with.
    pub(crate) credit: u32,
}

/// Whose proof it is: one cannot be sent back as the other's.
#[derive(Clone, Copy)]
enum Side {
    Caller = 1,
    Called = 2,
}

impl Me {
    /// The caller's part.
    pub(crate) async fn call(&self, to: StartId, pair: &mut Pair) -> Result<Met, LinkError> {
        let mine = self.hello(to);
        pair.send(Message::Hello(mine.clone())).await?;
        let (theirs, met) = self.judge(pair.next().await?)?;
        if met.start != to {
            return Err(LinkError::WrongStart);
        }
        let proof = self.proof(Side::Caller, &mine, &theirs);
        pair.send(Message::Proof(proof)).await?;
        self.verify(Side::Called, &mine, &theirs, pair.next().await?)?;
        Ok(met)
    }

    /// The other's part. The proof is for the caller, if it is taken; the caller gave its own before.
    pub(crate) async fn be_called(&self, pair: &mut Pair) -> Result<(Met, Message), LinkError> {
        let (theirs, met) = self.judge(pair.next().await?)?;
        if met.start >= self.start {
            return Err(LinkError::Unexpected("a call by the larger start id"));
        }
        let mine = self.hello(met.start);
        pair.send(Message::Hello(mine.clone())).await?;
        self.verify(Side::Caller, &theirs, &mine, pair.next().await?)?;
        let proof = self.proof(Side::Called, &theirs, &mine);
        Ok((met, Message::Proof(proof)))
    }

    fn hello(&self, to: StartId) -> Hello {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill(&mut nonce);
        Hello {
            version: VERSION,
            cluster: self.cluster.clone(),
            start: Bytes::copy_from_slice(self.start.as_bytes()),
            node: self.node.clone(),
            to: Bytes::copy_from_slice(to.as_bytes()),
            nonce: Bytes::copy_from_slice(&nonce),
            credit: CREDIT as u32,
        }
    }

    fn judge(&self, message: Message) -> Result<(Hello, Met), LinkError> {
        let Message::Hello(hello) = message else {
            return Err(LinkError::Unexpected("no Hello"));
        };
        if hello.version != VERSION {
            return Err(LinkError::Version(hello.version));
        }
        if hello.cluster != self.cluster {
            return Err(LinkError::Cluster);
        }
        if hello.to != self.start.as_bytes()[..] {
            return Err(LinkError::WrongStart);
        }
        if hello.nonce.len() != NONCE_BYTES {
            return Err(LinkError::Unexpected("a nonce of another length"));
        }
        let start = Uuid::from_slice(&hello.start).map_err(|_| LinkError::Unexpected("a start id"))?;
        let met = Met {
            start,
            node: hello.node.clone(),
            credit: hello.credit,
        };
        Ok((hello, met))
    }

    fn proof(&self, side: Side, caller: &Hello, called: &Hello) -> Proof {
        let mac = self.mac(side, caller, called);
        let proof = mac.map(|mac| mac.finalize().into_bytes().to_vec().into());
        Proof {
            proof: proof.unwrap_or_default(),
        }
    }

    fn verify(&self, side: Side, caller: &Hello, called: &Hello, message: Message) -> Result<(), LinkError> {
        let Message::Proof(Proof { proof }) = message else {
            return Err(LinkError::Unexpected("no Proof"));
        };
        match self.mac(side, caller, called) {
            // In constant time.
            Some(mac) => mac.verify_slice(&proof).map_err(|_| LinkError::Proof),
            // One that has a key would not believe this side.
            None if !proof.is_empty() => Err(LinkError::Proof),
            None => Ok(()),
        }
    }

    /// Over everything that was said; `None` without a key.
    fn mac(&self, side: Side, caller: &Hello, called: &Hello) -> Option<Hmac<Sha256>> {
        let key = self.key.as_ref()?;
        // HMAC takes keys of every length.
        let mut mac = Hmac::<Sha256>::new_from_slice(key.0.as_bytes()).ok()?;
        mac.update(b"godwit links\0");
        mac.update(&[side as u8]);
        for hello in [caller, called] {
            let Hello {
                version,
                cluster,
                start,
                node,
                to,
                nonce,
                credit,
            } = hello;
            mac.update(&version.to_be_bytes());
            mac.update(&credit.to_be_bytes());
            for field in [cluster.as_bytes(), start, node.as_bytes(), to, nonce] {
                mac.update(&(field.len() as u64).to_be_bytes());
                mac.update(field);
            }
        }
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(start: u128, key: &str) -> Me {
        Me {
            cluster: "c".into(),
            start: Uuid::from_u128(start),
            node: format!("node-{start}"),
            key: Some(Secret(key.into())),
        }
    }

    #[test]
    fn a_proof_is_good_for_its_side_its_key_and_these_two_hellos_alone() {
        let (a, b) = (me(1, "the key"), me(2, "the key"));
        let (first, second) = (a.hello(b.start), b.hello(a.start));
        let proof = Message::Proof(a.proof(Side::Caller, &first, &second));
        assert!(b.verify(Side::Caller, &first, &second, proof.clone()).is_ok());
        assert!(
            b.verify(Side::Called, &first, &second, proof.clone()).is_err(),
            "sent back"
        );
        assert!(
            b.verify(Side::Caller, &first, &b.hello(a.start), proof.clone())
                .is_err(),
            "another nonce"
        );
        let other = me(2, "another key");
        assert!(other.verify(Side::Caller, &first, &second, proof).is_err());
        let none = Message::Proof(Proof::default());
        assert!(b.verify(Side::Caller, &first, &second, none).is_err());
    }

    #[test]
    fn a_hello_of_another_version_cluster_or_start_is_refused() {
        let (a, b) = (me(1, "k"), me(2, "k"));
        let judge = |change: fn(&mut Hello)| {
            let mut hello = a.hello(b.start);
            change(&mut hello);
            b.judge(Message::Hello(hello)).map(|(_, met)| met.start)
        };
        assert_eq!(judge(|_| {}).unwrap(), a.start);
        assert!(matches!(
            judge(|hello| hello.version = 9),
            Err(LinkError::Version(9))
        ));
        assert!(matches!(
            judge(|hello| hello.cluster.push('x')),
            Err(LinkError::Cluster)
        ));
        assert!(matches!(
            judge(|hello| hello.to = hello.start.clone()),
            Err(LinkError::WrongStart)
        ));
        assert!(judge(|hello| hello.start = Bytes::new()).is_err());
        assert!(judge(|hello| hello.nonce = Bytes::new()).is_err());
    }
}
