//! JSON strings: their canonical spelling, and the order of names whatever their spelling.

use std::borrow::Cow;

use memchr::memchr;

/// How many of the first bytes mean themselves in a canonical string: printable ASCII without `"` and `\`.
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    let mut count = 0;
    // Eight bytes at a time. The tests never miss a byte that isn't plain, and report one that is only behind one that isn't,
    // from which a borrow or a carry came. So the first that they report is right.
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ 0x2222_2222_2222_2222;
        let backslash = word ^ 0x5c5c_5c5c_5c5c_5c5c;
        let found = (word.wrapping_sub(0x2020_2020_2020_2020) & !word)
            | (quote.wrapping_sub(0x0101_0101_0101_0101) & !quote)
            | (backslash.wrapping_sub(0x0101_0101_0101_0101) & !backslash)
            | word.wrapping_add(0x0101_0101_0101_0101)
            | word;
        let found = found & 0x8080_8080_8080_8080;
        if found != 0 {
            return count + found.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    count + bytes[count..].iter().position(|&byte| !is_plain(byte)).unwrap_or(bytes.len() - count)
}

/// Whether the byte stands for itself in a canonical string.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Writes the string with its quotes in canonical form.
pub(super) fn write(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest.as_bytes());
        out.extend_from_slice(&rest.as_bytes()[..plain]);
        let mut chars = rest[plain..].chars();
        let Some(next) = chars.next() else { break };
        write_escape(next, out);
        rest = chars.as_str();
    }
    out.push(b'"');
}

fn write_escape(character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let digits = [12, 8, 4, 0].map(|shift| {
                    let digit = (*unit >> shift) & 0xf;
                    b"0123456789abcdef"[usize::from(digit)]
                });
                out.extend_from_slice(b"\\u");
                out.extend_from_slice(&digits);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// What a checked string means. `inner` is the text between its quotes.
pub(super) fn decode(inner: &[u8]) -> Cow<'_, str> {
    if memchr(b'\\', inner).is_none() {
        // What was checked is valid UTF-8, so nothing is lost.
        return std::str::from_utf8(inner).map_or_else(|_| String::from_utf8_lossy(inner), Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut decoded = Decoded::new(inner);
    loop {
        // Runs without escapes are copied whole.
        let plain = plain_prefix(decoded.rest);
        let (run, rest) = decoded.rest.split_at(plain);
        bytes.extend_from_slice(run);
        decoded.rest = rest;
        let Some(byte) = decoded.next() else { break };
        bytes.push(byte);
        bytes.extend_from_slice(&decoded.pending[decoded.given..decoded.length]);
        decoded.given = decoded.length;
    }
    // What was checked decodes to valid UTF-8, so nothing is lost.
    Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The UTF-8 bytes a checked string stands for, one after the other and without allocating. Their order is the order
/// of code points, so names can be compared as they are decoded.
pub(super) struct Decoded<'a> {
    rest: &'a [u8],
    /// The bytes of one escaped character, and how many of them are out.
    pending: [u8; 4],
    length: usize,
    given: usize,
}

impl<'a> Decoded<'a> {
    /// `inner` is the text between the quotes.
    pub(super) fn new(inner: &'a [u8]) -> Self {
        Self { rest: inner, pending: [0; 4], length: 0, given: 0 }
    }

    fn escape(&mut self) -> Option<u8> {
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        let plain = match kind {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode(),
            other => other,
        };
        Some(plain)
    }

    fn unicode(&mut self) -> Option<u8> {
        let first = self.unit()?;
        let character = if (0xd800..0xdc00).contains(&first) {
            self.rest = self.rest.strip_prefix(b"\\u")?;
            let second = self.unit()?;
            char::decode_utf16([first, second]).next()?.ok()?
        } else {
            char::from_u32(first.into())?
        };
        self.length = character.encode_utf8(&mut self.pending).len();
        self.given = 1;
        Some(self.pending[0])
    }

    fn unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        hex4(digits)
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.given < self.length {
            self.given += 1;
            return Some(self.pending[self.given - 1]);
        }
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        if byte == b'\\' { self.escape() } else { Some(byte) }
    }
}

/// The number four hexadecimal digits stand for.
pub(super) fn hex4(digits: &[u8; 4]) -> Option<u16> {
    digits.iter().try_fold(0, |sum: u16, &digit| {
        let value = char::from(digit).to_digit(16)?;
        // Four digits of four bits each fill the sixteen exactly.
        Some(sum << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_prefix_finds_every_special_byte_at_every_place() {
        for special in (0..=255u8).filter(|&byte| !is_plain(byte)) {
            for place in 0..20 {
                let mut text = [b'a'; 24];
                text[place] = special;
                assert_eq!(plain_prefix(&text), place, "byte {special:#x}");
            }
        }
        // Two of them, next to each other: one's borrow or carry doesn't hide the other, nor comes before it.
        for (one, two) in (0..=255u8).flat_map(|one| (0..=255u8).map(move |two| (one, two))) {
            let text = [b'a', b' ', one, two, b'!', b'~', b'g', b'h'];
            let expected = text.iter().position(|&byte| !is_plain(byte)).unwrap_or(8);
            assert_eq!(plain_prefix(&text), expected, "{one:#x} {two:#x}");
        }
        assert_eq!(plain_prefix(b" !#[]^~abcdefghijk"), 18);
        assert_eq!(plain_prefix(b""), 0);
    }

    #[test]
    fn what_is_written_decodes_to_what_it_was() {
        for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t\0\u{7f}", "é€😀\u{ffff}", "a\u{10ffff}b"] {
            let mut out = Vec::new();
            write(text, &mut out);
            assert!(out.iter().all(|byte| (0x20..0x7f).contains(byte)));
            assert_eq!(decode(&out[1..out.len() - 1]), text);
        }
    }

    #[test]
    fn escapes_are_pythons() {
        let mut out = Vec::new();
        write("/\"\\\u{8}\u{c}\n\r\t\u{1f}\u{7f}é😀", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#""/\"\\\b\f\n\r\t\u001f\u007f\u00e9\ud83d\ude00""#);
    }
}
