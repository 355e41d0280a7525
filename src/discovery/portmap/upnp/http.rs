//! One question and one answer by HTTP/1.1, over a connection for each: as gateways speak it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one question with its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most that is read of an answer.
const MAX: usize = 256 * 1024;

/// The longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// The longest path.
const MAX_PATH: usize = 2048;

/// Where something is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addr: SocketAddrV4,
    /// With the query; it begins with a `/`, and has only visible ASCII.
    path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.addr, self.path)
    }
}

impl Place {
    /// Of an URL with an IPv4 address. Names are not looked up.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let with_port = || host.parse().ok();
        let addr = host.parse::<Ipv4Addr>().map(|ip| SocketAddrV4::new(ip, 80)).ok().or_else(with_port)?;
        Self::at(addr, path)
    }

    fn at(addr: SocketAddrV4, path: &str) -> Option<Self> {
        let path = path.split_once('#').map_or(path, |(path, _)| path);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        (path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Self { addr, path })
    }

    /// Where a reference leads that is found here.
    pub(super) fn join(&self, reference: &str) -> Option<Self> {
        let reference = reference.trim();
        if reference.starts_with("//") {
            return Self::parse(&format!("http:{reference}"));
        }
        if reference.starts_with('/') {
            return Self::at(self.addr, reference);
        }
        // A scheme.
        if reference.find(':').is_some_and(|at| !reference[..at].contains(['/', '?', '#'])) {
            return Self::parse(reference);
        }
        let here = self.path.split('?').next().unwrap_or_default();
        let folder = here.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self::at(self.addr, &format!("{folder}/{reference}"))
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

pub(super) async fn get(place: &Place) -> Result<Answer, String> {
    ask(place, format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", place.path, place.addr)).await
}

pub(super) async fn post(place: &Place, action: &str, body: &str) -> Result<Answer, String> {
    let (length, Place { addr, path }) = (body.len(), place);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
         SOAPAction: {action}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    // In one packet: some read no further.
    ask(place, head + body).await
}

async fn ask(place: &Place, question: String) -> Result<Answer, String> {
    let sent = async {
        let mut stream = TcpStream::connect(place.addr).await?;
        stream.write_all(question.as_bytes()).await?;
        std::io::Result::Ok(stream)
    };
    let asked = async {
        let mut stream = sent.await.map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        loop {
            if let Some(answer) = answer(&bytes, false)? {
                return Ok(answer);
            }
            if bytes.len() >= MAX {
                return Err(format!("more than {MAX} bytes of answer"));
            }
            bytes.reserve(4096);
            // Some reset the connection instead of ending it.
            if matches!(stream.read_buf(&mut bytes).await, Ok(0) | Err(_)) {
                return answer(&bytes, true)?.ok_or_else(|| "the answer breaks off".to_owned());
            }
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// The answer, if it is whole. `ended`: no more comes.
fn answer(bytes: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    let head = bytes.windows(4).take(MAX_HEAD).position(|four| four == b"\r\n\r\n");
    let Some(at) = head else {
        return if bytes.len() > MAX_HEAD { Err("no HTTP".to_owned()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..at]).map_err(|_| "no HTTP".to_owned())?;
    let body = &bytes[at + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or("no HTTP")?;
    let (mut length, mut is_chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().map_err(|_| "no length that can be read".to_owned())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
    let body = match length {
        _ if is_chunked => chunks(body)?,
        Some(length) => body.get(..length).map(<[u8]>::to_vec),
        None => ended.then(|| body.to_vec()),
    };
    Ok(body.map(|body| Answer { status, body: String::from_utf8_lossy(&body).into_owned() }))
}

/// What comes in chunks, if it is whole.
fn chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut whole = Vec::new();
    loop {
        let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = std::str::from_utf8(&bytes[..at]).ok();
        let length = line.and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let length = length.filter(|length| *length <= MAX).ok_or("chunks that can't be read")?;
        if length == 0 {
            return Ok(Some(whole));
        }
        bytes = &bytes[at + 1..];
        let Some(chunk) = bytes.get(..length) else { return Ok(None) };
        whole.extend_from_slice(chunk);
        // And the end of its line.
        let Some(rest) = bytes.get(length + 2..) else { return Ok(None) };
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, ended: bool) -> Option<(u16, String)> {
        answer(text.as_bytes(), ended).unwrap().map(|answer| (answer.status, answer.body))
    }

    #[test]
    fn an_answer_ends_as_it_says() {
        let fine = Some((200, "<a/>".to_owned()));
        let length = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 4\r\n\r\n<a/>";
        assert_eq!(whole(length, false), fine);
        assert_eq!(whole(&format!("{length}more"), false), fine);
        assert_eq!(whole(&length[..length.len() - 1], true), None);
        let open = "HTTP/1.0 500 no\r\n\r\nwhy";
        assert_eq!(whole(open, false), None);
        assert_eq!(whole(open, true), Some((500, "why".to_owned())));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n<a/\r\n1\r\n>\r\n0\r\n";
        assert_eq!(whole(chunked, false), fine);
        for end in 0..chunked.len() - 1 {
            assert_eq!(whole(&chunked[..end], false), None, "{end}");
        }
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        let chunked = |chunks: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            "HTTP/1.1\r\n\r\n".to_owned(),
            "HTTP/1.1 99999 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
            "a".repeat(MAX_HEAD + 1),
            chunked("ffffffffffffffff\r\n"),
            chunked("-1\r\n"),
            chunked("\n"),
        ] {
            assert!(answer(text.as_bytes(), true).is_err(), "{text:.60}");
        }
    }

    #[test]
    fn references_lead_somewhere() {
        let here = Place::parse("HTTP://10.0.0.1/a/b.xml?c=/d#e").unwrap();
        assert_eq!(here.to_string(), "10.0.0.1:80/a/b.xml?c=/d");
        for (reference, place) in [
            ("/x", "10.0.0.1:80/x"),
            ("x?y", "10.0.0.1:80/a/x?y"),
            ("x:y", ""),
            ("./x:y", "10.0.0.1:80/a/./x:y"),
            ("//10.0.0.2:8/x", "10.0.0.2:8/x"),
            ("http://10.0.0.2?x", "10.0.0.2:80/?x"),
            ("http://[::1]/", ""),
            ("/a b", ""),
            ("/\u{e4}", ""),
        ] {
            assert_eq!(here.join(reference).map_or_else(String::new, |place| place.to_string()), place, "{reference}");
        }
    }
}
