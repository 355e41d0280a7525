use std::collections::BTreeMap;

use proptest::prelude::*;

use super::memory::Caller;
use super::*;
use crate::limits::Limits;

fn key(caller: u8, id: usize) -> TaskKey {
    (NodeId::from_bytes([caller; 32]), TaskId::from(&id.to_string()))
}

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), unix_ms: 0 }
}

/// A task comes, and is answered with that many bytes, if there is room.
fn runs(tasks: &mut Tasks, key: &TaskKey, bytes: usize, limits: &Limits) -> bool {
    if tasks.no_room(&key.0, &key.1, limits).is_some() {
        return false;
    }
    tasks.enter(key.clone(), Box::new(Entry::new("x", Duration::ZERO, Duration::from_secs(60))));
    let answer = Answer { body: Ok(vec![b'1'; bytes].into()), chunks: 0 };
    tasks.entries.get_mut(key).unwrap().answer = Some(answer);
    tasks.done(key, limits);
    tasks.done(key, limits);
    true
}

#[test]
fn a_caller_gets_a_quarter_and_the_next_ones_a_share_of_what_is_left() {
    let limits = Limits { max_remembered_tasks: 1000, max_answers: 10, ..Limits::default() };
    let mut tasks = Tasks::default();
    let mut took = Vec::new();
    for caller in 1..=20 {
        took.push((0..1000).filter(|n| runs(&mut tasks, &key(caller, *n), 1, &limits)).count());
    }
    assert_eq!(took[..4], [250, 188, 141, 106]);
    assert!(took.iter().all(|n| *n > 0), "{took:?}");
    assert!(tasks.weight() <= 1000 && tasks.entries.len() <= 10);
    for caller in 1..=20 {
        let taken = took[usize::from(caller) - 1];
        assert!((0..taken).all(|n| tasks.is_known(&key(caller, n))), "{caller}");
    }
    tasks.expire(at(60));
    assert_eq!(tasks.entries.len(), 0);
    assert!(tasks.is_known(&key(1, 0)), "not before the whole second");
    tasks.expire(at(61));
    assert_eq!((tasks.weight(), tasks.running_for(&key(1, 0).0), tasks.answered_bytes()), (0, 0, 0));
    assert!(!tasks.is_known(&key(1, 0)));
}

#[test]
fn answers_are_forgotten_by_their_bytes_and_the_tasks_are_not() {
    let limits = Limits { remembered_bytes: 1000, ..Limits::default() };
    let mut tasks = Tasks::default();
    for n in 0..100 {
        assert!(runs(&mut tasks, &key(1, n), 100, &limits));
        assert!(tasks.answered_bytes() <= 1000, "{}", tasks.answered_bytes());
    }
    let kept = |n| tasks.entries.contains_key(&key(1, n));
    assert_eq!((0..100).filter(|n| kept(*n)).collect::<Vec<_>>(), (90..100).collect::<Vec<_>>());
    assert!((0..100).all(|n| tasks.is_known(&key(1, n))));
    assert_eq!(tasks.weight(), 100);
}

#[test]
fn running_tasks_are_bounded_for_each_caller_and_for_all() {
    let limits = Limits { max_tasks: 5, max_tasks_per_caller: 2, ..Limits::default() };
    let mut tasks = Tasks::default();
    let mut begun = Vec::new();
    for n in 0..12 {
        let key = key(n % 4, usize::from(n));
        if tasks.no_room(&key.0, &key.1, &limits).is_none() {
            tasks.enter(key.clone(), Box::new(Entry::new("x", Duration::ZERO, Duration::from_secs(60))));
            begun.push(n);
        }
    }
    assert_eq!(begun, [0, 1, 2, 3, 4]);
    assert_eq!((tasks.running(), tasks.running_for(&key(0, 0).0)), (5, 2));
    tasks.done(&key(1, 1), &limits);
    assert!(
        tasks.no_room(&key(0, 9).0, &"9".into(), &limits).is_some()
            && tasks.no_room(&key(1, 9).0, &"9".into(), &limits).is_none()
    );
}

