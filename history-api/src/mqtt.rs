//! MQTT over WebSocket: `/mqtt` checks the handshake (RFC 6455, MQTT 5 section 6) and hands the upgraded connection to whoever
//! the server says. What is spoken on it is not known here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use godwit_wire::code::Code;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};

use crate::problem::Problem;
use crate::state::Api;

/// Takes an upgraded connection with the address at its other end. Must not block.
pub type MqttUpgrade = Arc<dyn Fn(Upgraded, SocketAddr) + Send + Sync>;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Takes an upgraded connection apart: the socket, and what was already read from it. Gives it back if its transport is
/// not a `T` (a TLS stream where TCP was asked for).
///
/// # Errors
/// The connection, untouched.
pub fn take_apart<T>(upgraded: Upgraded) -> Result<(T, Bytes), Upgraded>
where
    T: Send + 'static,
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    // Under hyper-util's server (axum::serve) the transport is wrapped once more than under hyper's own.
    match hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<T>>(upgraded) {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<T>>()?;
            Ok((parts.io.into_inner(), parts.read_buf))
        }
    }
}

/// Upgrades to MQTT over WebSocket.
pub(crate) async fn upgrade(State(api): State<Api>, mut request: Request) -> Result<Response, Problem> {
    let Some(callback) = api.parts.mqtt.clone() else {
        return Err(Problem::new(Code::NotFound, "there is no such thing here"));
    };
    let headers = request.headers();
    let upgrading = request.method() == Method::GET
        && has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket");
    if !upgrading
        || headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
    {
        return Err(Problem::new(
            Code::Malformed,
            "this is the handshake of a WebSocket, version 13",
        ));
    }
    if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, "mqtt") {
        return Err(Problem::new(
            Code::Malformed,
            "the WebSocket's subprotocol is mqtt",
        ));
    }
    if !origin_allowed(headers, &api.parts.config.origins) {
        return Err(Problem::new(Code::Forbidden, "this origin may not connect"));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| key.as_bytes().to_vec());
    let key = key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let Some(key) = key else {
        return Err(Problem::new(
            Code::Malformed,
            "Sec-WebSocket-Key is 16 bytes in base64",
        ));
    };
    let accept = BASE64_STANDARD.encode(Sha1::new_with_prefix(&key).chain_update(GUID).finalize());
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(address)| *address);
    let peer = peer.unwrap_or(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0));
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => callback(upgraded, peer),
            Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.any(|text| text.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
}

/// A browser says where a page comes from: it must be this server or one that the configuration names.
fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Not a browser.
        return true;
    };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|one| one == "*" || one == origin) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && host == of_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_this_server_and_named_origins_may_connect_from_browsers() {
        let allowed = ["https://app.example.org".to_owned()];
        let with = |origin| headers(&[(header::ORIGIN, origin), (header::HOST, "chat.example.org:8080")]);
        assert!(origin_allowed(
            &headers(&[(header::HOST, "chat.example.org")]),
            &allowed
        ));
        assert!(origin_allowed(&with("http://chat.example.org:8080"), &allowed));
        assert!(origin_allowed(&with("https://app.example.org"), &allowed));
        for other in [
            "http://chat.example.org",
            "https://evil.example",
            "null",
            "https://app.example.org.evil",
        ] {
            assert!(!origin_allowed(&with(other), &allowed), "{other}");
        }
    }

    #[test]
    fn tokens_are_found_in_lists_whatever_their_case() {
        let given = headers(&[(header::CONNECTION, "keep-alive, Upgrade")]);
        assert!(has_token(&given, header::CONNECTION, "upgrade"));
        assert!(!has_token(&given, header::UPGRADE, "websocket"));
    }
}
