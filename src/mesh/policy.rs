//! Who may ask for what, and how often: the owner's rules for the capabilities that a node serves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::throttle::Bucket;
use crate::error::{Error, ErrorCode};
use crate::identity::NodeId;
use crate::info::TaskRefusals;
use crate::limits::{MAX_ACCESS_ENTRIES, MAX_POLICIES, MAX_POLICY_CALLERS};
use crate::lru::Lru;
use crate::wire::{WireError, is_name, matches_pattern};

/// Under which name refusals are counted that concern nothing this node provides.
pub(super) const OTHER: &str = "(other)";

/// How long a caller waits before it asks again for what is full of work.
const FULL_RETRY_S: u64 = 1;

/// A rule for capabilities: who may ask for them, how often, and how many tasks at once.
///
/// Of several rules the first whose pattern covers the capability decides, and no other is looked at. What no rule covers
/// is served for everybody who is let in. Rules are for every task of another node, relayed ones and the built-in `ping` and
/// `health` included; a node's own calls to itself pass.
///
/// ```
/// use elo::{Identity, Node, Policy, Rate};
///
/// let boss = Identity::generate().id();
/// let builder = Node::builder()
///     .policy(Policy::new("deploy*").allow([boss]).max_in_flight(1))
///     .policy(Policy::new("*").rate(Rate::per_minute(10)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    capability: String,
    allow: Option<BTreeSet<NodeId>>,
    deny: BTreeSet<NodeId>,
    rate: Option<Rate>,
    max_in_flight: Option<usize>,
}

impl Policy {
    /// A rule that lets everybody ask, for the capabilities of this name, or that begin so if it ends in `*`.
    pub fn new(capability: impl Into<String>) -> Self {
        Self { capability: capability.into(), allow: None, deny: BTreeSet::new(), rate: None, max_in_flight: None }
    }

    /// Only these may ask; with none nobody. Said again, it adds.
    #[must_use]
    pub fn allow(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.allow.get_or_insert_default().extend(nodes);
        self
    }

    /// These may not ask, whatever else is said. Said again, it adds.
    #[must_use]
    pub fn deny(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.deny.extend(nodes);
        self
    }

    /// How often each caller may ask. Default: as often as [`Limits`](crate::Limits) let it.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// How many tasks that this rule covers may run at once, of all callers together. Default: as many as
    /// [`Limits`](crate::Limits) let them.
    #[must_use]
    pub fn max_in_flight(mut self, tasks: usize) -> Self {
        self.max_in_flight = Some(tasks);
        self
    }

    /// Whether a node can work with it.
    fn check(&self) -> Result<(), String> {
        check_pattern(&self.capability)?;
        if self.max_in_flight == Some(0) {
            return Err("max_in_flight: 0 would refuse every task; an empty allow list says that".to_owned());
        }
        if self.allow.as_ref().map_or(0, BTreeSet::len).max(self.deny.len()) > MAX_ACCESS_ENTRIES {
            return Err(format!("a list has at most {MAX_ACCESS_ENTRIES} ids"));
        }
        Ok(())
    }
}

/// Whether a text is a pattern of capabilities.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    if !is_name(pattern) {
        let most = crate::limits::MAX_NAME;
        return Err(format!("a pattern has 1 to {most} characters and no control characters"));
    }
    if pattern.trim_end_matches('*').contains('*') || pattern.ends_with("**") {
        return Err(format!("{pattern:?}: a * stands at the end only, once, and covers every ending"));
    }
    Ok(())
}

/// How often: so many at once, and as many again in each unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

impl Rate {
    /// At least 1; so for the others.
    pub const fn per_second(count: u32) -> Self {
        Self { count, unit: Unit::Second }
    }

    /// In a minute.
    pub const fn per_minute(count: u32) -> Self {
        Self { count, unit: Unit::Minute }
    }

    /// In an hour.
    pub const fn per_hour(count: u32) -> Self {
        Self { count, unit: Unit::Hour }
    }

