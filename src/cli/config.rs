//! The settings file, `elo.toml`: its keys are the flags' names; and `[limits]`, which has no flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::failure::Failure;
use super::{limits, rules, text};
use crate::limits::Limits;
use crate::mesh::policy::Policy;

/// The most bytes a settings file may have: an allowlist of some thousand nodes fits.
const MAX_FILE: u64 = 1024 * 1024;

/// Every key there is.
const KEYS: &[&str] = &[
    "name",
    "port",
    "bind",
    "no-listen",
    "advertise",
    "peer",
    "agent",
    "tool",
    "model",
    "interest",
    "exec",
    "exec-stream",
    "exec-shell",
    "max-tasks",
    "poll",
    "webhook",
    "webhook-secret",
    "event-hook",
    "http",
    "http-host",
    "http-cert",
    "http-key",
    "http-insecure",
    "a2a-agent",
    "tracker",
    "private",
    "allow",
    "deny",
    "serve-only",
    "policy",
    "port-map",
    "legacy",
    "sealed",
    "tls",
    "no-lan",
    "lan-interface",
    "no-remember",
    "dht",
    "dht-port",
    "timeout",
    "limits",
];

#[derive(Debug)]
enum Item {
    One(String),
    Many(Vec<String>),
    Flag(bool),
}

/// What the settings file says.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    path: PathBuf,
    items: BTreeMap<&'static str, (usize, Item)>,
    limits: Limits,
    policies: Vec<Policy>,
}

impl FileSettings {
    /// Reads the file named, which then must be there, or `elo.toml` of the home if there is one.
    pub(super) fn load(home: &Path, named: Option<&Path>) -> Result<Self, Failure> {
        let path = named.map_or_else(|| home.join("elo.toml"), Path::to_owned);
        let unreadable =
            |e: std::io::Error| Failure::usage(format!("can't read the settings file {}: {e}", path.display()));
        match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_FILE => {
                return Err(Failure::usage(format!("the settings file {} has more than 1 MiB", path.display())));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(Self::default()),
            Err(e) => return Err(unreadable(e)),
        }
        Self::parse(&std::fs::read_to_string(&path).map_err(unreadable)?, path.clone())
    }

    fn parse(source: &str, path: PathBuf) -> Result<Self, Failure> {
        let line_of = |offset: usize| source.get(..offset).map_or(1, |s| s.matches('\n').count() + 1);
        let at = |line: usize, what: String| Failure::usage(format!("{}:{line}: {what}", path.display()));
        let table = DeTable::parse(source)
            .map_err(|e| at(e.span().map_or(1, |span| line_of(span.start)), e.message().to_owned()))?;
        let (mut items, mut policies) = (BTreeMap::new(), Vec::new());
        let mut changed = Limits::default();
        for (key, value) in table.get_ref().iter() {
            let line = line_of(key.span().start);
            let word: &str = key.get_ref();
            let Some(key) = KEYS.iter().find(|k| **k == word).copied() else {
                let near = text::closest(word, KEYS);
                let advice = match (word, near) {
                    ("require-tls" | "no-tls", _) => "say tls = \"required\" or tls = \"off\"".to_owned(),
                    ("require-sealed" | "no-sealed", _) => "say sealed = \"required\" or sealed = \"off\"".to_owned(),
                    (_, Some(near)) => format!("did you mean {near:?}?"),
                    _ => format!("the keys are {}", KEYS.join(", ")),
                };
                return Err(at(line, format!("unknown key {word:?}; {advice}")));
            };
            if key == "limits" {
                let DeValue::Table(table) = value.get_ref() else {
                    return Err(at(line, "limits: a table belongs here: [limits]".to_owned()));
                };
                for (name, value) in table.iter() {
                    let (line, name): (usize, &str) = (line_of(name.span().start), name.get_ref());
                    limits::change(&mut changed, name, value.get_ref()).map_err(|e| at(line, e))?;
                }
                changed.check().map_err(|e| at(line, e.to_string()))?;
                continue;
            }
            if key == "policy" {
                policies = rules::read(value, &line_of).map_err(|(line, what)| at(line, what))?;
                continue;
            }
            let item = Item::read(value.get_ref()).map_err(|e| at(line, format!("{key}: {e}")))?;
            items.insert(key, (line, item));
        }
        Ok(Self { path, items, limits: changed, policies })
    }

    fn fault(&self, key: &str, line: usize, what: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{}:{line}: {key}: {what}", self.path.display()))
    }

