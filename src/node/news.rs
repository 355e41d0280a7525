//! How a call's handle hears its news: a short queue and whom to wake.
//!
//! A general channel would do, but keeps room for a window of chunks from its beginning, in a block that costs more to
//! allocate than a call has to cost: most calls have one piece of news.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::error::CallError;
use crate::mesh::{CallDone, CallEvent};
use crate::wire::Object;

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<CallEvent>,
    /// How the call ended. It has its place from the beginning: most calls have no other news, and what one thread allocates and
    /// another frees costs more than either.
    end: Option<Result<CallDone, CallError>>,
    waker: Option<Waker>,
    /// Nothing more will come.
    ended: bool,
    /// Nobody listens any more.
    left: bool,
}

#[derive(Debug, Default)]
struct News(Mutex<Queue>);

impl News {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's end. When it is dropped, the handle hears that nothing more will come.
#[derive(Debug)]
pub(crate) struct Teller(Arc<News>);

/// The handle's end.
#[derive(Debug)]
pub(crate) struct Hearer(Arc<News>);

/// Both ends.
pub(crate) fn news() -> (Teller, Hearer) {
    let news = Arc::new(News::default());
    (Teller(Arc::clone(&news)), Hearer(news))
}

/// A piece of news.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "handed on once and never stored; a box would be the greater cost")]
pub(crate) enum Piece {
    /// On the way.
    Event(CallEvent),
    /// The last.
    End(Result<CallDone, CallError>),
}

/// As much waits already as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Teller {
    /// Puts it behind what was not heard yet, of which there may be `most`. Gives whom to wake.
    pub(crate) fn tell(&self, event: CallEvent, most: usize) -> Result<Option<Waker>, Full> {
        let mut queue = self.0.queue();
        if queue.left {
            return Ok(None);
        }
        if queue.events.len() >= most {
            return Err(Full);
        }
        queue.events.push_back(event);
        Ok(queue.waker.take())
    }

    /// The last of it, for which there is always room. Gives whom to wake, and what of it is of no more use: to be freed by who
    /// made it.
    pub(crate) fn end(self, mut end: Result<CallDone, CallError>) -> (Option<Waker>, Option<Object>) {
        let message = end.as_mut().ok().and_then(|done| done.message.take());
        let mut queue = self.0.queue();
        queue.ended = true;
        if !queue.left {
            queue.end = Some(end);
        }
        (queue.waker.take(), message)
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.ended = true;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Hearer {
    /// The next; `None`: nothing more will come. Giving it up loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        poll_fn(|cx| {
            let mut queue = self.0.queue();
            if let Some(event) = queue.events.pop_front() {
                return Poll::Ready(Some(Piece::Event(event)));
            }
            if let Some(end) = queue.end.take() {
                return Poll::Ready(Some(Piece::End(end)));
            }
            if queue.ended {
                return Poll::Ready(None);
            }
            match &mut queue.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Hearer {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.left = true;
        let unheard = (std::mem::take(&mut queue.events), queue.end.take());
        drop(queue);
        drop(unheard);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(n: u8) -> CallEvent {
        CallEvent::Chunk(Bytes::copy_from_slice(&[n]))
    }

    #[tokio::test]
    async fn news_come_in_order_up_to_the_bound_and_end_with_the_teller() {
        let (teller, mut hearer) = news();
        assert!(teller.tell(chunk(1), 2).is_ok() && teller.tell(chunk(2), 2).is_ok());
        assert_eq!(teller.tell(chunk(3), 2).err(), Some(Full));
        assert!(matches!(hearer.next().await, Some(Piece::Event(CallEvent::Chunk(c))) if c[..] == [1]));
        assert!(teller.tell(chunk(3), 2).is_ok());
        drop(teller);
        for n in [2, 3] {
            assert!(matches!(hearer.next().await, Some(Piece::Event(CallEvent::Chunk(c))) if c[..] == [n]));
        }
        assert!(hearer.next().await.is_none() && hearer.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_who_left_is_not_missed() {
        let (teller, mut hearer) = news();
        let waiting = tokio::spawn(async move {
            let first = hearer.next().await.is_some();
            (first, hearer.next().await.is_none())
        });
        tokio::task::yield_now().await;
        teller.tell(chunk(1), 1).unwrap().unwrap().wake();
        tokio::task::yield_now().await;
        drop(teller);
        assert_eq!(waiting.await.unwrap(), (true, true));
        let (teller, hearer) = news();
        drop(hearer);
        assert!((0..9).all(|n| teller.tell(chunk(n), 1).is_ok()), "nobody is behind");
        assert_eq!(teller.0.queue().events.len(), 0);
    }
}
