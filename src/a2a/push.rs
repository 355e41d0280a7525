//! Web hooks of tasks: this node posts what becomes of a call that it made, wherever in the mesh that is answered.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::a2a::{A2AError, StreamResponse, TaskPushNotificationConfig};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::rest::MEDIA_TYPE;
use super::view::About;
use crate::agent::web;
use crate::service::{CallState, Service};
use crate::wire::is_name;

/// The most that are posted at once.
const AT_ONCE: usize = 64;

/// How long one may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The pauses after attempts that failed; after the last of them it is left.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// The longest URL, and the longest token or credentials.
const MAX_URL: usize = 2048;
const MAX_SECRET: usize = 4096;

/// The header that shows the hook that it is meant.
const TOKEN: HeaderName = HeaderName::from_static("x-a2a-notification-token");

/// Posts to web hooks.
#[derive(Debug)]
pub(super) struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Arc<Service>,
    room: Semaphore,
    plain: OnceLock<Result<Client, String>>,
    https: OnceLock<Result<Client, String>>,
}

impl Sender {
    pub(super) fn new(service: &Arc<Service>) -> Self {
        Self(Arc::new(Inner {
            service: Arc::clone(service),
            room: Semaphore::new(AT_ONCE),
            plain: OnceLock::new(),
            https: OnceLock::new(),
        }))
    }

    /// The same with an id, if it can be used.
    pub(super) fn checked(
        &self,
        mut config: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        let id = config.id.take().filter(|id| !id.is_empty()).unwrap_or_else(::a2a::new_task_id);
        if !is_name(&id) {
            return Err(A2AError::invalid_params("the id of a web hook has 1 to 128 characters"));
        }
        config.id = Some(id);
        config.tenant = None;
        let url = url_of(&config)?;
        headers_of(&config)?;
        self.0.client(&url).map_err(A2AError::internal)?;
        Ok(config)
    }

    /// Posts what becomes of a task from now on, and how it is if that is more than that it was sent. Ends with the task.
    pub(super) fn start(&self, about: About, config: TaskPushNotificationConfig) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self.0).follow(about, config)))
    }
}

impl Inner {
    fn client(&self, url: &Url) -> Result<Client, String> {
        let secure = url.scheme() == "https";
        let client = if secure { &self.https } else { &self.plain };
        client.get_or_init(|| web::client(secure)).clone()
    }

    /// Each state that it is in when the one before is posted: what lies between is left out for a slow hook.
    async fn follow(self: Arc<Self>, about: About, config: TaskPushNotificationConfig) {
        let calls = Arc::clone(self.service.calls());
        let Some(mut news) = calls.news(&about.id) else { return };
        let mut told = CallState::Sent;
        loop {
            let Some(progress) = calls.look(&about.id, 0) else { return };
            if progress.state != told {
                told = progress.state;
                let event = match (told.is_over(), calls.head(&about.id)) {
                    (false, Some(head)) => about.status_event(&head),
                    _ => StreamResponse::Task(about.task(&progress, Some(0), true)),
                };
                self.deliver(&config, &event).await;
            }
            if told.is_over() || news.changed().await.is_err() {
                return;
            }
        }
    }

    async fn deliver(&self, config: &TaskPushNotificationConfig, event: &StreamResponse) {
        // All of it was looked at when the hook was set.
        let (Ok(url), Ok(headers), Ok(body)) = (url_of(config), headers_of(config), serde_json::to_vec(event)) else {
            return;
        };
        let Ok(client) = self.client(&url) else { return };
        let body = bytes::Bytes::from(body);
        let mut pauses = PAUSES.iter();
        loop {
            let attempt = {
                let Ok(_place) = self.room.acquire().await else { return };
                let request = client.post(url.clone()).headers(headers.clone()).body(body.clone()).timeout(ATTEMPT);
                request.send().await.map(|response| response.status())
            };
            let why = match attempt {
                Ok(status) if status.is_success() => return,
                Ok(status) if !may_pass(status) => {
                    tracing::warn!(task = config.task_id, host = url.host_str(), %status, "an A2A web hook refuses what is posted");
                    return;
                }
                Ok(status) => status.to_string(),
                Err(error) => web::innermost(&error),
            };
            let Some(pause) = pauses.next() else {
                tracing::warn!(task = config.task_id, host = url.host_str(), why, "an A2A web hook is not reached");
                return;
            };
            tokio::time::sleep(*pause).await;
        }
    }
}

