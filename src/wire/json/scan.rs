//! The one pass that checks a text: grammar, limits, members that appear twice, and whether it is canonical.

use std::cmp::Ordering;

use super::error::JsonError;
use super::number;
use super::strings::{Decoded, decode, hex4, plain_prefix};
use crate::limits::MAX_JSON_DEPTH;

/// A piece of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// From `start` up to and without `end`. Texts are at most 4 GiB long ([`JsonError::TooLong`]), so both fit.
    pub(super) fn new(start: usize, end: usize) -> Self {
        let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// The piece of `text`.
    pub(super) fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }

    /// The same piece after the text's byte `from` has become its byte `to`.
    pub(super) fn moved(self, from: usize, to: usize) -> Self {
        let place = |old: u32| (old as usize + to).saturating_sub(from);
        Self::new(place(self.start), place(self.end))
    }

    /// The same as a range.
    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A member's name in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Between the quotes.
    pub(super) span: Span,
    /// Whether there are escapes in it.
    pub(super) escaped: bool,
}

impl Key {
    /// Compares two names of one text by code points. Costs no more than their common beginning.
    pub(super) fn compare(self, other: Self, text: &[u8]) -> Ordering {
        let (one, two) = (self.span.of(text), other.span.of(text));
        if self.escaped || other.escaped { Decoded::new(one).cmp(Decoded::new(two)) } else { one.cmp(two) }
    }

    /// Compares it to a name, by code points.
    pub(super) fn compare_to(self, name: &[u8], text: &[u8]) -> Ordering {
        let own = self.span.of(text);
        if self.escaped { Decoded::new(own).cmp(name.iter().copied()) } else { own.cmp(name) }
    }
}

/// A top-level member of an object.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// The name between its quotes, as spelled.
    pub(super) key: Span,
    /// What the name means, where that differs from its spelling.
    pub(super) decoded: Option<Box<str>>,
    /// The value.
    pub(super) value: Span,
}

impl Member {
    /// A member with this name and value.
    pub(super) fn new(key: Key, value: Span, text: &[u8]) -> Self {
        Self { key: key.span, decoded: key.escaped.then(|| decode(key.span.of(text)).into()), value }
    }

    /// Whether this is its name. Costs no more than a look at the length where that differs.
    pub(super) fn is(&self, name: &str, text: &[u8]) -> bool {
        match &self.decoded {
            Some(decoded) => **decoded == *name,
            None => self.key.range().len() == name.len() && self.key.of(text) == name.as_bytes(),
        }
    }

    /// The name, decoded.
    pub(super) fn name<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        match &self.decoded {
            Some(name) => name.as_bytes(),
            None => self.key.of(text),
        }
    }
}

/// What the pass found out.
#[derive(Debug)]
pub(super) struct Scan {
    /// If the value is an object: its members by code points of their names.
    pub(super) members: Vec<Member>,
    /// Whether the text is its own canonical form.
    pub(super) canonical: bool,
}

/// Checks a text that must be one object.
pub(super) fn object(text: &[u8]) -> Result<Scan, JsonError> {
    let start = super::walk::skip_space(text, 0);
    match text.get(start) {
        Some(b'{') => value(text),
        Some(_) => Err(JsonError::NotAnObject { offset: start }),
        None => Err(JsonError::Truncated { offset: text.len() }),
    }
}

/// Checks a text that may be any JSON value.
pub(super) fn value(text: &[u8]) -> Result<Scan, JsonError> {
    if u32::try_from(text.len()).is_err() {
        return Err(JsonError::TooLong { offset: text.len() });
    }
    if let Err(error) = std::str::from_utf8(text) {
        let offset = error.valid_up_to();
        return Err(JsonError::InvalidUtf8 { offset });
    }
    let mut scanner = Scanner {
        text,
        at: 0,
        canonical: true,
        open: Vec::with_capacity(8),
        keys: Vec::with_capacity(16),
        members: Vec::with_capacity(12),
    };
    scanner.run()?;
    let mut members = scanner.members;
    // Sorted already in most messages; then this is one comparison a member.
    members.sort_by(|one, two| one.name(text).cmp(two.name(text)));
    Ok(Scan { members, canonical: scanner.canonical })
}

/// An object or array that is not closed yet.
struct Open {
    object: bool,
    /// Where this object's names start in `Scanner::keys`.
    first_key: usize,
    /// Whether the names came in strictly rising order so far: then none came twice.
    rising: bool,
}

