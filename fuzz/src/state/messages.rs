//! Messages of every type, as somebody with that key may write them.

use arbitrary::{Result, Unstructured};
use elo::CloseReason;
use elo::ErrorCode;
use elo::fuzzing::{
    ProbeNonce, ROLES, ResultDraft, TaskDraft, announce, bye, dial_back, dial_back_result, heartbeat, punch,
    punch_error, punch_start, query_resp, relay, relay_error,
};
use elo::wire::{Builder, Capability, Caps, Draft, Object, Record, RecordDraft, WireError};

use super::super::keys::{KEYS, id, key};
use super::inputs::{NAMES, an_addr};
use super::{ME, World};

impl World {
    pub(super) fn message(&mut self, author: usize, u: &mut Unstructured<'_>) -> Result<Object> {
        Ok(match u.int_in_range(0..=23)? {
            0..=2 => self.task(u)?.sign(key(author)),
            3 => Draft::Accepted { id: self.an_id(u)?, caller: id(ME) }.sign(key(author)),
            4 | 5 => self.chunk_of(u)?.sign(key(author)),
            6 => Draft::ChunkAck { id: self.an_id(u)?, next: self.a_number(u)? }.sign(key(author)),
            7 | 8 => self.result(u)?.sign(key(author)),
            9 => Draft::Cancel { id: self.an_id(u)? }.sign(key(author)),
            10 | 11 => self.query(u)?.sign(key(author)),
            12 => self.event(u)?.sign(key(author)),
            13 | 14 => {
                let record = self.record(author, u)?;
                announce(&record.object, u.int_in_range(0..=5)?)
            }
            15 => {
                let records = (0..u.int_in_range(0..=3)?).map(|_| {
                    let node = u.int_in_range(1..=KEYS - 1)?;
                    self.record(node, u)
                });
                let records: Vec<Record> = records.collect::<Result<_>>()?;
                let error = WireError::new(ErrorCode::NoPeer, "nobody");
                let error = u.arbitrary::<bool>()?.then_some(&error);
                let origin = id(if u.arbitrary()? { 0 } else { author });
                let hops = u.int_in_range(0..=6)?;
                query_resp(&self.an_id(u)?, &origin, hops, records.iter().map(|r| &r.object), error)
            }
            16 | 17 => {
                let source = u.int_in_range(0..=KEYS - 1)?;
                let frame = match u.int_in_range(0..=3)? {
                    0 => self.task(u)?,
                    1 => self.result(u)?,
                    2 => self.chunk_of(u)?,
                    _ => Draft::Cancel { id: self.an_id(u)? },
                };
                let frame = frame.sign(key(if source == 0 { author } else { source }));
                relay(&id(u.int_in_range(0..=KEYS - 1)?), &id(source), u.int_in_range(0..=4)?, &frame)
            }
            18 => {
                let codes = [ErrorCode::PeerGone, ErrorCode::Overloaded, ErrorCode::RateLimited, ErrorCode::NoPeer];
                let error = WireError::new(*u.choose(&codes)?, "it could not be passed on");
                let target = id(u.int_in_range(0..=KEYS - 1)?);
                relay_error(&target, &id(u.int_in_range(0..=KEYS - 1)?), &self.an_id(u)?, &error)
            }
            19 => self.about_punching(u)?,
            20 => {
                let answer = match u.arbitrary::<u8>()? {
                    n if n & 1 == 0 => self.asks.get(usize::from(n) % self.asks.len().max(1)).copied(),
                    _ => None,
                };
                heartbeat(&id(author), self.now.unix_s(), u.arbitrary()?, answer)
            }
            21 => self.about_dialling_back(u)?,
            22 if u.int_in_range(0..=3)? == 0 => bye(CloseReason::Shutdown, "bye"),
            _ => {
                let kind = *u.choose(&["interest_update", "hello", "welcome", "nobody_knows"])?;
                Builder::new(kind).strings("interests", &NAMES).build()
            }
        })
    }

    fn a_number(&self, u: &mut Unstructured<'_>) -> Result<u64> {
        let n: u8 = u.arbitrary()?;
        Ok(if n < 250 { u64::from(n % 40) } else { u64::MAX - u64::from(n % 5) })
    }

    fn a_time(&self, u: &mut Unstructured<'_>) -> Result<i64> {
        const OFF: [i64; 12] = [0, 0, 0, 0, -1, 1, -59, -61, 299, 301, i64::MIN, i64::MAX];
        Ok(self.now.unix_s().saturating_add(*u.choose(&OFF)?))
    }

    fn task(&self, u: &mut Unstructured<'_>) -> Result<Draft> {
        let bits: u8 = u.arbitrary()?;
        Ok(Draft::Task(TaskDraft {
            id: self.an_id(u)?,
            target: id(if bits & 7 == 7 { u.int_in_range(1..=KEYS - 1)? } else { 0 }),
            capability: NAMES[usize::from(bits >> 3) % NAMES.len()].into(),
            payload: "{\"n\":1}".into(),
            timestamp: self.a_time(u)?,
            ttl_s: *u.choose(&[1, 2, 30, 60, 86_400])?,
            wait_s: None,
            window: if bits & 128 == 0 { Some(self.a_number(u)?) } else { None },
            instance: match bits & 0x70 {
                0x70 => Some("another run".into()),
                0x60 => Some("run".into()),
                _ => None,
            },
        }))
    }

