//! One signed POST, and what came of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};

use super::secret::Secrets;
use crate::agent::web;
use crate::limits::{MAX_PAYLOAD, MAX_TTL_S};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How much is read of a response that is no result: its beginning is quoted.
const MAX_QUOTED: usize = 4 * 1024;

/// Most characters of what went wrong that are told.
const MAX_WHY: usize = 200;

/// Where to post, and signed by what.
#[derive(Debug)]
pub(crate) struct Poster {
    client: Client,
    url: Url,
    secrets: Secrets,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
    /// Whether there was more than may be, or than is read of what is no result.
    pub(crate) cut: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Missed {
    /// No connection came about: nothing was posted.
    Unreached(String),
    /// There was a connection, and it ended without a response. What was posted may have been read.
    Broken(String),
}

impl Missed {
    /// In words.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Unreached(why) | Self::Broken(why) => why,
        }
    }
}

impl Poster {
    /// For a URL; the error says what is wrong with it, without repeating it.
    pub(crate) fn new(url: &str, secrets: Secrets) -> Result<Self, String> {
        let mut url = Url::parse(url).map_err(|error| format!("it is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err("it is not the URL of a web server: http://HOST/.. or https://HOST/..".to_owned());
        }
        url.set_fragment(None);
        Ok(Self { client: web::client(url.scheme() == "https")?, url, secrets })
    }

    /// Where that is, without what may be secret in it: user, password, path and query.
    pub(crate) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Posts this under that id. Dropping the future takes it back, as far as it can be.
    pub(crate) async fn post(&self, id: &str, body: Vec<u8>) -> Result<Response, Missed> {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        request = request.header(ID, id).header(TIMESTAMP, timestamp);
        if let Some(signatures) = self.secrets.sign(id, timestamp, &body)
            && let Ok(mut value) = HeaderValue::try_from(signatures)
        {
            value.set_sensitive(true);
            request = request.header(SIGNATURE, value);
        }
        let mut response = request.body(body).send().await.map_err(missed)?;
        let status = response.status();
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = text(CONTENT_TYPE).map(str::to_owned);
        // A date is possible as well; hardly anybody sends one, and then the usual pace does.
        let retry_after = text(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
        let retry_after = retry_after.map(|s: u64| Duration::from_secs(s.min(MAX_TTL_S)));
        let most = if status.is_success() { MAX_PAYLOAD } else { MAX_QUOTED };
        let mut read = Vec::new();
        let cut = loop {
            match response.chunk().await {
                Ok(Some(piece)) if read.len() + piece.len() > most => {
                    read.extend_from_slice(&piece[..most - read.len()]);
                    break true;
                }
                Ok(Some(piece)) => read.extend_from_slice(&piece),
                Ok(None) => break false,
                // What is quoted need not be whole; a result must be.
                Err(_) if !status.is_success() => break true,
                Err(error) => return Err(missed(error)),
            }
        };
        Ok(Response { status, content_type, retry_after, body: read, cut })
    }
}

fn missed(error: reqwest::Error) -> Missed {
    let why = if error.is_connect() && error.is_timeout() {
        format!("no connection within {} s", web::CONNECT.as_secs())
    } else {
        let why = web::innermost(&error);
        why.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect()
    };
    if error.is_connect() { Missed::Unreached(why) } else { Missed::Broken(why) }
}
