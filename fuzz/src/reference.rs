//! A second reader and printer of JSON, from docs/protocol.md alone. It shares nothing with `elo::wire`: it builds a tree,
//! recurses, copies, and is as slow as it likes.

use std::collections::BTreeMap;

const MAX_DEPTH: usize = 64;
const MAX_DIGITS: usize = 4300;

/// A JSON value. A number is the text it was written as.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

/// Reads a text; `None`: it must be refused.
pub(super) fn read(text: &[u8]) -> Option<Value> {
    let text: Vec<char> = std::str::from_utf8(text).ok()?.chars().collect();
    let mut reader = Reader { text, at: 0 };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    (reader.at == reader.text.len()).then_some(value)
}

struct Reader {
    text: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        (self.take()? == wanted).then_some(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        word.chars().try_for_each(|c| self.expect(c))?;
        Some(value)
    }

    /// `depth`: how many objects and arrays are open around it.
    fn value(&mut self, depth: usize) -> Option<Value> {
        match self.peek()? {
            'n' => self.word("null", Value::Null),
            't' => self.word("true", Value::Bool(true)),
            'f' => self.word("false", Value::Bool(false)),
            '"' => self.string().map(Value::String),
            '[' if depth < MAX_DEPTH => self.array(depth + 1),
            '{' if depth < MAX_DEPTH => self.object(depth + 1),
            '-' | '0'..='9' => self.number(),
            _ => None,
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.expect('[')?;
        self.space();
        let mut values = Vec::new();
        if self.peek()? == ']' {
            self.at += 1;
            return Some(Value::Array(values));
        }
        loop {
            self.space();
            values.push(self.value(depth)?);
            self.space();
            match self.take()? {
                ',' => {}
                ']' => return Some(Value::Array(values)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.expect('{')?;
        self.space();
        let mut members = BTreeMap::new();
        if self.peek()? == '}' {
            self.at += 1;
            return Some(Value::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(':')?;
            self.space();
            let value = self.value(depth)?;
            if members.insert(name, value).is_some() {
                return None;
            }
            self.space();
            match self.take()? {
                ',' => {}
                '}' => return Some(Value::Object(members)),
                _ => return None,
            }
        }
    }

    fn digits(&mut self) -> Option<usize> {
        let from = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then(|| self.at - from)
    }

    fn number(&mut self) -> Option<Value> {
        let start = self.at;
        if self.peek()? == '-' {
            self.at += 1;
        }
        let leading_zero = self.peek()? == '0';
        let whole = self.digits()?;
        if leading_zero && whole > 1 {
            return None;
        }
        let mut is_float = false;
        if self.peek() == Some('.') {
            is_float = true;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            is_float = true;
            self.at += 1;
            if matches!(self.peek(), Some('+' | '-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text: String = self.text[start..self.at].iter().collect();
        let fits = if is_float { text.parse::<f64>().is_ok_and(f64::is_finite) } else { whole <= MAX_DIGITS };
        fits.then_some(Value::Number(text))
    }

    fn string(&mut self) -> Option<String> {
        self.expect('"')?;
        let mut units: Vec<u16> = Vec::new();
        let mut buffer = [0; 2];
        loop {
            let unit = match self.take()? {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => match self.take()? {
                    c @ ('"' | '\\' | '/') => c as u16,
                    'b' => 8,
                    't' => 9,
                    'n' => 10,
                    'f' => 12,
                    'r' => 13,
                    'u' => {
                        let mut unit = 0;
                        for _ in 0..4 {
                            unit = unit * 16 + u16::try_from(self.take()?.to_digit(16)?).ok()?;
                        }
                        unit
                    }
                    _ => return None,
                },
                c if c < ' ' => return None,
                c => {
                    units.extend_from_slice(c.encode_utf16(&mut buffer));
                    continue;
                }
            };
            units.push(unit);
        }
    }
}

/// The canonical form.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.clone(),
        Value::String(text) => quoted(text),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(print).collect();
            format!("[{}]", values.join(","))
        }
        Value::Object(members) => {
            // Rust orders strings by their UTF-8 bytes, which is the order of their code points.
            let members: Vec<String> = members.iter().map(|(n, v)| format!("{}:{}", quoted(n), print(v))).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        match unit {
            0x22 => out.push_str("\\\""),
            0x5c => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0a => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            0x0d => out.push_str("\\r"),
            0x20..=0x7e => out.push(char::from(unit as u8)),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out.push('"');
    out
}