    /// A task that the node runs, if it has room.
    pub(super) fn good_task(&self, name: &str) -> Draft {
        Draft::Task(TaskDraft {
            id: name.into(),
            target: id(0),
            capability: "echo".into(),
            payload: "1".into(),
            timestamp: self.now.unix_s(),
            ttl_s: 60,
            wait_s: None,
            window: None,
            instance: None,
        })
    }

    /// Their numbers are what they carry: the harness checks the order by them.
    fn chunk_of(&self, u: &mut Unstructured<'_>) -> Result<Draft> {
        let seq = self.a_number(u)?;
        Ok(Draft::Chunk { id: self.an_id(u)?, caller: id(ME), seq, data: seq.to_string().into() })
    }

    fn result(&self, u: &mut Unstructured<'_>) -> Result<Draft> {
        const CODES: [ErrorCode; 6] = [
            ErrorCode::Overloaded,
            ErrorCode::PeerGone,
            ErrorCode::UnknownCapability,
            ErrorCode::Expired,
            ErrorCode::HandlerError,
            ErrorCode::RateLimited,
        ];
        let bits: u8 = u.arbitrary()?;
        let body = if bits & 1 == 0 {
            Ok("true".into())
        } else {
            let error = WireError::new(CODES[usize::from(bits >> 4) % CODES.len()], "no");
            let error = if bits & 2 == 0 { error.not_run() } else { error };
            Err(if bits & 4 == 0 { error.retry_after_s(1) } else { error })
        };
        let chunks = if bits & 8 == 0 { 0 } else { self.a_number(u)? };
        Ok(Draft::Result(ResultDraft { id: self.an_id(u)?, caller: id(ME), body, chunks }))
    }

    fn query(&self, u: &mut Unstructured<'_>) -> Result<Draft> {
        let bits: u8 = u.arbitrary()?;
        let node = id(usize::from(bits >> 4)).to_string();
        Ok(Draft::Query {
            id: self.an_id(u)?,
            capability: if bits & 1 == 0 { (*u.choose(&NAMES)?).into() } else { String::new() },
            node: if bits & 2 == 0 { String::new() } else { node[..usize::from(bits >> 2) % 44].into() },
            ttl: u.int_in_range(0..=7)?,
            timestamp: self.a_time(u)?,
            limit: self.a_number(u)?,
        })
    }

    fn event(&self, u: &mut Unstructured<'_>) -> Result<Draft> {
        Ok(Draft::Event {
            id: self.an_id(u)?,
            event_type: (*u.choose(&NAMES)?).into(),
            data: "[1]".into(),
            timestamp: self.a_time(u)?,
            ttl: u.int_in_range(0..=7)?,
        })
    }

    fn record(&self, node: usize, u: &mut Unstructured<'_>) -> Result<Record> {
        let bits: u8 = u.arbitrary()?;
        let mut caps = Caps::default();
        for n in 0..bits % 3 {
            caps.insert(Capability::agent(NAMES[usize::from(bits / 3 + n) % NAMES.len()]));
        }
        let interests = if bits & 64 == 0 { vec!["*".into()] } else { Vec::new() };
        let addrs = (0..u.int_in_range(0..=3)?).map(|_| an_addr(u)).collect::<Result<_>>()?;
        let trackers = (0..u.int_in_range(0..=2)?).map(|_| Ok(id(u.int_in_range(0..=KEYS - 1)?)));
        let draft = RecordDraft {
            name: "peer".into(),
            caps,
            interests,
            addrs,
            trackers: trackers.collect::<Result<_>>()?,
            tracker: ROLES[usize::from(bits) % 3],
            features: if bits & 128 == 0 { vec!["punch".into()] } else { Vec::new() },
            version: "fuzz".into(),
            instance: format!("run{}", bits & 1),
            dht: (bits & 32 == 0).then_some(6881),
            seal: None,
            seq: self.now.unix_ms.saturating_add_signed(i64::from(u.arbitrary::<i16>()?) * 20),
            ttl_s: *u.choose(&[1, 300, 3600])?,
        };
        Ok(draft.sign(key(node)).expect("a small record"))
    }

    fn about_punching(&self, u: &mut Unstructured<'_>) -> Result<Object> {
        let what = self.an_id(u)?;
        let node = id(u.int_in_range(0..=KEYS - 1)?);
        let addrs: Vec<_> = (0..u.int_in_range(0..=4)?).map(|_| an_addr(u)).collect::<Result<_>>()?;
        Ok(match u.int_in_range(0..=3)? {
            0 => punch(&what, None, &addrs),
            1 => punch(&what, Some(&node), &addrs),
            2 => punch_start(&what, &node, &addrs, self.a_number(u)?),
            _ => punch_error(&what, &node, &WireError::new(ErrorCode::NoPeer, "no")),
        })
    }

    fn about_dialling_back(&self, u: &mut Unstructured<'_>) -> Result<Object> {
        let what = self.an_id(u)?;
        let n: u8 = u.arbitrary()?;
        Ok(match n & 1 {
            0 => dial_back(&what, 1 + u16::from(n), &ProbeNonce::new([n; 16])),
            _ => {
                let outcome = if n & 2 == 0 { Ok(()) } else { Err(WireError::new(ErrorCode::NoPeer, "nobody")) };
                dial_back_result(&what, an_addr(u)?, &outcome)
            }
        })
    }
}
