//! How statements about keys come in, what they change, and who is told.
//!
//! Checking one takes two signatures, so it is done outside of the state and only for what is news: statements go out as
//! [`Action::CheckKeys`] and come back to [`State::keys_checked`].

use super::{Fork, Share, Standing};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::Activity;
use crate::limits::{FLOOD_TTL, MAX_STATEMENTS, MAX_TOLD_REVOCATIONS};
use crate::mesh::action::{Action, OnFull, What};
use crate::mesh::clock::Now;
use crate::mesh::conn_id::ConnId;
use crate::mesh::state::State;
use crate::wire::keylife::revoked;
use crate::wire::{Object, Record, Revocation, Revoked, Rotation};

/// Statements whose signatures are to be checked, and what they are for.
#[derive(Debug)]
pub enum KeyNews {
    /// The chain that a record shows.
    Chain {
        /// Whose record.
        node: NodeId,
        /// The chain.
        chain: Vec<Rotation>,
    },
    /// Revocations that a peer brought.
    Revocations {
        /// Them.
        statements: Vec<Revocation>,
        /// How many links they may still travel.
        ttl: u8,
    },
}

impl KeyNews {
    /// Checks the signatures. Of revocations those that don't verify are left out; of a chain all must.
    pub fn check(self) -> Option<Self> {
        match self {
            Self::Chain { chain, .. } if crate::wire::verify_chain(&chain).is_err() => None,
            Self::Revocations { mut statements, ttl } => {
                statements.retain(|s| s.verify().is_ok());
                Some(Self::Revocations { statements, ttl })
            }
            chain => Some(chain),
        }
    }
}

impl State {
    // ---- the owner ---------------------------------------------------------------------------------------------

    /// The owner named these ids: pinned, allowed, denied. What is said about them is kept before all else, and it is told
    /// when one of them is replaced or revoked.
    pub fn name_ids(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        ids.into_iter().for_each(|id| self.keys.name(id));
    }

    /// This node's own former ids: nobody else may have them.
    pub fn own_succession(&mut self, chain: &[Rotation]) {
        self.keys.name(self.me);
        chain.iter().for_each(|step| self.keys.name(step.old));
        self.keys.absorb(chain, |_| Share::Named, self.me);
    }

    /// What an earlier run kept; its signatures were checked.
    pub fn restore_statements(&mut self, rotations: Vec<(Share, Rotation)>, revocations: Vec<(Share, Revocation)>) {
        for (share, step) in rotations {
            if self.keys.fork(std::slice::from_ref(&step)).is_none() {
                self.keys.absorb(std::slice::from_ref(&step), |_| share, self.me);
            }
        }
        // After the successions that were seen before them.
        for (share, revocation) in revocations {
            self.keys.revoke(&revocation, share, self.me);
        }
    }

    /// All statements that are kept, to be saved.
    pub fn statements(&self) -> Vec<(Share, Object)> {
        self.keys.saved()
    }

    /// The newest id of the node that had this one.
    pub fn current_id(&self, id: &NodeId) -> NodeId {
        self.keys.current(id)
    }

    /// What an id is worth.
    pub fn standing(&self, id: &NodeId) -> Standing {
        self.keys.standing(id)
    }

    /// An id, and those that its node had before: a rule about one of them is about the node.
    pub fn ids_of(&self, id: &NodeId) -> Vec<NodeId> {
        self.keys.ids_of(id)
    }

    /// Publishes a revocation whose signature was checked. Gives how many peers are told.
    pub fn publish_revocation(&mut self, revocation: &Revocation, now: Now, out: &mut Vec<Action>) -> usize {
        self.keys.name(revocation.node_id);
        // Again, if it is known: who publishes it wants it told.
        self.take_revocations(std::slice::from_ref(revocation), self.me, now, out);
        self.spread(std::slice::from_ref(revocation), FLOOD_TTL, &[revocation.node_id], out)
    }

    // ---- the handshake -----------------------------------------------------------------------------------------