/// The n-th id of a run of elo's.
fn in_a_row(caller: u8, run: u16, n: u64) -> TaskKey {
    (NodeId::from_bytes([caller; 32]), TaskId::from(&format!("{run:08x}-0000-8000-8000-{n:012x}")))
}

#[test]
fn ids_in_a_row_take_the_room_of_two_for_each_64() {
    let limits = Limits { max_remembered_tasks: 1000, max_answers: 10, ..Limits::default() };
    let mut tasks = Tasks::default();
    let took = |tasks: &mut Tasks, caller, run| {
        (0..20_000).filter(|n| runs(tasks, &in_a_row(caller, run, *n), 1, &limits)).count()
    };
    // A quarter is 250, and what is left of it takes no whole word.
    assert_eq!(took(&mut tasks, 1, 0), 125 * 64);
    assert_eq!((tasks.weight(), tasks.entries.len()), (250, 10));
    // Whoever leaves out all but one of each block has no more of it than others have ids.
    let sparse = (0..2000).filter(|n| runs(&mut tasks, &in_a_row(2, 0, n * 64), 1, &limits)).count();
    assert_eq!((sparse, tasks.weight()), (94, 250 + 188));
    let strange = (0..2000).filter(|n| runs(&mut tasks, &in_a_row(3, *n, u64::from(*n) << 20), 1, &limits)).count();
    assert_eq!((strange, tasks.weight()), (70, 250 + 188 + 140));
    // An id in a word that is there costs nothing: it is let in however full it is.
    assert!(runs(&mut tasks, &in_a_row(3, 0, 63), 1, &limits) && !runs(&mut tasks, &in_a_row(3, 0, 64), 1, &limits));
    assert!((0..125 * 64).all(|n| tasks.is_known(&in_a_row(1, 0, n))) && !tasks.is_known(&in_a_row(1, 0, 125 * 64)));
    assert!(!tasks.is_known(&in_a_row(4, 0, 0)) && !tasks.is_known(&in_a_row(2, 0, 1)), "one caller's own");
    tasks.expire(at(61));
    assert_eq!((tasks.weight(), tasks.entries.len(), tasks.answers(), tasks.answered_bytes()), (0, 0, 0, 0));
    assert!(tasks.keep.is_empty() && tasks.callers.is_empty());
}

#[test]
fn a_fast_caller_pushes_out_its_own_answers_and_nobody_elses() {
    let limits = Limits { max_answers: 100, remembered_bytes: 10_000, ..Limits::default() };
    let mut tasks = Tasks::default();
    let kept = |tasks: &Tasks, caller: u8| (0..5000).filter(|n| tasks.entries.contains_key(&key(caller, *n))).count();
    for n in 0..20 {
        assert!(runs(&mut tasks, &key(1, n), 50, &limits) && runs(&mut tasks, &key(2, n), 50, &limits));
    }
    for n in 0..5000 {
        assert!(runs(&mut tasks, &key(3, n), 10, &limits));
        assert!(tasks.answers() <= 100 && tasks.answered_bytes() <= 10_000);
    }
    assert_eq!([kept(&tasks, 1), kept(&tasks, 2), kept(&tasks, 3)], [20, 20, 60]);
    assert!((4940..5000).all(|n| tasks.entries.contains_key(&key(3, n))), "the latest");
    // By bytes as well: one large answer after the other.
    for n in 0..5000 {
        assert!(runs(&mut tasks, &key(4, n), 4000, &limits));
        assert!(tasks.answered_bytes() <= 10_000);
    }
    assert_eq!([kept(&tasks, 1), kept(&tasks, 2)], [20, 20]);
    assert!(tasks.entries.contains_key(&key(4, 4999)));
    // Whoever acknowledges chunks has less kept for it.
    let before = tasks.answered_bytes();
    let last = key(4, 4999);
    tasks.entries.get_mut(&last).unwrap().answer = None;
    tasks.acknowledged(&last, false, 4000);
    assert_eq!(tasks.answered_bytes(), before - 4000);
    // All of them go in the end.
    tasks.keep_answers_within(0, 0);
    assert_eq!((tasks.entries.len(), tasks.answers(), tasks.answered_bytes(), tasks.keep.len()), (0, 0, 0, 0));
    assert!((0..20).all(|n| tasks.is_known(&key(1, n))));
}