/// The pass itself. It keeps its own stack, so that no input can overflow the thread's.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    canonical: bool,
    open: Vec<Open>,
    /// Names of all open objects, the innermost one's last. A closed object's are dropped.
    keys: Vec<Key>,
    /// Members of the outermost object.
    members: Vec<Member>,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), JsonError> {
        self.space();
        loop {
            // Here a value starts. If it opened something that isn't empty, its first value starts next.
            if self.open_value()? {
                continue;
            }
            if !self.after_value()? {
                break;
            }
        }
        if self.at < self.text.len() {
            return Err(JsonError::Trailing { offset: self.at });
        }
        Ok(())
    }

    /// Reads a scalar or an empty object or array (false), or the opening of another one up to its first value (true).
    fn open_value(&mut self) -> Result<bool, JsonError> {
        match self.peek()? {
            b'"' => {
                self.string()?;
                Ok(false)
            }
            b'{' => {
                self.push(true)?;
                if self.peek()? == b'}' {
                    self.close()?;
                    return Ok(false);
                }
                self.key()?;
                Ok(true)
            }
            b'[' => {
                self.push(false)?;
                if self.peek()? == b']' {
                    self.close()?;
                    return Ok(false);
                }
                Ok(true)
            }
            b'-' | b'0'..=b'9' => {
                self.at = number::check(self.text, self.at)?;
                Ok(false)
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            found => Err(self.unexpected("a value", found)),
        }
    }

    /// After a value: closes what ends here and goes to where the next value starts (true), or to the end (false).
    fn after_value(&mut self) -> Result<bool, JsonError> {
        loop {
            let Some(open) = self.open.last() else {
                self.space();
                return Ok(false);
            };
            let object = open.object;
            if object && self.open.len() == 1 {
                let end = Span::new(0, self.at).end;
                if let Some(member) = self.members.last_mut() {
                    member.value.end = end;
                }
            }
            self.space();
            match self.peek()? {
                b',' => {
                    self.at += 1;
                    self.space();
                    if object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                b'}' if object => self.close()?,
                b']' if !object => self.close()?,
                found if object => return Err(self.unexpected("`,` or `}`", found)),
                found => return Err(self.unexpected("`,` or `]`", found)),
            }
        }
    }

    fn push(&mut self, object: bool) -> Result<(), JsonError> {
        if self.open.len() == MAX_JSON_DEPTH {
            return Err(JsonError::TooDeep { offset: self.at });
        }
        self.open.push(Open { object, first_key: self.keys.len(), rising: true });
        self.at += 1;
        self.space();
        Ok(())
    }

    fn close(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        if !open.rising {
            self.canonical = false;
            let text = self.text;
            // Sorting instead of comparing each with each: many names can't make this slow.
            let keys = &mut self.keys[open.first_key..];
            keys.sort_by(|one, two| one.compare(*two, text));
            let twice = keys
                .windows(2)
                .filter(|pair| pair[0].compare(pair[1], text).is_eq())
                // The sort is stable, so the second of a pair is the later one in the text.
                .map(|pair| pair[1].span.start as usize - 1)
                .min();
            if let Some(offset) = twice {
                return Err(JsonError::Duplicate { offset });
            }
        }
        self.keys.truncate(open.first_key);
        Ok(())
    }

    /// A member's name and colon, up to its value.
    fn key(&mut self) -> Result<(), JsonError> {
        match self.peek()? {
            b'"' => {}
            found => return Err(self.unexpected("a member's name in quotes", found)),
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        let key = Key { span: Span::new(start, self.at - 1), escaped };
        self.space();
        match self.peek()? {
            b':' => self.at += 1,
            found => return Err(self.unexpected("`:`", found)),
        }
        self.space();
        let level = self.open.len();
        if let Some(open) = self.open.last_mut() {
            if open.rising && self.keys.len() > open.first_key {
                let before = self.keys.last();
                open.rising = before.is_some_and(|before| before.compare(key, self.text).is_lt());
            }
            self.keys.push(key);
        }
        if level == 1 {
            let value = Span::new(self.at, self.at);
            self.members.push(Member::new(key, value, self.text));
        }
        Ok(())
    }

    /// A string; says whether there are escapes in it.
    fn string(&mut self) -> Result<bool, JsonError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                found @ 0..0x20 => {
                    let offset = self.at;
                    return Err(JsonError::ControlCharacter { offset, found });
                }
                // 0x7f, or part of a character outside ASCII: allowed, but canonical text escapes it.
                _ => {
                    self.canonical = false;
                    let rest = &self.text[self.at..];
                    let run = rest.iter().take_while(|&&byte| byte >= 0x7f);
                    self.at += run.count();
                }
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let offset = self.at;
        let truncated = JsonError::Truncated { offset: self.text.len() };
        match *self.text.get(offset + 1).ok_or(truncated)? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'/' => {
                self.canonical = false;
                self.at += 2;
            }
            b'u' => {
                let unit = self.unit(offset)?;
                match unit {
                    0xd800..0xdc00 => {
                        let pair =
                            self.text[self.at..].starts_with(b"\\u") && (0xdc00..0xe000).contains(&self.unit(self.at)?);
                        if !pair {
                            return Err(JsonError::LoneSurrogate { offset });
                        }
                    }
                    0xdc00..0xe000 => return Err(JsonError::LoneSurrogate { offset }),
                    // These have a shorter canonical spelling.
                    0x20..0x7f | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => self.canonical = false,
                    _ => {}
                }
            }
            _ => return Err(JsonError::BadEscape { offset }),
        }
        Ok(())
    }

    /// The `\uXXXX` at `offset`.
    fn unit(&mut self, offset: usize) -> Result<u16, JsonError> {
        let Some(digits) = self.text[offset + 2..].first_chunk::<4>() else {
            let offset = self.text.len();
            return Err(JsonError::Truncated { offset });
        };
        if digits.iter().any(u8::is_ascii_uppercase) {
            self.canonical = false;
        }
        self.at = offset + 6;
        hex4(digits).ok_or(JsonError::BadEscape { offset })
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<bool, JsonError> {
        for &expected in word {
            match self.peek()? {
                found if found == expected => self.at += 1,
                found => return Err(self.unexpected("`true`, `false` or `null`", found)),
            }
        }
        Ok(false)
    }

    fn space(&mut self) {
        let end = super::walk::skip_space(self.text, self.at);
        if end != self.at {
            self.canonical = false;
            self.at = end;
        }
    }

    fn peek(&self) -> Result<u8, JsonError> {
        self.text.get(self.at).copied().ok_or(JsonError::Truncated { offset: self.text.len() })
    }

    fn unexpected(&self, expected: &'static str, found: u8) -> JsonError {
        JsonError::Unexpected { offset: self.at, expected, found }
    }
}
