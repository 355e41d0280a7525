//! A pass for what elo writes itself: text in canonical form, with few members and not deep. It takes no memory but for
//! its result.
//!
//! It only ever says yes. Whatever it doesn't know, the pass of [`scan`](super::scan) looks at again from the start, and says what
//! is wrong with it.

use std::sync::Arc;

use super::number;
use super::scan::{Member, Span};
use super::strings::{hex4, plain_prefix};

/// The most members of the object itself. A task has eleven.
const MEMBERS: usize = 24;

/// How deep a text may be. That is less than [`MAX_JSON_DEPTH`](crate::limits::MAX_JSON_DEPTH), so that this may recurse.
const DEPTH: usize = 12;

/// The members of an object in canonical form. `None`: the other pass has to say.
pub(super) fn members(text: &[u8]) -> Option<Arc<[Member]>> {
    u32::try_from(text.len()).ok()?;
    let mut found = [(Span::new(0, 0), Span::new(0, 0)); MEMBERS];
    let mut count = 0;
    let mut pass = Pass { text, at: 0 };
    pass.object(DEPTH, |name, value| {
        *found.get_mut(count)? = (name, value);
        count += 1;
        Some(())
    })?;
    if pass.at < text.len() {
        return None;
    }
    Some(found[..count].iter().map(|&(key, value)| Member { key, decoded: None, value }).collect())
}

/// Every method goes on to behind what it is named after; `None`: that is not there, or the other pass has to look at it.
struct Pass<'a> {
    text: &'a [u8],
    at: usize,
}

impl Pass<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// An object, of whose members `each` is told name and value.
    fn object(&mut self, depth: usize, mut each: impl FnMut(Span, Span) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.text.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Some(());
        }
        let mut before: Option<&[u8]> = None;
        loop {
            self.expect(b'"')?;
            let start = self.at;
            self.at += plain_prefix(&self.text[start..]);
            let name = Span::new(start, self.at);
            // A name with an escape in it doesn't end here.
            self.expect(b'"')?;
            self.expect(b':')?;
            let spelled = &self.text[name.range()];
            // In rising order none comes twice.
            if before.is_some_and(|before| before >= spelled) {
                return None;
            }
            before = Some(spelled);
            let start = self.at;
            self.value(depth.checked_sub(1)?)?;
            each(name, Span::new(start, self.at))?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.expect(b'[')?;
        if self.text.get(self.at) == Some(&b']') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.value(depth.checked_sub(1)?)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.text.get(self.at)? {
            b'"' => self.string(),
            b'{' => self.object(depth, |_, _| Some(())),
            b'[' => self.array(depth),
            b'-' | b'0'..=b'9' => {
                self.at = number::check(self.text, self.at).ok()?;
                Some(())
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => None,
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let is_there = self.text[self.at..].starts_with(word);
        self.at += word.len();
        is_there.then_some(())
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    /// What follows the backslash.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.unit()? {
                0xd800..0xdc00 => {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    (0xdc00..0xe000).contains(&self.unit()?).then_some(())
                }
                // The second half of a pair alone, and what has a shorter spelling.
                0xdc00..0xe000 | 0x20..0x7f | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..)?.first_chunk::<4>()?;
        self.at += 4;
        if digits.iter().any(u8::is_ascii_uppercase) { None } else { hex4(digits) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::json::{Builder, canonicalize_json, scan};

    /// Whatever this pass says yes to, the other does, and finds the same in it.
    fn same(text: &[u8]) -> bool {
        let quick = members(text);
        if let Some(quick) = &quick {
            let scan = scan::object(text).unwrap();
            assert!(scan.canonical, "{:?}", String::from_utf8_lossy(text));
            let place = |m: &Member| (m.key.range(), m.value.range(), m.decoded.clone());
            assert!(quick.iter().map(place).eq(scan.members.iter().map(place)));
        }
        quick.is_some()
    }

    #[test]
    fn what_elo_writes_is_taken() {
        let text = Builder::new("task").str("text", "\"\\\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}é€😀\u{ffff}").f().build();
        assert!(same(text.raw()), "{:?}", text.raw());
        for text in [
            "{}",
            r#"{"":0}"#,
            r#"{"a":[],"b":{},"c":[[],{"x":-1.5e-7}],"d":true,"e":false,"f":null,"g":"\ud83d\ude00\u0000"}"#,
        ] {
            assert!(same(text.as_bytes()), "{text}");
        }
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(same(nested(DEPTH - 1).as_bytes()) && !same(nested(DEPTH + 1).as_bytes()));
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|n| format!("\"{n:03}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(same(many(MEMBERS).as_bytes()) && !same(many(MEMBERS + 1).as_bytes()));
    }

    #[test]
    fn what_is_not_canonical_is_left_to_the_other() {
        for text in [
            "",
            "{",
            "}",
            "[]",
            "1",
            "\"\"",
            "{}{}",
            "{} ",
            " {}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1 }",
            "{\"a\":1,\"a\":1}",
            "{\"b\":1,\"a\":1}",
            "{\"a\":01}",
            "{\"a\":1e999}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "{\"a\":[}",
            "{\"a\":\"\\/\"}",
            "{\"a\":\"\\u0041\"}",
            "{\"a\":\"\\u00E9\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\ud800\\n\"}",
            "{\"a\":\"\\udc00\"}",
            "{\"a\":\"\\u000a\"}",
            "{\"a\":\"\u{7f}\"}",
            "{\"a\":\"é\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{\"a\":\"\\u00",
            "{\"\\n\":1}",
            "{\"a\":{\"x\":1,\"x\":2}}",
            "{\"a\":n",
            "{\"a\":-}",
            "{a:1}",
        ] {
            assert!(!same(text.as_bytes()), "{text}");
        }
    }

    impl Builder {
        fn f(self) -> Self {
            self.raw("payload", br#"{"k":[1.50,{"":"x"}]}"#).u64("n", 7).i64("i", -7).bool("b", true).null("z")
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn both_passes_agree(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"\\n\"", "\"\\u00e9\"", "\"\\ud83d\\ude00\"", "1", "-0.5", "true",
                "null", " ", "\"", "\\", "u", "\"a\":1", "\"b\":{}", "\"c\":[", "é", "00e9", "\u{7f}",
            ]), 0..14),
            whole in any::<bool>(),
        ) {
            let text = parts.concat();
            let text = if whole { format!("{{{text}}}") } else { text };
            same(text.as_bytes());
            // What is canonical and small is never left to the other.
            if let Ok(canonical) = canonicalize_json(text.as_bytes()) {
                let plain_names = !canonical.windows(2).any(|pair| pair == b"\\n" || pair == b"\\u");
                let is_object = canonical.first() == Some(&b'{');
                prop_assert!(!is_object || !plain_names || same(&canonical));
            }
        }

        #[test]
        fn a_changed_byte_is_seen_by_both(at in 0usize..200, byte in any::<u8>()) {
            let mut text = Builder::new("task").str("text", "é\n").f().build().raw().to_vec();
            let at = at % text.len();
            text[at] = byte;
            same(&text);
        }
    }
}