    /// In a day.
    pub const fn per_day(count: u32) -> Self {
        Self { count, unit: Unit::Day }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => "s",
            Unit::Minute => "min",
            Unit::Hour => "h",
            Unit::Day => "day",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl FromStr for Rate {
    type Err = Error;

    /// `10/s`, `10/min`, `10/h`, `10/day`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Invalid(format!("{text:?} is not a rate: say 10/s, 10/min, 10/h or 10/day"));
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let unit = match unit.trim() {
            "s" | "sec" | "second" => Unit::Second,
            "m" | "min" | "minute" => Unit::Minute,
            "h" | "hour" => Unit::Hour,
            "d" | "day" => Unit::Day,
            _ => return Err(wrong()),
        };
        let count = count.trim();
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        match count.parse() {
            Ok(0) => Err(Error::Invalid(format!(
                "{text:?}: a rate is at least 1; to refuse everybody give an empty allow list"
            ))),
            Ok(count) => Ok(Self { count, unit }),
            Err(_) => Err(Error::Invalid(format!("{text:?}: a rate is at most {}", u32::MAX))),
        }
    }
}

/// All rules, and what they remember.
#[derive(Debug, Default)]
pub(super) struct Policies {
    serve_only: Option<BTreeSet<NodeId>>,
    rules: Vec<Policy>,
    /// How many tasks run under each rule.
    running: Vec<usize>,
    callers: Callers,
    refused: BTreeMap<String, TaskRefusals>,
}

/// What is said to a caller, apart from its rule.
fn not_allowed(message: String) -> WireError {
    WireError::new(ErrorCode::NotAllowed, message).not_run()
}

impl Policies {
    pub(super) fn new(serve_only: Option<BTreeSet<NodeId>>, rules: Vec<Policy>) -> Self {
        Self { running: vec![0; rules.len()], serve_only, rules, ..Self::default() }
    }

    fn rule(&self, capability: &str) -> Option<(usize, &Policy)> {
        self.rules.iter().enumerate().find(|(_, rule)| matches_pattern(&rule.capability, capability))
    }

    /// Whether everybody may ask for everything: there are no rules.
    pub(super) fn is_open(&self) -> bool {
        self.serve_only.is_none() && self.rules.is_empty()
    }

    /// The nodes that the rules name.
    pub(super) fn named(&self) -> impl Iterator<Item = NodeId> {
        let rules = self.rules.iter().flat_map(|rule| rule.allow.iter().flatten().chain(&rule.deny));
        self.serve_only.iter().flatten().chain(rules).copied()
    }

    /// Why a caller may not ask for a capability at all. It goes by these ids: its own, then those that it had before.
    pub(super) fn forbids(&self, ids: &[NodeId], capability: &str) -> Option<WireError> {
        let caller = ids.first()?;
        let names = |list: &BTreeSet<NodeId>| ids.iter().any(|id| list.contains(id));
        if self.serve_only.as_ref().is_some_and(|only| !names(only)) {
            return Some(not_allowed(format!("this node serves only those its owner named, not {caller}")));
        }
        let (_, rule) = self.rule(capability)?;
        let allowed = rule.allow.as_ref().is_none_or(names);
        if !allowed || names(&rule.deny) {
            return Some(not_allowed(format!("this node's owner does not let {caller} ask for {capability:?}")));
        }
        None
    }

    /// Why there is no room for a task now. Takes up its room when there is: the last thing to be asked.
    pub(super) fn crowded(&mut self, caller: &NodeId, capability: &str, now: Duration) -> Option<WireError> {
        let (at, rule) = self.rule(capability)?;
        let limited = |message: String, seconds: u64| {
            Some(WireError::new(ErrorCode::RateLimited, message).retry_after_s(seconds).not_run())
        };
        let running = self.running.get(at).copied().unwrap_or_default();
        if rule.max_in_flight.is_some_and(|most| running >= most) {
            let message = format!("{running} tasks of {:?} are running, which is the most here", rule.capability);
            return limited(message, FULL_RETRY_S);
        }
        let rate = rule.rate?;
        let wait = self.callers.take(at, caller, rate, now).err()?;
        // Less than a millisecond is what dividing by the unit has cost.
        let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        limited(format!("{capability:?} may be asked for {rate} by one caller; again in {seconds} s"), seconds)
    }

