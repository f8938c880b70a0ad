//! Reason strings of CONNACK and DISCONNECT. Whether they are sent is decided where packets are encoded.

use super::reason;

/// A sentence for people with the codes of CONNACK and DISCONNECT that a client's author can do something about. It says
/// nothing that the code does not: a bad credential and an unknown user are told alike. An unknown version gets none: who
/// speaks it may read no further than the code.
pub(super) fn why(code: u8) -> Option<&'static str> {
    Some(match code {
        reason::CLIENT_ID => "the client id is too long or empty where it must not be",
        reason::BAD_CREDENTIAL => "user name and token do not fit; the account's password is not taken here",
        reason::SERVER_UNAVAILABLE => "not now; try again later",
        reason::SHUTTING_DOWN => "this server ends, or is no longer the user's; the session stays",
        reason::USE_ANOTHER_SERVER => {
            "this server ends, is full or is no longer the user's; another one has been named"
        }
        reason::BAD_AUTH_METHOD => "this authentication method is not taken",
        reason::KEEP_ALIVE => "nothing came for one and a half times the keep-alive",
        0x8E => "another connection with this client id took over",
        0x93 => "more unacknowledged messages than the receive maximum",
        reason::TOPIC_ALIAS => "topic alias 0 or above the topic alias maximum",
        reason::TOO_LARGE => "a packet over the maximum packet size",
        reason::RATE => {
            "too often: more messages or bytes than a user may publish, for too long, or authenticated anew again and again"
        }
        reason::QUOTA => "a quota of this user or session is reached",
        reason::PAYLOAD_FORMAT => "a payload that is not the UTF-8 that it is said to be",
        0x98 => "an operator ended this connection",
        reason::QOS => "a QoS above the maximum QoS",
        reason::CREDENTIAL_ENDED => "the credential has ended; the session stays",
        _ => return None,
    })
}
