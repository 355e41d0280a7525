use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::error::CloseReason;
use crate::identity::Identity;
use crate::info::Activity;
use crate::limits::{FLOOD_TTL, Limits, MAX_MET_STATEMENTS, MAX_OTHER_STATEMENTS, MAX_TOLD_REVOCATIONS};
use crate::mesh::access::Access;
use crate::mesh::{Action, Arrival, Config, How, Now, State, What};
use crate::wire::keylife::revoked;
use crate::wire::{Caps, Message, RecordDraft, Roots, Speaker, TrackerRole, check};

const T0: u64 = 1_790_000_000_000;

fn key(n: u32) -> Identity {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    Identity::from_seed(seed)
}

fn id(n: u32) -> NodeId {
    key(n).id()
}

fn step(old: u32, new: u32) -> Rotation {
    Rotation::make(&key(old), &key(new), 7)
}

fn revocation(n: u32) -> Revocation {
    Revocation::make(&key(n), 7, "")
}

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), unix_ms: T0 + seconds * 1000 }
}

fn state(n: u32) -> State {
    let config = Config {
        name: format!("n{n}"),
        version: String::new(),
        instance: "run".into(),
        features: Vec::new(),
        tracker: TrackerRole::None,
        access: Access::default(),
        serve_only: None,
        policies: Vec::new(),
        port: None,
        bound: None,
        advertise: Vec::new(),
        dht: false,
        limits: Limits::default(),
        sealing: crate::info::Sealing::Off,
    };
    State::new(id(n), config, [0; 32], at(0))
}

/// Lets a node in on a connection of its number.
fn meet(state: &mut State, n: u32, chain: &[Rotation]) -> Result<Vec<Action>, (CloseReason, String)> {
    let addr: SocketAddr = ([127, 0, 0, 1], 1).into();
    let arrival = Arrival {
        node: id(n),
        speaker: Speaker::Proven,
        addr,
        local: addr,
        inbound: true,
        how: How::INBOUND,
        instance: Some(format!("run-{n}")),
        version: String::new(),
        features: Vec::new(),
        tracker: TrackerRole::None,
        observed: None,
        encrypted: false,
        caps: Caps::default(),
    };
    let mut out = Vec::new();
    state.introduced(id(n), chain, None, at(0), &mut out)?;
    state.connected(ConnId(n.into()), arrival, at(0), &mut out)?;
    Ok(out)
}

/// A message comes over a connection, and what it has done is carried out as far as keys are concerned.
fn bring(state: &mut State, n: u32, object: &Object, now: Now) -> Vec<Action> {
    let message = check(Message::parse(object).unwrap(), Speaker::Proven, &mut Roots::new()).unwrap();
    let mut out = Vec::new();
    state.handle(ConnId(n.into()), message, now, &mut out);
    let mut done = Vec::new();
    while let Some(action) = out.pop() {
        match action {
            Action::CheckKeys { from, news } => state.keys_checked(from, news.check(), now, &mut out),
            other => done.push(other),
        }
    }
    done
}

fn told(actions: &[Action]) -> Vec<&Activity> {
    actions.iter().filter_map(|a| if let Action::Activity(activity) = a { Some(activity) } else { None }).collect()
}

/// To which connections revocations go.
fn spread(actions: &[Action]) -> Vec<u64> {
    let mut to: Vec<u64> = actions
        .iter()
        .filter_map(|a| match a {
            Action::Send { to, what: What::Ready(o), .. } if o.str("type").unwrap().as_deref() == Some("revoked") => {
                Some(to.0)
            }
            _ => None,
        })
        .collect();
    to.sort_unstable();
    to
}

