//! What waits to be sent: its order, what wakes the writer, and that what it takes is counted to the byte.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::limits::{LONG_MESSAGE, ROUND_BYTES, ROUND_MESSAGES};
use crate::memory::{Kind, Memory};
use crate::net::outbox::{Closing, Next, Outbox, Part, Round};
use crate::wire::{Framing, Unsigned};

fn outbox(framing: Framing, set: impl FnOnce(&mut Limits)) -> (Arc<Outbox>, Arc<Memory>) {
    let mut limits = Limits::default();
    set(&mut limits);
    let memory = Memory::new(limits.memory_budget);
    (Arc::new(Outbox::new(framing, &limits, Arc::clone(&memory))), memory)
}

/// A message of that number and at least so many bytes.
fn numbered(number: usize, size: usize) -> Object {
    Builder::new("x").str("fill", &"x".repeat(size)).u64("number", number as u64).build()
}

fn unsigned(number: usize) -> Unsigned {
    Builder::new("x").u64("number", number as u64).unsigned(&[])
}

fn closing() -> Closing {
    Closing { bye: Some(numbered(0, 0)), within: Duration::ZERO }
}

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn next(outbox: &Outbox) -> Option<Next> {
    match poll(outbox.next(false)) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

fn round(outbox: &Outbox) -> Round {
    match next(outbox) {
        Some(Next::Round(round)) => round,
        other => panic!("{other:?}"),
    }
}

/// The numbers of messages, one a line.
fn lines(bytes: &[u8]) -> Vec<usize> {
    let number = |line| Object::parse(Bytes::copy_from_slice(line)).unwrap().u64("number").unwrap().unwrap() as usize;
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(number).collect()
}

/// The numbers of a round's short messages, and of its long one.
fn numbers(round: Round) -> (Vec<usize>, Option<usize>) {
    let mut short = Vec::new();
    for part in round.parts {
        match part {
            Part::Encoded { bytes, messages } => {
                let found = lines(&bytes);
                assert_eq!(found.len(), messages);
                short.extend(found);
            }
            Part::Late(Late::Plain(message)) => short.extend(lines(message.sign(&identity(1)).raw())),
            Part::Late(Late::Sealed(_)) => unreachable!(),
        }
    }
    let long = round.long.map(|long| lines(&long)[0]);
    assert_eq!(round.messages, short.len() + usize::from(long.is_some()));
    (short, long)
}

#[derive(Clone, Debug)]
enum Step {
    Ready(usize),
    Passable(usize),
    Late,
    Cork(bool),
    Take,
    /// Of what was taken so many percent are not written yet.
    Written(usize),
    Empty,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0..2000usize, 2 => Just(LONG_MESSAGE), 1 => 0..2 * ROUND_BYTES];
    prop_oneof![
        4 => size.clone().prop_map(Step::Ready),
        4 => size.prop_map(Step::Passable),
        4 => Just(Step::Late),
        2 => any::<bool>().prop_map(Step::Cork),
        4 => Just(Step::Take),
        2 => (0..100usize).prop_map(Step::Written),
        1 => Just(Step::Empty),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against two lists: of what is passed by nobody, and of what may be passed.
    #[test]
    fn it_keeps_both_orders_and_counts_what_it_holds(
        steps in prop::collection::vec(step(), 1..80),
        max_messages in prop_oneof![1..12usize, Just(4096)],
        legacy: bool,
    ) {
        let framing = if legacy { Framing::Length } else { Framing::Line };
        let (outbox, memory) = outbox(framing, |l| l.outbox_messages = max_messages);
        let (mut short, mut long) = (Vec::new(), Vec::new());
        let (mut taken, mut corked, mut closed) = (0, false, false);
        // What is left of a message that was given back.
        let mut rest = 0;
        for (number, step) in steps.into_iter().enumerate() {
            let mut push = |message, is_long: bool| {
                let before = outbox.bytes();
                let pushed = outbox.push(message);
                let messages = short.len() + long.len() + taken + usize::from(rest > 0);
                match pushed {
                    Ok(Some(_)) => {
                        assert!(!closed && !corked && messages == 0);
                        // Nobody else is at it meanwhile, and those who come wait.
                        assert!(next(&outbox).is_none() && outbox.bytes() > 0);
                        assert!(outbox.push(Outgoing::Ready(numbered(number, 1))).unwrap_or_default().is_none());
                        assert!(next(&outbox).is_none());
                        outbox.empty();
                        rest = number % 3;
                        outbox.sent(vec![0; rest]);
                    }
                    Ok(None) => {
                        assert!(!closed && messages < max_messages.max(1));
                        assert!(messages == 0 || outbox.bytes() <= Limits::default().outbox_bytes + 4);
                        if is_long { long.push(number) } else { short.push(number) }
                    }
                    Err(error) => {
                        assert_eq!(error, if closed { SendError::Closed } else { SendError::Full });
                        assert_eq!(outbox.bytes(), before);
                    }
                }
            };
            match step {
                Step::Ready(size) => push(Outgoing::Ready(numbered(number, size)), false),
                Step::Passable(size) => {
                    let message = numbered(number, size);
                    let is_long = message.raw().len() >= LONG_MESSAGE && !legacy;
                    push(Outgoing::Passable(message), is_long);
                }
                Step::Late => push(Outgoing::Late(Late::Plain(unsigned(number))), false),
                Step::Cork(true) => {
                    std::mem::forget(outbox.cork());
                    corked = true;
                }
                Step::Cork(false) => {
                    outbox.uncork();
                    corked = false;
                }
                // The writer takes when it has written.
                Step::Take if taken == 0 => match next(&outbox) {
                    Some(Next::Round(round)) if !legacy => {
                        assert_eq!(round.rest.len(), std::mem::take(&mut rest));
                        taken = round.messages.max(1);
                        let (some, one) = numbers(round);
                        assert_eq!(some, short.drain(..some.len()).collect::<Vec<_>>());
                        assert_eq!(one, (!long.is_empty()).then(|| long.remove(0)));
                    }
                    Some(Next::Round(round)) => {
                        assert!(round.long.is_none());
                        assert_eq!(round.rest.len(), std::mem::take(&mut rest));
                        short.drain(..round.messages);
                        taken = round.messages.max(1);
                    }
                    Some(Next::Closed) => assert!(closed && rest == 0 && short.is_empty() && long.is_empty()),
                    None => assert!(!closed && rest == 0 && (corked || short.is_empty() && long.is_empty())),
                },
                Step::Take => {}
                Step::Written(_) if rest > 0 => {}
                Step::Written(percent) => {
                    outbox.encoded(outbox.bytes().min(1000) * usize::from(taken > 0));
                    outbox.written(percent * 10);
                    outbox.written(if taken > 0 { 0 } else { percent });
                    taken = 0;
                }
                Step::Empty => {
                    outbox.empty();
                    short.clear();
                    long.clear();
                }
                Step::Close => {
                    assert_eq!(outbox.close(closing()), !closed);
                    closed = true;
                }
            }
            assert_eq!(memory.used_for(Kind::Outboxes), outbox.bytes());
            if short.is_empty() && long.is_empty() && taken == 0 && rest == 0 {
                assert_eq!(outbox.bytes(), 0);
            }
        }
        drop(outbox);
        assert_eq!(memory.used(), 0);
    }
}

/// As long as the writer writes one at a time, who has a message sends it; when there are several, the writer does.
#[test]
fn a_message_is_given_back_while_nothing_else_is_on_its_way() {
    let (outbox, memory) = outbox(Framing::Line, |_| {});
    let late = |number| Outgoing::Late(Late::Plain(unsigned(number)));
    assert!(outbox.push(late(0)).unwrap().is_none(), "nothing was heard");
    drop(outbox.cork());
    assert!(outbox.push(late(1)).unwrap().is_none(), "another waits");
    assert_eq!(round(&outbox).messages, 2);
    assert!(outbox.push(late(1)).unwrap().is_none(), "others are on their way");
    outbox.written(0);
    assert_eq!(round(&outbox).messages, 1);
    outbox.written(0);
    assert!(outbox.push(Outgoing::Ready(numbered(2, LONG_MESSAGE))).unwrap().is_none(), "it is long");
    assert_eq!(round(&outbox).messages, 1);
    outbox.written(0);
    let cork = outbox.cork();
    assert!(outbox.push(late(3)).unwrap().is_none(), "more are to come");
    drop(cork);
    assert_eq!(round(&outbox).messages, 1);
    outbox.written(0);

    assert!(outbox.push(late(4)).unwrap().is_some());
    outbox.sent(Vec::new());
    assert!(outbox.push(late(4)).unwrap().is_none(), "the second in a row");
    assert_eq!(round(&outbox).messages, 1);
    outbox.written(0);
    drop(outbox.cork());
    assert!(outbox.push(late(4)).unwrap().is_some());
    assert!(outbox.push(late(5)).unwrap().is_none() && next(&outbox).is_none());
    outbox.close(closing());
    assert!(next(&outbox).is_none(), "the way out is lent");
    outbox.sent(vec![7; 3]);
    let last = round(&outbox);
    assert_eq!((last.rest, last.messages), (vec![7; 3], 1));
    outbox.written(0);
    assert!(matches!(next(&outbox), Some(Next::Closed)));
    assert_eq!(memory.used(), 0);
}

#[test]
fn several_at_once_are_the_writers_until_there_is_one_again() {
    let (outbox, _) = outbox(Framing::Line, |_| {});
    for messages in [2, 1] {
        outbox.corked();
        for number in 0..messages {
            assert!(outbox.push(Outgoing::Late(Late::Plain(unsigned(number)))).unwrap().is_none());
        }
        drop(outbox.cork());
        assert_eq!(round(&outbox).messages, messages);
        outbox.written(0);
    }
    assert!(outbox.push(Outgoing::Late(Late::Plain(unsigned(0)))).unwrap().is_some());
}

#[test]
fn short_ones_pass_a_long_one_that_may_be_passed_and_no_other() {
    let (outbox, _) = outbox(Framing::Line, |_| {});
    for number in [0, 1] {
        outbox.push(Outgoing::Passable(numbered(number, LONG_MESSAGE))).unwrap();
    }
    outbox.push(Outgoing::Ready(numbered(2, LONG_MESSAGE))).unwrap();
    outbox.push(Outgoing::Late(Late::Plain(unsigned(3)))).unwrap();
    outbox.push(Outgoing::Passable(numbered(4, 10))).unwrap();
    outbox.push(Outgoing::Ready(numbered(5, 10))).unwrap();
    assert_eq!(numbers(round(&outbox)), (vec![2, 3, 4, 5], Some(0)));
    outbox.written(0);
    // However many short ones come, each round has a long one.
    for number in 6..6 + 2 * ROUND_MESSAGES {
        outbox.push(Outgoing::Late(Late::Plain(unsigned(number)))).unwrap();
    }
    let (short, long) = numbers(round(&outbox));
    assert_eq!((short.len(), long), (ROUND_MESSAGES, Some(1)));
}

#[test]
fn a_cork_holds_a_round_at_most_and_never_fills_a_small_outbox() {
    let (large, _) = outbox(Framing::Line, |_| {});
    let cork = large.cork();
    for number in 1..ROUND_MESSAGES {
        large.push(Outgoing::Late(Late::Plain(unsigned(number)))).unwrap();
    }
    assert!(next(&large).is_none());
    large.push(Outgoing::Late(Late::Plain(unsigned(0)))).unwrap();
    assert_eq!(round(&large).messages, ROUND_MESSAGES);
    drop(cork);
    for set in [|l: &mut Limits| l.outbox_messages = 4, |l: &mut Limits| l.outbox_bytes = 4000] {
        let (small, _) = outbox(Framing::Line, set);
        let _cork = small.cork();
        small.push(Outgoing::Ready(numbered(0, 1000))).unwrap();
        assert!(next(&small).is_none());
        small.push(Outgoing::Ready(numbered(1, 1000))).unwrap();
        assert_eq!(round(&small).messages, 2);
    }
}

#[tokio::test]
async fn the_writer_wakes_when_it_may_go_on() {
    let waits = |outbox: &Arc<Outbox>| {
        let outbox = Arc::clone(outbox);
        tokio::spawn(async move { outbox.next(true).await })
    };
    let late = |number| Outgoing::Late(Late::Plain(unsigned(number)));
    for how in 0..4 {
        let (outbox, _) = outbox(Framing::Line, |_| {});
        let cork = outbox.cork();
        let writer = waits(&outbox);
        tokio::task::yield_now().await;
        outbox.push(late(0)).unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!writer.is_finished(), "it goes on while it is corked");
        let messages = match how {
            0 => {
                drop(cork);
                1
            }
            1 => {
                outbox.uncork();
                1
            }
            2 => {
                outbox.push(Outgoing::Ready(numbered(1, ROUND_BYTES))).unwrap();
                2
            }
            _ => {
                assert!(outbox.close(closing()));
                1
            }
        };
        let Next::Round(round) = soon(writer).await.unwrap() else { panic!("nothing to write") };
        assert_eq!(round.messages, messages);
        outbox.written(0);
        if how == 3 {
            assert!(matches!(soon(waits(&outbox)).await.unwrap(), Next::Closed));
        }
    }
}

/// What can't be sealed leaves nothing to write: who waits for room must hear of it all the same.
#[tokio::test]
async fn there_is_room_again_when_nothing_came_of_what_was_taken() {
    let (outbox, memory) = outbox(Framing::Line, |l| l.outbox_messages = 4);
    for number in 0..4 {
        outbox.push(Outgoing::Late(Late::Plain(unsigned(number)))).unwrap();
    }
    let waits = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.room().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(round(&outbox).messages, 4);
    assert!(!outbox.has_room());
    outbox.encoded(0);
    soon(waits).await.unwrap();
    assert!(outbox.has_room());
    assert_eq!(memory.used(), 0);
}
