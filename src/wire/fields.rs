//! Reading typed members out of an object, with errors that name the member.

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;

use super::json::Object;
use super::message::Malformed;
use crate::identity::NodeId;
use crate::limits::{MAX_CAPS, MAX_ID, MAX_NAME};

/// The longest text of a member that is meant for people, in bytes. Longer ones are cut.
const LONG_TEXT: usize = 16 * 1024;

/// An object whose members are being read.
pub(crate) struct Fields<'a> {
    object: &'a Object,
    kind: Cow<'a, str>,
}

impl<'a> Fields<'a> {
    /// Of a message: it has a type.
    pub(crate) fn new(object: &'a Object) -> Result<Self, Malformed> {
        let mut fields = Self { object, kind: Cow::Borrowed("message") };
        let kind = fields.borrowed("type")?.ok_or_else(|| fields.missing("type"))?;
        if !super::is_name(&kind) {
            return Err(fields.malformed("type: a short text"));
        }
        fields.kind = kind;
        Ok(fields)
    }

    /// Of an object inside a message.
    pub(crate) fn inner(object: &'a Object, kind: &'a str) -> Self {
        Self { object, kind: Cow::Borrowed(kind) }
    }

    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    pub(crate) fn object(&self) -> &Object {
        self.object
    }

    pub(crate) fn malformed(&self, why: impl Into<String>) -> Malformed {
        let id = self.object.str("id").ok().flatten().filter(|id| is_id(id));
        Malformed { kind: self.kind.clone().into_owned(), id, why: why.into() }
    }

    pub(crate) fn missing(&self, key: &str) -> Malformed {
        self.malformed(format!("{key}: missing"))
    }

    fn wrong(&self, error: impl std::fmt::Display) -> Malformed {
        self.malformed(error.to_string())
    }

    /// Like [`opt_text`](Self::opt_text), for what is only looked at.
    pub(crate) fn borrowed(&self, key: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        let text = self.object.text(key).map_err(|e| self.wrong(e))?;
        match text {
            Some(t) if t.len() > MAX_NAME * 4 => {
                Err(self.malformed(format!("{key}: longer than {} bytes", MAX_NAME * 4)))
            }
            other => Ok(other),
        }
    }

    pub(crate) fn opt_text(&self, key: &str) -> Result<Option<String>, Malformed> {
        Ok(self.borrowed(key)?.map(Cow::into_owned))
    }

    /// A name or a code: short, without control characters; an empty one counts as absent.
    pub(crate) fn opt_short(&self, key: &str) -> Result<Option<String>, Malformed> {
        let text = self.opt_text(key)?.filter(|text| !text.is_empty());
        if text.as_ref().is_some_and(|text| !super::is_name(text)) {
            return Err(self.malformed(format!("{key}: at most {MAX_NAME} characters without control characters")));
        }
        Ok(text)
    }

    pub(crate) fn text(&self, key: &str) -> Result<String, Malformed> {
        self.opt_text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A text for people; what is too long is cut.
    pub(crate) fn opt_long_text(&self, key: &str) -> Result<Option<String>, Malformed> {
        let text = self.object.str(key).map_err(|e| self.wrong(e))?;
        Ok(text.map(|mut t| {
            if t.len() > LONG_TEXT {
                let end = (0..=LONG_TEXT).rev().find(|i| t.is_char_boundary(*i)).unwrap_or(0);
                t.truncate(end);
            }
            t
        }))
    }

    pub(crate) fn long_text(&self, key: &str) -> Result<String, Malformed> {
        Ok(self.opt_long_text(key)?.unwrap_or_default())
    }

    pub(crate) fn id(&self) -> Result<String, Malformed> {
        let id = self.text("id")?;
        if is_id(&id) { Ok(id) } else { Err(self.malformed(format!("id: 1 to {MAX_ID} printable ASCII characters"))) }
    }

    pub(crate) fn opt_node(&self, key: &str) -> Result<Option<NodeId>, Malformed> {
        match self.borrowed(key)?.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|e| self.malformed(format!("{key}: {e}"))),
        }
    }

    pub(crate) fn node(&self, key: &str) -> Result<NodeId, Malformed> {
        self.opt_node(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_u64(&self, key: &str) -> Result<Option<u64>, Malformed> {
        self.object.u64(key).map_err(|e| self.wrong(e))
    }

    pub(crate) fn u64(&self, key: &str) -> Result<u64, Malformed> {
        self.opt_u64(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_i64(&self, key: &str) -> Result<Option<i64>, Malformed> {
        self.object.i64(key).map_err(|e| self.wrong(e))
    }

    pub(crate) fn i64(&self, key: &str) -> Result<i64, Malformed> {
        self.opt_i64(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>, Malformed> {
        self.object.bool(key).map_err(|e| self.wrong(e))
    }

    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>, Malformed> {
        let Some(raw) = self.opt_raw(key) else { return Ok(None) };
        serde_json::from_slice(&raw).map(Some).map_err(|_| self.malformed(format!("{key}: expected a number")))
    }

    pub(crate) fn opt_raw(&self, key: &str) -> Option<Bytes> {
        let text = self.object.get(key)?;
        if text == b"null" && key != "payload" && key != "data" {
            return None;
        }
        Some(self.object.raw().slice_ref(text))
    }

    pub(crate) fn raw(&self, key: &str) -> Result<Bytes, Malformed> {
        self.opt_raw(key).ok_or_else(|| self.missing(key))
    }

    pub(crate) fn child(&self, key: &str) -> Result<Object, Malformed> {
        match self.object.child(key) {
            None => Err(self.missing(key)),
            Some(child) => child.map_err(|_| self.malformed(format!("{key}: expected an object"))),
        }
    }

    pub(crate) fn children(&self, key: &str) -> Result<Vec<Object>, Malformed> {
        match self.object.children(key) {
            None => Ok(Vec::new()),
            Some(list) => list.map_err(|_| self.malformed(format!("{key}: expected a list of objects"))),
        }
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Vec<String>, Malformed> {
        Ok(self.object.strings(key).map_err(|e| self.wrong(e))?.unwrap_or_default())
    }

    /// A bounded list of names (interests, features).
    pub(crate) fn names(&self, key: &str) -> Result<Vec<String>, Malformed> {
        let names = self.strings(key)?;
        if names.len() > MAX_CAPS || names.iter().any(|n| !super::is_name(n)) {
            return Err(self.malformed(format!("{key}: at most {MAX_CAPS} names of 1 to {MAX_NAME} characters")));
        }
        Ok(names)
    }

    pub(crate) fn addrs(&self, key: &str, max: usize) -> Result<Vec<SocketAddr>, Malformed> {
        let texts = self.strings(key)?;
        if texts.len() > max {
            return Err(self.malformed(format!("{key}: at most {max}")));
        }
        let parse = |t: &String| t.parse().map_err(|_| self.malformed(format!("{key}: expected ip:port")));
        texts.iter().map(parse).collect()
    }

    pub(crate) fn nodes(&self, key: &str, max: usize) -> Result<Vec<NodeId>, Malformed> {
        let texts = self.strings(key)?;
        if texts.len() > max {
            return Err(self.malformed(format!("{key}: at most {max}")));
        }
        texts.iter().map(|t| t.parse().map_err(|e| self.malformed(format!("{key}: {e}")))).collect()
    }
}

/// Whether a text may be a message's id: 1 to 64 printable ASCII characters.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}
