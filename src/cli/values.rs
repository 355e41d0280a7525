//! What stands on the command line, read: times, addresses, names, payloads.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::identity::NodeId;
use crate::info::Sealing;
use crate::limits::{MAX_NAME, MAX_PAYLOAD, MAX_TTL_S};
use crate::mesh::handshake::Tls;
use crate::node::Dht;
use crate::wire::is_name;

use super::failure::{Failure, NOT_DELIVERED};

/// The port of a peer given without one.
pub(super) const DEFAULT_PORT: u16 = 7878;

/// A span of time: `500ms`, `10s`, `2m`, `1h`, or plain seconds (`2.5`). Above zero, at most a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("say it as 500ms, 10s, 2m, 1h, or in seconds".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "say it as 500ms, 10s, 2m, 1h, or in seconds".to_owned())?;
    let seconds = number * scale;
    if seconds > MAX_TTL_S as f64 {
        return Err("at most 24h".to_owned());
    }
    let duration = Duration::from_secs_f64(seconds);
    if duration < Duration::from_millis(1) { Err("at least 1ms".to_owned()) } else { Ok(duration) }
}

/// A span of time that may be none: `0`, else as [`duration`].
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

/// The size of a payload: `350`, `350B`, `10kB`, `64KiB`. What it is of needs 2 bytes, and more than fits is not sent.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let wrong = || "say it as 350, 350B, 10kB or 64KiB".to_owned();
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let scale: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "kib" => 1 << 10,
        "mb" | "m" => 1_000_000,
        "mib" => 1 << 20,
        _ => return Err(wrong()),
    };
    let number: usize = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(scale) {
        Some(size) if (2..=MAX_PAYLOAD).contains(&size) => Ok(size),
        _ => Err(format!("a payload has 2 to {MAX_PAYLOAD} bytes")),
    }
}

/// A peer: `[ID@]HOST[:PORT]`, with the default port put in where none is said.
pub(super) fn peer(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err("a peer is no URL: say it as HOST, HOST:PORT or ID@HOST:PORT".to_owned());
    }
    let (id, address) = match text.split_once('@') {
        Some((id, address)) => {
            let id = NodeId::from_str(id).map_err(|e| format!("before the @ stands no node id: {e}"))?;
            (Some(id), address)
        }
        None => (None, text),
    };
    let (host, port) = host_port(address)?;
    Ok(match id {
        Some(id) => format!("{id}@{host}:{port}"),
        None => format!("{host}:{port}"),
    })
}

/// Whether what trackers pass on is sealed.
pub(super) fn sealing(text: &str) -> Result<Sealing, String> {
    match text.trim() {
        "off" => Ok(Sealing::Off),
        "preferred" => Ok(Sealing::Preferred),
        "required" => Ok(Sealing::Required),
        _ => Err(format!("{text:?} is none of preferred, required and off")),
    }
}

/// Whether connections are encrypted: `preferred`, `required` or `off`.
pub(super) fn tls(text: &str) -> Result<Tls, String> {
    match text.trim() {
        "preferred" => Ok(Tls::Preferred),
        "required" => Ok(Tls::Required),
        "off" => Ok(Tls::Off),
        _ => Err(format!("{text:?} is none of preferred, required and off")),
    }
}

/// Which DHT: `mesh`, `off`, `public`, or `HOST[:PORT]` of nodes in it, with commas between them.
pub(super) fn dht(text: &str) -> Result<Dht, String> {
    match text.trim() {
        "mesh" => return Ok(Dht::Mesh),
        "off" => return Ok(Dht::Off),
        "public" => return Ok(Dht::Public),
        _ => {}
    }
    let mut nodes = Vec::new();
    for node in text.split(',').map(str::trim) {
        if matches!(node, "mesh" | "off" | "public") {
            return Err("off, mesh and public stand alone, or name nodes as HOST:PORT".to_owned());
        }
        let (host, port) = host_port(node).map_err(|_| {
            format!("{node:?} is none of mesh, off, public and HOST:PORT of a node in the DHT (several with commas)")
        })?;
        if host.starts_with('[') {
            return Err(format!("{node:?}: the DHT is IPv4 only"));
        }
        // A single word is rather a mode put wrongly than a machine.
        if !node.contains(['.', ':']) && node != "localhost" {
            return Err(format!(
                "{node:?} is none of mesh, off and public; if it is the host of a node in the DHT, say {node}:{port}"
            ));
        }
        nodes.push(format!("{host}:{port}"));
    }
    Ok(Dht::Bootstrap(nodes))
}

fn host_port(address: &str) -> Result<(String, u16), String> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the ] after the IPv6 address is missing")?;
        if rest.is_empty() {
            (host, None)
        } else {
            (host, Some(rest.strip_prefix(':').ok_or("after the ] only :PORT may stand")?))
        }
    } else if address.matches(':').count() > 1 {
        (address, None)
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("{port:?} is not a port (1 to 65535)")),
            Ok(port) => port,
        },
    };
    if host.contains(':') {
        let ip: std::net::Ipv6Addr = host.parse().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
        return Ok((format!("[{ip}]"), port));
    }
    let valid = !host.is_empty() && host.len() <= 253 && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
    if !valid {
        return Err("say it as HOST, HOST:PORT or ID@HOST:PORT".to_owned());
    }
    Ok((host.to_owned(), port))
}

/// An address to publish: `IP[:PORT]`.
pub(super) fn advertised(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, DEFAULT_PORT));
    }
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => Err("port 0 can't be dialled by others".to_owned()),
        Ok(addr) => Ok(addr),
        Err(_) => Err("say it as IP:PORT; a host name is not published, its address is".to_owned()),
    }
}

