//! Numbers: JSON's grammar, and Python's way of printing floats.

use super::error::JsonError;
use crate::limits::MAX_INTEGER_DIGITS;

/// Checks the number that starts at `start` and returns where it ends.
pub(super) fn check(text: &[u8], start: usize) -> Result<usize, JsonError> {
    let first = start + usize::from(text.get(start) == Some(&b'-'));
    let mut at = digits(text, first)?;
    let whole = at - first;
    if whole > 1 && text[first] == b'0' {
        return Err(JsonError::BadNumber { offset: first });
    }
    let mut integer = true;
    if text.get(at) == Some(&b'.') {
        integer = false;
        at = digits(text, at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        integer = false;
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(text, at + 1 + sign)?;
    }
    if integer {
        if whole > MAX_INTEGER_DIGITS {
            return Err(JsonError::IntegerTooLong { offset: start });
        }
    } else if !parse(&text[start..at]).is_some_and(f64::is_finite) {
        return Err(JsonError::NotFinite { offset: start });
    }
    Ok(at)
}

/// The end of the digits that start at `start`; there must be at least one.
fn digits(text: &[u8], start: usize) -> Result<usize, JsonError> {
    let rest = text.get(start..).unwrap_or_default();
    let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    if count > 0 {
        Ok(start + count)
    } else if rest.is_empty() {
        Err(JsonError::Truncated { offset: text.len() })
    } else {
        Err(JsonError::BadNumber { offset: start })
    }
}

/// The nearest float to a checked number; infinite where it is too large.
pub(super) fn parse(number: &[u8]) -> Option<f64> {
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The fewest digits that read back as this float, in the layout `-1.25e-7`.
fn shortest(value: f64) -> String {
    let shortest = format!("{value:e}");
    // Where the value lies exactly between two decimals that both read back (569552529327416.25), Rust takes the upper
    // one and Python the even one. Rounding to so many digits takes the even one too.
    let digits = shortest.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    if even.parse() == Ok(value) { even } else { shortest }
}

/// Writes a finite float as Python's `repr` does: the fewest digits that read back as the same float, an exponent
/// below 1e-4 and from 1e16 on.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    let scientific = shortest(value);
    let (sign, scientific) = match scientific.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", scientific.as_str()),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    out.extend_from_slice(sign.as_bytes());
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let text = format!("{mantissa}e{sign}{:02}", exponent.abs());
        out.extend_from_slice(text.as_bytes());
        return;
    }
    // The decimal point stands after `point` digits.
    let point = exponent + 1;
    match usize::try_from(point) {
        Err(_) | Ok(0) => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + point.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits.as_bytes());
        }
        Ok(point) if point >= digits.len() => {
            out.extend_from_slice(digits.as_bytes());
            out.resize(out.len() + point - digits.len(), b'0');
            out.extend_from_slice(b".0");
        }
        Ok(point) => {
            out.extend_from_slice(&digits.as_bytes()[..point]);
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[point..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
            (0.00001, "1e-05"),
            (1e-7, "1e-07"),
            (1.25e-7, "1.25e-07"),
            (123456.789, "123456.789"),
            (569552529327416.0 + 0.25, "569552529327416.2"),
            (569552529327416.0 + 0.75, "569552529327416.8"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            let mut out = Vec::new();
            write_f64(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn the_grammar_is_jsons() {
        for good in ["0", "-0", "10", "1.0", "-1.5e3", "1E+2", "1e-400", "0e0", "12345678901234567890123"] {
            assert_eq!(check(good.as_bytes(), 0), Ok(good.len()), "{good}");
        }
        for (bad, offset) in [("01", 0), ("-01", 1), ("1.x", 2), ("1ex", 2), ("1e+x", 3), ("-x", 1)] {
            assert_eq!(check(bad.as_bytes(), 0), Err(JsonError::BadNumber { offset }), "{bad}");
        }
        for cut in ["-", "1.", "1e", "1e-"] {
            let offset = cut.len();
            assert_eq!(check(cut.as_bytes(), 0), Err(JsonError::Truncated { offset }), "{cut}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let longest = "9".repeat(MAX_INTEGER_DIGITS);
        assert_eq!(check(longest.as_bytes(), 0), Ok(MAX_INTEGER_DIGITS));
        let longer = format!("-9{longest}");
        assert_eq!(check(longer.as_bytes(), 0), Err(JsonError::IntegerTooLong { offset: 0 }));
        for infinite in ["1e999", "-1e309", "17976931348623159e292"] {
            assert_eq!(check(infinite.as_bytes(), 0), Err(JsonError::NotFinite { offset: 0 }));
        }
    }
}