#[test]
fn the_first_successor_counts_and_a_second_one_is_refused() {
    let mut s = state(1);
    s.name_ids([id(10)]);
    let out = meet(&mut s, 11, &[step(10, 11)]).unwrap();
    assert!(told(&out).contains(&&Activity::IdReplaced { old: id(10), new: id(11) }));
    assert_eq!(s.current_id(&id(10)), id(11));
    // The thief, with a signature of the old key that is as good.
    let (reason, message) = meet(&mut s, 12, &[step(10, 12)]).unwrap_err();
    assert_eq!(reason, CloseReason::NotAllowed);
    assert!(message.contains(&id(11).to_string()), "{message}");
    assert_eq!(s.current_id(&id(10)), id(11));
    assert!(s.peers.conn_of(&id(12)).is_none());
    // A longer chain that contradicts it at the beginning, and one that goes on from the refused one.
    assert!(meet(&mut s, 13, &[step(10, 12), step(12, 13)]).is_err());
    assert_eq!(s.current_id(&id(12)), id(12), "nothing of a refused chain is kept");
    // The old id itself.
    let (_, message) = meet(&mut s, 10, &[]).unwrap_err();
    assert!(message.contains("was replaced"), "{message}");
    // Nothing is told twice.
    let out = meet(&mut s, 11, &[step(10, 11)]).unwrap();
    assert!(!told(&out).iter().any(|a| matches!(a, Activity::IdReplaced { .. })));
}

#[test]
fn a_chain_is_followed_to_its_end_and_goes_on_later() {
    let mut s = state(1);
    s.name_ids([id(10), id(30)]);
    let chain = [step(10, 11), step(11, 12), step(12, 13)];
    let out = meet(&mut s, 13, &chain).unwrap();
    assert!(told(&out).contains(&&Activity::IdReplaced { old: id(10), new: id(13) }));
    assert_eq!(s.current_id(&id(10)), id(13));
    assert_eq!(s.current_id(&id(11)), id(13));
    let mut ids = s.ids_of(&id(13));
    ids.sort();
    let mut wanted: Vec<NodeId> = (10..=13).map(id).collect();
    wanted.sort();
    assert_eq!(ids, wanted);
    let out = meet(&mut s, 14, &[step(13, 14)]).unwrap();
    assert!(told(&out).contains(&&Activity::IdReplaced { old: id(10), new: id(14) }), "it is known where 13 came from");
    // Round in circles leads nowhere.
    assert!(meet(&mut s, 10, &[step(14, 10)]).is_err());
    assert_eq!(s.current_id(&id(10)), id(14));
    // More steps than anybody follows.
    for n in 0..200 {
        let _ = meet(&mut s, 1001 + n, &[step(1000 + n, 1001 + n)]);
    }
    let _ = (s.current_id(&id(1000)), s.ids_of(&id(1200)), s.standing(&id(1000)));
}

#[test]
fn a_dialled_id_is_met_by_who_follows_it_and_by_nobody_else() {
    let mut s = state(1);
    let mut out = Vec::new();
    let dialled = |s: &mut State, n: u32, chain: &[Rotation], out: &mut Vec<Action>| {
        s.introduced(id(n), chain, Some(id(10)), at(0), out).map_err(|(reason, _)| reason)
    };
    assert_eq!(dialled(&mut s, 10, &[], &mut out), Ok(()));
    assert_eq!(dialled(&mut s, 20, &[], &mut out), Err(CloseReason::BadHandshake));
    assert_eq!(dialled(&mut s, 20, &[step(19, 20)], &mut out), Err(CloseReason::BadHandshake));
    assert_eq!(dialled(&mut s, 11, &[step(10, 11)], &mut out), Ok(()));
    assert_eq!(dialled(&mut s, 11, &[], &mut out), Ok(()), "it is remembered");
    assert_eq!(dialled(&mut s, 12, &[step(10, 12)], &mut out), Err(CloseReason::NotAllowed));
}

#[test]
fn who_may_connect_is_asked_of_all_ids_that_a_node_had() {
    let mut s = state(1);
    s.set_access(Access::private().allow(id(10)), at(0), &mut Vec::new());
    assert!(meet(&mut s, 20, &[step(19, 20)]).is_err());
    assert!(meet(&mut s, 12, &[step(10, 11), step(11, 12)]).is_ok());
    assert!(meet(&mut s, 12, &[]).is_ok());
    assert!(meet(&mut s, 10, &[]).is_err(), "the old key is of no use any more");
}

