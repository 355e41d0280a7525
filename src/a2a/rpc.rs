//! The JSON-RPC binding: one URL, the method in the body.

use std::sync::Arc;

use ::a2a::jsonrpc::methods;
use ::a2a::{A2AError, JsonRpcId, JsonRpcRequest, JsonRpcResponse};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Gateway;
use super::rest::check_version;
use super::stream::Follow;
use super::target::Target;
use crate::http::{Problem, read_body};

pub(super) async fn of_this_node(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(&gateway, &Target::default(), request).await
}

pub(super) async fn of_an_agent(
    State(gateway): State<Arc<Gateway>>,
    Path(agent): Path<String>,
    request: Request,
) -> Response {
    match Target::parse(&agent) {
        Ok(target) => answer(&gateway, &target, request).await,
        Err(why) => Problem::bad_request(why).into_response(),
    }
}

async fn answer(gateway: &Gateway, target: &Target, request: Request) -> Response {
    let version = check_version(request.headers(), request.uri());
    let headers = request.headers().clone();
    // What is no JSON-RPC at all is refused as everywhere here.
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let request = match read(&body) {
        Ok(request) => request,
        Err((id, error)) => return refused(id, &error),
    };
    if let Err(error) = version {
        return refused(request.id, &error);
    }
    let id = request.id.clone();
    match dispatch(gateway, target, &headers, request).await {
        Ok(response) => response,
        Err(error) => refused(id, &error),
    }
}

/// Reads a request; the error has its id, if it has one.
fn read(body: &[u8]) -> Result<JsonRpcRequest, (JsonRpcId, A2AError)> {
    let value: Value =
        serde_json::from_slice(body).map_err(|e| (JsonRpcId::Null, A2AError::parse_error(format!("no JSON: {e}"))))?;
    let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok()).unwrap_or(JsonRpcId::Null);
    let wrong = |why: String| (id.clone(), A2AError::invalid_request(why));
    if value.is_array() {
        return Err(wrong("A2A has no batches: send one request at a time".to_owned()));
    }
    let request: JsonRpcRequest =
        serde_json::from_value(value).map_err(|e| wrong(format!("no request of JSON-RPC 2.0: {e}")))?;
    if request.jsonrpc != "2.0" {
        return Err(wrong("`jsonrpc` is \"2.0\"".to_owned()));
    }
    Ok(request)
}

async fn dispatch(
    gateway: &Gateway,
    target: &Target,
    headers: &HeaderMap,
    request: JsonRpcRequest,
) -> Result<Response, A2AError> {
    let JsonRpcRequest { id, method, params, .. } = request;
    let params = Params(params.unwrap_or_else(|| json!({})));
    match method.as_str() {
        methods::SEND_MESSAGE => {
            let task = gateway.send(target, params.read()?).await?;
            result(id, &::a2a::SendMessageResponse::Task(task))
        }
        methods::SEND_STREAMING_MESSAGE => Ok(stream(id, gateway.send_streaming(target, params.read()?).await?)),
        methods::GET_TASK => result(id, &gateway.get(target, &params.read()?)?),
        methods::LIST_TASKS => result(id, &gateway.list(target, &params.read()?)?),
        methods::CANCEL_TASK => result(id, &gateway.cancel(target, &params.read()?).await?),
        methods::SUBSCRIBE_TO_TASK => Ok(stream(id, gateway.subscribe(target, &params.read()?)?)),
        methods::CREATE_PUSH_CONFIG => result(id, &gateway.set_hook(target, params.read()?)?),
        methods::GET_PUSH_CONFIG => result(id, &gateway.get_hook(target, &params.read()?)?),
        methods::LIST_PUSH_CONFIGS => result(id, &gateway.list_hooks(target, &params.read()?)?),
        methods::DELETE_PUSH_CONFIG => {
            gateway.delete_hook(target, &params.read()?)?;
            result(id, &json!({}))
        }
        methods::GET_EXTENDED_AGENT_CARD => result(id, &gateway.extended_card(target, headers).await?),
        other => {
            let shown: String = other.chars().take(64).collect();
            let hint =
                if other.contains('/') { " (those of 0.3, such as message/send, are not spoken here)" } else { "" };
            let why = format!("A2A 1.0 has no method {shown:?}{hint}");
            Err(A2AError::new(::a2a::error_code::METHOD_NOT_FOUND, why))
        }
    }
}

struct Params(Value);

impl Params {
    fn read<T: DeserializeOwned>(self) -> Result<T, A2AError> {
        serde_json::from_value(self.0).map_err(|e| A2AError::invalid_params(format!("the params don't fit: {e}")))
    }
}

fn result<T: Serialize>(id: JsonRpcId, value: &T) -> Result<Response, A2AError> {
    let value = serde_json::to_value(value).map_err(|e| A2AError::internal(e.to_string()))?;
    Ok(Json(JsonRpcResponse::success(id, value)).into_response())
}

/// JSON-RPC says in the body what went wrong; the status is that of HTTP, which went well.
fn refused(id: JsonRpcId, error: &A2AError) -> Response {
    Json(JsonRpcResponse::error(id, error.to_jsonrpc_error())).into_response()
}

fn stream(id: JsonRpcId, follow: Follow) -> Response {
    let events = unfold((follow, id), |(mut follow, id)| async move {
        let event = follow.next().await?;
        let response = JsonRpcResponse::success(id.clone(), serde_json::to_value(event).unwrap_or_default());
        Some((Event::default().json_data(response), (follow, id)))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
