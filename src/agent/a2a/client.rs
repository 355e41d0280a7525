//! What is sent to an outside agent, in either binding.

use std::time::Duration;

use ::a2a::jsonrpc::methods;
use ::a2a::{JsonRpcError, JsonRpcRequest, JsonRpcResponse, SendMessageRequest};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Serialize;
use serde_json::{Value, json};

use super::card::{Binding, cut};
use super::sse::Events;
use crate::agent::web;
use crate::limits::MAX_TTL_S;

/// The most bytes of a response that is read at once: a task with its result and what came before it.
const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// The most bytes of a card.
const MAX_CARD: usize = 512 * 1024;

/// How much is read of a response that says no, and how much of that is told.
const MAX_QUOTED: usize = 4 * 1024;
const MAX_TOLD: usize = 300;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Missed {
    /// No connection came about: nothing was sent.
    Unreached(String),
    /// There was a connection, and it ended early. What was sent may have been read.
    Broken(String),
    /// It is too busy; nothing was done.
    Busy(String, Option<Duration>),
    /// It says no, and why: an error of A2A with its code, or an HTTP status.
    Refused(String, Option<i32>),
    /// What it says makes no sense.
    Nonsense(String),
}

impl Missed {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Unreached(why)
            | Self::Broken(why)
            | Self::Busy(why, _)
            | Self::Refused(why, _)
            | Self::Nonsense(why) => why,
        }
    }
}

/// Speaks to agents at one host.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    client: Client,
    token: Option<HeaderValue>,
}

/// Where and how.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) speaker: Speaker,
    pub(super) url: Url,
    pub(super) binding: Binding,
}

impl Speaker {
    pub(super) fn new(https: bool, token: Option<&str>) -> Result<Self, String> {
        let token = token.map(|token| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "its token fits into no header")?;
            value.set_sensitive(true);
            Ok::<_, &str>(value)
        });
        Ok(Self { client: web::client(https)?, token: token.transpose()? })
    }

    async fn send(&self, method: Method, url: Url, body: Option<Vec<u8>>, stream: bool) -> Result<Response, Missed> {
        let mut request = self.client.request(method, url).header(::a2a::SVC_PARAM_VERSION, ::a2a::VERSION);
        request = request.header(ACCEPT, if stream { "text/event-stream" } else { "application/json" });
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(missed)?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    /// Reads the card at a URL.
    pub(super) async fn card(&self, url: &Url) -> Result<::a2a::AgentCard, Missed> {
        let response = self.send(Method::GET, url.clone(), None, false).await?;
        let body = whole(response, MAX_CARD).await?;
        serde_json::from_slice(&body).map_err(|e| Missed::Nonsense(format!("its card can't be read: {e}")))
    }
}

impl Line {
    /// Sends a message; gives the task, or the message, that is answered.
    pub(super) async fn message(&self, request: &SendMessageRequest) -> Result<Value, Missed> {
        self.ask(methods::SEND_MESSAGE, request, Method::POST, "/message:send").await
    }

    /// The same, followed.
    pub(super) async fn stream(&self, request: &SendMessageRequest) -> Result<Followed, Missed> {
        let response =
            self.open(methods::SEND_STREAMING_MESSAGE, request, Method::POST, "/message:stream", true).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if kind.trim().to_ascii_lowercase().starts_with("text/event-stream") {
            return Ok(Followed { events: Events::new(response), binding: self.binding });
        }
        // JSON-RPC says no with one response.
        let answer = unwrapped(self.binding, &whole(response, MAX_RESPONSE).await?)?;
        Err(Missed::Nonsense(format!("it answered with no stream: {}", cut(&answer.to_string(), MAX_TOLD))))
    }

    /// How a task is.
    pub(super) async fn task(&self, id: &str) -> Result<Value, Missed> {
        self.ask(methods::GET_TASK, &json!({ "id": id }), Method::GET, &format!("/tasks/{}", segment(id))).await
    }

    /// Takes a task back.
    pub(super) async fn cancel(&self, id: &str) -> Result<Value, Missed> {
        self.ask(methods::CANCEL_TASK, &json!({ "id": id }), Method::POST, &format!("/tasks/{}:cancel", segment(id)))
            .await
    }

    async fn ask<T: Serialize>(&self, name: &str, params: &T, method: Method, path: &str) -> Result<Value, Missed> {
        let response = self.open(name, params, method, path, false).await?;
        unwrapped(self.binding, &whole(response, MAX_RESPONSE).await?)
    }

    async fn open<T: Serialize>(
        &self,
        name: &str,
        params: &T,
        method: Method,
        path: &str,
        stream: bool,
    ) -> Result<Response, Missed> {
        let unwritten = |e: serde_json::Error| Missed::Nonsense(format!("what is asked can't be written: {e}"));
        match self.binding {
            Binding::Rpc => {
                let params = serde_json::to_value(params).map_err(unwritten)?;
                let request = JsonRpcRequest::new("1".into(), name, Some(params));
                let body = serde_json::to_vec(&request).map_err(unwritten)?;
                self.speaker.send(Method::POST, self.url.clone(), Some(body), stream).await
            }
            Binding::Rest => {
                let mut url = self.url.clone();
                url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
                let body =
                    (method != Method::GET).then(|| serde_json::to_vec(params)).transpose().map_err(unwritten)?;
                self.speaker.send(method, url, body, stream).await
            }
        }
    }
}

