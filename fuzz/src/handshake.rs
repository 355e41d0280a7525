//! Handshakes between honest nodes, with somebody in the middle who has keys of its own, keeps everything that was ever
//! sent, changes it, and brings it to whom it likes, as often and in what order it likes.

use std::collections::HashMap;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use elo::fuzzing::handshake::{Dialer, Listener, Local, read_legacy_hello, read_welcome};
use elo::wire::{Object, Speaker};
use elo::{NodeId, Tls};

use super::keys::{id, key};
use super::message::base64;

/// Nodes 0 and 1 are honest; 2 and 3 belong to who is in the middle.
const HONEST: usize = 2;
const ALL: usize = 4;

const SKEW_S: u64 = 300;
const NOW: i64 = 1_767_225_600;

/// The members worth changing.
const MEMBERS: [&str; 12] = [
    "type",
    "node_id",
    "version",
    "nonce",
    "timestamp",
    "features",
    "instance",
    "hello_nonce",
    "peer",
    "ack_nonce",
    "signature",
    "binding",
];

struct Dialling {
    who: usize,
    /// Which TLS connection this end is of.
    binding: Option<[u8; 32]>,
    nonce: [u8; 32],
    expected: Option<NodeId>,
    dialer: Option<Dialer>,
}

struct Listening {
    who: usize,
    /// Which TLS connection this end is of. Who is in the middle has two, and makes neither binding that of the other.
    binding: Option<[u8; 32]>,
    nonce: [u8; 32],
    hello_nonce: String,
    listener: Option<Listener>,
}

/// An answer that a node really gave: to whom, to which nonce.
struct Ack {
    by: NodeId,
    to: NodeId,
    hello_nonce: String,
}

/// A proof that a node really made.
struct Auth {
    by: NodeId,
    to: NodeId,
    hello_nonce: String,
    ack_nonce: String,
    binding: Option<[u8; 32]>,
    taken: bool,
}

#[derive(Default)]
struct World {
    dialling: Vec<Dialling>,
    listening: Vec<Listening>,
    /// All that was ever sent.
    sent: Vec<Object>,
    /// What honest nodes signed, by its canonical form.
    acks: HashMap<Bytes, Ack>,
    auths: HashMap<Bytes, Auth>,
    nonces: u64,
    now: i64,
}

pub(super) fn play(data: &[u8]) {
    let mut world = World { now: NOW, ..World::default() };
    let mut u = Unstructured::new(data);
    for _ in 0..96 {
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
    }
}

/// The binding of a TLS connection, or none.
fn binding(u: &mut Unstructured<'_>) -> Result<Option<[u8; 32]>> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Some([2; 32]),
        1 => None,
        _ => Some([1; 32]),
    })
}

/// How far back something is, of so many: the latest are the likeliest, or nobody would ever get to the end.
fn recent(of: usize, u: &mut Unstructured<'_>) -> Result<usize> {
    let n = usize::from(u.arbitrary::<u8>()?);
    Ok(if n < 200 { n % 3 % of.max(1) } else { n % of.max(1) })
}

fn local(who: usize) -> Local<'static> {
    static FEATURES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let features = FEATURES.get_or_init(|| vec!["dialback".into(), "punch".into()]);
    Local { identity: key(who), version: "fuzz", features, instance: "run", clock_skew_s: SKEW_S, tls: Tls::Off }
}

fn member(object: &Object, name: &str) -> String {
    object.str(name).ok().flatten().unwrap_or_default()
}

