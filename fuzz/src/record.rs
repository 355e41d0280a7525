//! What nodes say of themselves: records on the wire, short ones in the DHT.

use std::net::SocketAddr;

use arbitrary::Unstructured;
use bytes::Bytes;
use elo::limits::{MAX_ADDRS, MAX_CAPS, MAX_DHT_ITEM, MAX_RECORD, MAX_TRACKERS};
use elo::wire::{Compact, MAX_RECORD_TTL_S, Object, Record, check_records, item_signing_bytes, verify_object};

use super::keys::{id, key};

pub(super) fn text(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => compact(rest),
        Some((1, rest)) => drop(written(&mut Unstructured::new(rest))),
        Some((_, rest)) => record(rest),
        None => {}
    }
}

/// A record that came from somebody.
fn record(text: &[u8]) {
    let Ok(object) = Object::parse(Bytes::copy_from_slice(text)) else { return };
    let believed = check_records(std::slice::from_ref(&object));
    let Ok(record) = Record::parse(&object) else {
        assert!(believed.is_empty());
        return;
    };
    assert!(text.len() <= MAX_RECORD);
    bounded(&record);
    assert_eq!(believed.len(), usize::from(verify_object(&object, &record.node_id, &[]).is_ok()));
    // Told again by somebody it is the same.
    let again = Record::parse(&object.detached()).expect("the same bytes");
    assert_eq!((again.node_id, again.seq, &again.caps), (record.node_id, record.seq, &record.caps));
    let names: Vec<&str> = record.details().names().map(|_| "").collect();
    assert_eq!(names.len(), record.caps.names().count());
    for name in record.caps.names().take(4) {
        assert!(record.caps.provides(name) && record.caps.matches("*") && record.caps.matches(name));
    }
}

fn bounded(record: &Record) {
    assert!(record.addrs.len() <= MAX_ADDRS && record.trackers.len() <= MAX_TRACKERS);
    assert!(record.caps.names().count() <= MAX_CAPS && record.interests.len() <= MAX_CAPS);
    assert!((1..=MAX_RECORD_TTL_S).contains(&record.ttl_s));
    assert!(record.dht != Some(0));
}

/// A value out of the DHT; the first eight bytes are the item's `seq`.
fn compact(data: &[u8]) {
    let Some((seq, value)) = data.split_first_chunk::<8>() else { return };
    let mut seq = i64::from_be_bytes(*seq);
    if let Ok(object) = Object::parse(Bytes::copy_from_slice(value))
        && let Ok(Some(said)) = object.i64("seq")
        && data[0] & 1 == 0
    {
        // Half the time it is what the value says, or nothing would ever be read.
        seq = said;
    }
    let signed = item_signing_bytes(seq, value);
    assert!(signed.ends_with(value) && signed.starts_with(b"3:seqi"));
    let Some(read) = Compact::read(value, seq) else { return };
    assert!(value.len() <= MAX_DHT_ITEM);
    assert!(read.addrs.len() <= MAX_ADDRS && read.trackers.len() <= MAX_TRACKERS);
    assert_eq!(i64::try_from(read.seq), Ok(seq));
    for (now, skew) in [(read.seq, 0), (u64::MAX, u64::MAX), (0, 0), (u64::MAX, 0)] {
        let _ = read.is_current(now, skew);
    }
    // What is written anew is read as it was, unless it had no room: escapes take more of it than what came.
    let again = read.clone().write();
    assert!(again.len() <= MAX_DHT_ITEM);
    let second = Compact::read(&again, seq).expect("what we write we read");
    assert_eq!((second.seq, second.ttl_s, second.tracker), (read.seq, read.ttl_s, read.tracker));
    if again.len() < MAX_DHT_ITEM / 2 {
        assert_eq!(second, read);
    }
}

/// A record that a node writes of itself, out of anything an owner might register.
pub(super) fn written(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    use elo::wire::{Capability, Caps, RecordDraft};
    let mut caps = Caps::default();
    for _ in 0..u.int_in_range(0..=6)? {
        let name: String = u.arbitrary()?;
        let cap = match u.int_in_range(0..=2)? {
            0 => Capability::agent(name),
            1 => Capability::model(name),
            _ => Capability::tool(name),
        };
        caps.insert(cap.detail(u.arbitrary::<String>()?, u.arbitrary::<f64>()?));
    }
    let texts = |u: &mut Unstructured<'_>| -> arbitrary::Result<Vec<String>> {
        (0..u.int_in_range(0..=4)?).map(|_| u.arbitrary()).collect()
    };
    let draft = RecordDraft {
        name: u.arbitrary()?,
        caps: caps.clone(),
        interests: texts(u)?,
        // The flow label of an IPv6 address is not part of its text.
        addrs: (0..u.int_in_range(0..=9)?)
            .map(|_| Ok(SocketAddr::new(u.arbitrary()?, u.arbitrary()?)))
            .collect::<arbitrary::Result<_>>()?,
        trackers: (0..u.int_in_range(0..=5)?).map(id).collect(),
        tracker: *u.choose(&elo::fuzzing::ROLES)?,
        features: texts(u)?,
        version: u.arbitrary()?,
        instance: u.arbitrary()?,
        dht: u.arbitrary()?,
        seal: None,
        seq: u.arbitrary()?,
        ttl_s: u.int_in_range(0..=4000)?,
    };
    // What can't be a record is not signed; what is signed is believed, and says what it was told.
    let Some(record) = draft.sign(key(1)) else { return Ok(()) };
    bounded(&record);
    assert!(record.object.is_canonical());
    assert_eq!(check_records(std::slice::from_ref(&record.object)).len(), 1);
    assert_eq!((record.node_id, record.seq, record.ttl_s), (id(1), draft.seq, draft.ttl_s));
    assert_eq!((&record.name, &record.interests, &record.addrs), (&draft.name, &draft.interests, &draft.addrs));
    assert_eq!((&record.trackers, record.tracker, record.dht), (&draft.trackers, draft.tracker, draft.dht));
    Ok(())
}
