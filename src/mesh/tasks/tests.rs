use super::*;
use crate::limits::Limits;

fn key(caller: u8, id: usize) -> TaskKey {
    (NodeId::from_bytes([caller; 32]), id.to_string())
}

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), unix_ms: 0 }
}

/// A task comes, and is answered with that many bytes, if there is room.
fn runs(tasks: &mut Tasks, key: &TaskKey, bytes: usize, limits: &Limits) -> bool {
    if tasks.no_room(&key.0, limits).is_some() {
        return false;
    }
    tasks.enter(key.clone(), Entry::new("x", Duration::ZERO, Duration::from_secs(60)));
    let answer = ResultDraft { id: key.1.clone(), caller: key.0, body: Ok(vec![b'1'; bytes].into()), chunks: 0 };
    tasks.entries.get_mut(key).unwrap().answer = Some(answer);
    tasks.done(key, limits);
    tasks.done(key, limits);
    true
}

fn is_known(tasks: &Tasks, key: &TaskKey) -> bool {
    tasks.entries.contains_key(key) || tasks.is_bare(key)
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
    assert!(tasks.len() <= 1000 && tasks.entries.len() <= 10);
    for caller in 1..=20 {
        let taken = took[usize::from(caller) - 1];
        assert!((0..taken).all(|n| is_known(&tasks, &key(caller, n))), "{caller}");
    }
    tasks.expire(at(60));
    assert_eq!(tasks.entries.len(), 0);
    assert!(is_known(&tasks, &key(1, 0)), "not before the whole second");
    tasks.expire(at(61));
    assert_eq!((tasks.len(), tasks.running_for(&key(1, 0).0), tasks.answered_bytes), (0, 0, 0));
    assert!(!is_known(&tasks, &key(1, 0)));
}

#[test]
fn answers_are_forgotten_by_their_bytes_and_the_tasks_are_not() {
    let limits = Limits { remembered_bytes: 1000, ..Limits::default() };
    let mut tasks = Tasks::default();
    for n in 0..100 {
        assert!(runs(&mut tasks, &key(1, n), 100, &limits));
        assert!(tasks.answered_bytes <= 1000, "{}", tasks.answered_bytes);
    }
    let kept = |n| tasks.entries.contains_key(&key(1, n));
    assert_eq!((0..100).filter(|n| kept(*n)).collect::<Vec<_>>(), (90..100).collect::<Vec<_>>());
    assert!((0..100).all(|n| is_known(&tasks, &key(1, n))));
    assert_eq!(tasks.len(), 100);
}

#[test]
fn running_tasks_are_bounded_for_each_caller_and_for_all() {
    let limits = Limits { max_tasks: 5, max_tasks_per_caller: 2, ..Limits::default() };
    let mut tasks = Tasks::default();
    let mut begun = Vec::new();
    for n in 0..12 {
        let key = key(n % 4, usize::from(n));
        if tasks.no_room(&key.0, &limits).is_none() {
            tasks.enter(key.clone(), Entry::new("x", Duration::ZERO, Duration::from_secs(60)));
            begun.push(n);
        }
    }
    assert_eq!(begun, [0, 1, 2, 3, 4]);
    assert_eq!((tasks.running(), tasks.running_for(&key(0, 0).0)), (5, 2));
    tasks.done(&key(1, 1), &limits);
    assert!(tasks.no_room(&key(0, 9).0, &limits).is_some() && tasks.no_room(&key(1, 9).0, &limits).is_none());
}
