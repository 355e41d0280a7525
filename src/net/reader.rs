//! The task that reads: cuts the stream into messages, parses and checks them, and hands them on.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::{JoinError, yield_now};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::codec::Decoder;

use super::NetConfig;
use super::connection::{Ending, FOREVER, LINGER, Shared};
use super::hooks::{Heard, Refused};
use super::io::{READ, Read, ReadHalf};
use super::long::{self, Looked, Looking};
use crate::error::{CloseReason, ErrorCode};
use crate::limits::{CONNECTION_BYTES, LONG_MESSAGE, MAX_MESSAGE, REFUSAL_BURST, REFUSALS_PER_SECOND};
use crate::memory::{Kind, Memory, Share};
use crate::mesh::handshake::tellable;
use crate::mesh::throttle::Bucket;
use crate::wire::{Codec, CodecError, Malformed, Message, Object, Roots, Speaker, is_id};

/// After so many messages from one buffer others get their turn: reading from a socket makes room for others by
/// itself, going through a buffer doesn't.
const TURN: u32 = 64;

/// No read brings more than this: what is taken at once has to fit in the bucket.
const LEAST_BURST: u32 = 2 * MAX_MESSAGE as u32;

pub(super) struct Reader {
    ending: Arc<Ending>,
    half: ReadHalf,
    codec: Codec,
    buffer: BytesMut,
    idle_timeout: Duration,
    write_timeout: Duration,
    message_timeout: Duration,
    /// When the message began that is not complete yet.
    begun: Option<Instant>,
    /// What it holds in memory: at rest, and of a message that is not complete.
    _rest: Share,
    partial: Share,
    /// All bytes.
    bytes: Bucket,
    /// All messages.
    messages: Bucket,
    /// The signatures that are checked.
    signatures: Bucket,
    /// Those that are passed on to many.
    floods: Bucket,
    /// Those that are answered with a refusal. Refusing is cheap, but not for nothing: a peer that sends even more than
    /// can be refused is read no faster than this.
    refusals: Bucket,
    /// What the peer signed that was checked already.
    roots: Roots,
    /// How many signatures were checked of long messages, and for how many in all the peer's rate was asked.
    checked_apart: u64,
    paced: u64,
    /// A long message that is looked at apart.
    long: Option<Looking>,
    /// What came together and is yet to be handed on, no more than a turn of it. Never kept while anything is waited for.
    heard: Vec<Heard>,
    memory: Arc<Memory>,
}

/// Why reading is over.
enum Stop {
    /// This node closes, for that reason; what still comes is not looked at.
    Close(CloseReason, String),
    /// The peer said `bye`.
    Bye(Option<CloseReason>, String),
    /// The stream ended.
    Ended,
    /// The stream broke.
    Broken(std::io::Error),
}

impl Reader {
    pub(super) fn new(ending: Arc<Ending>, half: ReadHalf, codec: Codec, buffer: BytesMut, cfg: &NetConfig) -> Self {
        let (limits, memory) = (&cfg.limits, &cfg.memory);
        Self {
            ending,
            half,
            codec,
            buffer,
            idle_timeout: limits.idle_timeout.min(FOREVER),
            write_timeout: limits.write_timeout,
            message_timeout: limits.message_timeout.min(FOREVER),
            begun: None,
            _rest: Share::new(memory, Kind::Connections, CONNECTION_BYTES),
            partial: Share::new(memory, Kind::Input, 0),
            bytes: Bucket::new(limits.bytes_per_second, limits.byte_burst.max(LEAST_BURST)),
            messages: Bucket::new(limits.messages_per_second, limits.message_burst),
            signatures: Bucket::new(limits.signatures_per_second, limits.signature_burst),
            floods: Bucket::new(limits.floods_per_second, limits.flood_burst),
            refusals: Bucket::new(
                limits.messages_per_second.min(REFUSALS_PER_SECOND),
                limits.message_burst.min(REFUSAL_BURST),
            ),
            roots: Roots::new(),
            checked_apart: 0,
            paced: 0,
            long: None,
            memory: Arc::clone(memory),
            heard: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.ending.shared);
        // If a panic ends this task, the writer must not go on alone.
        let guard = shared.aborted.clone().drop_guard();
        // From when our half is ended, the peer has that long to end its half.
        let lingered = async {
            shared.written.cancelled().await;
            sleep(LINGER).await;
        };
        tokio::select! {
            biased;
            () = shared.aborted.cancelled() => {}
            () = lingered => {}
            () = self.read_unless_shed(&shared) => {}
        }
        guard.disarm();
    }

