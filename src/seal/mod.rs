//! Sealing what trackers pass on, so that only its target reads it.
//!
//! A [`Sealer`] has a node's X25519 key pair, which lives in memory and for a day at most, and the contexts agreed on with
//! others. No I/O, no clock and no random generator of its own: both are passed in. The locks are held to take or put a
//! context, never while anything is sealed, opened or agreed on.

mod context;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::CryptoRng;

use self::context::{Context, Secret};
use crate::identity::{Identity, NodeId};
use crate::limits::{
    MAX_SEAL_CONTEXTS, MAX_SEAL_CONTEXTS_OF_ONE, MAX_SEAL_KEYS, SEAL_CONTEXT_FOR, SEAL_CONTEXT_MESSAGES,
};
use crate::lru::Lru;
use crate::wire::{Envelope, NotOpened, Object, SealKey, Sealed, SealedKind, Unsigned};

/// How often what is old is looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// What to seal, and for whom.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// What kind it is.
    pub kind: SealedKind,
    /// The task's id, or the event's.
    pub id: &'a str,
    /// Whom it is for.
    pub target: &'a NodeId,
    /// To which key of the target.
    pub key: &'a SealKey,
    /// Of a task: the run it is meant for.
    pub instance: Option<&'a str>,
    /// Of a task: its time to live, in seconds.
    pub ttl_s: Option<u64>,
    /// The signed message itself.
    pub text: &'a [u8],
}

/// Nothing can be agreed on with that key, or no number is left. The message must not be sent otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it can't be sealed to its target's key")]
pub struct CantSeal;

/// A key pair of this run.
#[derive(Clone)]
struct Pair {
    secret: Arc<Secret>,
    public: SealKey,
}

struct Keys {
    current: Pair,
    /// Those it had before, the newest first, and until when they open what is sealed to them.
    earlier: VecDeque<(Pair, Duration)>,
}

/// A context for sending.
struct Sending {
    context: Context,
    enc: SealKey,
    since: Duration,
    /// The next message's number. It is part of the context, so it can't begin again while the key is the same.
    next: AtomicU64,
}

/// A context for receiving, and the key of ours that it came of.
struct Receiving {
    enc: SealKey,
    ours: SealKey,
    context: Arc<Context>,
    /// Whether the source takes messages that were signed in a batch.
    batch: bool,
}

