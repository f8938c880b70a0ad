//! One HTTP request and all of its answer, with what differs by nature (the request's id) left out.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: String,
    /// `Null` if there is none; a problem without its `request_id`.
    pub(crate) body: Value,
}

impl Got {
    /// The problem's code; empty for what is none.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// A node's HTTP port.
pub(crate) struct Http {
    base: String,
    agent: ureq::Agent,
}

impl Http {
    /// For `http://127.0.0.1:PORT`.
    pub(crate) fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        Self {
            base: base.to_owned(),
            agent: config.into(),
        }
    }

    /// `path` with its query, percent-encoded.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Got> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = match (body, method) {
            (Some(body), _) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.to_string())?)
            }
            (None, "GET" | "DELETE") => self.agent.run(request.body(())?),
            (None, _) => self.agent.run(request.body(String::new())?),
        };
        let mut answer = answer?;
        let header = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        let text = answer.body_mut().read_to_string()?;
        let mut body: Value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)?
        };
        if content_type == "application/problem+json"
            && let Some(problem) = body.as_object_mut()
        {
            problem.remove("request_id");
        }
        Ok(Got {
            status: answer.status().as_u16(),
            content_type,
            retry_after,
            body,
        })
    }
}

/// Percent-encoded, whatever it holds.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let encode = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}
