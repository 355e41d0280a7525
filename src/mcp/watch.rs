//! A tool at work, as its client sees it: whether it still wants the answer, and what it is told meanwhile.

use std::pin::pin;
use std::time::{Duration, Instant};

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use crate::control::{Client, Reply};

/// How often a client is told that it is still being worked for: several times within the minute that clients wait for a sign.
const PULSE: Duration = Duration::from_secs(15);

/// How long a client may take to be told; after that it misses it.
const TELL: Duration = Duration::from_secs(5);

/// The most characters of one notification.
const MAX_TEXT: usize = 4000;

/// One request of a client.
pub(super) struct Watch {
    cancelled: CancellationToken,
    closing: CancellationToken,
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    told: u32,
    began: Instant,
}

impl Watch {
    pub(super) fn new(context: &RequestContext<RoleServer>) -> Self {
        Self {
            cancelled: context.ct.clone(),
            closing: CancellationToken::new(),
            peer: context.peer.clone(),
            token: context.meta.get_progress_token(),
            told: 0,
            began: Instant::now(),
        }
    }

    /// It ends as well when this is cancelled.
    pub(super) fn ends_with(&mut self, closing: CancellationToken) {
        self.closing = closing;
    }

    /// Whether the client wants to be told how it goes.
    pub(super) fn is_seen(&self) -> bool {
        self.token.is_some()
    }

    /// Tells the client how it goes, if it wants to know.
    pub(super) async fn tell(&mut self, message: &str) {
        let Some(token) = self.token.clone() else { return };
        self.told += 1;
        let mut text: String = message.chars().take(MAX_TEXT).collect();
        if text.len() < message.len() {
            text.push('…');
        }
        let progress = ProgressNotificationParam::new(token, f64::from(self.told)).with_message(text);
        // A client that is gone, or doesn't read, misses it.
        drop(tokio::time::timeout(TELL, self.peer.notify_progress(progress)).await);
    }

    /// The next line of the node's answer. Ends early when the client takes its request back.
    pub(super) async fn reply(&mut self, client: &mut Client) -> Result<Reply, Refusal> {
        let mut reply = pin!(client.reply());
        loop {
            tokio::select! {
                biased;
                () = self.over() => return Err(Refusal::cancelled()),
                reply = &mut reply => return Ok(reply?),
                () = tokio::time::sleep(PULSE) => {
                    let waited = format!("still waiting ({} s)", self.began.elapsed().as_secs());
                    self.tell(&waited).await;
                }
            }
        }
    }

    /// Completes when nobody wants the answer any more.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = self.cancelled.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// Whether nobody wants the answer any more.
    pub(super) fn is_over(&self) -> bool {
        self.cancelled.is_cancelled() || self.closing.is_cancelled()
    }
}