/// Seals and opens for one node.
pub struct Sealer {
    me: NodeId,
    keys: Mutex<Keys>,
    sending: Mutex<Lru<(NodeId, SealKey), Arc<Sending>>>,
    /// By source, the one used last first: one that makes many pushes out its own alone.
    receiving: Mutex<Lru<NodeId, VecDeque<Receiving>>>,
    swept: Mutex<Duration>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("me", &self.me).field("key", &self.key()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sealer {
    /// A sealer with a new key pair.
    pub fn new(me: NodeId, rng: &mut impl CryptoRng) -> Self {
        let current = Pair::new(rng);
        Self {
            me,
            keys: Mutex::new(Keys { current, earlier: VecDeque::new() }),
            sending: Mutex::new(Lru::new(MAX_SEAL_CONTEXTS)),
            receiving: Mutex::new(Lru::new(MAX_SEAL_CONTEXTS)),
            swept: Mutex::new(Duration::ZERO),
        }
    }

    /// The public key that others seal to.
    pub fn key(&self) -> SealKey {
        lock(&self.keys).current.public
    }

    /// Makes a new key pair. What is sealed to the one before is opened for `keep` more; then nobody can open it, not
    /// even this node.
    pub fn replace_key(&self, keep: Duration, now: Duration, rng: &mut impl CryptoRng) -> SealKey {
        let pair = Pair::new(rng);
        let public = pair.public;
        {
            let mut keys = lock(&self.keys);
            let before = std::mem::replace(&mut keys.current, pair);
            keys.earlier.push_front((before, now.saturating_add(keep)));
            keys.earlier.truncate(MAX_SEAL_KEYS);
        }
        self.forget_old(now);
        public
    }

    /// Seals a message, and signs its envelope.
    ///
    /// # Errors
    ///
    /// [`CantSeal`].
    pub fn seal(
        &self,
        identity: &Identity,
        message: &Message<'_>,
        now: Duration,
        rng: &mut impl CryptoRng,
    ) -> Result<Object, CantSeal> {
        self.seal_unsigned(message, now, rng).map(|envelope| envelope.sign(identity))
    }

    /// Seals a message; its envelope is yet to be signed.
    ///
    /// # Errors
    ///
    /// [`CantSeal`].
    pub fn seal_unsigned(
        &self,
        message: &Message<'_>,
        now: Duration,
        rng: &mut impl CryptoRng,
    ) -> Result<Unsigned, CantSeal> {
        let (sending, n) = self.next_number(message, now, rng)?;
        let envelope = Envelope {
            kind: message.kind,
            id: message.id,
            target: message.target,
            instance: message.instance,
            ttl_s: message.ttl_s,
            key: &self.key(),
            enc: &sending.enc,
            n,
            batch: true,
        };
        let seal = |associated: &[u8]| sending.context.seal(n, associated, message.text).map_err(|_| CantSeal);
        envelope.close(&self.me, seal)
    }

    /// The context for a message and its number there, which nothing else gets.
    fn next_number(
        &self,
        message: &Message<'_>,
        now: Duration,
        rng: &mut impl CryptoRng,
    ) -> Result<(Arc<Sending>, u64), CantSeal> {
        let key = (*message.target, *message.key);
        let known = lock(&self.sending).get_mut(&key).map(|sending| Arc::clone(sending));
        if let Some(sending) = known.filter(|s| now.saturating_sub(s.since) < SEAL_CONTEXT_FOR)
            && let Some(n) = sending.take_number()
        {
            return Ok((sending, n));
        }
        let (enc, context) = Context::to(message.key, &self.me, message.target, rng).map_err(|_| CantSeal)?;
        let sending = Arc::new(Sending { context, enc, since: now, next: AtomicU64::new(0) });
        let n = sending.take_number().ok_or(CantSeal)?;
        // Two threads may do this at once; each has numbers of its own, and the later context stays.
        lock(&self.sending).insert(key, Arc::clone(&sending));
        Ok((sending, n))
    }

    /// Opens an envelope for this node, whose signature was checked.
    ///
    /// # Errors
    ///
    /// None of this run's keys opens it.
    pub fn open(&self, sealed: &Sealed, now: Duration) -> Result<Bytes, NotOpened> {
        let bytes = sealed.sealed_bytes().ok_or(NotOpened::Inner)?;
        let associated = sealed.associated_data();
        if let Some(context) = self.known(sealed) {
            return context.open(sealed.n, &associated, &bytes).map(Bytes::from).map_err(|_| NotOpened::Key);
        }
        for pair in self.pairs(now) {
            let Ok(context) = Context::from(&pair.secret, &sealed.enc, &sealed.source, &self.me) else { continue };
            if let Ok(text) = context.open(sealed.n, &associated, &bytes) {
                // Only now: what opens nothing takes up no place.
                self.remember(sealed, pair.public, context);
                return Ok(text.into());
            }
        }
        Err(NotOpened::Key)
    }

    fn pairs(&self, now: Duration) -> Vec<Pair> {
        let keys = lock(&self.keys);
        let earlier = keys.earlier.iter().filter(|(_, until)| *until > now).map(|(pair, _)| pair.clone());
        std::iter::once(keys.current.clone()).chain(earlier).collect()
    }

    fn known(&self, sealed: &Sealed) -> Option<Arc<Context>> {
        let mut receiving = lock(&self.receiving);
        let of_source = receiving.get_mut(&sealed.source)?;
        let place = of_source.iter().position(|r| r.enc == sealed.enc)?;
        let found = of_source.remove(place)?;
        let context = Arc::clone(&found.context);
        of_source.push_front(found);
        Some(context)
    }

    /// Whether a node has said, in the envelope of what it sent last, that it takes messages signed in a batch.
    pub fn takes_batches(&self, node: &NodeId) -> bool {
        let mut receiving = lock(&self.receiving);
        receiving.get_mut(node).and_then(|of_source| of_source.front()).is_some_and(|last| last.batch)
    }

    fn remember(&self, sealed: &Sealed, ours: SealKey, context: Context) {
        let new = Receiving { enc: sealed.enc, ours, context: Arc::new(context), batch: sealed.batch };
        let mut receiving = lock(&self.receiving);
        match receiving.get_mut(&sealed.source) {
            Some(of_source) => {
                of_source.retain(|r| r.enc != sealed.enc);
                of_source.push_front(new);
                of_source.truncate(MAX_SEAL_CONTEXTS_OF_ONE);
            }
            None => receiving.insert(sealed.source, VecDeque::from([new])),
        }
    }

    /// Forgets keys and contexts that are past their time, if that was not done just now: what is forgotten opens
    /// nothing that somebody has recorded.
    pub fn sweep(&self, now: Duration) {
        {
            let mut swept = lock(&self.swept);
            if now.saturating_sub(*swept) < SWEEP {
                return;
            }
            *swept = now;
        }
        self.forget_old(now);
    }

    fn forget_old(&self, now: Duration) {
        let ours: Vec<SealKey> = {
            let mut keys = lock(&self.keys);
            keys.earlier.retain(|(_, until)| *until > now);
            std::iter::once(keys.current.public).chain(keys.earlier.iter().map(|(pair, _)| pair.public)).collect()
        };
        lock(&self.sending).retain(|_, sending| now.saturating_sub(sending.since) < SEAL_CONTEXT_FOR);
        lock(&self.receiving).retain(|_, of_source| {
            of_source.retain(|r| ours.contains(&r.ours));
            !of_source.is_empty()
        });
    }

    /// Forgets every context; they are agreed on again when they are needed.
    pub fn forget_contexts(&self) {
        lock(&self.sending).retain(|_, _| false);
        lock(&self.receiving).retain(|_, _| false);
    }

    /// How many contexts it has, for sending and for receiving.
    pub fn contexts(&self) -> (usize, usize) {
        (lock(&self.sending).len(), lock(&self.receiving).len())
    }
}

impl Pair {
    fn new(rng: &mut impl CryptoRng) -> Self {
        let (secret, public) = context::key_pair(rng);
        Self { secret: Arc::new(secret), public }
    }
}

impl Sending {
    /// A number that nobody else gets; `None`: there are none left.
    fn take_number(&self) -> Option<u64> {
        let next = |n: u64| (n < SEAL_CONTEXT_MESSAGES).then_some(n + 1);
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }
}