    async fn read_unless_shed(&mut self, shared: &Shared) {
        tokio::select! {
            biased;
            () = shared.shed.cancelled() => {}
            () = self.read_to_end(shared) => return,
        }
        self.discard(shared).await;
    }

    async fn read_to_end(&mut self, shared: &Shared) {
        match self.read_until_stop(shared).await {
            Stop::Close(reason, message) => shared.close(reason, &message, self.write_timeout),
            Stop::Bye(reason, message) => {
                let code = reason.map_or("bye", CloseReason::as_str);
                let message = tellable(&message);
                let colon = if message.is_empty() { "" } else { ": " };
                shared.follow(reason, format!("the other side closed: {code}{colon}{message}"));
            }
            Stop::Ended => return shared.follow(None, "the other side closed the connection"),
            Stop::Broken(error) => return shared.abort(None, format!("the connection broke: {error}")),
        }
        self.discard(shared).await;
    }

    /// A stream closed with unread bytes in it is reset, and a reset can overtake what we sent last.
    async fn discard(&mut self, shared: &Shared) {
        self.buffer = BytesMut::new();
        self.holds_partial(shared);
        self.half.discard().await;
    }

    async fn read_until_stop(&mut self, shared: &Shared) -> Stop {
        let mut handled = 0u32;
        let mut cut = false;
        let mut corked = None;
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(message)) => {
                    if corked.is_none() {
                        corked = Some(shared.outbox.cork());
                    }
                    cut = true;
                    self.begun = None;
                    if self.partial.bytes() > 0 {
                        self.holds_partial(shared);
                    }
                    shared.messages_in.fetch_add(1, Ordering::Relaxed);
                    if let Err(stop) = self.take(message, shared).await {
                        return self.stop(stop, shared).await;
                    }
                    handled += 1;
                    if handled.is_multiple_of(TURN) {
                        self.hand_on(shared);
                        drop(corked.take());
                        yield_now().await;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    let reason = match error {
                        CodecError::TooLarge { .. } => CloseReason::TooLarge,
                        _ => CloseReason::BadMessage,
                    };
                    return self.stop(Stop::Close(reason, error.to_string()), shared).await;
                }
            }
            self.hand_on(shared);
            drop(corked.take());
            self.pace_signatures(shared).await;
            if mem::take(&mut cut) {
                // The rest alone, mostly nothing: it would keep all that it came with.
                self.buffer = BytesMut::from(&self.buffer[..]);
                self.roots.rest();
            }
            self.holds_partial(shared);
            let idle_at = shared.heard_at() + self.idle_timeout;
            let begun = (!self.buffer.is_empty()).then(|| *self.begun.get_or_insert_with(Instant::now));
            let late_at = begun.map(|begun| begun + self.message_timeout);
            let until = late_at.map_or(idle_at, |late_at| late_at.min(idle_at));
            let read = timeout_at(until, self.half.read_buf(&mut self.buffer));
            let read = match &mut self.long {
                // Giving up reading loses nothing.
                Some(long) => tokio::select! {
                    biased;
                    looked = long => {
                        self.long = None;
                        if let Err(stop) = self.looked(looked, shared).await {
                            return self.stop(stop, shared).await;
                        }
                        continue;
                    }
                    read = read => read,
                },
                None => read.await,
            };
            let stop = match read {
                Ok(Ok(Read { text: None, .. })) => Stop::Ended,
                Ok(Ok(Read { text: Some(text), wire })) => {
                    // What says nothing doesn't keep a connection up.
                    if text > 0 {
                        shared.hears(text);
                    }
                    self.pace_bytes(wire, shared).await;
                    continue;
                }
                Ok(Err(error)) => Stop::Broken(error),
                Err(_) if late_at == Some(until) => {
                    let message = format!("a message was not complete {:?} after it began", self.message_timeout);
                    Stop::Close(CloseReason::TooSlow, message)
                }
                Err(_) => {
                    let message = format!("nothing was heard for {:?}", self.idle_timeout);
                    Stop::Close(CloseReason::Idle, message)
                }
            };
            return self.stop(stop, shared).await;
        }
    }

    /// What came before the end is handed on before that.
    async fn stop(&mut self, stop: Stop, shared: &Shared) -> Stop {
        self.hand_on(shared);
        match self.await_long(shared).await {
            Ok(()) => {
                self.hand_on(shared);
                stop
            }
            Err(earlier) => earlier,
        }
    }

    /// Waits for the long message that is looked at, if there is one.
    async fn await_long(&mut self, shared: &Shared) -> Result<(), Stop> {
        match self.long.take() {
            Some(long) => self.looked(long.await, shared).await,
            None => Ok(()),
        }
    }

    /// A long message was looked at.
    async fn looked(&mut self, looked: Result<Looked, JoinError>, shared: &Shared) -> Result<(), Stop> {
        match looked {
            Ok(Looked::Heard(heard, checks)) => {
                self.heard.push(*heard);
                self.checked_apart += checks;
            }
            Ok(Looked::Other(object, message)) => {
                // In a box, as it hardly ever comes to this.
                Box::pin(self.take_object(object, Some(message), None, shared)).await?;
            }
            Ok(Looked::Wrong(error)) => return Err(Stop::Close(CloseReason::BadMessage, error)),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down.
                Err(_) => return Err(Stop::Ended),
            },
        }
        self.hand_on(shared);
        Ok(())
    }

    /// Counts what has come of a message that is not complete. In steps, so that a short rest of a buffer costs nothing.
    fn holds_partial(&mut self, shared: &Shared) {
        let holds = self.buffer.len() / READ * READ;
        self.partial.set(holds);
        shared.partial.store(holds, Ordering::Relaxed);
    }

    /// Waits until the peer is within its bytes again. That is this node's doing, not the peer's, and does not count against a
    /// message's time.
    async fn pace_bytes(&mut self, read: usize, shared: &Shared) {
        while let Err(wait) = self.bytes.take_many(read as u64, shared.elapsed()) {
            sleep(wait).await;
            self.begun = self.begun.map(|begun| begun + wait);
        }
    }

    /// Hands on what came together.
    fn hand_on(&mut self, shared: &Shared) {
        if !self.heard.is_empty() {
            self.ending.hooks.heard(shared.id, mem::take(&mut self.heard));
        }
    }

    fn refused(&mut self, refused: Refused) {
        self.heard.push(Heard::Refused(refused));
    }

    /// One message: parsed, within the peer's rate, checked, put to what is handed on.
    async fn take(&mut self, raw: Bytes, shared: &Shared) -> Result<(), Stop> {
        let over = self.messages.take(shared.elapsed()).err();
        // Nodes of the Python package have no numbers for their order.
        if over.is_none() && shared.speaker == Speaker::Proven && long::is_passable(&raw) {
            // Those before it are ready, and so is the long one before it when this one begins.
            self.hand_on(shared);
            if self.long.is_some() {
                shared.outbox.uncork();
                self.await_long(shared).await?;
            }
            let held = Share::new(&self.memory, Kind::Input, raw.len());
            self.long = Some(long::look(raw, shared.speaker, &self.ending.hooks, held));
            return Ok(());
        }
        let object = Object::parse(raw).map_err(|error| Stop::Close(CloseReason::BadMessage, error.to_string()))?;
        self.take_object(object, None, over, shared).await
    }

    /// A message whose text is sound, and maybe parsed already; `over` is how far it is above the peer's rate.
    async fn take_object(
        &mut self,
        object: Object,
        parsed: Option<Box<Result<Message, Malformed>>>,
        over: Option<Duration>,
        shared: &Shared,
    ) -> Result<(), Stop> {
        let message = match parsed.map_or_else(|| Message::parse(&object), |parsed| *parsed) {
            Ok(message) => message,
            Err(malformed) => {
                self.pace(over, shared).await;
                let relay = bad_relay(&object, ErrorCode::BadRequest, &malformed.why);
                self.refused(relay.unwrap_or(Refused::Malformed(malformed)));
                return Ok(());
            }
        };
        if let Some(wait) = over {
            match message {
                // Somebody waits for an answer to these: it is told at once, rather than hearing nothing.
                Message::Task(_) | Message::Query(_) => {
                    return Box::pin(self.rate_limited(message, wait, shared)).await;
                }
                _ => self.pace(over, shared).await,
            }
        }
        let flood = matches!(
            message,
            Message::Query(_)
                | Message::Event(_)
                | Message::Announce(..)
                | Message::InterestUpdate(_)
                | Message::Revoked(_)
        );
        // Before the signature is looked at, which costs more than all else here.
        if flood && let Err(wait) = self.floods.take(shared.elapsed()) {
            if matches!(message, Message::Query(_)) {
                return Box::pin(self.rate_limited(message, wait, shared)).await;
            }
            self.refused(Refused::Dropped { kind: message.kind().to_owned() });
            return Ok(());
        }
        match message {
            Message::Unknown(kind) if is_handshake(&kind) => {
                let message = format!("{kind} after the handshake");
                Err(Stop::Close(CloseReason::BadMessage, message))
            }
            Message::Unknown(kind) => {
                self.refused(Refused::Unknown { kind });
                Ok(())
            }
            message => {
                let bye = match &message {
                    Message::Bye(reason, text) => Some((*reason, text.clone())),
                    _ => None,
                };
                if object.raw().len() >= LONG_MESSAGE {
                    // Checking it takes a while, and those before it are ready.
                    self.hand_on(shared);
                }
                let hooks = &*self.ending.hooks;
                self.heard.push(long::checked(message, &object, shared.speaker, hooks, &mut self.roots));
                if let Some((reason, text)) = bye {
                    return Err(Stop::Bye(reason, text));
                }
                self.pace_signatures(shared).await;
                Ok(())
            }
        }
    }

    /// Waits until the peer is within its rate again. Nothing is lost: meanwhile TCP holds the peer back.
    async fn pace(&mut self, over: Option<Duration>, shared: &Shared) {
        let Some(mut wait) = over else { return };
        self.hand_on(shared);
        shared.outbox.uncork();
        loop {
            sleep(wait).await;
            match self.messages.take(shared.elapsed()) {
                Ok(()) => return,
                Err(more) => wait = more,
            }
        }
    }

    /// Waits until the signatures that were checked are within the peer's rate: what comes next waits for what this cost.
    async fn pace_signatures(&mut self, shared: &Shared) {
        let checked = self.roots.checks() + self.checked_apart - self.paced;
        if checked == 0 {
            return;
        }
        self.paced += checked;
        while let Err(wait) = self.signatures.take_many(checked, shared.elapsed()) {
            self.hand_on(shared);
            shared.outbox.uncork();
            sleep(wait).await;
        }
    }

    async fn rate_limited(&mut self, message: Message, retry_after: Duration, shared: &Shared) -> Result<(), Stop> {
        while let Err(wait) = self.refusals.take(shared.elapsed()) {
            self.hand_on(shared);
            shared.outbox.uncork();
            sleep(wait).await;
        }
        self.refused(Refused::RateLimited { message, retry_after });
        Ok(())
    }
}

fn is_handshake(kind: &str) -> bool {
    matches!(kind, "hello" | "hello_ack" | "auth" | "welcome")
}

/// A relay that can't be passed on, when it says enough for its sender to be told.
pub(super) fn bad_relay(object: &Object, code: ErrorCode, why: &str) -> Option<Refused> {
    let text = |key: &str| object.str(key).ok().flatten();
    if text("type")? != "relay" {
        return None;
    }
    let (target, source) = (text("target")?.parse().ok()?, text("source")?.parse().ok()?);
    let id = object.child("frame")?.ok()?.str("id").ok()?.filter(|id| is_id(id))?;
    Some(Refused::BadRelay { target, source, id, code, why: why.to_owned() })
}

pub(super) fn bad_signature(object: &Object) -> Refused {
    let text = |key: &str| object.str(key).ok().flatten();
    Refused::BadSignature {
        kind: text("type").unwrap_or_default(),
        id: text("id").filter(|id| is_id(id)),
        caller: text("caller").and_then(|caller| caller.parse().ok()),
    }
}
