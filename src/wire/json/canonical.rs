//! Writing the canonical form of text that isn't in it, and of values.

use std::ops::Range;

use super::error::JsonError;
use super::scan::{self, Key};
use super::{number, strings, walk};
use crate::limits::MAX_JSON_DEPTH;

/// The canonical form of any JSON text: what Python's `json.dumps(sort_keys=True, separators=(",", ":"))` prints,
/// with every number in the digits it was written with.
///
/// # Errors
///
/// When the text isn't JSON or is past a limit; see [`JsonError`].
pub fn canonicalize_json(text: &[u8]) -> Result<Vec<u8>, JsonError> {
    if scan::value(text)?.canonical {
        return Ok(text.to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    write_checked(text, &mut out);
    Ok(out)
}

/// Whether a text is JSON in the canonical form.
pub fn is_canonical(text: &[u8]) -> bool {
    scan::value(text).is_ok_and(|scan| scan.canonical)
}

/// The canonical form of a value. Floats are written as Python's `repr` does.
///
/// # Errors
///
/// [`JsonError::TooDeep`] and [`JsonError::NotFinite`], where `offset` counts bytes of the output.
pub fn canonicalize_value(value: &serde_json::Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::with_capacity(128);
    write_value(value, 0, &mut out)?;
    Ok(out)
}

fn write_value(value: &serde_json::Value, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    use serde_json::Value;

    let nested = matches!(value, Value::Array(_) | Value::Object(_));
    if nested && depth == MAX_JSON_DEPTH {
        return Err(JsonError::TooDeep { offset: out.len() });
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::String(text) => strings::write(text, out),
        Value::Number(value) => write_number(value, out)?,
        Value::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(value, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // serde_json sorts its maps unless some crate of the build switches on `preserve_order`.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                strings::write(name, out);
                out.push(b':');
                write_value(value, depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_number(value: &serde_json::Number, out: &mut Vec<u8>) -> Result<(), JsonError> {
    if value.is_i64() || value.is_u64() {
        out.extend_from_slice(value.to_string().as_bytes());
        return Ok(());
    }
    match value.as_f64() {
        Some(value) if value.is_finite() => number::write_f64(value, out),
        _ => return Err(JsonError::NotFinite { offset: out.len() }),
    }
    Ok(())
}

/// Appends the canonical form of a text that was checked. The check bounds how deep this recurses.
pub(super) fn write_checked(text: &[u8], out: &mut Vec<u8>) {
    let at = walk::skip_space(text, 0);
    Rewriter { text, at }.value(out);
}

struct Rewriter<'a> {
    text: &'a [u8],
    /// Where the next token starts.
    at: usize,
}

impl Rewriter<'_> {
    fn value(&mut self, out: &mut Vec<u8>) {
        match self.text.get(self.at) {
            Some(b'{') => self.object(out),
            Some(b'[') => self.array(out),
            Some(b'"') => {
                self.string(out);
            }
            Some(_) => {
                let end = walk::scalar_end(self.text, self.at);
                out.extend_from_slice(&self.text[self.at..end]);
                self.at = end;
            }
            None => {}
        }
        self.space();
    }

    fn array(&mut self, out: &mut Vec<u8>) {
        out.push(b'[');
        self.step();
        let mut first = true;
        while self.more(b']') {
            if !first {
                out.push(b',');
            }
            first = false;
            self.value(out);
        }
        out.push(b']');
    }

    fn object(&mut self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.step();
        let start = out.len();
        // Each member is written where it stands; only if they weren't in order are they moved afterwards. So every
        // level is read once, however deep.
        let mut members: Vec<(Key, Range<usize>)> = Vec::new();
        while self.more(b'}') {
            if !members.is_empty() {
                out.push(b',');
            }
            let from = out.len();
            let key = self.string(out);
            self.space();
            out.push(b':');
            self.step();
            self.value(out);
            members.push((key, from..out.len()));
        }
        let in_order = |one: &(Key, _), two: &(Key, _)| one.0.compare(two.0, self.text).is_lt();
        if !members.is_sorted_by(in_order) {
            members.sort_by(|one, two| one.0.compare(two.0, self.text));
            let mut sorted = Vec::with_capacity(out.len() - start);
            for (_, range) in members {
                if !sorted.is_empty() {
                    sorted.push(b',');
                }
                sorted.extend_from_slice(&out[range]);
            }
            out.truncate(start);
            out.append(&mut sorted);
        }
        out.push(b'}');
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Key {
        let (key, end) = walk::string(self.text, self.at);
        strings::write(&strings::decode(key.span.of(self.text)), out);
        self.at = end;
        key
    }

    /// Whether another element follows; steps over the comma before it, or the bracket that closes.
    fn more(&mut self, close: u8) -> bool {
        match self.text.get(self.at) {
            Some(b',') => self.step(),
            Some(&byte) if byte == close => {
                self.at += 1;
                return false;
            }
            _ => {}
        }
        self.at < self.text.len()
    }

    /// Over one byte and the white space after it.
    fn step(&mut self) {
        self.at += 1;
        self.space();
    }

    fn space(&mut self) {
        self.at = walk::skip_space(self.text, self.at);
    }
}