    /// A node came through the handshake with a chain whose signatures were checked. `pinned` is the id that was
    /// dialled, if one was.
    ///
    /// # Errors
    ///
    /// When the chain contradicts what is known, or the node is not the one that was dialled: the reason and its words
    /// for `bye`.
    pub fn introduced(
        &mut self,
        node: NodeId,
        chain: &[Rotation],
        pinned: Option<NodeId>,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), (CloseReason, String)> {
        if node != self.me {
            self.follow(node, chain, Share::Met, node, now, out).map_err(|fork| {
                let message = format!(
                    "{} was replaced by {} before: this node takes no second successor of it",
                    fork.old, fork.kept
                );
                (CloseReason::NotAllowed, message)
            })?;
        }
        match pinned {
            Some(pinned) if pinned != node && self.keys.current(&pinned) != node => {
                Err((CloseReason::BadHandshake, format!("expected node {pinned} at this address, {node} answered")))
            }
            _ => Ok(()),
        }
    }

    /// Why an id is nobody's any more, in words; `None`: nothing is known against it.
    pub(in crate::mesh) fn ended(&self, id: &NodeId) -> Option<String> {
        self.keys.standing(id).refusal(id)
    }

    /// Why a node that its owner named is not dialled.
    pub fn not_dialled(&self, node: &NodeId) -> Option<String> {
        let not_admitted = || "this node's own owner does not let it in: `elo access` shows the lists".to_owned();
        self.ended(node).or_else(|| (!self.admits(node)).then(not_admitted))
    }

    // ---- rotations ---------------------------------------------------------------------------------------------

    /// A record shows a chain: what is news in it is checked.
    pub(in crate::mesh) fn keys_on_record(
        &mut self,
        record: &Record,
        conn: Option<ConnId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if record.former.is_empty() {
            return;
        }
        let chain = record.rotations();
        if chain.iter().all(|step| self.keys.knows_step(step) || self.keys.is_revoked(&step.old)) {
            return;
        }
        let named = chain.iter().any(|step| self.keys.is_named(&step.old));
        if !named && conn.is_some_and(|conn| !self.keys.may_bring(conn, now.mono)) {
            // It is shown again with the next record.
            return self.refuse("statements_rate");
        }
        out.push(Action::CheckKeys { from: record.node_id, news: KeyNews::Chain { node: record.node_id, chain } });
    }

    /// Follows a chain that was checked.
    fn follow(
        &mut self,
        node: NodeId,
        chain: &[Rotation],
        share: Share,
        teller: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), Fork> {
        if let Some(fork) = self.keys.fork(chain) {
            self.refuse("second_successor");
            if self.keys.is_named(&fork.old) && self.keys.tell_fork(fork) {
                let Fork { old, kept, refused } = fork;
                out.push(Action::Activity(Activity::SuccessorRefused { old, kept, refused }));
            }
            return Err(fork);
        }
        let ended = self.keys.absorb(chain, |_| share, teller);
        if ended.is_empty() {
            return Ok(());
        }
        out.push(Action::SaveKeys);
        let new = self.keys.current(&node);
        tracing::debug!(%new, steps = ended.len(), "an id was replaced");
        for old in self.keys.named_by(&new).into_iter().filter(|old| *old != self.me) {
            out.push(Action::Activity(Activity::IdReplaced { old, new }));
        }
        for old in ended {
            self.end_id(&old, now, out);
        }
        self.calls_nudge(now, out);
        Ok(())
    }

    // ---- revocations -------------------------------------------------------------------------------------------

    /// A peer brings revocations: what is news in them is checked.
    pub(in crate::mesh) fn on_revoked(
        &mut self,
        message: Revoked,
        conn: ConnId,
        from: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let mut statements = Vec::new();
        for statement in message.statements {
            let id = statement.node_id;
            if self.keys.is_revoked(&id) {
                continue;
            }
            if self.share_of(&id) == Share::Other && !self.keys.may_bring(conn, now.mono) {
                self.refuse("statements_rate");
                continue;
            }
            statements.push(statement);
        }
        if !statements.is_empty() {
            let news = KeyNews::Revocations { statements, ttl: message.ttl };
            out.push(Action::CheckKeys { from, news });
        }
    }

