//! What connections report, and what is answered to a message that can't be used.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::driver::{Link, Shared, lock};
use crate::error::{CloseReason, ErrorCode};
use crate::mesh::{Action, ConnId, State};
use crate::net::{Heard, Hooks, Refused};
use crate::wire::{Checked, Message, Roots, WireError, draft};

/// The hooks of all connections of a node. They hold the node weakly: a connection doesn't keep it alive.
pub(crate) struct NodeHooks(pub(crate) std::sync::Weak<Shared>);

impl Hooks for NodeHooks {
    fn opened(&self, message: Checked, roots: &mut Roots) -> Checked {
        match self.0.upgrade() {
            Some(shared) => shared.opened(message, roots),
            None => message,
        }
    }

    fn heard(&self, conn: ConnId, news: Vec<Heard>) {
        let Some(shared) = self.0.upgrade() else { return };
        // All of them in one decision: the lock is taken once, and what they lead to leaves together.
        shared.with(|state, now, out| {
            for heard in news {
                match heard {
                    Heard::Message(message) => state.handle(conn, message, now, out),
                    Heard::Refused(refused) => answer(state, conn, refused, out),
                }
            }
        });
    }

    fn closed(&self, conn: ConnId, reason: Option<CloseReason>, message: String) {
        if let Some(shared) = self.0.upgrade() {
            shared.on_closed(conn, reason, &message);
        }
    }
}

impl Shared {
    pub(crate) fn hooks(&self) -> Arc<dyn Hooks> {
        Arc::new(NodeHooks(self.strong().map(|s| Arc::downgrade(&s)).unwrap_or_default()))
    }

    fn on_closed(&self, conn: ConnId, reason: Option<CloseReason>, message: &str) {
        if let Some(Link { connection, .. }) = lock(&self.conns).remove(&conn) {
            let traffic = &self.traffic;
            traffic.messages_in.fetch_add(connection.messages_in(), Ordering::Relaxed);
            traffic.messages_out.fetch_add(connection.messages_out(), Ordering::Relaxed);
            traffic.bytes_in.fetch_add(connection.bytes_in(), Ordering::Relaxed);
            traffic.bytes_out.fetch_add(connection.bytes_out(), Ordering::Relaxed);
        }
        self.count_closed(reason);
        if reason == Some(CloseReason::BadMessage) {
            // Whoever runs the other program wants to know; it will hardly say so itself.
            tracing::warn!(conn = conn.0, message, "a peer was closed for a message that is not valid");
        }
        tracing::debug!(
            conn = conn.0,
            reason = reason.map_or("none", CloseReason::as_str),
            message,
            "connection closed"
        );
        if let Some(node) = self.read(|state, _| state.node_of(conn)) {
            self.kept.ended(&node, reason, message);
        }
        self.with(|state, now, out| state.disconnected(conn, reason, now, out));
    }

    pub(crate) fn count_closed(&self, reason: Option<CloseReason>) {
        let reason = reason.map_or("LOST", CloseReason::as_str);
        *lock(&self.traffic.closed).entry(reason.to_owned()).or_default() += 1;
    }
}

/// A refused message that was about a task or a query, or was to be passed on, is answered: silence would look like loss.
fn answer(state: &mut State, conn: ConnId, refused: Refused, out: &mut Vec<Action>) {
    // Types and reasons only: what is in a message is nobody's business here.
    match &refused {
        Refused::Malformed(malformed) => tracing::debug!(conn = conn.0, why = %malformed, "a message was refused"),
        Refused::BadSignature { kind, caller, .. } => {
            tracing::debug!(conn = conn.0, kind, ?caller, "a message is not signed by whom it names");
        }
        Refused::BadRelay { code, why, .. } => tracing::debug!(conn = conn.0, %code, why, "a relay was refused"),
        Refused::RateLimited { message, .. } => {
            tracing::debug!(conn = conn.0, kind = message.kind(), "a message came above the peer's rate");
        }
        Refused::Dropped { kind } => tracing::debug!(conn = conn.0, kind, "gossip above the peer's rate was dropped"),
        Refused::Unknown { kind } => tracing::debug!(conn = conn.0, kind, "a message of an unknown type was ignored"),
    }
    match refused {
        Refused::Malformed(malformed) => {
            state.refuse("malformed");
            if let ("task", Some(id)) = (malformed.kind.as_str(), &malformed.id) {
                state.refuse_task(conn, id, ErrorCode::BadRequest, malformed.why.clone(), None, out);
            }
        }
        Refused::BadSignature { kind, id, .. } => {
            state.refuse("bad_signature");
            if let ("task", Some(id)) = (kind.as_str(), id) {
                let message = "the task's signature is missing, or is not its caller's".to_owned();
                state.refuse_task(conn, &id, ErrorCode::BadSignature, message, None, out);
            }
        }
        Refused::BadRelay { target, source, id, code, why } => {
            state.refuse(if code == ErrorCode::BadSignature { "bad_signature" } else { "malformed" });
            if !state.is_legacy(conn) {
                let error = draft::relay_error(&target, &source, &id, &WireError::new(code, why));
                out.push(Action::Send {
                    to: conn,
                    what: crate::mesh::What::Ready(error),
                    on_full: crate::mesh::OnFull::Drop,
                });
            }
        }
        Refused::RateLimited { message, retry_after } => {
            state.refuse("rate_limited");
            let seconds = whole_seconds(retry_after);
            match &message {
                Message::Task(task) => {
                    let text = "too many messages on this connection".to_owned();
                    state.refuse_task(conn, &task.id, ErrorCode::RateLimited, text, Some(seconds), out);
                }
                Message::Query(query) => {
                    // The package counts what it is sent, and can do nothing with this.
                    let Some(origin) = query.origin.filter(|_| !state.is_legacy(conn)) else { return };
                    let error = WireError::new(ErrorCode::RateLimited, "too many queries on this connection");
                    let error = error.retry_after_s(seconds);
                    let resp = draft::query_resp(&query.id, &origin, 1, std::iter::empty(), Some(&error));
                    out.push(Action::Send {
                        to: conn,
                        what: crate::mesh::What::Ready(resp),
                        on_full: crate::mesh::OnFull::Drop,
                    });
                }
                _ => {}
            }
        }
        Refused::Dropped { .. } => state.refuse("rate_limited"),
        Refused::Unknown { .. } => state.refuse("unknown_type"),
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