    /// One value, read as the flag's is.
    pub(super) fn value<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
        debug_assert!(KEYS.contains(&key));
        match self.items.get(key) {
            None => Ok(None),
            Some((line, Item::One(text))) => parse(text).map(Some).map_err(|e| self.fault(key, *line, e)),
            Some((line, _)) => Err(self.fault(key, *line, "one value belongs here, a text or a number")),
        }
    }

    /// A list, or one value instead; every entry read as the flag's is.
    pub(super) fn list<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Failure> {
        debug_assert!(KEYS.contains(&key));
        let (line, texts) = match self.items.get(key) {
            None => return Ok(Vec::new()),
            Some((line, Item::One(text))) => (*line, std::slice::from_ref(text)),
            Some((line, Item::Many(texts))) => (*line, texts.as_slice()),
            Some((line, Item::Flag(_))) => return Err(self.fault(key, *line, "a list of texts belongs here")),
        };
        let parsed: Result<_, String> =
            texts.iter().map(|text| parse(text).map_err(|e| format!("{text:?}: {e}"))).collect();
        parsed.map_err(|e| self.fault(key, line, e))
    }

    /// The node's bounds.
    pub(super) fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// The rules for capabilities, in their order.
    pub(super) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Failure> {
        debug_assert!(KEYS.contains(&key));
        match self.items.get(key) {
            None => Ok(None),
            Some((_, Item::Flag(flag))) => Ok(Some(*flag)),
            Some((line, _)) => Err(self.fault(key, *line, "true or false belongs here, without quotes")),
        }
    }
}

impl Item {
    fn read(value: &DeValue<'_>) -> Result<Self, &'static str> {
        let one = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            _ => None,
        };
        match value {
            DeValue::Boolean(flag) => Ok(Self::Flag(*flag)),
            DeValue::Array(values) => values
                .iter()
                .map(|v| one(v.get_ref()))
                .collect::<Option<Vec<_>>>()
                .map(Self::Many)
                .ok_or("the list may hold texts only"),
            other => one(other).map(Self::One).ok_or("a text, a number, true, false or a list of texts belongs here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<FileSettings, Failure> {
        FileSettings::parse(source, PathBuf::from("elo.toml"))
    }

    #[test]
    fn values_lists_and_flags_are_read() {
        let file = parse("name = 'box'\nport = 99\npeer = ['a', 'b']\nagent = 'one'\ntracker = true\n").unwrap();
        let text = |s: &str| Ok(s.to_owned());
        assert_eq!(file.value("name", text).unwrap().as_deref(), Some("box"));
        assert_eq!(file.value("port", |s| s.parse::<u16>().map_err(|e| e.to_string())).unwrap(), Some(99));
        assert_eq!(file.list("peer", text).unwrap(), ["a", "b"]);
        assert_eq!(file.list("agent", text).unwrap(), ["one"]);
        assert_eq!(file.flag("tracker").unwrap(), Some(true));
        assert_eq!(file.flag("legacy").unwrap(), None);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
        let message = parse("# mine\nname = 'x'\nprot = 1\n").unwrap_err().message;
        assert!(message.starts_with("elo.toml:3: ") && message.contains("\"prot\""), "{message}");
        assert!(message.contains("did you mean \"port\""), "{message}");
        let message = parse("qqqqqqqqqq = 1").unwrap_err().message;
        assert!(message.contains("the keys are name, port"), "{message}");
    }

    #[test]
    fn limits_have_a_table() {
        let file = parse("name = 'x'\n[limits]\nmax_half_open = 3\nmessage_timeout = '5s'").unwrap();
        assert_eq!((file.limits().max_half_open, file.limits().message_timeout.as_secs()), (3, 5));
        assert_eq!(parse("").unwrap().limits(), Limits::default());
        for (source, said) in [
            ("limits = 3", "elo.toml:1: limits: a table belongs here"),
            (
                "[limits]\nmax_half_opn = 1",
                "elo.toml:2: unknown limit \"max_half_opn\"; did you mean \"max_half_open\"?",
            ),
            ("[limits]\n\nmax_tasks = 'x'", "elo.toml:3: max_tasks: a whole number"),
            ("[limits]\nidle_timeout = 0", "elo.toml:1: the limit idle_timeout is 0ns; it must be 1ms to a year"),
            ("[limits]\nmemory_budget = 1", "elo.toml:1: the limit memory_budget is 1 bytes; it must be 2097152"),
            ("[limits]\nmax_half_open = 0", "elo.toml:1: the limit max_half_open is 0, so nobody could connect"),
        ] {
            let failure = parse(source).unwrap_err();
            assert_eq!(failure.exit, 2);
            assert!(failure.message.contains(said), "{source:?}: {}", failure.message);
        }
    }

    #[test]
    fn faults_name_the_line() {
        for (source, place) in
            [("name = 'a'\nname = 'b'", "elo.toml:2"), ("name = ", "elo.toml:1"), ("\n[name]\nx=1", "elo.toml:2: name")]
        {
            let failure = parse(source).unwrap_err();
            assert_eq!(failure.exit, 2);
            assert!(failure.message.starts_with(place), "{}", failure.message);
        }
        let file = parse("port = 'x'\ntracker = 'yes'\npeer = true\nname = ['a']").unwrap();
        let port = file.value("port", |s| s.parse::<u16>().map_err(|e| e.to_string())).unwrap_err();
        assert!(port.message.starts_with("elo.toml:1: port"), "{}", port.message);
        assert!(file.flag("tracker").unwrap_err().message.starts_with("elo.toml:2: tracker"));
        assert!(file.list("peer", |s| Ok(s.to_owned())).unwrap_err().message.starts_with("elo.toml:3: peer"));
        assert!(file.value("name", |s| Ok(s.to_owned())).unwrap_err().message.starts_with("elo.toml:4: name"));
    }
}