    /// A task begins; gives the rule that it counts for.
    pub(super) fn begin(&mut self, capability: &str) -> Option<usize> {
        let (at, _) = self.rule(capability)?;
        if let Some(running) = self.running.get_mut(at) {
            *running += 1;
        }
        Some(at)
    }

    /// A task that counted for a rule has come back.
    pub(super) fn end(&mut self, rule: usize) {
        if let Some(running) = self.running.get_mut(rule) {
            *running = running.saturating_sub(1);
        }
    }

    /// Counts a refusal. `capability` is one of this node's own, or [`OTHER`]: callers choose the names they ask for.
    pub(super) fn count(&mut self, capability: &str, code: ErrorCode) {
        let refused = self.refused.entry(capability.to_owned()).or_default();
        match code {
            ErrorCode::RateLimited => refused.rate_limited += 1,
            _ => refused.not_allowed += 1,
        }
    }

    /// What was refused, by capability.
    pub(super) fn refused(&self) -> &BTreeMap<String, TaskRefusals> {
        &self.refused
    }

    /// How many rules there are, and how many nodes everything is served for, if only for some.
    pub(super) fn size(&self) -> (usize, Option<usize>) {
        (self.rules.len(), self.serve_only.as_ref().map(BTreeSet::len))
    }
}

/// Whether a node can work with these rules.
pub(crate) fn check(serve_only: Option<&BTreeSet<NodeId>>, rules: &[Policy]) -> Result<(), Error> {
    if rules.len() > MAX_POLICIES {
        return Err(Error::Config(format!("a node has at most {MAX_POLICIES} rules for its capabilities")));
    }
    if serve_only.is_some_and(|only| only.len() > MAX_ACCESS_ENTRIES) {
        return Err(Error::Config(format!("a node serves everybody, or at most {MAX_ACCESS_ENTRIES} ids by name")));
    }
    for (n, rule) in rules.iter().enumerate() {
        rule.check().map_err(|e| Error::Config(format!("rule {} for capabilities: {e}", n + 1)))?;
    }
    Ok(())
}

/// How often callers have asked, by rule. The one that asked longest ago is forgotten for a new one, and may then ask anew
/// as often as at its first time: who has many keys could do so anyway.
struct Callers(Lru<(usize, NodeId), Bucket>);

impl Default for Callers {
    fn default() -> Self {
        Self(Lru::new(MAX_POLICY_CALLERS))
    }
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Callers").field(&self.0.len()).finish()
    }
}

impl Callers {
    /// Takes a place, or tells how long to wait for one.
    fn take(&mut self, rule: usize, caller: &NodeId, rate: Rate, now: Duration) -> Result<(), Duration> {
        let unit = rate.unit.seconds();
        let key = (rule, *caller);
        // A bucket counts by the second: for it, a minute or an hour is one.
        let take = |bucket: &mut Bucket| bucket.take(now / unit).map_err(|wait| wait.saturating_mul(unit));
        if let Some(bucket) = self.0.get_mut(&key) {
            return take(bucket);
        }
        let mut bucket = Bucket::new(rate.count, rate.count);
        let taken = take(&mut bucket);
        self.0.insert(key, bucket);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(bytes)
    }

