//! What a Python node may be sent: it drops everything past 100 messages a minute, without a word.
//!
//! The package counts a message when it gets round to it, and it gets round to the next one only when the handler of
//! the task before has come back. So what was sent behind an unanswered task may be counted much later, together with
//! what is sent then: it stays on the account until an answer shows that it was read.

use std::collections::VecDeque;
use std::time::Duration;

/// The package's minute, and a second for what is on its way.
const MINUTE: Duration = Duration::from_secs(61);

/// The most messages in a minute, heartbeats included: the package's 100, less a few for what is read a little later
/// than it was sent.
const PER_MINUTE: usize = 98;

/// The most heartbeats in a minute that room is kept for.
const MAX_HEARTBEATS: usize = 60;

/// After this time a task without an answer counts as read: its handler hangs, or its answer was lost.
const STUCK: Duration = Duration::from_secs(600);

/// When to look again if that depends on an answer.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Sent {
    /// When it was sent; once it is known to be read, when that was known.
    at: Duration,
    /// The task's id, if it is one.
    task: Option<String>,
    read: bool,
}

/// The messages that may still count, the oldest first: those known to be read before those that are not.
#[derive(Debug)]
pub struct Budget {
    /// After how much silence the connection's writer sends a heartbeat.
    heartbeat: Duration,
    /// The most messages in a minute beside the heartbeats.
    most: usize,
    sent: VecDeque<Sent>,
    /// When something was sent last, a heartbeat included.
    spoke: Duration,
    /// When the last answer came.
    heard: Duration,
}

impl Budget {
    /// Nothing was sent yet. `heartbeat`: after how much silence the connection's writer sends one by itself.
    pub fn new(heartbeat: Duration) -> Self {
        let heartbeat = heartbeat.max(Duration::from_millis(1));
        let beats = MINUTE.as_millis().div_ceil(heartbeat.as_millis()) as usize;
        let most = PER_MINUTE - beats.min(MAX_HEARTBEATS);
        Self { heartbeat, most, sent: VecDeque::new(), spoke: Duration::ZERO, heard: Duration::ZERO }
    }

    /// Takes room for one message, a task if it has an id; tells how long to wait when there is none.
    pub fn take(&mut self, task: Option<&str>, now: Duration) -> Result<(), Duration> {
        self.count_heartbeats(now);
        let over = |s: &Sent| match s.read {
            true => s.at + MINUTE <= now,
            false => s.at.max(self.heard) + STUCK <= now,
        };
        while self.sent.front().is_some_and(over) {
            self.sent.pop_front();
        }
        if self.sent.len() < self.most {
            let read = task.is_none() && self.is_read();
            self.sent.push_back(Sent { at: now, task: task.map(str::to_owned), read });
            self.spoke = now;
            return Ok(());
        }
        Err(match self.sent.front() {
            Some(first) if first.read => (first.at + MINUTE).saturating_sub(now),
            _ => LOOK,
        })
    }

    /// An answer to a task came: it was read, and so was all before it, and all after it up to the next task.
    pub fn answered(&mut self, task: &str, now: Duration) {
        let Some(index) = self.sent.iter().position(|s| !s.read && s.task.as_deref() == Some(task)) else { return };
        self.count_heartbeats(now);
        self.heard = now;
        let next = self.sent.iter().skip(index + 1).position(|s| s.task.is_some());
        let end = next.map_or(self.sent.len(), |n| index + 1 + n);
        for sent in self.sent.iter_mut().take(end).filter(|s| !s.read) {
            *sent = Sent { at: now, task: None, read: true };
        }
    }

    /// Whether all that was sent is known to be read.
    fn is_read(&self) -> bool {
        self.sent.back().is_none_or(|s| s.read)
    }

