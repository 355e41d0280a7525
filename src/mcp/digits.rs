//! Numbers on their way through MCP, whose messages are read into 64-bit numbers.
//!
//! What a node sends is handed on as its text, digit for digit; the structured form stands beside it only where it says the
//! same. What a client sends is read before this program sees it: a number that lost digits then is refused, not sent.

use serde_json::Value;

/// Digits that a 64-bit float keeps for certain.
const FLOAT_DIGITS: usize = 15;

/// Whether JSON text says the same once it was read into 64-bit numbers.
pub(super) fn survive(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        rest = &rest[at..];
        let length = if rest.starts_with('"') {
            string(rest)
        } else {
            let length =
                rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
            if !number_survives(&rest[..length]) {
                return false;
            }
            length
        };
        rest = &rest[length..];
    }
    true
}

/// How long the string is that the text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn number_survives(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0').trim_end_matches('0');
    let finite = number.parse::<f64>().is_ok_and(f64::is_finite);
    // An integer without a point is written with one once it is a float: it says the same, and is another kind to some.
    let is_integer = !number.contains(['.', 'e', 'E']);
    finite && !is_integer && digits.len() <= FLOAT_DIGITS
}

/// The number that may have lost digits before it came here, if there is one: beyond 64 bits, and whole.
pub(super) fn doubtful(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64())?;
            (float.abs() >= 9_223_372_036_854_775_808.0).then_some(float)
        }
        Value::Array(items) => items.iter().find_map(doubtful),
        Value::Object(members) => members.values().find_map(doubtful),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_the_same_is_told_from_what_does_not() {
        for same in [
            "1",
            "-1",
            "9223372036854775809",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "-2.50e3",
            "null",
            "[]",
            r#"{"a":"123456789012345678901234567890","b":"\"99999999999999999999999"}"#,
            "[1.0,2,\"x\"]",
        ] {
            assert!(survive(same), "{same}");
        }
        for other in [
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890",
            "[0.12345678901234567890]",
            r#"{"a":"x","b":[1,{"c":99999999999999999999}]}"#,
            "1e999",
        ] {
            assert!(!survive(other), "{other}");
        }
    }

    #[test]
    fn a_number_that_may_have_lost_digits_is_found() {
        for fine in [json!(1), json!(u64::MAX), json!(i64::MIN), json!(0.5), json!([1e15, {"a": 2}])] {
            assert_eq!(doubtful(&fine), None, "{fine}");
        }
        let read: Value = serde_json::from_str(r#"{"a":[123456789012345678901234567890]}"#).unwrap();
        assert_eq!(doubtful(&read), Some(1.2345678901234568e29));
    }
}