    /// What an id means to this node.
    fn share_of(&self, id: &NodeId) -> Share {
        if self.keys.is_named(id) {
            Share::Named
        } else if self.table.get(id).is_some() || self.peers.conn_of(id).is_some() {
            Share::Met
        } else {
            Share::Other
        }
    }

    /// Takes revocations that were checked; gives those that are news.
    fn take_revocations(
        &mut self,
        statements: &[Revocation],
        teller: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Vec<Revocation> {
        let mut fresh = Vec::new();
        for revocation in statements {
            let id = revocation.node_id;
            let share = self.share_of(&id);
            if !self.keys.revoke(revocation, share, teller) {
                continue;
            }
            fresh.push(revocation.clone());
            if share != Share::Other {
                let (node_id, reason) = (id, revocation.reason.clone());
                out.push(Action::Activity(Activity::IdRevoked { node_id, reason }));
            }
            self.end_id(&id, now, out);
        }
        if !fresh.is_empty() {
            out.push(Action::SaveKeys);
        }
        fresh
    }

    /// Tells all peers but some; gives how many.
    fn spread(&mut self, statements: &[Revocation], ttl: u8, not: &[NodeId], out: &mut Vec<Action>) -> usize {
        let message = revoked(statements.iter().map(|s| &s.object), ttl);
        let mut told = 0;
        for (conn, _) in self.peers.all_proven().filter(|(_, p)| !not.contains(&p.arrival.node)) {
            out.push(Action::Send { to: conn, what: What::Ready(message.clone()), on_full: OnFull::Drop });
            told += 1;
        }
        self.counters.flooded += told as u64;
        told
    }

    /// A new peer is told of revocations: it may have been away when they were made.
    pub(in crate::mesh) fn keys_on_connected(&self, conn: ConnId, out: &mut Vec<Action>) {
        for some in self.keys.revocations(MAX_TOLD_REVOCATIONS).chunks(MAX_STATEMENTS) {
            let what = What::Ready(revoked(some, FLOOD_TTL));
            out.push(Action::Send { to: conn, what, on_full: OnFull::Drop });
        }
    }

    // ---- both --------------------------------------------------------------------------------------------------

    /// Statements were checked; `None`: a chain was not signed as it must be.
    pub fn keys_checked(&mut self, from: NodeId, news: Option<KeyNews>, now: Now, out: &mut Vec<Action>) {
        match news {
            None => {
                self.refuse("forged_succession");
                self.table.forget(&from, now);
            }
            Some(KeyNews::Chain { node, chain }) => {
                if self.follow(node, &chain, Share::Met, from, now, out).is_err() {
                    self.table.forget(&node, now);
                }
            }
            Some(KeyNews::Revocations { statements, ttl }) => {
                let fresh = self.take_revocations(&statements, from, now, out);
                if ttl > 1 && !fresh.is_empty() {
                    self.spread(&fresh, ttl - 1, &[from], out);
                }
            }
        }
    }

    /// An id is no longer anybody's: its running tasks are answered so and stopped, calls to it end, its connection ends, its
    /// record is forgotten, who waits for it looks again.
    fn end_id(&mut self, id: &NodeId, now: Now, out: &mut Vec<Action>) {
        if *id == self.me {
            return;
        }
        let why = self.ended(id).unwrap_or_default();
        // The answers first: they still find their way.
        if self.tasks.running_for(id) > 0 {
            self.stop_barred_tasks(now, out);
        }
        self.calls_on_ended(id, &why, now, out);
        if let Some(conn) = self.peers.conn_of(id) {
            self.drop_peer(conn, CloseReason::NotAllowed, &why, now, out);
        }
        for conn in self.legacy_like(id) {
            self.drop_peer(conn, CloseReason::NotAllowed, &why, now, out);
        }
        self.table.forget(id, now);
        if self.dialing.contains_key(id) {
            self.dial_failed(id, &why, now, out);
        }
    }
}
