//! Text made fit for people: safe to print, and short.

use std::fmt::Write;

/// What stands where a control character stood.
const BLANK: char = '\u{fffd}';

/// Whether a character can act on a terminal, or turn the reading direction of what stands beside it.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text from another node as one harmless line.
pub(super) fn line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if is_active(c) => BLANK,
            c => c,
        })
        .collect()
}

/// A value after its name, broken between words where it would be wider than `width`; all its lines begin at `indent`.
pub(super) fn hung(name: &str, value: &str, indent: usize, width: Option<u16>) -> String {
    let room = width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(indent));
    let mut out = format!("{name:<indent$}");
    let mut used = 0;
    for word in value.split(' ') {
        let long = word.chars().count();
        if used > 0 && used + 1 + long > room {
            let _ = write!(out, "\n{:indent$}", "");
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += long;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// A text from another node as harmless lines.
pub(super) fn block(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars().map(|c| if is_active(c) && c != '\n' && c != '\t' { BLANK } else { c }).collect()
}

/// JSON text, harmless on a terminal and still the same JSON: what could act on it stands escaped.
pub(super) fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_active(c) && !matches!(c, '\n' | '\r' | '\t') {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON text as people read it: what the wire's form escapes (everything outside ASCII) stands as itself again, unless
/// it could act on a terminal. It is the same JSON.
pub(super) fn readable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (taken, character) = escaped_character(rest);
        match character {
            Some(c) if !c.is_ascii() && !is_active(c) => out.push(c),
            _ => out.push_str(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

/// How long the escape is that the text begins with, and the character it stands for if it is a `\u` one.
fn escaped_character(text: &str) -> (usize, Option<char>) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else {
        // A backslash and one character, which is ASCII in any valid JSON.
        return (text.chars().take(2).map(char::len_utf8).sum(), None);
    };
    let pair = unit(6).and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match pair {
        Some(c) if c.len_utf16() == 2 => (12, Some(c)),
        _ => (6, char::from_u32(first.into())),
    }
}

/// JSON text over several lines; every number keeps its digits, which going through a value would not warrant.
pub(super) fn pretty_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut chars = json.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|c| matches!(c, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        newline(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// A span of time for people: `4 s`, `12 min`, `3 h 20 min`, `5 d 2 h`.
pub(super) fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") }
}

/// Milliseconds for people.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// A number for people: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Milliseconds with three digits, for times that are compared: `0.085 ms`, `1.42 ms`, `2.50 s`.
pub(super) fn fine_millis(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.3} ms"),
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => millis(ms),
    }
}

/// The time of day of a UNIX time, in UTC.
pub(super) fn clock(unix: u64) -> String {
    let s = unix % 86_400;
    format!("{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

/// The one of `valid` that a mistyped word comes nearest to, if it is near at all.
pub(super) fn closest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    valid
        .iter()
        .map(|v| (distance(&word, v), *v))
        .min()
        .filter(|(d, v)| *d <= 1 + v.len().max(word.len()) / 3)
        .map(|(_, v)| v)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_left() {
        let evil = "a\u{1b}[31mred\u{9b}2J\u{7}\u{202e}x\r\n\tz\u{7f}";
        for clean in [line(evil), block(evil)] {
            assert!(!clean.chars().any(|c| is_active(c) && c != '\n' && c != '\t'), "{clean:?}");
        }
        assert!(!line(evil).contains('\n'));
        assert!(block(evil).contains('\n'));
        assert_eq!(line("Zoë 🦀"), "Zoë 🦀");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let json = "{\"a\":\"\u{9b}x\u{7f}\u{202e}\",\"n\":123456789012345678901234567890}";
        let escaped = escaped_json(json);
        assert!(escaped.is_ascii());
        let (a, b): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(json).unwrap(), serde_json::from_str(&escaped).unwrap());
        assert_eq!(a, b);
    }

    #[test]
    fn readable_json_is_the_same_json() {
        for (json, readable) in [
            (r#"{"a":"\u00fc\ud83e\udd80"}"#, "{\"a\":\"ü🦀\"}"),
            (r#""\\u00fc \n \" \u0041 \u001b \u009b \u202e""#, r#""\\u00fc \n \" \u0041 \u001b \u009b \u202e""#),
            (r#""\ud800""#, r#""\ud800""#),
            (r#""\ud83e\u00fc""#, "\"\\ud83eü\""),
            (r#""\\\u00fc\\""#, "\"\\\\ü\\\\\""),
            ("[1,\"ü\"]", "[1,\"ü\"]"),
        ] {
            assert_eq!(readable_json(json), readable);
        }
    }

    #[test]
    fn pretty_json_keeps_every_digit() {
        let json = r#"{"n":123456789012345678901234567890,"s":"a\",:{[\\","e":[],"o":{ },"l":[1,2.50,null]}"#;
        let pretty = pretty_json(json);
        assert!(pretty.contains("\"n\": 123456789012345678901234567890"), "{pretty}");
        assert!(pretty.contains("2.50") && pretty.contains("\"e\": []") && pretty.contains("\"o\": {}"), "{pretty}");
        let (a, b): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(json).unwrap(), serde_json::from_str(&pretty).unwrap());
        assert_eq!(a, b);
        assert_eq!(pretty_json("[1]"), "[\n  1\n]");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(span(4), "4 s");
        assert_eq!(span(754), "12 min 34 s");
        assert_eq!(span(12_000), "3 h 20 min");
        assert_eq!(span(440_000), "5 d 2 h");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(millis(0.5), "0.50 ms");
        assert_eq!(millis(2500.0), "2.50 s");
        assert_eq!(clock(86_400 + 3661), "01:01:01Z");
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0854, 1.42, 98.04, 250.0].map(fine_millis), ["0.085 ms", "1.42 ms", "98.0 ms", "250 ms"]);
    }

    #[test]
    fn a_mistyped_word_finds_its_like() {
        let valid = ["name", "port", "no-listen", "tracker", "exec-stream"];
        assert_eq!(closest("prot", &valid), Some("port"));
        assert_eq!(closest("no_listen", &valid), Some("no-listen"));
        assert_eq!(closest("Tracker", &valid), Some("tracker"));
        assert_eq!(closest("zzzzzzzz", &valid), None);
    }
}
