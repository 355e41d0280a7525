//! Who may ask: by which name this API is called, from which page, and with which token.
//!
//! A page in a browser on this machine can send requests to it, also under a name of its own that is made to lead here (DNS
//! rebinding). It can't choose the headers Host and Origin: those are looked at before the token.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};

use super::problem::Problem;
use super::token::Token;

/// The rules.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Token,
    /// The names and addresses by which it is called, in lower case, without brackets and port.
    hosts: Vec<String>,
}

impl Guard {
    /// For an API that listens there, and may be called by these names beside.
    pub(crate) fn new(token: Token, listen: SocketAddr, names: &[String]) -> Self {
        let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        if !listen.ip().is_unspecified() {
            hosts.push(listen.ip().to_string());
        }
        // As they are compared: whoever names a port means the name.
        hosts.extend(names.iter().filter_map(|name| host_of(name)));
        Self { token, hosts }
    }

    /// Whether whoever asks reached this API by a name of its own, and from a page of its own, if from a page.
    pub(crate) fn check_names(&self, request: &Request) -> Result<(), Problem> {
        self.check_host(request.headers(), request.uri())?;
        let Some(origin) = one(request.headers(), &ORIGIN)? else { return Ok(()) };
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).and_then(host_of);
        if host.is_some_and(|host| self.hosts.contains(&host)) {
            return Ok(());
        }
        let detail =
            format!("pages of {origin:?} may not use this API; --http-host NAME lets those of a name of yours");
        Err(Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN_ORIGIN", detail))
    }

    fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        let header = one(headers, &HOST)?;
        let names = [uri.authority().map(|authority| authority.as_str()), header];
        if names.iter().all(Option::is_none) {
            return Err(Problem::bad_request("the header Host is missing"));
        }
        for name in names.into_iter().flatten() {
            if !host_of(name).is_some_and(|host| self.hosts.contains(&host)) {
                let detail = format!("this API is not called {name:?}; --http-host NAME gives it another name");
                return Err(Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN_HOST", detail));
            }
        }
        Ok(())
    }

    /// Whether whoever asks has the token.
    pub(crate) fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let refused = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", detail);
        let Some(given) = one(headers, &AUTHORIZATION)? else {
            return Err(refused(
                "the token is missing: send `Authorization: Bearer TOKEN`, with what is in http.token in the node's home",
            ));
        };
        let token = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match token {
            Some((_, token)) if self.token.is(token.trim()) => Ok(()),
            Some(_) => Err(refused("the token is not that of this node: it is in http.token in the node's home")),
            None => Err(refused("only `Authorization: Bearer TOKEN` is taken here")),
        }
    }
}

/// A header that may stand there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Problem::bad_request(format!("the header {name} has characters that don't belong there"))),
        },
        _ => Err(Problem::bad_request(format!("the header {name} stands there more than once"))),
    }
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`, as it is compared.
fn host_of(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').map_or_else(|| rest.is_empty().then_some(""), Some)?)
        }
        // An address of IPv6 without brackets has no port.
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, ""),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_name = !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._:".contains(&c));
    if !is_name || !port.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    // Addresses have several spellings.
    Some(host.parse::<IpAddr>().map_or(host, |ip| ip.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let names = ["Box.example.org".to_owned(), "other.example.org:7880".to_owned()];
        Guard::new(Token::new("secret"), "10.1.2.3:80".parse().unwrap(), &names)
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn it_has_its_names_and_no_others() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1",
            "127.0.0.1:7880",
            "[::1]",
            "[::1]:80",
            "[0:0::1]",
            "10.1.2.3:1",
            "box.example.org",
            "box.example.org.:443",
            "other.example.org",
        ] {
            assert_eq!(guard().check_names(&request(&[("host", host)])), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "localhost:80:90",
            "[::1]x",
            "[::1",
            "user@localhost",
            "10.1.2.4",
            "localhost:evil",
            "::2",
            "127.1",
        ] {
            let problem = guard().check_names(&request(&[("host", host)])).unwrap_err();
            assert_eq!(problem.status(), 403, "{host}");
        }
        assert_eq!(guard().check_names(&request(&[])).unwrap_err().status(), 400);
        assert_eq!(
            guard().check_names(&request(&[("host", "localhost"), ("host", "localhost")])).unwrap_err().status(),
            400
        );
    }

    #[test]
    fn pages_of_others_are_refused() {
        let from = |origin: &str| guard().check_names(&request(&[("host", "localhost"), ("origin", origin)]));
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:1", "https://box.example.org"] {
            assert_eq!(from(origin), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "http://evil.example",
            "file://localhost",
            "localhost",
            "",
            "http://localhost/x",
            "http://localhost@evil",
        ] {
            assert_eq!(from(origin).unwrap_err().status(), 403, "{origin}");
        }
    }

    #[test]
    fn only_the_token_opens() {
        let with = |value: &str| guard().check_token(request(&[("authorization", value)]).headers());
        assert_eq!(with("Bearer secret"), Ok(()));
        assert_eq!(with("bearer secret"), Ok(()));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer Secret"]
        {
            assert_eq!(with(wrong).unwrap_err().status(), 401, "{wrong:?}");
        }
        assert_eq!(guard().check_token(request(&[]).headers()).unwrap_err().status(), 401);
    }
}
