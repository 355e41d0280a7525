//! `[[policy]]` in the settings file: who may ask for what, and how often.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::identity::NodeId;
use crate::mesh::policy::{Policy, Rate, check_pattern};

use super::{text, values};

/// Every key there is in a rule.
const KEYS: &[&str] = &["capability", "allow", "deny", "rate", "max_in_flight"];

/// A fault, and the line it is in.
type Fault = (usize, String);

/// The rules, in their order.
pub(super) fn read(value: &Spanned<DeValue<'_>>, line_of: &impl Fn(usize) -> usize) -> Result<Vec<Policy>, Fault> {
    let here = line_of(value.span().start);
    let shape = "policy: rules stand below lines [[policy]]";
    let DeValue::Array(rules) = value.get_ref() else { return Err((here, shape.to_owned())) };
    let rule = |rule: &Spanned<DeValue<'_>>| match rule.get_ref() {
        DeValue::Table(table) => one(table, line_of(rule.span().start), line_of),
        _ => Err((line_of(rule.span().start), shape.to_owned())),
    };
    rules.iter().map(rule).collect()
}

fn one(table: &DeTable<'_>, here: usize, line_of: &impl Fn(usize) -> usize) -> Result<Policy, Fault> {
    for (key, _) in table {
        let word: &str = key.get_ref();
        if !KEYS.contains(&word) {
            let advice = match text::closest(word, KEYS) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the keys of a rule are {}", KEYS.join(", ")),
            };
            return Err((line_of(key.span().start), format!("policy: unknown key {word:?}; {advice}")));
        }
    }
    // A value, read; with the line that a fault is in.
    let get = |key: &str| table.get(key).map(|value| (line_of(value.span().start), value.get_ref()));
    let fault = |line: usize, key: &str, what: &dyn std::fmt::Display| (line, format!("policy: {key}: {what}"));
    let Some((line, capability)) = get("capability") else {
        return Err((
            here,
            "policy: a rule needs `capability = \"NAME\"` (* at the end covers every ending)".to_owned(),
        ));
    };
    let DeValue::String(pattern) = capability else {
        return Err(fault(line, "capability", &"a text belongs here"));
    };
    check_pattern(pattern).map_err(|e| fault(line, "capability", &e))?;
    let mut policy = Policy::new(pattern.as_ref());
    let ids = |key: &str| -> Result<Option<Vec<NodeId>>, Fault> {
        let Some((line, value)) = get(key) else { return Ok(None) };
        let DeValue::Array(list) = value else { return Err(fault(line, key, &"a list of ids belongs here")) };
        let id = |value: &Spanned<DeValue<'_>>| {
            let line = line_of(value.span().start);
            let DeValue::String(id) = value.get_ref() else { return Err(fault(line, key, &"an id is a text")) };
            values::node_id(id).map_err(|e| fault(line, key, &format!("{id:?}: {e}")))
        };
        list.iter().map(id).collect::<Result<_, _>>().map(Some)
    };
    if let Some(ids) = ids("allow")? {
        policy = policy.allow(ids);
    }
    if let Some(ids) = ids("deny")? {
        policy = policy.deny(ids);
    }
    if let Some((line, value)) = get("rate") {
        let DeValue::String(rate) = value else { return Err(fault(line, "rate", &"a text belongs here: \"10/min\"")) };
        policy = policy.rate(rate.parse::<Rate>().map_err(|e| fault(line, "rate", &e))?);
    }
    if let Some((line, value)) = get("max_in_flight") {
        let number = match value {
            DeValue::Integer(number) => number.to_string().parse().ok().filter(|n: &usize| *n >= 1),
            _ => None,
        };
        let wrong = "a number from 1 on belongs here; to refuse everybody say `allow = []`";
        policy = policy.max_in_flight(number.ok_or_else(|| fault(line, "max_in_flight", &wrong))?);
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cli::config::FileSettings;
    use crate::cli::failure::Failure;

    fn policies(source: &str) -> Result<Vec<Policy>, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("elo.toml");
        std::fs::write(&path, source).unwrap();
        Ok(FileSettings::load(&PathBuf::new(), Some(&path))?.policies().to_vec())
    }

    fn id(n: u8) -> NodeId {
        crate::identity::Identity::from_seed([n; 32]).id()
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let source = format!(
            "name = 'x'\n[[policy]]\ncapability = 'deploy*'\nallow = ['{}', '{}']\ndeny = []\nrate = '10/min'\n\
             max_in_flight = 2\n\n[[policy]]\ncapability = '*'\nallow = []\n",
            id(1),
            id(2)
        );
        let first = Policy::new("deploy*").allow([id(1), id(2)]).rate(Rate::per_minute(10)).max_in_flight(2);
        assert_eq!(policies(&source).unwrap(), [first, Policy::new("*").allow([])]);
        assert_eq!(policies("name = 'x'").unwrap(), []);
        assert_eq!(policies("policy = [{capability = 'a'}]").unwrap(), [Policy::new("a")]);
    }

    #[test]
    fn faults_name_the_line_and_the_key() {
        let rule = "[[policy]]\ncapability = 'a'\n";
        for (source, line, said) in [
            ("policy = 'x'".to_owned(), 1, "[[policy]]"),
            ("policy = ['x']".to_owned(), 1, "[[policy]]"),
            ("\n\n[[policy]]\nrate = '1/s'".to_owned(), 3, "needs `capability"),
            (format!("{rule}rates = '1/s'"), 3, "unknown key \"rates\"; did you mean \"rate\"?"),
            (format!("{rule}qqqqqqqqqqqq = 1"), 3, "the keys of a rule are capability, allow"),
            (format!("{rule}{rule}rate = '1'"), 5, "rate: \"1\" is not a rate"),
            (format!("{rule}rate = 5"), 3, "rate: a text belongs here"),
            (format!("{rule}rate = '0/min'"), 3, "at least 1"),
            ("[[policy]]\ncapability = 'a*b'".to_owned(), 2, "capability: \"a*b\": a * stands at the end"),
            ("[[policy]]\ncapability = ''".to_owned(), 2, "capability: a pattern has 1 to 128"),
            ("[[policy]]\ncapability = ['a']".to_owned(), 2, "capability: a text"),
            (format!("{rule}allow = 'x'"), 3, "allow: a list of ids"),
            (format!("{rule}allow = [\n'x'\n]"), 4, "allow: \"x\": "),
            (format!("{rule}deny = [1]"), 3, "deny: an id is a text"),
            (format!("{rule}max_in_flight = 0"), 3, "max_in_flight: a number from 1"),
            (format!("{rule}max_in_flight = '2'"), 3, "max_in_flight: a number from 1"),
            ("pollicy = 1".to_owned(), 1, "did you mean \"policy\""),
        ] {
            let failure = policies(&source).unwrap_err();
            assert_eq!(failure.exit, 2, "{source}");
            let place = format!("elo.toml:{line}: ");
            assert!(
                failure.message.contains(&place) && failure.message.contains(said),
                "{source}: {}",
                failure.message
            );
        }
    }
}