/// Whether it may be taken later.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn url_of(config: &TaskPushNotificationConfig) -> Result<Url, A2AError> {
    let wrong = |why: &str| A2AError::invalid_params(format!("the URL of a web hook {why}"));
    if config.url.len() > MAX_URL {
        return Err(wrong(&format!("has at most {MAX_URL} bytes")));
    }
    let url = Url::parse(&config.url).map_err(|e| wrong(&format!("can't be read: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("begins with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("names no user: credentials go into `authentication`"));
    }
    Ok(url)
}

fn headers_of(config: &TaskPushNotificationConfig) -> Result<HeaderMap, A2AError> {
    let secret = |what: &str, text: &str| {
        let wrong = || {
            A2AError::invalid_params(format!(
                "{what} of a web hook has to fit into a header: at most {MAX_SECRET} bytes"
            ))
        };
        let mut value = HeaderValue::from_str(text).map_err(|_| wrong())?;
        value.set_sensitive(true);
        if text.len() > MAX_SECRET { Err(wrong()) } else { Ok(value) }
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(
        ::a2a::SVC_PARAM_VERSION
            .to_ascii_lowercase()
            .parse::<HeaderName>()
            .map_err(|e| A2AError::internal(e.to_string()))?,
        HeaderValue::from_static(::a2a::VERSION),
    );
    if let Some(token) = config.token.as_deref().filter(|token| !token.is_empty()) {
        headers.insert(TOKEN, secret("the token", token)?);
    }
    if let Some(authentication) = &config.authentication {
        let credentials = authentication.credentials.as_deref().unwrap_or_default();
        if authentication.scheme.is_empty() || credentials.is_empty() {
            return Err(A2AError::invalid_params("the authentication of a web hook has a scheme and credentials"));
        }
        headers
            .insert(AUTHORIZATION, secret("the authentication", &format!("{} {credentials}", authentication.scheme))?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::a2a::AuthenticationInfo;

    fn config(url: &str) -> TaskPushNotificationConfig {
        TaskPushNotificationConfig {
            url: url.to_owned(),
            id: None,
            task_id: String::new(),
            token: None,
            authentication: None,
            tenant: None,
        }
    }

    #[test]
    fn only_urls_of_the_web_are_posted_to() {
        for url in ["http://127.0.0.1:9/x", "https://example.org", "http://[::1]/"] {
            assert!(url_of(&config(url)).is_ok(), "{url}");
        }
        let long = format!("http://h/{}", "x".repeat(MAX_URL));
        for url in ["", "file:///etc/passwd", "ftp://h/", "gopher://h", "http://", "//h", "http://user:pw@h/", &long] {
            assert!(url_of(&config(url)).is_err(), "{url}");
        }
    }

    #[test]
    fn a_hook_is_shown_its_token_and_credentials() {
        let mut config = config("http://h/");
        config.token = Some("t-1".to_owned());
        config.authentication =
            Some(AuthenticationInfo { scheme: "Bearer".to_owned(), credentials: Some("secret".to_owned()) });
        let headers = headers_of(&config).unwrap();
        assert_eq!(headers[&TOKEN], "t-1");
        assert_eq!(headers[AUTHORIZATION], "Bearer secret");
        assert_eq!(headers[CONTENT_TYPE], "application/a2a+json");
        assert!(!format!("{headers:?}").contains("secret"));
        for wrong in ["a\nb", "a\r\nX-Evil: 1", &"x".repeat(MAX_SECRET + 1)] {
            config.token = Some(wrong.to_owned());
            assert!(headers_of(&config).is_err(), "{wrong:?}");
        }
    }
}
