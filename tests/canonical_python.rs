//! The canonical form against the program that defines it: Python's `json.dumps`.
//!
//! On with `ELO_INTEROP=1`, since it needs `python3` (or the interpreter named by `ELO_PYTHON`). One process answers for
//! all cases, a line each.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use elo::wire::{canonicalize_json, canonicalize_value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

/// Reads JSON a line, prints its canonical form a line.
const SCRIPT: &str = "
import json, sys
if hasattr(sys, 'set_int_max_str_digits'): sys.set_int_max_str_digits(0)
for line in sys.stdin.buffer:
    text = json.dumps(json.loads(line), sort_keys=True, separators=(',', ':'), allow_nan=False)
    sys.stdout.write(text + chr(10))
    sys.stdout.flush()
";

struct Python {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Self {
        let name = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
        let mut process = Command::new(&name)
            .args(["-I", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("this test needs Python 3: can't run {name:?}: {error}. Install python3 or set ELO_PYTHON.")
            });
        Self { input: process.stdin.take().unwrap(), output: BufReader::new(process.stdout.take().unwrap()), process }
    }

    fn canonical(&mut self, text: &[u8]) -> String {
        assert!(!text.contains(&b'\n'), "one line a case");
        self.input.write_all(text).unwrap();
        self.input.write_all(b"\n").unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "python3 stopped at {}", String::from_utf8_lossy(text));
        line.pop();
        line
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Floats of all exponents, not only those near zero that a uniform choice would rarely leave.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (any::<i32>(), -30i32..30).prop_map(|(digits, exponent)| { format!("{digits}e{exponent}").parse().unwrap() }),
    ]
    .prop_filter("JSON has finite numbers only", |value| value.is_finite())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\\x00-\\x20\\x7e-\\xa0\"\\\\/é\u{2028}\u{fffd}\u{ffff}\u{10000}😀\u{10ffff}]{0,10}",]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        float().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 80, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(text(), inner, 0..8).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn check(cases: u32, test: impl Fn(&mut Python, Value)) {
    let python = std::cell::RefCell::new(Python::start());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&value(), |value| {
            test(&mut python.borrow_mut(), value);
            Ok(())
        })
        .unwrap();
}

/// Whether Python is to be asked.
fn is_on() -> bool {
    let on = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
    if !on {
        println!("not run: set ELO_INTEROP=1 to check against Python's json");
    }
    on
}

#[test]
fn values_are_written_as_python_writes_them() {
    if !is_on() {
        return;
    }
    check(1500, |python, value| {
        let ours = String::from_utf8(canonicalize_value(&value).unwrap()).unwrap();
        assert_eq!(python.canonical(ours.as_bytes()), ours);
    });
}

#[test]
fn text_is_rewritten_as_python_rewrites_it() {
    if !is_on() {
        return;
    }
    check(1500, |python, value| {
        // Floats in the digits Python would choose: the canonical form keeps digits, Python chooses them anew.
        let canonical = canonicalize_value(&value).unwrap();
        let loose = loosen(&canonical);
        let ours = String::from_utf8(canonicalize_json(&loose).unwrap()).unwrap();
        assert_eq!(ours.as_bytes(), canonical);
        assert_eq!(python.canonical(&loose), ours);
    });
}

#[test]
fn floats_are_written_as_python_writes_them() {
    if !is_on() {
        return;
    }
    let mut python = Python::start();
    let mut same = |value: f64| {
        let ours = String::from_utf8(canonicalize_value(&Value::from(value)).unwrap()).unwrap();
        assert_eq!(python.canonical(ours.as_bytes()), ours);
    };
    // Every power of ten and of two, and their neighbours: where digits and layout change.
    let tens = (-330..=308).map(|exponent| format!("1e{exponent}").parse::<f64>().unwrap());
    let twos = (-1074..=1023).map(|exponent| 2f64.powi(exponent));
    for value in tens.chain(twos) {
        for value in [value.next_down(), value, value.next_up(), -value] {
            if value.is_finite() {
                same(value);
            }
        }
    }
    // Quarters of large numbers lie exactly between two decimals of 16 digits.
    for quarter in 0..2000 {
        same(569_552_529_327_000.0 + 0.25 + f64::from(quarter) * 0.5);
        same(2_251_799_813_685_248.0 + f64::from(quarter) * 0.25);
        same(-1_125_899_906_842_624.0 + f64::from(quarter) * 0.125);
    }
    same(f64::MAX);
}

#[test]
fn integers_of_any_length_keep_their_digits() {
    if !is_on() {
        return;
    }
    let mut python = Python::start();
    for length in [1, 15, 16, 17, 19, 20, 21, 39, 308, 309, 1000, 4300] {
        for number in ["9".repeat(length), format!("-1{}", "0".repeat(length - 1))] {
            let ours = canonicalize_json(number.as_bytes()).unwrap();
            assert_eq!(python.canonical(number.as_bytes()).as_bytes(), ours);
        }
    }
}

/// The same JSON with white space, and letters in strings spelled as escapes in capitals.
fn loosen(canonical: &[u8]) -> Vec<u8> {
    let mut loose = Vec::new();
    let mut in_string = false;
    let mut bytes = canonical.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => {
                loose.push(byte);
                loose.extend(bytes.next());
                continue;
            }
            b'"' => in_string = !in_string,
            b'A'..=b'Z' | b'/' if in_string => {
                loose.extend_from_slice(format!("\\u{byte:04X}").as_bytes());
                continue;
            }
            b',' | b':' | b'{' | b'[' if !in_string => {
                loose.extend_from_slice(&[byte, b' ', b'\t']);
                continue;
            }
            _ => {}
        }
        loose.push(byte);
    }
    loose.push(b' ');
    loose
}
