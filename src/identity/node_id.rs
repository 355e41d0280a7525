//! A node's public name.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node's id: its ed25519 public key. Written as 43 characters of URL-safe base64 without padding; ordered by its
/// bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId([u8; 32]);

/// A text is not a node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNodeId {
    /// It is too short or too long.
    #[error("a node id has 43 characters, not {0}")]
    Length(usize),
    /// Not one of the characters it is made of.
    #[error("a node id is URL-safe base64 without padding (A-Z a-z 0-9 - _)")]
    Character,
    /// The last character sets bits beyond the 32 bytes: another spelling of an id, which would pass for a second one.
    #[error("not a node id: its last character is not one that 32 bytes end with")]
    NotCanonical,
}

/// What no character stands for.
const WRONG: u8 = 0x80;

/// What each character of URL-safe base64 stands for.
const VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut values = [WRONG; 256];
    let mut value = 0;
    while value < alphabet.len() {
        values[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    values
};

impl NodeId {
    /// The id with these bytes. Whether they are a public key shows when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 characters, for people. Not enough to tell nodes apart that want to be mistaken.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }

    /// Its text.
    pub(crate) fn text(&self) -> [u8; 43] {
        let mut text = [0; 43];
        // It fits: 32 bytes are 43 characters.
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        debug_assert_eq!(written, Ok(text.len()));
        text
    }

    /// Whether its text begins so.
    pub(crate) fn starts_with(&self, text: &str) -> bool {
        self.text().starts_with(text.as_bytes())
    }
}

/// All of them are of one length, which need not be hashed.
impl Hash for NodeId {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        let (groups, &[a, b, c]) = text.as_bytes().as_chunks::<4>() else {
            return Err(InvalidNodeId::Length(text.chars().count()));
        };
        let mut bytes = [0; 32];
        let (whole, rest) = bytes.as_chunks_mut::<3>();
        if groups.len() != whole.len() {
            return Err(InvalidNodeId::Length(text.chars().count()));
        }
        // By hand: each message has two or three of them, and whether a character was wrong is looked at once.
        let value = |character: u8| VALUES[usize::from(character)];
        let mut seen = 0;
        for (three, &[a, b, c, d]) in whole.iter_mut().zip(groups) {
            let (a, b, c, d) = (value(a), value(b), value(c), value(d));
            seen |= a | b | c | d;
            *three = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        }
        let (a, b, c) = (value(a), value(b), value(c));
        rest.copy_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]);
        if (seen | a | b | c) & WRONG != 0 {
            return Err(InvalidNodeId::Character);
        }
        if c & 0b11 != 0 {
            return Err(InvalidNodeId::NotCanonical);
        }
        Ok(Self(bytes))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = NodeId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node id")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NodeId, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        for byte in 0..=255 {
            let id = NodeId::from_bytes([byte; 32]);
            let text = id.to_string();
            assert_eq!(text.len(), 43);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<NodeId>(&format!("\"{text}\"")).unwrap(), id);
            assert!(text.starts_with(&id.short()) && id.short().len() == 12);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = NodeId::from_bytes([0; 32]).to_string();
        let parse = |text: &str| text.parse::<NodeId>();
        assert_eq!(parse(&format!("{text}=")), Err(InvalidNodeId::Length(44)));
        assert_eq!(parse(&text[1..]), Err(InvalidNodeId::Length(42)));
        assert_eq!(parse(""), Err(InvalidNodeId::Length(0)));
        assert_eq!(parse(&format!("{}=", &text[1..])), Err(InvalidNodeId::Character));
        assert_eq!(parse(&format!("+{}", &text[1..])), Err(InvalidNodeId::Character));
        assert_eq!(parse(&format!("é{}", &text[2..])), Err(InvalidNodeId::Character));
        // `B` sets the lowest of six bits, of which only the upper four belong to the 32nd byte.
        assert_eq!(parse(&format!("{}B", &text[1..])), Err(InvalidNodeId::NotCanonical));
    }

    #[test]
    fn texts_are_read_as_base64_is() {
        let text = NodeId::from_bytes(std::array::from_fn(|n| n as u8 * 7)).to_string();
        for place in 0..text.len() {
            for byte in 0..128u8 {
                let mut other = text.clone().into_bytes();
                other[place] = byte;
                let other = String::from_utf8(other).unwrap();
                let expected =
                    URL_SAFE_NO_PAD.decode(&other).ok().map(|bytes| NodeId::from_bytes(bytes.try_into().unwrap()));
                assert_eq!(other.parse::<NodeId>().ok(), expected, "{other}");
            }
        }
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        assert!(NodeId::from_bytes([1; 32]) < NodeId::from_bytes([2; 32]));
        // In base64 text, `-` (62) would sort before `A` (0).
        let (low, high) = (NodeId::from_bytes([0; 32]), NodeId::from_bytes([0xfb; 32]));
        assert!(low < high);
    }
}
