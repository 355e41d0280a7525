//! The HTTP+JSON binding: paths and methods of HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use ::a2a::{
    A2AError, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest, GetTaskPushNotificationConfigRequest,
    GetTaskRequest, ListTaskPushNotificationConfigsRequest, ListTasksRequest, SubscribeToTaskRequest,
    TaskPushNotificationConfig, TypedDetail, errordetails,
};
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::unfold;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Gateway;
use super::fault::no_task;
use super::stream::Follow;
use super::target::Target;
use crate::http::{Problem, read_body};

/// The media type of A2A's JSON.
pub(super) const MEDIA_TYPE: &str = "application/a2a+json";

/// The name of the header, in lower case, that says which version a client speaks.
const VERSION: &str = "a2a-version";

type In = HashMap<String, String>;
type Answer = Result<Response, Refused>;

pub(super) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/message:send", post(send))
        .route("/message:stream", post(send_streaming))
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(of_task).post(do_with_task))
        .route("/tasks/{id}/pushNotificationConfigs", get(list_hooks).post(set_hook))
        .route("/tasks/{id}/pushNotificationConfigs/{config}", get(get_hook).delete(delete_hook))
        .route("/extendedAgentCard", get(extended_card))
}

/// Whether the client speaks the version that is spoken here. One that doesn't say speaks 0.3.
pub(super) fn check_version(headers: &HeaderMap, uri: &Uri) -> Result<(), A2AError> {
    let header = headers.get(VERSION).map(|value| value.to_str().unwrap_or("?"));
    let in_query = || {
        let pairs = uri.query().unwrap_or_default().split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case(VERSION))
            .map(|(_, v)| v)
    };
    let version = header.filter(|version| !version.is_empty()).or_else(in_query).unwrap_or("0.3").trim();
    if version.split('.').next() == Some("1")
        && version.split('.').all(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
    {
        return Ok(());
    }
    let shown: String = version.chars().take(32).collect();
    let why =
        format!("version {shown:?} is not spoken here: send the header `A2A-Version: 1.0` (without it 0.3 is meant)");
    Err(A2AError::new(::a2a::error_code::VERSION_NOT_SUPPORTED, why))
}

/// A request that is refused.
pub(super) enum Refused {
    A2a(A2AError),
    Http(Problem),
}

impl From<A2AError> for Refused {
    fn from(error: A2AError) -> Self {
        Self::A2a(error)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Http(problem)
    }
}

impl IntoResponse for Refused {
    /// Errors of A2A are written as `google.rpc.Status`.
    fn into_response(self) -> Response {
        let error = match self {
            Self::Http(problem) => return problem.into_response(),
            Self::A2a(error) => error,
        };
        let status = StatusCode::from_u16(error.http_status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let reason = ::a2a::error_reason(error.code);
        let mut details = error.details.unwrap_or_default();
        if !details.iter().any(|detail| detail.type_url == errordetails::ERROR_INFO_TYPE) {
            details.push(TypedDetail::error_info(reason, errordetails::PROTOCOL_DOMAIN, None));
        }
        let body = json!({
            "error": {
                "code": status.as_u16(),
                "status": rpc_status(error.code),
                "message": error.message,
                "details": details,
            }
        });
        (status, axum::Json(body)).into_response()
    }
}

fn rpc_status(code: i32) -> &'static str {
    use ::a2a::error_code;
    match code {
        error_code::TASK_NOT_FOUND => "NOT_FOUND",
        error_code::METHOD_NOT_FOUND => "UNIMPLEMENTED",
        error_code::CONTENT_TYPE_NOT_SUPPORTED
        | error_code::PARSE_ERROR
        | error_code::INVALID_REQUEST
        | error_code::INVALID_PARAMS => "INVALID_ARGUMENT",
        error_code::INTERNAL_ERROR | error_code::INVALID_AGENT_RESPONSE => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    }
}

fn target(path: &In) -> Result<Target, Refused> {
    match path.get("agent") {
        Some(agent) => Ok(Target::parse(agent).map_err(Problem::bad_request)?),
        None => Ok(Target::default()),
    }
}

fn part<'a>(path: &'a In, name: &str) -> &'a str {
    path.get(name).map_or("", String::as_str)
}

