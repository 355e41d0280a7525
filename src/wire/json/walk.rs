//! Walking over text that was checked before: finding where values end, without checking again.
//!
//! Nothing here panics or loops on other text either; the result is then of no use.

use super::scan::{Key, Member, Span};
use super::strings::plain_prefix;

/// The first place from `at` on that is not white space.
pub(super) fn skip_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The string whose opening quote is at `at`: its text between the quotes, and the place after it.
pub(super) fn string(text: &[u8], at: usize) -> (Key, usize) {
    let start = at + 1;
    let mut escaped = false;
    let mut at = start;
    loop {
        at += plain_prefix(text.get(at..).unwrap_or_default());
        match text.get(at) {
            Some(b'\\') => {
                escaped = true;
                at += 2;
            }
            Some(b'"') | None => break,
            Some(_) => at += 1,
        }
    }
    let span = Span::new(start, at.min(text.len()));
    (Key { span, escaped }, at + 1)
}

/// The place after the string whose opening quote is at `at`, in text that was checked.
pub fn end_of_string(text: &[u8], at: usize) -> usize {
    string(text, at).1
}

/// The place after the value that starts at `at`.
pub(super) fn value_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    loop {
        match text.get(at) {
            None => return text.len(),
            Some(b'"') => at = string(text, at).1,
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            Some(b',' | b':' | b' ' | b'\t' | b'\n' | b'\r') => {
                at += 1;
                continue;
            }
            Some(_) => at = scalar_end(text, at),
        }
        if depth == 0 {
            return at.min(text.len());
        }
    }
}

/// The place after the number or word at `at`.
pub(super) fn scalar_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let length = rest
        .iter()
        .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
        .unwrap_or(rest.len());
    // At least one byte, so that callers always get on.
    at + length.max(1)
}

/// The elements of an array.
pub(super) fn elements(array: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = skip_space(array, 0) + 1;
    loop {
        at = skip_space(array, at);
        match array.get(at) {
            None | Some(b']') => return spans,
            Some(b',') => at += 1,
            Some(_) => {
                let end = value_end(array, at);
                spans.push(Span::new(at, end));
                at = end;
            }
        }
    }
}

/// The members of an object in canonical form, which are sorted already.
pub(super) fn members(object: &[u8]) -> Vec<Member> {
    let mut members = Vec::with_capacity(12);
    let mut at = 1;
    while object.get(at) == Some(&b'"') {
        let (key, colon) = string(object, at);
        let end = value_end(object, colon + 1);
        members.push(Member::new(key, Span::new(colon + 1, end), object));
        at = end + 1;
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found() {
        let array = br#" [ 1 ,"a,]\"" , [2,[3]], {"k":[4]},null,-5e3 ] "#;
        let found: Vec<_> =
            elements(array).into_iter().map(|span| std::str::from_utf8(span.of(array)).unwrap()).collect();
        assert_eq!(found, ["1", r#""a,]\"""#, "[2,[3]]", r#"{"k":[4]}"#, "null", "-5e3"]);
        assert!(elements(b"[]").is_empty());
    }

    #[test]
    fn unchecked_text_ends_too() {
        for text in ["[", "[\"", "[\"\\", "{\"a\":", "{\"a\"", "]", "[[[", "[:::", "", "\\"] {
            elements(text.as_bytes());
            members(text.as_bytes());
            value_end(text.as_bytes(), 0);
        }
    }
}