#[test]
fn who_is_denied_does_not_get_in_by_another_key() {
    let mut s = state(1);
    s.set_access(Access::public().deny(id(10)), at(0), &mut Vec::new());
    let (reason, why) = meet(&mut s, 11, &[step(10, 11)]).unwrap_err();
    assert_eq!(reason, CloseReason::NotAllowed);
    assert!(why.contains("denied"), "{why}");
    // It is remembered, also when it doesn't say so any more.
    assert!(meet(&mut s, 11, &[]).is_err());
    // Who is denied by its new id is so by its old one as well.
    let mut s = state(1);
    meet(&mut s, 11, &[step(10, 11)]).unwrap();
    let mut out = Vec::new();
    s.set_access(Access::public().deny(id(10)), at(0), &mut out);
    assert!(out.iter().any(|a| matches!(a, Action::Close { conn: ConnId(11), .. })), "it is closed at once");
}

#[test]
fn a_revoked_id_is_out_at_once_and_everybody_is_told_once() {
    let mut s = state(1);
    for n in [2, 3, 4] {
        meet(&mut s, n, &[]).unwrap();
    }
    let message = revoked([&revocation(3).object], FLOOD_TTL);
    let out = bring(&mut s, 2, &message, at(1));
    assert!(out.iter().any(|a| matches!(a, Action::Close { conn: ConnId(3), reason: CloseReason::NotAllowed, .. })));
    assert!(told(&out).iter().any(|a| matches!(a, Activity::IdRevoked { node_id, .. } if *node_id == id(3))));
    assert_eq!(spread(&out), [4], "not to who told, nor to who is out");
    assert!(s.peers.conn_of(&id(3)).is_none());
    let (_, why) = meet(&mut s, 3, &[]).unwrap_err();
    assert!(why.contains("revoked"), "{why}");
    assert!(bring(&mut s, 4, &message, at(1)).is_empty(), "it is known");
    // At the end of its way it is taken and not passed on.
    assert!(spread(&bring(&mut s, 2, &revoked([&revocation(4).object], 1), at(1))).is_empty());
    assert!(s.peers.conn_of(&id(4)).is_none());
    // Who comes later is told.
    let out = meet(&mut s, 5, &[]).unwrap();
    assert_eq!(spread(&out), [5]);
}

#[test]
fn a_forged_revocation_changes_nothing() {
    let mut s = state(1);
    meet(&mut s, 2, &[]).unwrap();
    meet(&mut s, 3, &[]).unwrap();
    let good = revocation(3).object;
    let other = revocation(4).object;
    let name = |n: u32| format!("\"{}\"", id(n));
    let forged = [
        good.with_member("timestamp", b"9"),
        good.with_member("reason", b"\"x\""),
        other.with_member("node_id", name(3).as_bytes()),
        good.with_member("signature", other.get("signature").unwrap()),
        good.with_member("signature", b"null"),
    ];
    for object in &forged {
        let out = bring(&mut s, 2, &revoked([object], FLOOD_TTL), at(1));
        assert!(out.is_empty(), "{object:?}: {out:?}");
    }
    assert!(s.peers.conn_of(&id(3)).is_some());
    // A good one beside them counts.
    let mixed: Vec<&Object> = forged.iter().chain([&good]).collect();
    bring(&mut s, 2, &revoked(mixed, FLOOD_TTL), at(1));
    assert!(s.peers.conn_of(&id(3)).is_none());
}