    /// Enters the heartbeats that the connection's silence has brought. Where everything is read at once, they have
    /// their room beside the rest; behind an unanswered task they pile up.
    fn count_heartbeats(&mut self, now: Duration) {
        while self.spoke + self.heartbeat <= now && !self.is_read() && self.sent.len() < 4 * PER_MINUTE {
            self.spoke += self.heartbeat;
            self.sent.push_back(Sent { at: self.spoke, task: None, read: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEARTBEAT: Duration = s(30);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ninety_five_a_minute() {
        let mut budget = Budget::new(HEARTBEAT);
        for _ in 0..95 {
            assert_eq!(budget.take(None, s(10)), Ok(()));
        }
        assert_eq!(budget.take(None, s(20)), Err(s(51)));
        assert_eq!(budget.take(None, s(70)), Err(s(1)));
        assert_eq!(budget.take(None, s(71)), Ok(()));
    }

    #[test]
    fn frequent_heartbeats_have_their_room() {
        let mut budget = Budget::new(s(5));
        assert_eq!((0..100).filter(|_| budget.take(None, s(0)).is_ok()).count(), 85);
        let mut budget = Budget::new(Duration::ZERO);
        assert_eq!((0..100).filter(|_| budget.take(None, s(0)).is_ok()).count(), 38);
    }

    #[test]
    fn what_waits_behind_a_slow_task_counts_until_it_is_read() {
        let mut budget = Budget::new(HEARTBEAT);
        for n in 0..50 {
            assert_eq!(budget.take(Some(&n.to_string()), s(0)), Ok(()));
        }
        // The first task takes 100 s; then the other 49 are read at once.
        for n in 0..42 {
            assert_eq!(budget.take(Some(&(50 + n).to_string()), s(100)), Ok(()), "{n}");
        }
        assert_eq!(budget.take(None, s(100)), Err(LOOK), "three heartbeats wait there as well");
        for n in 0..92 {
            budget.answered(&n.to_string(), s(101));
        }
        assert_eq!(budget.take(None, s(102)), Err(s(60)));
        assert_eq!(budget.take(None, s(162)), Ok(()));
        assert_eq!(budget.sent.len(), 1);
    }

    #[test]
    fn a_task_that_is_never_answered_is_forgotten_in_the_end() {
        let mut budget = Budget::new(HEARTBEAT);
        for n in 0..95 {
            assert_eq!(budget.take(Some(&n.to_string()), s(0)), Ok(()));
        }
        assert_eq!(budget.take(None, s(599)), Err(LOOK));
        assert_eq!(budget.take(None, s(600)), Ok(()));
    }

    /// The package: one message after the other, counted when it is taken up, a task's handler awaited.
    #[derive(Default)]
    struct Package {
        waiting: VecDeque<(Option<String>, Duration, bool)>,
        free_at: Duration,
        count: u32,
        window: Duration,
    }

    impl Package {
        /// Works on what waits until `now`; gives the tasks answered, with when, and panics when it drops something.
        fn work(&mut self, now: Duration) -> Vec<(String, Duration)> {
            let mut answered = Vec::new();
            while self.free_at <= now && !self.waiting.is_empty() {
                let (task, takes, heartbeat) = self.waiting.pop_front().unwrap();
                if self.free_at - self.window > s(60) {
                    (self.count, self.window) = (0, self.free_at);
                }
                self.count += 1;
                // A heartbeat has done its work when it was received.
                assert!(self.count <= 100 || heartbeat, "it drops a message");
                self.free_at += takes;
                answered.extend(task.map(|t| (t, self.free_at)));
            }
            answered
        }
    }

    proptest! {
        /// Whatever is sent and however long its handlers take, the package drops nothing.
        #[test]
        fn the_package_never_drops(
            steps in prop::collection::vec((0u64..4, 0usize..60, any::<bool>(), 0u64..90_000, 0u8..20), 1..400),
        ) {
            let (mut budget, mut package) = (Budget::new(HEARTBEAT), Package::default());
            let (mut now, mut id, mut spoke) = (s(1000), 0u32, s(1000));
            package.free_at = now;
            package.window = now;
            let mut answers: Vec<(String, Duration)> = Vec::new();
            for (pause, messages, tasks, takes, slow) in steps {
                for _ in 0..pause * 10 {
                    now += s(1);
                    package.free_at = package.free_at.max(if package.waiting.is_empty() { now } else { s(0) });
                    if now - spoke >= HEARTBEAT {
                        spoke = now;
                        package.waiting.push_back((None, s(0), true));
                    }
                    answers.extend(package.work(now));
                    let due: Vec<_> = answers.extract_if(.., |(_, at)| *at <= now).collect();
                    for (task, _) in due {
                        budget.answered(&task, now);
                    }
                }
                for _ in 0..messages {
                    id += 1;
                    let task = tasks.then(|| id.to_string());
                    if budget.take(task.as_deref(), now).is_err() {
                        break;
                    }
                    spoke = now;
                    // Below what counts as stuck.
                    let takes = if tasks && slow == 0 { Duration::from_millis(takes) } else { s(0) };
                    package.waiting.push_back((task, takes, false));
                }
                answers.extend(package.work(now));
            }
        }
    }
}
