//! Types of single options: how they are written and read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use godwit_accounts::Direct;
use godwit_accounts::acl::{Access, Effect, Rule, Who};
use ipnet::{IpNet, Ipv4Net};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There; port 0: any free one.
    At(SocketAddr),
}

impl Listen {
    /// The address, unless it is off.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let localhost = text
            .strip_prefix("localhost:")
            .map(|port| format!("127.0.0.1:{port}"));
        let address = localhost.as_deref().unwrap_or(text).parse();
        address.map(Self::At).map_err(|_| {
            format!(
                "\"{text}\" is no address with port, such as 127.0.0.1:1883 or [::]:1883, and not \"off\""
            )
        })
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anyone.
    Open,
    /// Nobody.
    Closed,
    /// Who brings the registration token.
    Token,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for one.
    Off,
    /// They are asked, and come in without one too.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Off.
    Off,
    /// On.
    On,
}

/// An address, or a network of them; of IPv6 addresses that stand for IPv4 ones: the IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

/// Why a text is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no address and no network, such as 10.0.0.0/8")]
pub struct NotNetwork(String);

impl FromStr for Network {
    type Err = NotNetwork;

    fn from_str(text: &str) -> Result<Self, NotNetwork> {
        let one = text.parse::<IpAddr>().map(IpNet::from);
        one.or_else(|_| text.parse())
            .map(|network| Self(canonical(network)))
            .map_err(|_| NotNetwork(text.to_owned()))
    }
}

/// Addresses are compared in their canonical form, so networks have it too.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else {
        return network;
    };
    let v4 = mapped.addr().to_ipv4_mapped();
    let v4 = v4.zip(mapped.prefix_len().checked_sub(MAPPED_BITS));
    let v4 = v4.and_then(|(address, len)| Ipv4Net::new(address, len).ok());
    v4.map_or(network, IpNet::V4)
}

/// Bits before the IPv4 address in a mapped one.
const MAPPED_BITS: u8 = 96;

impl TryFrom<String> for Network {
    type Error = NotNetwork;

    fn try_from(text: String) -> Result<Self, NotNetwork> {
        text.parse()
    }
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Server names that it is for; empty: those in the certificate.
    #[serde(default)]
    pub names: Vec<String>,
}

/// `CERT,KEY` and names.
pub(super) fn certificate(text: &str) -> Result<TlsFiles, String> {
    let mut parts = text.split(',').map(str::trim);
    let (Some(cert), Some(key)) = (parts.next(), parts.next()) else {
        return Err(format!("\"{text}\" is not of the form CERT,KEY or CERT,KEY,NAME"));
    };
    let names: Vec<String> = parts.map(str::to_owned).collect();
    if cert.is_empty() || key.is_empty() || names.iter().any(String::is_empty) {
        return Err(format!("\"{text}\" has an empty part"));
    }
    Ok(TlsFiles {
        cert: cert.into(),
        key: key.into(),
        names,
    })
}

/// Certificates separated by `;`, for the environment.
pub(super) fn certificates(text: &str) -> Result<Vec<TlsFiles>, NotRules> {
    let parts = text.split(';').filter(|part| !part.trim().is_empty());
    parts.map(certificate).collect::<Result<_, _>>().map_err(NotRules)
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

/// Nor is anything that stands in its place: errors of serde show what they found.
impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(HiddenText)
    }
}

struct HiddenText;

impl HiddenText {
    fn refused<E: serde::de::Error>() -> Result<Hidden, E> {
        Err(E::custom("it must be a text in quotes"))
    }
}