async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && essence != MEDIA_TYPE {
        let why = format!("the body is {given:?}: send application/json or {MEDIA_TYPE}");
        return Err(A2AError::new(::a2a::error_code::CONTENT_TYPE_NOT_SUPPORTED, why).into());
    }
    let body = read_body(request).await?;
    serde_json::from_slice(&body).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => A2AError::invalid_params(format!("the body does not fit: {e}")).into(),
        _ => A2AError::parse_error(format!("the body is no JSON: {e}")).into(),
    })
}

/// What stands behind the `?`, as a request has it.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    let read = Query::<T>::try_from_uri(uri);
    Ok(read.map(|query| query.0).map_err(|e| A2AError::invalid_params(e.body_text()))?)
}

fn json_of<T: Serialize>(value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|e| A2AError::internal(e.to_string()))?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], body).into_response())
}

fn stream(follow: Follow) -> Response {
    let events = unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Event::default().json_data(event), follow))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

type Here = State<Arc<Gateway>>;

async fn send(State(gateway): Here, Path(path): Path<In>, request: Request) -> Answer {
    check_version(request.headers(), request.uri())?;
    let task = gateway.send(&target(&path)?, body(request).await?).await?;
    json_of(&::a2a::SendMessageResponse::Task(task))
}

async fn send_streaming(State(gateway): Here, Path(path): Path<In>, request: Request) -> Answer {
    check_version(request.headers(), request.uri())?;
    Ok(stream(gateway.send_streaming(&target(&path)?, body(request).await?).await?))
}

async fn list(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    json_of(&gateway.list(&target(&path)?, &query::<ListTasksRequest>(&uri)?)?)
}

/// What is known of it, or with `:subscribe` what happens to it.
async fn of_task(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    let (target, id) = (target(&path)?, part(&path, "id"));
    if let Some(id) = id.strip_suffix(":subscribe") {
        return subscribe(&gateway, &target, id);
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct More {
        history_length: Option<i32>,
    }
    let More { history_length } = query(&uri)?;
    json_of(&gateway.get(&target, &GetTaskRequest { id: id.to_owned(), history_length, tenant: None })?)
}

fn subscribe(gateway: &Gateway, target: &Target, id: &str) -> Answer {
    Ok(stream(gateway.subscribe(target, &SubscribeToTaskRequest { id: id.to_owned(), tenant: None })?))
}

/// `:cancel` or `:subscribe`.
async fn do_with_task(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    let (target, id) = (target(&path)?, part(&path, "id"));
    if let Some(id) = id.strip_suffix(":subscribe") {
        return subscribe(&gateway, &target, id);
    }
    let Some(id) = id.strip_suffix(":cancel") else {
        return Err(no_task(id).into());
    };
    let request = CancelTaskRequest { id: id.to_owned(), metadata: None, tenant: None };
    json_of(&gateway.cancel(&target, &request).await?)
}

async fn set_hook(State(gateway): Here, Path(path): Path<In>, request: Request) -> Answer {
    check_version(request.headers(), request.uri())?;
    let mut config: TaskPushNotificationConfig = body(request).await?;
    let id = part(&path, "id");
    if !config.task_id.is_empty() && config.task_id != id {
        return Err(A2AError::invalid_params("taskId is not the task that the path names").into());
    }
    config.task_id = id.to_owned();
    json_of(&gateway.set_hook(&target(&path)?, config)?)
}

async fn list_hooks(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    let task_id = part(&path, "id").to_owned();
    let request = ListTaskPushNotificationConfigsRequest { task_id, page_size: None, page_token: None, tenant: None };
    json_of(&gateway.list_hooks(&target(&path)?, &request)?)
}

async fn get_hook(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    let (task_id, id) = (part(&path, "id").to_owned(), part(&path, "config").to_owned());
    let request = GetTaskPushNotificationConfigRequest { task_id, id, tenant: None };
    json_of(&gateway.get_hook(&target(&path)?, &request)?)
}

async fn delete_hook(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    let (task_id, id) = (part(&path, "id").to_owned(), part(&path, "config").to_owned());
    let request = DeleteTaskPushNotificationConfigRequest { task_id, id, tenant: None };
    gateway.delete_hook(&target(&path)?, &request)?;
    json_of(&Value::Object(serde_json::Map::new()))
}

async fn extended_card(State(gateway): Here, Path(path): Path<In>, headers: HeaderMap, uri: Uri) -> Answer {
    check_version(&headers, &uri)?;
    json_of(&gateway.extended_card(&target(&path)?, &headers).await?)
}