    fn policies(rules: impl IntoIterator<Item = Policy>) -> Policies {
        Policies::new(None, rules.into_iter().collect())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_rule_that_covers_a_capability_decides() {
        let p = policies([
            Policy::new("deploy.prod").allow([id(1)]),
            Policy::new("deploy*").allow([id(1), id(2)]).deny([id(1)]),
            Policy::new("off").allow([]),
        ]);
        for (caller, capability, may) in [
            (1, "deploy.prod", true),
            (2, "deploy.prod", false),
            (1, "deploy.test", false),
            (2, "deploy.test", true),
            (3, "deploy", false),
            (1, "off", false),
            (3, "read", true),
        ] {
            let error = p.forbids(&[id(caller)], capability);
            assert_eq!(error.is_none(), may, "{caller} {capability}");
            assert!(error.is_none_or(|e| e.not_run && e.code == "NOT_ALLOWED"), "{caller} {capability}");
        }
    }

    #[test]
    fn who_is_not_served_gets_nothing_whatever_the_rules_say() {
        let p = Policies::new(Some([id(1)].into()), vec![Policy::new("open")]);
        assert!(p.forbids(&[id(1)], "open").is_none() && p.forbids(&[id(1)], "ping").is_none());
        assert!(p.forbids(&[id(2)], "open").is_some() && p.forbids(&[id(2)], "ping").is_some());
    }

    #[test]
    fn a_rate_is_each_callers_own_and_fills_up_again() {
        let mut p = policies([Policy::new("a*").rate(Rate::per_minute(2)), Policy::new("b").rate(Rate::per_hour(1))]);
        let mut asks = |caller, capability: &str, s| {
            p.crowded(&id(caller), capability, at(s)).map(|e| (e.code, e.retry_after_s.unwrap_or_default() as u64))
        };
        let limited = |s| Some(("RATE_LIMITED".to_owned(), s));
        assert_eq!([asks(1, "a1", 0), asks(1, "a2", 0), asks(1, "a1", 0)], [None, None, limited(30)]);
        assert_eq!(asks(2, "a1", 0), None);
        assert_eq!([asks(1, "a1", 29), asks(1, "a1", 30), asks(1, "a1", 30)], [limited(1), None, limited(30)]);
        assert_eq!([asks(1, "b", 0), asks(1, "b", 1), asks(1, "b", 3600)], [None, limited(3599), None]);
        assert_eq!([asks(1, "c", 0), asks(1, "c", 0)], [None, None]);
    }

    #[test]
    fn no_more_tasks_run_at_once_than_a_rule_says() {
        let mut p = policies([Policy::new("a*").max_in_flight(2)]);
        let (one, two) = (p.begin("a1"), p.begin("a2"));
        assert_eq!((one, two, p.begin("b")), (Some(0), Some(0), None));
        let error = p.crowded(&id(3), "a3", at(0)).unwrap();
        assert_eq!((error.code.as_str(), error.retry_after_s, error.not_run), ("RATE_LIMITED", Some(1.0), true));
        p.end(0);
        assert!(p.crowded(&id(3), "a3", at(0)).is_none());
    }

    #[test]
    fn what_is_full_takes_nothing_from_the_rate() {
        let mut p = policies([Policy::new("a").max_in_flight(1).rate(Rate::per_day(1))]);
        p.begin("a");
        for _ in 0..3 {
            assert!(p.crowded(&id(1), "a", at(0)).is_some());
        }
        p.end(0);
        assert!(p.crowded(&id(1), "a", at(0)).is_none());
        assert!(p.crowded(&id(1), "a", at(0)).is_some());
    }

    #[test]
    fn callers_remembered_are_bounded() {
        let mut p = policies([Policy::new("a").rate(Rate::per_day(1))]);
        for n in 0..MAX_POLICY_CALLERS as u32 + 100 {
            assert!(p.crowded(&id(n), "a", at(0)).is_none());
        }
        assert_eq!(p.callers.0.len(), MAX_POLICY_CALLERS);
        // The last ones are remembered.
        assert!(p.crowded(&id(MAX_POLICY_CALLERS as u32 + 99), "a", at(0)).is_some());
    }

    #[test]
    fn rates_are_read_and_written() {
        for (text, written) in
            [("10/min", "10/min"), ("1/s", "1/s"), ("5 / hour", "5/h"), ("7/d", "7/day"), ("3/m", "3/min")]
        {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), written);
        }
        for wrong in ["", "10", "/min", "10/", "ten/min", "0/min", "-1/s", "+1/s", "1.5/s", "10/year", "4294967296/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn what_can_not_work_is_refused() {
        for (rule, said) in [
            (Policy::new(""), "1 to 128"),
            (Policy::new("a*b"), "at the end"),
            (Policy::new("a**"), "at the end"),
            (Policy::new("a").max_in_flight(0), "max_in_flight"),
        ] {
            let error = check(None, &[Policy::new("fine*"), rule]).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("rule 2"), "{error}");
        }
        assert!(check(None, &[Policy::new("*"), Policy::new("a*").allow([])]).is_ok());
        assert!(check(None, &vec![Policy::new("a"); MAX_POLICIES + 1]).is_err());
    }
}