/// A network interface: its name or its address.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("say an interface's name or address: eth0, lo, 192.168.1.5".to_owned())
    }
}

/// A name: of a capability, an interest, an event type or a node.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("a name has 1 to {MAX_NAME} characters, and no control characters"))
    }
}

/// Names a node: its name, its id or the beginning of it. One id in 64 begins with a hyphen, as flags do.
pub(super) fn node(text: &str) -> Result<String, String> {
    if text.starts_with("--") && text.parse::<NodeId>().is_err() {
        return Err(format!("{text:?} looks like a flag, not like a node"));
    }
    Ok(text.to_owned())
}

/// A node id in full.
pub(super) fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::from_str(text.trim_start()).map_err(|e| format!("{e}; `elo id` prints a node's id"))
}

/// A payload as JSON text: the argument's own text if it is JSON (every digit kept), else a JSON string of it;
/// `-` reads stdin, nothing is `null`.
pub(super) fn payload(argument: Option<&str>) -> Result<Box<RawValue>, Failure> {
    match argument {
        None => json_or_text("null".to_owned()),
        Some("-") => json_or_text(read_bounded(std::io::stdin().lock())?),
        Some(text) => json_or_text(text.to_owned()),
    }
}

fn json_or_text(text: String) -> Result<Box<RawValue>, Failure> {
    let raw = match serde_json::from_str::<&RawValue>(&text) {
        Ok(raw) => raw.to_owned(),
        Err(_) => serde_json::value::to_raw_value(&text)
            .map_err(|e| Failure::usage(format!("the payload can't be written as JSON: {e}")))?,
    };
    if raw.get().len() > MAX_PAYLOAD { Err(too_large()) } else { Ok(raw) }
}

fn read_bounded(input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells "too large" from "just fits".
    input
        .take(MAX_PAYLOAD as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::new(format!("can't read the payload from stdin: {e}")))?;
    if bytes.len() > MAX_PAYLOAD {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::usage("the payload on stdin is not UTF-8 text")
            .hint("encode binary data first, with base64 for example")
    })
}

fn too_large() -> Failure {
    Failure::new(format!("TOO_LARGE: the payload has more than {MAX_PAYLOAD} bytes"))
        .code("TOO_LARGE")
        .exit(NOT_DELIVERED)
        .hint("send it in parts, or send a reference to it; nothing was sent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("3", 3000), ("1.5", 1500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0", "-1", "10 parsecs", "1e9", "25h", "nan", "1..2", "0.1ms"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("350", 350), ("350B", 350), ("10kB", 10_000), ("64 KiB", 65_536), ("2", 2)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size(&MAX_PAYLOAD.to_string()), Ok(MAX_PAYLOAD));
        for text in
            ["", "B", "1", "0", "-1", "1.5kB", "10 parsecs", "1MiB", "99999999999999999999", "18446744073709551615k"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!((pause("0"), pause("1s")), (Ok(Duration::ZERO), Ok(Duration::from_secs(1))));
        assert!(pause("-1").is_err() && pause("").is_err());
    }

    #[test]
    fn peers() {
        for (text, address) in [
            ("box", "box:7878"),
            ("box.lan:1234", "box.lan:1234"),
            ("10.0.0.1", "10.0.0.1:7878"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:7878"),
            ("fe80::1", "[fe80::1]:7878"),
        ] {
            assert_eq!(peer(text).as_deref(), Ok(address), "{text}");
        }
        for text in ["", ":7878", "box:", "box:0", "box:70000", "box:x", "[::1", "[::1]x", "a b", "http://box", "x@box"]
        {
            assert!(peer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dhts() {
        assert_eq!([dht("mesh"), dht("off"), dht("public")], [Ok(Dht::Mesh), Ok(Dht::Off), Ok(Dht::Public)]);
        let nodes = dht("10.0.0.1, box.lan:9");
        assert_eq!(nodes, Ok(Dht::Bootstrap(vec!["10.0.0.1:7878".into(), "box.lan:9".into()])));
        for text in
            ["", "mesh,off", "10.0.0.1,", "[::1]:5", "::1", "box:0", "http://box", "of", "Off", "box:1,nonsense"]
        {
            assert!(dht(text).is_err(), "{text}");
        }
        assert_eq!(dht("localhost"), Ok(Dht::Bootstrap(vec!["localhost:7878".into()])));
    }

    #[test]
    fn advertised_addresses() {
        assert_eq!(advertised("1.2.3.4"), Ok("1.2.3.4:7878".parse().unwrap()));
        assert_eq!(advertised("[::1]:80"), Ok("[::1]:80".parse().unwrap()));
        assert!(advertised("box:80").is_err());
        assert!(advertised("1.2.3.4:0").is_err());
    }

    #[test]
    fn payloads() {
        let get = |text: &str| payload(Some(text)).unwrap().get().to_owned();
        assert_eq!(get("{\"n\": 123456789012345678901234567890}"), "{\"n\": 123456789012345678901234567890}");
        assert_eq!(get("hello \"you\""), "\"hello \\\"you\\\"\"");
        assert_eq!(get("7"), "7");
        assert_eq!(get("NaN"), "\"NaN\"");
        assert_eq!(payload(None).unwrap().get(), "null");
        assert_eq!(read_bounded(&b"hi\n"[..]).unwrap(), "hi\n");
        assert_eq!(read_bounded(&b"\xff"[..]).unwrap_err().exit, 2);
        let endless = std::io::repeat(b'x');
        assert_eq!(read_bounded(endless).unwrap_err().exit, 3);
    }
}