impl World {
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=11)? {
            10 | 11 => self.exchange(u)?,
            0 => self.dial(u)?,
            1 | 2 => self.hello(u)?,
            3 | 4 => self.hello_ack(u)?,
            5 | 6 => self.auth(u)?,
            7 => self.change(u)?,
            8 => self.other(u)?,
            _ => self.now = NOW + i64::from(u.arbitrary::<i16>()?) / 32,
        }
        Ok(())
    }

    /// Honest nodes choose a nonce never used before; the others choose.
    fn nonce(&mut self, who: usize, u: &mut Unstructured<'_>) -> Result<[u8; 32]> {
        self.nonces += 1;
        let mut nonce = [0; 32];
        if who < HONEST {
            nonce[..8].copy_from_slice(&self.nonces.to_le_bytes());
        } else {
            nonce[0] = u.int_in_range(0..=16)?;
        }
        Ok(nonce)
    }

    fn any_sent(&self, u: &mut Unstructured<'_>) -> Result<Object> {
        let back = recent(self.sent.len(), u)?;
        self.sent.iter().nth_back(back).cloned().ok_or(arbitrary::Error::NotEnoughData)
    }

    fn dial(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let who = u.int_in_range(0..=ALL - 1)?;
        let expected = match u.int_in_range(0..=2 * ALL)? {
            n if n < ALL => Some(id(n)),
            _ => None,
        };
        self.dial_by(who, expected, u)
    }

    fn dial_by(&mut self, who: usize, expected: Option<NodeId>, u: &mut Unstructured<'_>) -> Result<()> {
        let (nonce, binding) = (self.nonce(who, u)?, binding(u)?);
        let (dialer, hello) = Dialer::new(&local(who), nonce, self.now, expected);
        self.sent.push(hello);
        self.dialling.push(Dialling { who, binding, nonce, expected, dialer: Some(dialer) });
        Ok(())
    }

    /// Two honest nodes talk, and the dialer's `hello` or proof may come to the listener more than once.
    fn exchange(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let dialer = u.int_in_range(0..=HONEST - 1)?;
        self.dial_by(dialer, None, u)?;
        let hello = self.any_recent(0);
        for _ in 0..u.int_in_range(1..=2)? {
            self.hello_to(1 - dialer, &hello, u)?;
        }
        let ack = self.any_recent(0);
        self.hello_ack_to(self.dialling.len() - 1, &ack);
        if u.arbitrary()? {
            let (back, auth) = (recent(self.listening.len(), u)?, self.any_recent(0));
            self.auth_to(self.listening.len() - 1 - back, &auth);
        }
        Ok(())
    }

    fn any_recent(&self, back: usize) -> Object {
        self.sent.iter().nth_back(back).cloned().expect("something was sent")
    }

    /// Somebody's `hello`, or anything else, comes to somebody who listens.
    fn hello(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let who = u.int_in_range(0..=ALL - 1)?;
        let hello = self.any_sent(u)?;
        self.hello_to(who, &hello, u)
    }

    fn hello_to(&mut self, who: usize, hello: &Object, u: &mut Unstructured<'_>) -> Result<()> {
        let (nonce, binding) = (self.nonce(who, u)?, binding(u)?);
        let Ok((listener, ack)) = Listener::on_hello(&local(who), hello, nonce, self.now) else { return Ok(()) };
        assert_eq!(member(hello, "type"), "hello");
        assert!(self.in_time(hello));
        assert_ne!(member(hello, "node_id"), id(who).to_string(), "a node let itself in");
        let hello_nonce = member(hello, "nonce");
        if who < HONEST {
            let to = member(hello, "node_id").parse().expect("a hello names its node");
            let log = Ack { by: id(who), to, hello_nonce: hello_nonce.clone() };
            self.acks.insert(ack.canonical(), log);
        }
        self.sent.push(ack);
        self.listening.push(Listening { who, binding, nonce, hello_nonce, listener: Some(listener) });
        Ok(())
    }

    fn in_time(&self, object: &Object) -> bool {
        object.i64("timestamp").ok().flatten().is_some_and(|t| t.abs_diff(self.now) <= SKEW_S)
    }

    /// Anything comes to somebody who said `hello`.
    fn hello_ack(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.dialling.len().checked_sub(1) else { return Ok(()) };
        let session = last - recent(last + 1, u)?;
        let ack = self.any_sent(u)?;
        self.hello_ack_to(session, &ack);
        Ok(())
    }

    fn hello_ack_to(&mut self, session: usize, ack: &Object) {
        let Some(dialer) = self.dialling[session].dialer.take() else { return };
        let Dialling { who, binding, nonce, expected, .. } = self.dialling[session];
        let Ok(answered) = dialer.on_hello_ack(&local(who), ack, self.now) else { return };
        let (auth, proven) = (answered.auth(&local(who), binding.as_ref()), answered.proven);
        let me = id(who);
        assert_eq!(proven.speaker, Speaker::Proven);
        assert_ne!(proven.node, me, "a node connected with itself");
        assert!(expected.is_none_or(|e| e == proven.node), "another node than was expected");
        assert!(self.in_time(ack));
        assert_eq!(member(&auth, "peer"), proven.node.to_string());
        assert_eq!(member(&auth, "hello_nonce"), text(&nonce));
        if who < HONEST {
            if (0..HONEST).any(|n| id(n) == proven.node) {
                let log = self.acks.get(&ack.canonical()).expect("an honest node's answer that it never gave");
                assert_eq!((log.by, log.to), (proven.node, me), "an answer to somebody else");
                assert_eq!(log.hello_nonce, text(&nonce), "an answer to another hello");
            }
            let log = Auth {
                by: me,
                to: proven.node,
                hello_nonce: text(&nonce),
                ack_nonce: member(ack, "nonce"),
                binding,
                taken: false,
            };
            self.auths.insert(auth.canonical(), log);
        }
        self.sent.push(auth);
    }

    /// Anything comes to somebody who answered a `hello`.
    fn auth(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.listening.len().checked_sub(1) else { return Ok(()) };
        let session = last - recent(last + 1, u)?;
        let auth = self.any_sent(u)?;
        self.auth_to(session, &auth);
        Ok(())
    }

    fn auth_to(&mut self, session: usize, auth: &Object) {
        let here = &mut self.listening[session];
        let Some(listener) = here.listener.take() else { return };
        let Ok(proven) = listener.on_auth(auth, here.binding.as_ref()) else { return };
        assert_eq!(proven.speaker, Speaker::Proven);
        assert_ne!(proven.node, id(here.who), "a node let itself in");
        if here.who < HONEST && (0..HONEST).any(|n| id(n) == proven.node) {
            let log = self.auths.get_mut(&auth.canonical()).expect("an honest node's proof that it never made");
            assert_eq!((log.by, log.to), (proven.node, id(here.who)), "a proof for somebody else");
            assert_eq!(log.hello_nonce, here.hello_nonce, "a proof for another hello");
            assert_eq!(log.ack_nonce, text(&here.nonce), "a proof for another connection");
            assert_eq!(log.binding, here.binding, "somebody sits between two TLS connections");
            assert!(!std::mem::replace(&mut log.taken, true), "the same proof was taken twice");
        }
    }

    /// Who is in the middle changes something that was sent, and may sign it with a key of its own.
    fn change(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let mut object = self.any_sent(u)?;
        for _ in 0..u.int_in_range(1..=3)? {
            let name = *u.choose(&MEMBERS)?;
            let value: Vec<u8> = match u.int_in_range(0..=6)? {
                0 => format!("\"{}\"", id(u.int_in_range(0..=ALL - 1)?)).into_bytes(),
                1 => self.any_sent(u)?.get(u.choose(&MEMBERS)?).unwrap_or(b"null").to_vec(),
                2 => format!("\"{}\"", ["hello", "hello_ack", "auth", "welcome", "bye"][u.int_in_range(0..=4)?]).into(),
                3 => u.arbitrary::<i64>()?.to_string().into_bytes(),
                4 => format!("\"{}\"", text(&[u.arbitrary()?; 32])).into_bytes(),
                5 => b"[]".to_vec(),
                _ => b"null".to_vec(),
            };
            object = object.with_member(name, &value);
        }
        if u.arbitrary()? {
            let signature =
                key(HONEST + usize::from(u.arbitrary::<bool>()?)).sign(&object.signing_bytes(&["signature"]));
            object = object.with_member("signature", format!("\"{}\"", base64(&signature)).as_bytes());
        }
        self.sent.push(object);
        Ok(())
    }

    /// Other spellings, other bytes, and the messages that are not signed.
    fn other(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let object = match u.int_in_range(0..=3)? {
            0 => {
                let object = self.any_sent(u)?;
                let _ = read_welcome(&object, &id(u.int_in_range(0..=ALL - 1)?));
                if let Ok(proven) = read_legacy_hello(&object, &id(0)) {
                    assert_eq!(proven.speaker, Speaker::Legacy(proven.node), "what proves nothing proved something");
                    assert_ne!(proven.node, id(0));
                }
                return Ok(());
            }
            1 => {
                let mut raw = self.any_sent(u)?.raw().to_vec();
                let at = usize::from(u.arbitrary::<u16>()?) % raw.len();
                raw[at] = u.arbitrary()?;
                Object::parse(raw.into())
            }
            2 => {
                let raw = self.any_sent(u)?.raw().to_vec();
                let spaced = String::from_utf8_lossy(&raw).replacen(':', " :\n", u.int_in_range(1..=3)?);
                Object::parse(spaced.into_bytes().into())
            }
            _ => {
                let length = usize::from(u.arbitrary::<u8>()?);
                Object::parse(Bytes::copy_from_slice(u.bytes(length.min(u.len()))?))
            }
        };
        self.sent.extend(object);
        Ok(())
    }
}

fn text(nonce: &[u8; 32]) -> String {
    base64(nonce)
}