/// A task that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    events: Events,
    binding: Binding,
}

impl Followed {
    /// What happened next; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, Missed> {
        match self.events.next().await.map_err(Missed::Broken)? {
            Some(data) => unwrapped(self.binding, data.as_bytes()).map(Some),
            None => Ok(None),
        }
    }
}

/// An id as a part of a path: whoever chose it doesn't choose the path.
fn segment(id: &str) -> String {
    let mut path = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            // Two of them would be the folder above.
            b'.' if !id.trim_matches('.').is_empty() => path.push('.'),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// What is in an envelope.
fn unwrapped(binding: Binding, body: &[u8]) -> Result<Value, Missed> {
    let nonsense = |e: serde_json::Error| Missed::Nonsense(format!("its answer can't be read: {e}"));
    match binding {
        Binding::Rest => {
            let value: Value = serde_json::from_slice(body).map_err(nonsense)?;
            match value.get("error") {
                Some(error) => Err(rest_error(error)),
                None => Ok(value),
            }
        }
        Binding::Rpc => {
            let response: JsonRpcResponse = serde_json::from_slice(body).map_err(nonsense)?;
            match (response.error, response.result) {
                (Some(JsonRpcError { code, message, .. }), _) => {
                    Err(Missed::Refused(format!("{} ({code})", cut(&message, MAX_TOLD)), Some(code)))
                }
                (None, Some(result)) => Ok(result),
                (None, None) => Err(Missed::Nonsense("its answer has neither a result nor an error".to_owned())),
            }
        }
    }
}

/// An error as `google.rpc.Status` has it.
fn rest_error(error: &Value) -> Missed {
    let message = error["message"].as_str().unwrap_or("it did not say why");
    let reasons = error["details"].as_array().into_iter().flatten();
    let code = reasons.filter_map(|detail| ::a2a::reason_to_error_code(detail["reason"].as_str()?)).next();
    Missed::Refused(cut(message, MAX_TOLD), code)
}

async fn whole(mut response: Response, most: usize) -> Result<Vec<u8>, Missed> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(missed)? {
        if body.len() + piece.len() > most {
            return Err(Missed::Nonsense(format!("its answer has more than {most} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

async fn refused(mut response: Response) -> Missed {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let wait = wait.map(|s: u64| Duration::from_secs(s.min(MAX_TTL_S)));
    let mut body = Vec::new();
    // It need not be whole.
    while let Ok(Some(piece)) = response.chunk().await {
        let room = MAX_QUOTED - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if body.len() == MAX_QUOTED {
            break;
        }
    }
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return Missed::Busy(format!("it answers {status}"), wait);
    }
    if let Ok(Value::Object(members)) = serde_json::from_slice(&body)
        && let Some(error) = members.get("error").filter(|error| error.is_object())
    {
        return rest_error(error);
    }
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; a token for it can stand in HOME/a2a.tokens (`URL TOKEN`)"
        }
        status if status.is_redirection() => "; redirects are not followed",
        _ => "",
    };
    let said = cut(&String::from_utf8_lossy(&body), MAX_TOLD);
    let said = if said.is_empty() { said } else { format!(": {said}") };
    Missed::Refused(format!("it answers {status}{said}{hint}"), None)
}

fn missed(error: reqwest::Error) -> Missed {
    if error.is_connect() {
        let late = format!("no connection within {} s", web::CONNECT.as_secs());
        return Missed::Unreached(if error.is_timeout() { late } else { cut(&web::innermost(&error), MAX_TOLD) });
    }
    Missed::Broken(cut(&web::innermost(&error), MAX_TOLD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_part_of_a_path() {
        for (id, path) in
            [("a-1_~.x", "a-1_~.x"), ("../x?y#z", "..%2Fx%3Fy%23z"), ("..", "%2E%2E"), ("a:cancel", "a%3Acancel")]
        {
            assert_eq!(segment(id), path);
        }
    }

    #[test]
    fn errors_are_told_with_their_codes() {
        let rpc = br#"{"jsonrpc":"2.0","id":"1","error":{"code":-32001,"message":"no such task"}}"#;
        let Missed::Refused(why, Some(-32001)) = unwrapped(Binding::Rpc, rpc).unwrap_err() else { panic!() };
        assert!(why.contains("no such task"), "{why}");
        let rest = br#"{"error":{"code":404,"status":"NOT_FOUND","message":"no such task",
            "details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"TASK_NOT_FOUND"}]}}"#;
        let Missed::Refused(why, Some(-32001)) = unwrapped(Binding::Rest, rest).unwrap_err() else { panic!() };
        assert!(why.contains("no such task"), "{why}");
        for nonsense in [&b""[..], b"[]", b"{}", b"{\"jsonrpc\":\"2.0\",\"id\":1}", b"\xff"] {
            assert!(matches!(unwrapped(Binding::Rpc, nonsense), Err(Missed::Nonsense(_))), "{nonsense:?}");
        }
    }
}