#[test]
fn a_successor_seen_before_the_revocation_stands_and_one_seen_after_does_not() {
    let mut s = state(1);
    s.name_ids([id(10), id(20)]);
    meet(&mut s, 2, &[]).unwrap();
    meet(&mut s, 11, &[step(10, 11)]).unwrap();
    bring(&mut s, 2, &revoked([&revocation(10).object, &revocation(20).object], FLOOD_TTL), at(1));
    assert_eq!(s.current_id(&id(10)), id(11), "ended is the old one only");
    assert!(s.peers.conn_of(&id(11)).is_some());
    assert!(matches!(s.standing(&id(10)), Standing::Revoked(_)));
    // Whatever it is dated.
    let late = Rotation::make(&key(20), &key(21), 1);
    assert!(meet(&mut s, 21, std::slice::from_ref(&late)).is_ok(), "anybody may come in its own name");
    assert_eq!(s.current_id(&id(20)), id(20), "but not in that of a revoked one");
    let mut out = Vec::new();
    assert!(s.introduced(id(21), &[late], Some(id(20)), at(1), &mut out).is_err());
    // The newest can be revoked as well, and then nobody of them is left.
    bring(&mut s, 2, &revoked([&revocation(11).object], FLOOD_TTL), at(1));
    assert!(meet(&mut s, 11, &[step(10, 11)]).is_err());
}

#[test]
fn a_record_shows_who_its_node_was() {
    let mut s = state(1);
    s.name_ids([id(10)]);
    meet(&mut s, 2, &[]).unwrap();
    meet(&mut s, 10, &[]).unwrap();
    let record = |identity: &Identity, seq: u64| {
        let draft = RecordDraft {
            name: "new".into(),
            caps: Caps::default(),
            interests: Vec::new(),
            addrs: Vec::new(),
            trackers: Vec::new(),
            tracker: TrackerRole::None,
            features: Vec::new(),
            version: String::new(),
            instance: "x".into(),
            dht: None,
            seal: None,
            seq: T0 + seq,
            ttl_s: 60,
        };
        draft.sign(identity).unwrap()
    };
    let new = key(10).successor();
    let announce = crate::wire::draft::announce(&record(&new, 0).object, 1);
    let out = bring(&mut s, 2, &announce, at(0));
    assert!(told(&out).contains(&&Activity::IdReplaced { old: id(10), new: new.id() }));
    assert!(s.peers.conn_of(&id(10)).is_none(), "the old one is out");
    assert_eq!(s.current_id(&id(10)), new.id());
    // Another one: neither followed nor kept, and said once.
    let thief = key(10).successor();
    for seq in 0..3 {
        let out = bring(&mut s, 2, &crate::wire::draft::announce(&record(&thief, seq).object, 1), at(0));
        let refused = told(&out).iter().filter(|a| matches!(a, Activity::SuccessorRefused { .. })).count();
        assert_eq!(refused, usize::from(seq == 0));
        assert!(s.table.get(&thief.id()).is_none());
    }
    assert_eq!(s.current_id(&id(10)), new.id());
}

#[test]
fn a_record_with_a_forged_chain_is_not_kept() {
    let mut s = state(1);
    s.name_ids([id(10)]);
    meet(&mut s, 2, &[]).unwrap();
    // Signed by the node whose record it is; its word alone makes it nobody's successor.
    let forged = step(10, 2).object.with_member("old_signature", step(11, 2).object.get("old_signature").unwrap());
    let by_new = crate::wire::Builder::new("rotation")
        .str("old", &id(10).to_string())
        .str("new", &id(2).to_string())
        .i64("timestamp", 7)
        .str("old_signature", &forged.str("old_signature").unwrap().unwrap())
        .sign(&key(2), &[]);
    let record = crate::wire::Builder::new("record")
        .str("node_id", &id(2).to_string())
        .raw("caps", b"{}")
        .objects("rotations", [&by_new])
        .u64("seq", T0)
        .u64("ttl_s", 60)
        .sign(&key(2), &[]);
    bring(&mut s, 2, &crate::wire::draft::announce(&record, 1), at(0));
    assert!(s.table.get(&id(2)).is_none());
    assert_eq!(s.current_id(&id(10)), id(10));
    assert_eq!(s.counters.refused.get("forged_succession"), Some(&1));
}