impl Visitor<'_> for HiddenText {
    type Value = Hidden;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hidden, E> {
        Ok(Hidden(text.to_owned()))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Hidden, E> {
        Self::refused()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Hidden, E> {
        Self::refused()
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Hidden, E> {
        Self::refused()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Hidden, E> {
        Self::refused()
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Hidden, E> {
        Self::refused()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Hidden, E> {
        Self::refused()
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

pub(super) fn direct(text: &str) -> Result<Direct, String> {
    match text {
        "anyone" => Ok(Direct::Anyone),
        "contacts" => Ok(Direct::Contacts),
        _ => Err("it is anyone or contacts".into()),
    }
}

/// `EFFECT ACCESS WHO FILTER`; a filter may hold blanks.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    let form = || {
        format!("the rule \"{text}\" is not of the form EFFECT ACCESS WHO FILTER (allow both users iot/%u/#)")
    };
    let mut words = text.trim().splitn(4, ' ');
    let effect = match words.next() {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        _ => return Err(form()),
    };
    let access = match words.next() {
        Some("publish") => Access::Publish,
        Some("subscribe") => Access::Subscribe,
        Some("both") => Access::Both,
        _ => return Err(form()),
    };
    let who = match words.next() {
        Some("users") => Who::Users,
        Some("anonymous") => Who::Anonymous,
        Some("everyone") => Who::Everyone,
        _ => return Err(form()),
    };
    let filter = words
        .next()
        .filter(|filter| !filter.is_empty())
        .ok_or_else(form)?
        .to_owned();
    Ok(Rule {
        effect,
        access,
        filter,
        who,
    })
}

/// Rules separated by `;`, for the environment.
pub(super) fn rules(text: &str) -> Result<Vec<Rule>, NotRules> {
    let rules = text.split(';').filter(|part| !part.trim().is_empty()).map(rule);
    rules.collect::<Result<_, _>>().map_err(NotRules)
}

/// Why a text is not a list of rules, or of certificates.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotRules(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_word_by_word() {
        let read = rule("deny publish everyone a b/#").unwrap();
        assert_eq!(
            (read.effect, read.access, read.who),
            (Effect::Deny, Access::Publish, Who::Everyone)
        );
        assert_eq!(read.filter, "a b/#");
        for bad in [
            "",
            "allow",
            "allow both users",
            "allow both users ",
            "maybe both users a",
            "allow both a",
        ] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
        assert_eq!(rules("allow both users a; deny both users b;").unwrap().len(), 2);
    }

    #[test]
    fn an_address_is_one_with_a_port_or_off() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("localhost:7".parse(), "127.0.0.1:7".parse::<Listen>());
        assert!("[::1]:7".parse::<Listen>().is_ok());
        for bad in ["1883", "localhost", "127.0.0.1", "host:1883", ""] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_network_is_one_address_or_many() {
        let both = ["10.1.2.3", "10.0.0.0/8", "2001:db8::/32", "::1"].map(|text| text.parse::<Network>());
        assert!(both.iter().all(Result::is_ok));
        assert!(
            "10.1.2.3"
                .parse::<Network>()
                .unwrap()
                .0
                .contains(&IpAddr::from([10, 1, 2, 3]))
        );
        let same =
            |mapped: &str, plain: &str| assert_eq!(mapped.parse::<Network>(), plain.parse(), "{mapped}");
        same("::ffff:10.1.2.3", "10.1.2.3");
        same("::ffff:10.0.0.0/104", "10.0.0.0/8");
        same("::ffff:0:0/96", "0.0.0.0/0");
        for bad in ["10.0.0.0/33", "everywhere", ""] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_is_two_files_and_names() {
        let read = certificate("a.pem, a.key,one.example,*.two.example").unwrap();
        assert_eq!(read.names, ["one.example", "*.two.example"]);
        assert!(certificate("a.pem,a.key").unwrap().names.is_empty());
        for bad in ["", "a.pem", "a.pem,", "a.pem,a.key,"] {
            assert!(certificate(bad).is_err(), "{bad:?}");
        }
        assert_eq!(certificates("a,b;c,d,e;").unwrap().len(), 2);
    }

    #[test]
    fn a_hidden_text_is_not_shown() {
        assert_eq!(format!("{:?}", Hidden("secret".into())), "Hidden(…)");
    }

    #[test]
    fn what_stands_in_the_place_of_a_hidden_text_is_not_shown_either() {
        let secrets = [
            "4815162342",
            "48.15",
            "0x4815",
            "[4815]",
            "{ a = 4815 }",
            "4815-16-23",
            "a4815",
            "48151623424815162342",
            "\"4815",
        ];
        for secret in secrets {
            let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
            std::fs::write(file.path(), format!("registration_token = {secret}\n")).unwrap();
            let none = <crate::config::Flags as confique::Layer>::empty();
            let read = crate::Config::load(none, Some(file.path()));
            let error = read.unwrap_err().to_string();
            assert!(
                !error.contains("4815") && !error.contains("18453") && error.contains("registration_token"),
                "{secret}: {error}"
            );
        }
    }
}
