//! A task that is followed: first all that is known of it, then each change until its end.

use std::collections::VecDeque;
use std::sync::Arc;

use ::a2a::StreamResponse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::view::About;
use crate::service::{CallHead, CallState, Calls};

/// Follows a task. Nothing is kept for it but what it has not given yet: what the call itself keeps bounds that.
#[derive(Debug)]
pub(super) struct Follow {
    calls: Arc<Calls>,
    about: About,
    news: watch::Receiver<u64>,
    stopping: CancellationToken,
    /// The number of the next part.
    next: u64,
    state: CallState,
    events: VecDeque<StreamResponse>,
}

impl Follow {
    /// `None`: the task is forgotten.
    pub(super) fn new(
        calls: Arc<Calls>,
        about: About,
        history: Option<i32>,
        stopping: CancellationToken,
    ) -> Option<Self> {
        // From before the look: what changes after it is told.
        let news = calls.news(&about.id)?;
        let progress = calls.look(&about.id, 0)?;
        let first = StreamResponse::Task(about.task(&progress, history, true));
        let events = VecDeque::from([first]);
        Some(Self { calls, about, news, stopping, next: progress.next, state: progress.state, events })
    }

    /// What happened next; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<StreamResponse> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.state.is_over() {
                return None;
            }
            self.look()?;
            if self.events.is_empty() {
                tokio::select! {
                    biased;
                    () = self.stopping.cancelled() => return None,
                    changed = self.news.changed() => changed.ok()?,
                }
            }
        }
    }

    fn look(&mut self) -> Option<()> {
        let progress = self.calls.look(&self.about.id, self.next)?;
        let head = CallHead { state: progress.state, since: progress.since, error: progress.error.clone() };
        let changed = progress.state != self.state;
        self.state = progress.state;
        if changed && !self.state.is_over() {
            self.events.push_back(self.about.status_event(&head));
        }
        let mut lost = progress.lost;
        let mut append = self.next > 0;
        for chunk in &progress.chunks {
            self.events.push_back(self.about.chunk_event(chunk, append, lost));
            (append, lost) = (true, 0);
        }
        self.next = progress.next;
        if self.state.is_over() {
            if let Some(outcome) = &progress.outcome {
                self.events.push_back(self.about.result_event(outcome));
            }
            self.events.push_back(self.about.status_event(&head));
        }
        Some(())
    }
}