#[test]
fn made_up_statements_take_their_own_room_and_no_other() {
    let mut s = state(1);
    s.name_ids([id(10), id(20)]);
    meet(&mut s, 2, &[]).unwrap();
    meet(&mut s, 3, &[]).unwrap();
    meet(&mut s, 11, &[step(10, 11)]).unwrap();
    bring(&mut s, 2, &revoked([&revocation(20).object, &revocation(3).object, &revocation(30).object], 5), at(0));
    let mut passed = 0;
    for n in 0..700 {
        let some: Vec<Revocation> = (0..16).map(|i| revocation(100_000 + n * 16 + i)).collect();
        let out = bring(&mut s, 2, &revoked(some.iter().map(|r| &r.object), 5), at(u64::from(n) / 10));
        passed += spread(&out).len();
    }
    assert!(s.keys.revocations.len() <= MAX_OTHER_STATEMENTS + 8);
    assert!(passed < 700, "what is over its rate is not passed on");
    // 10000 nodes that say whom they succeed, of ids nobody has heard of.
    for n in 0..10_000 {
        let (old, new) = (200_000 + n * 2, 200_001 + n * 2);
        // The signatures were checked before: what counts here is the room.
        let fake = Rotation { old: fake(old), new: fake(new), ..step(10, 11) };
        s.keys.absorb(&[fake], |_| Share::Met, id(2));
    }
    assert!(s.keys.rotations.len() <= MAX_MET_STATEMENTS + 8);
    assert_eq!(s.keys.by_new.len(), s.keys.rotations.len());
    assert_eq!(s.current_id(&id(10)), id(11));
    for n in [20, 3] {
        assert!(s.keys.is_revoked(&id(n)), "{n}");
    }
    assert!(s.keys.revocations(MAX_TOLD_REVOCATIONS).len() <= MAX_TOLD_REVOCATIONS);
    assert!(s.statements().len() <= MAX_OTHER_STATEMENTS + MAX_MET_STATEMENTS + 16);
}

fn fake(n: u32) -> NodeId {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

#[test]
fn who_brings_much_pushes_out_its_own() {
    let mut shelf: Shelf<u32> = Shelf::default();
    for n in 0..10 {
        shelf.put(fake(n), n, Share::Other, fake(1000));
    }
    for n in 10..5000 {
        shelf.put(fake(n), n, Share::Other, fake(2000));
    }
    assert_eq!(shelf.len(), Share::Other.room());
    assert!((0..10).all(|n| shelf.get(&fake(n)).is_some()));
    assert!(shelf.get(&fake(4999)).is_some(), "its latest is there");
    shelf.put(fake(6000), 6000, Share::Named, fake(2000));
    assert_eq!(shelf.len(), Share::Other.room() + 1);
    assert_eq!(shelf.best(2), [&6000, &4999]);
    shelf.promote(&fake(3));
    assert_eq!(shelf.best(2), [&6000, &3]);
}

#[test]
fn what_was_kept_is_known_again() {
    let mut s = state(1);
    s.name_ids([id(10)]);
    meet(&mut s, 2, &[]).unwrap();
    meet(&mut s, 11, &[step(10, 11)]).unwrap();
    bring(&mut s, 2, &revoked([&revocation(10).object, &revocation(20).object], 5), at(0));
    let saved = s.statements();
    let mut again = state(1);
    again.name_ids([id(10)]);
    let rotations = saved.iter().filter_map(|(share, o)| Some((*share, Rotation::parse(o).ok()?))).collect();
    let revocations = saved.iter().filter_map(|(share, o)| Some((*share, Revocation::parse(o).ok()?))).collect();
    again.restore_statements(rotations, revocations);
    assert_eq!(again.current_id(&id(10)), id(11), "the successor stands though its id was revoked since");
    assert!(again.keys.is_revoked(&id(10)) && again.keys.is_revoked(&id(20)));
    assert_eq!(again.keys.len(), s.keys.len());
    let out = meet(&mut again, 11, &[step(10, 11)]).unwrap();
    assert!(!told(&out).iter().any(|a| matches!(a, Activity::IdReplaced { .. })), "it was told in that run");
}
