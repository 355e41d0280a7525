use super::*;

fn id(n: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn addr(n: u16) -> SocketAddr {
    let [a, b] = n.to_be_bytes();
    SocketAddr::from(([10, 0, a, b], 7878))
}

fn said(n: u16, source: Source) -> Sighting {
    Sighting { node: Some(id(n)), addr: addr(n), source, tracker: false }
}

/// The smallest id: it dials at once.
fn fresh() -> Candidates {
    Candidates::new(id(0), [7; 32])
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn dial(all: &mut Candidates, now: Duration, present: &Present) -> Option<(Ticket, Sighting)> {
    match all.next(now, present) {
        Next::Dial(ticket, said) => Some((ticket, said)),
        Next::Wait(_) => None,
    }
}

#[test]
fn ten_thousand_announcements_take_one_share_and_push_out_nobody() {
    let mut all = fresh();
    assert!(all.seen(said(1, Source::Remembered), s(0)) && all.seen(said(2, Source::Lan), s(0)));
    let taken = (100..10_100).filter(|n| all.seen(said(*n, Source::Lan), s(1))).count();
    assert_eq!(taken, LAN_CANDIDATES - 1);
    assert_eq!((all.len(Source::Lan), all.len(Source::Remembered)), (LAN_CANDIDATES, 1));
    assert!(all.all.iter().any(|c| c.said == said(2, Source::Lan)), "who was first is still there");
    assert!(all.seen(said(20_000, Source::Remembered), s(1)), "the others' shares are free");
}

#[test]
fn an_hour_of_bogus_announcements_costs_few_dials_and_no_burst() {
    let mut all = fresh();
    let present = Present::default();
    let (mut dials, mut under_way, mut n) = (0u64, Vec::new(), 0u16);
    for second in 0..3600u64 {
        for _ in 0..10 {
            n = n.wrapping_add(1).max(1);
            all.seen(said(n, Source::Lan), s(second));
        }
        for ticket in under_way.drain(..) {
            all.ended(ticket, Outcome::Failed, s(second));
        }
        while let Some((ticket, _)) = dial(&mut all, s(second), &present) {
            under_way.push(ticket);
        }
        assert!(under_way.len() <= CANDIDATE_DIALS_PER_SOURCE);
        dials += under_way.len() as u64;
        assert!(all.all.len() <= MAX_CANDIDATES);
    }
    let most = u64::from(CANDIDATE_DIAL_BURST + 3600 * CANDIDATE_DIALS_PER_SECOND);
    assert!(dials <= most, "{dials} dials, at most {most}");
    assert_eq!(all.counts(Source::Lan).dialled, dials);
}

#[test]
fn one_source_cannot_keep_the_turns_of_another() {
    let mut all = fresh();
    for n in 100..300 {
        all.seen(said(n, Source::Lan), s(0));
    }
    all.seen(said(1, Source::Remembered), s(0));
    all.seen(Sighting { tracker: true, ..said(2, Source::Remembered) }, s(0));
    let (_, first) = dial(&mut all, s(0), &Present::default()).unwrap();
    assert_eq!(first.addr, addr(2), "trackers first");
    let order: Vec<Source> = (0..3).map(|_| dial(&mut all, s(0), &Present::default()).unwrap().1.source).collect();
    assert_eq!(order, [Source::Lan, Source::Remembered, Source::Lan]);
}

#[test]
fn failures_are_waited_for_longer_and_longer_and_less_when_alone() {
    let mut all = fresh();
    all.seen(said(1, Source::Remembered), s(0));
    let alone = Present::default();
    let busy = Present { peers: [id(9)].into(), lan: 0 };
    let (mut now, mut before) = (Duration::ZERO, Duration::ZERO);
    for round in 0..12 {
        let (ticket, _) = dial(&mut all, now, &busy).unwrap();
        all.ended(ticket, Outcome::Failed, now);
        let Next::Wait(Some(due)) = all.next(now, &busy) else { panic!("it is waited for") };
        let wait = due - now;
        assert!(wait <= CANDIDATE_BACKOFF_MAX && (round > 8 || wait * 2 > before), "{wait:?} after {before:?}");
        let Next::Wait(Some(sooner)) = all.next(now, &alone) else { panic!("it is waited for") };
        assert!(sooner - now <= CANDIDATE_BACKOFF_SOON);
        (now, before) = (due, wait);
    }
    assert!(before >= CANDIDATE_BACKOFF_MAX / 2, "{before:?}");
    let (ticket, _) = dial(&mut all, now, &busy).unwrap();
    all.ended(ticket, Outcome::Proven, now);
    // What worked is forgiven, and missed for a while when it goes.
    let mut waits = Vec::new();
    for _ in 0..=AWAY {
        let (ticket, _) = dial(&mut all, now, &busy).unwrap();
        all.ended(ticket, Outcome::Failed, now);
        let Next::Wait(Some(due)) = all.next(now, &busy) else { panic!("it is waited for") };
        waits.push(due - now);
        now = due;
    }
    let last = waits.pop().unwrap();
    assert!(waits.iter().all(|wait| *wait <= CANDIDATE_BACKOFF_SOON) && last > CANDIDATE_BACKOFF_MAX / 4, "{last:?}");
}

#[test]
fn an_address_that_fails_fails_for_everybody_said_to_be_there() {
    let mut all = fresh();
    let busy = Present { peers: [id(9)].into(), lan: 0 };
    all.seen(said(1, Source::Lan), s(0));
    all.seen(Sighting { addr: addr(1), ..said(2, Source::Lan) }, s(0));
    let (ticket, _) = dial(&mut all, s(0), &busy).unwrap();
    assert!(dial(&mut all, s(0), &busy).is_none(), "one dial at a time to an address");
    all.ended(ticket, Outcome::Refused, s(0));
    assert!(dial(&mut all, s(10), &busy).is_none());
    all.seen(Sighting { addr: addr(1), ..said(3, Source::Lan) }, s(10));
    assert!(dial(&mut all, s(10), &busy).is_none(), "nor for somebody new there");
}

#[test]
fn wrong_addresses_of_a_node_take_little_room_and_hold_its_right_one_for_a_moment() {
    let mut all = fresh();
    let at = |n: u16| Sighting { addr: addr(n), ..said(1, Source::Lan) };
    for n in 100..200 {
        all.seen(at(n), s(0));
    }
    assert_eq!(all.len(Source::Lan), MAX_CANDIDATE_ADDRS);
    let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
    assert!(dial(&mut all, s(0), &Present::default()).is_none(), "one dial at a time to a node");
    all.ended(ticket, Outcome::Refused, s(0));
    assert!(all.seen(at(1), s(1)), "in the place of the one that failed");
    let mut met = false;
    for second in 1..20 {
        while let Some((ticket, said)) = dial(&mut all, s(second), &Present::default()) {
            met |= said.addr == addr(1);
            all.ended(ticket, if met { Outcome::Proven } else { Outcome::Refused }, s(second));
            if met {
                return;
            }
        }
    }
    panic!("the right address was never tried");
}

#[test]
fn many_ports_of_one_machine_are_a_scan() {
    let mut all = fresh();
    for port in 1..1000 {
        let addr = SocketAddr::from(([10, 0, 0, 1], port));
        all.seen(Sighting { addr, ..said(port, Source::Lan) }, s(0));
    }
    assert_eq!(all.len(Source::Lan), MAX_CANDIDATES_PER_IP);
}

#[test]
fn whoever_is_connected_or_enough_is_not_dialled() {
    let mut all = fresh();
    for n in 1..=20 {
        all.seen(said(n, Source::Lan), s(0));
        all.seen(said(100 + n, Source::Remembered), s(0));
    }
    let full = Present { peers: (1..=8).map(id).collect(), lan: LAN_PEERS };
    assert_eq!(all.next(s(0), &full), Next::Wait(None));
    let one_less = Present { peers: (1..=7).map(id).collect(), lan: LAN_PEERS - 1 };
    let (_, said) = dial(&mut all, s(0), &one_less).unwrap();
    assert!(said.source == Source::Lan && !one_less.peers.contains(&said.node.unwrap()));
    assert!(dial(&mut all, s(0), &one_less).is_none(), "the one under way counts");
    let two = Present { peers: [id(1), id(2)].into(), lan: LAN_PEERS };
    assert_eq!(dial(&mut all, s(0), &two).unwrap().1.source, Source::Remembered);
    assert!(dial(&mut all, s(0), &two).is_none());
}

#[test]
fn of_two_that_find_each_other_the_smaller_id_dials_at_once() {
    let (mut small, mut large) = (Candidates::new(id(1), [1; 32]), Candidates::new(id(2), [1; 32]));
    small.seen(said(2, Source::Lan), s(0));
    large.seen(said(1, Source::Lan), s(0));
    assert!(dial(&mut small, s(0), &Present::default()).is_some());
    let Next::Wait(Some(due)) = large.next(s(0), &Present::default()) else { panic!("the larger waits") };
    assert!(due <= POLITE * 2 && dial(&mut large, due, &Present::default()).is_some());
}

#[test]
fn what_cannot_be_is_not_taken() {
    let mut all = fresh();
    assert!(!all.seen(said(0, Source::Lan), s(0)), "this node itself");
    for text in ["0.0.0.0:1", "224.0.0.251:5353", "255.255.255.255:1", "10.0.0.1:0", "[ff02::fb]:1", "[::]:1"] {
        assert!(!all.seen(Sighting { addr: text.parse().unwrap(), ..said(1, Source::Lan) }, s(0)), "{text}");
    }
    all.seen(said(1, Source::Lan), s(0));
    let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
    all.ended(ticket, Outcome::Itself, s(0));
    assert_eq!(all.len(Source::Lan), 0, "it was this node under another name");
    all.seen(said(1, Source::Lan), s(0));
    let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
    all.gone(&id(1), Source::Lan);
    all.ended(ticket, Outcome::Failed, s(0));
    assert_eq!((all.len(Source::Lan), all.dials.len()), (0, 0));
}
