//! Asking a tracker whether this node can be dialled: the question, the one line that comes to the listener, the answer.
//!
//! None of them is signed: they are between two neighbours on a proven connection, and what is believed is the nonce that
//! came in over the listener.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::fields::Fields;
use super::json::{Builder, Object};
use super::message::{Malformed, WireError};

/// The type of the line that a tracker writes to what it dials.
pub const PROBE: &str = "dial_back_probe";

/// What nobody can guess: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeNonce([u8; 16]);

impl ProbeNonce {
    /// Of random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl std::fmt::Display for ProbeNonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl std::fmt::Debug for ProbeNonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeNonce(..)")
    }
}

/// "Can you dial me at the address I come from, at this port?"
#[derive(Clone, Debug)]
pub struct DialBack {
    /// Chosen by the asker.
    pub id: String,
    /// The port; never 0.
    pub port: u16,
    /// What the tracker is to bring to that port.
    pub nonce: ProbeNonce,
}

/// What came of it, in the tracker's words.
#[derive(Clone, Debug)]
pub struct DialBackResult {
    /// The question's id.
    pub id: String,
    /// What was, or would have been, dialled.
    pub addr: SocketAddr,
    /// Whether somebody took the line there; else why not.
    pub outcome: Result<(), WireError>,
}

impl DialBack {
    pub(super) fn read(f: &Fields<'_>) -> Result<Self, Malformed> {
        let port = u16::try_from(f.u64("port")?).ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| f.malformed("port: 1 to 65535"))?;
        Ok(Self { id: f.id()?, port, nonce: nonce(f)? })
    }
}

impl DialBackResult {
    pub(super) fn read(
        f: &Fields<'_>,
        error: impl FnOnce() -> Result<WireError, Malformed>,
    ) -> Result<Self, Malformed> {
        let addr = f.text("addr")?.parse().map_err(|_| f.malformed("addr: expected ip:port"))?;
        let ok = f.opt_bool("ok")?.ok_or_else(|| f.malformed("ok: missing"))?;
        let outcome = match (ok, f.opt_raw("error")) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(error()?),
            (false, None) => Err(WireError::new(crate::error::ErrorCode::NoPeer, "no reason was given")),
        };
        Ok(Self { id: f.id()?, addr, outcome })
    }
}

fn nonce(f: &Fields<'_>) -> Result<ProbeNonce, Malformed> {
    let mut nonce = [0; 16];
    // One spelling per nonce: the decoder refuses padding and stray bits.
    match URL_SAFE_NO_PAD.decode_slice(f.text("nonce")?.as_bytes(), &mut nonce) {
        Ok(16) => Ok(ProbeNonce(nonce)),
        _ => Err(f.malformed("nonce: expected 16 bytes in URL-safe base64 without padding")),
    }
}

/// The nonce of a probe; `None`: it is another message.
pub fn read_probe(object: &Object) -> Option<Result<ProbeNonce, Malformed>> {
    let f = Fields::new(object).ok()?;
    (f.kind() == PROBE).then(|| nonce(&f))
}

/// The one line that a tracker writes to what it dials. It names nothing that the asker chose freely: what stands at the
/// port may be somebody else's.
pub fn probe(nonce: &ProbeNonce) -> Object {
    Builder::new(PROBE).str("nonce", &nonce.to_string()).build()
}

/// Asks a tracker.
pub fn dial_back(id: &str, port: u16, nonce: &ProbeNonce) -> Object {
    Builder::new("dial_back").str("id", id).u64("port", port.into()).str("nonce", &nonce.to_string()).build()
}

/// Answers one who asked.
pub fn dial_back_result(id: &str, addr: SocketAddr, outcome: &Result<(), WireError>) -> Object {
    let b = Builder::new("dial_back_result").str("id", id).str("addr", &addr.to_string());
    match outcome {
        Ok(()) => b.bool("ok", true).build(),
        Err(error) => b.bool("ok", false).raw("error", &error.to_json()).build(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::ErrorCode;
    use crate::wire::Message;

    fn parse(text: &str) -> Result<Message, Malformed> {
        Message::parse(&Object::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap())
    }

    #[test]
    fn what_is_written_reads_back() {
        let nonce = ProbeNonce::new([7; 16]);
        let Ok(Message::DialBack(asked)) = Message::parse(&dial_back("a", 7878, &nonce)) else { panic!() };
        assert_eq!((asked.id.as_str(), asked.port, asked.nonce), ("a", 7878, nonce));
        assert_eq!(read_probe(&probe(&nonce)), Some(Ok(nonce)));
        assert!(read_probe(&dial_back("a", 1, &nonce)).is_none());
        let addr = "[2001:db8::1]:5".parse().unwrap();
        for outcome in [Ok(()), Err(WireError::new(ErrorCode::RateLimited, "slow down").retry_after_s(7))] {
            let Ok(Message::DialBackResult(m)) = Message::parse(&dial_back_result("a", addr, &outcome)) else {
                panic!()
            };
            assert_eq!((m.id.as_str(), m.addr, m.outcome), ("a", addr, outcome));
        }
    }

    #[test]
    fn what_is_not_a_question_or_an_answer_is_refused_by_its_member() {
        let good = "AAAAAAAAAAAAAAAAAAAAAA";
        let ask =
            |port: &str, nonce: &str| format!(r#"{{"type":"dial_back","id":"1","port":{port},"nonce":"{nonce}"}}"#);
        assert!(parse(&ask("1", good)).is_ok() && parse(&ask("65535", good)).is_ok());
        for (port, nonce, member) in [
            ("0", good, "port"),
            ("65536", good, "port"),
            ("-1", good, "port"),
            ("\"80\"", good, "port"),
            ("80.5", good, "port"),
            ("80", "", "nonce"),
            ("80", "AAAA", "nonce"),
            ("80", "AAAAAAAAAAAAAAAAAAAAAB", "nonce"),
            ("80", "AAAAAAAAAAAAAAAAAAAAAA==", "nonce"),
        ] {
            let why = parse(&ask(port, nonce)).unwrap_err().why;
            assert!(why.contains(member), "{port} {nonce}: {why}");
        }
        for (text, member) in [
            (r#"{"type":"dial_back_result","id":"1","ok":true}"#, "addr"),
            (r#"{"type":"dial_back_result","id":"1","ok":true,"addr":"host:80"}"#, "addr"),
            (r#"{"type":"dial_back_result","id":"1","addr":"1.2.3.4:5"}"#, "ok"),
            (r#"{"type":"dial_back_result","id":"1","addr":"1.2.3.4:5","ok":1}"#, "ok"),
            (r#"{"type":"dial_back_result","ok":true,"addr":"1.2.3.4:5"}"#, "id"),
        ] {
            let why = parse(text).unwrap_err().why;
            assert!(why.contains(member), "{text}: {why}");
        }
    }
}