proptest! {
    /// Whatever comes in whatever order: the bounds hold, what is counted is what is there, and what began is known until
    /// its deadline, by a list that forgets nothing.
    #[test]
    fn what_began_is_known_and_what_is_counted_is_there(
        steps in prop::collection::vec((1u8..5, 0u64..400, any::<bool>(), 1u64..20, 0usize..300, 0u64..3, 0u8..4), 1..400),
    ) {
        let limits = Limits {
            max_remembered_tasks: 60,
            max_answers: 8,
            remembered_bytes: 900,
            max_tasks: 6,
            max_tasks_per_caller: 3,
            ..Limits::default()
        };
        let (mut tasks, mut second) = (Tasks::default(), 0);
        let mut began: BTreeMap<TaskKey, u64> = BTreeMap::new();
        let mut running: Vec<(TaskKey, usize)> = Vec::new();
        for (caller, n, row, lives, bytes, pause, finish) in steps {
            second += pause;
            if pause > 0 {
                tasks.expire(at(second));
            }
            let key = if row { in_a_row(caller, 0, n) } else { key(caller, n as usize % 40) };
            prop_assert!(tasks.is_known(&key) || began.get(&key).is_none_or(|until| *until <= second), "forgotten");
            prop_assert!(!tasks.is_known(&key) || began.contains_key(&key), "made up");
            if !tasks.is_known(&key) && tasks.no_room(&key.0, &key.1, &limits).is_none() {
                let until = second + lives;
                tasks.enter(key.clone(), Box::new(Entry::new("x", at(second).mono, Duration::from_secs(until))));
                began.insert(key.clone(), until);
                running.push((key, bytes));
            }
            if finish == 0 && !running.is_empty() {
                let (key, bytes) = running.remove(0);
                let body = Ok(vec![b'1'; bytes].into());
                let answer = Answer { body, chunks: 0 };
                tasks.entries.get_mut(&key).unwrap().answer = Some(answer);
                tasks.done(&key, &limits);
            }
            let kept: Vec<&Entry> = tasks.entries.values().map(|e| &**e).filter(|e| !e.running).collect();
            prop_assert_eq!(tasks.answers(), kept.len());
            prop_assert_eq!(tasks.answered_bytes(), kept.iter().map(|e| e.kept_bytes()).sum::<usize>());
            prop_assert_eq!(tasks.running(), running.len());
            prop_assert!(tasks.weight() <= 60 && tasks.answers() <= 8 && tasks.answered_bytes() <= 900);
            prop_assert!(tasks.keep.iter().all(|(most, caller)| tasks.callers[caller].holds() <= *most));
            let holders: Vec<_> = tasks.callers.values().map(Caller::holds).filter(|held| *held > 0).collect();
            prop_assert_eq!(tasks.keep.len(), holders.len());
            // Whoever's answers go next is who has the most.
            prop_assert_eq!(tasks.holds_most().map(|node| tasks.callers[&node].holds()), holders.into_iter().max());
        }
        for (key, _) in running {
            let answer = Answer { body: Ok("1".into()), chunks: 0 };
            tasks.entries.get_mut(&key).unwrap().answer = Some(answer);
            tasks.done(&key, &limits);
        }
        tasks.expire(at(second + 30));
        prop_assert_eq!((tasks.weight(), tasks.entries.len(), tasks.callers.len(), tasks.keep.len()), (0, 0, 0, 0));
    }
}
