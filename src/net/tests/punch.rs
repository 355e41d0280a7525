//! Two sides that connect to each other at once, on loopback: without a listener this is TCP's simultaneous open.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::net::port::at;

/// A connection somewhere, whose local port is shared; what punching starts from.
async fn anchor() -> (TcpStream, SocketAddr, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    // Bound first: a port that the kernel chooses when it connects may be shared with sockets that share no further.
    let stream = at(0, to).unwrap().connect(to).await.unwrap();
    let local = stream.local_addr().unwrap();
    (stream, local, listener)
}

fn plan(local: SocketAddr, to: &[SocketAddr], dialler: bool) -> Punch {
    Punch { local, addrs: to.to_vec(), wait: Duration::ZERO, dialler }
}

#[tokio::test]
async fn two_sockets_that_connect_to_each_other_at_once_are_one_connection() {
    // Each port is that of a live connection already, as behind a NAT.
    let ((_a, a, _la), (_b, b, _lb)) = (anchor().await, anchor().await);
    // On loopback the first SYN is refused before the second has left, unless two cores send them in the same microseconds.
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let turns: Arc<[AtomicU32; 2]> = Arc::default();
    let ends = [(0, a, b), (1, b, a)].map(|(me, own, other)| {
        let turns = Arc::clone(&turns);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                for turn in 1..u32::MAX {
                    let socket = at(own.port(), other).unwrap();
                    turns[me].store(turn, Ordering::Release);
                    while turns[1 - me].load(Ordering::Acquire) < turn {
                        assert!(std::time::Instant::now() < until, "it happens once in some hundred tries");
                        std::hint::spin_loop();
                    }
                    if let Ok(mut stream) = socket.connect(other).await {
                        turns[me].store(u32::MAX, Ordering::Release);
                        stream.write_u8(me as u8).await.unwrap();
                        return (turn, soon(stream.read_u8()).await.unwrap());
                    }
                }
                unreachable!("the time is over before")
            })
        })
    });
    let [one, two] = ends.map(|end| end.join().unwrap());
    assert_eq!((one.1, two.1), (1, 0));
    println!("met in try {}", one.0);
}

#[tokio::test]
async fn both_punch_and_the_handshake_proves_who_they_are() {
    for (late, encrypted) in [(0, false), (300, true)] {
        let ((_a, a, _la), (_b, b, _lb)) = (anchor().await, anchor().await);
        let config = |seed| if encrypted { encrypting(seed, |_| {}) } else { config(seed, |_| {}) };
        let (dialler, listener) = (config(1), config(2));
        // Addresses where nobody is don't stop it.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let (one, two) = soon(async {
            let other = Punch { wait: Duration::from_millis(late), ..plan(b, &[nobody, a], false) };
            tokio::join!(
                async {
                    let one = crate::net::punch(plan(a, &[b, nobody], true), identity(2).id(), &dialler).await;
                    one.unwrap()
                },
                async {
                    let two = crate::net::punch(other, identity(1).id(), &listener).await.unwrap();
                    assert!(two.inbound);
                    // Its first message lets the other side in.
                    let me = listener.identity.id();
                    let first = welcome(&me, two.addr, TrackerRole::None, std::iter::empty());
                    let notes = Arc::new(Notes::default());
                    (two.proven.node, two.start(ConnId(1), Some(first), notes, &listener))
                }
            )
        })
        .await;
        assert_eq!((one.proven.node, two.0), (identity(2).id(), identity(1).id()));
        assert_eq!((one.local, one.inbound, one.encrypted()), (a, false, encrypted));
    }
}

#[tokio::test]
async fn somebody_else_at_the_address_is_not_taken_for_the_node() {
    let ((_a, a, _la), (_b, b, _lb)) = (anchor().await, anchor().await);
    let (dialler, stranger) = (config(1, |_| {}), config(3, |_| {}));
    let (one, two) = soon(async {
        tokio::join!(
            crate::net::punch(plan(a, &[b], true), identity(2).id(), &dialler),
            crate::net::punch(plan(b, &[a], false), identity(1).id(), &stranger)
        )
    })
    .await;
    let why = one.unwrap_err();
    assert!(why.contains("expected node") || why.contains("refused"), "{why}");
    assert!(two.is_err());
    // The listening side checks as well.
    let ((_a, a, _la), (_b, b, _lb)) = (anchor().await, anchor().await);
    let listener = config(2, |_| {});
    let (one, two) = soon(async {
        tokio::join!(
            crate::net::punch(plan(a, &[b], true), identity(2).id(), &stranger),
            crate::net::punch(plan(b, &[a], false), identity(1).id(), &listener)
        )
    })
    .await;
    let (one, two) = (one.unwrap_err(), two.unwrap_err());
    assert!(one.contains("expected node") && two.contains("expected node"), "{one}; {two}");
}

#[tokio::test]
async fn a_lie_costs_a_stranger_a_few_packets_and_one_that_says_nothing_a_few_seconds() {
    // Where nobody answers it ends after a dozen tries; each is a refusal here.
    let (_a, a, _la) = anchor().await;
    let cfg = config(1, |_| {});
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let why = soon(crate::net::punch(plan(a, &[nobody], true), identity(2).id(), &cfg)).await.unwrap_err();
    assert!(why.contains("no answer"), "{why}");
    // One that takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let cfg = config(1, |cfg| cfg.limits.handshake_timeout = Duration::from_millis(50));
    let addr = silent.local_addr().unwrap();
    let taken = tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            match timeout(Duration::from_secs(2), silent.accept()).await {
                Ok(Ok((stream, _))) => streams.push(stream),
                _ => return streams.len(),
            }
        }
    });
    let done = soon(crate::net::punch(plan(a, &[addr], true), identity(2).id(), &cfg)).await;
    assert!(done.unwrap_err().contains("no handshake"));
    assert!(taken.await.unwrap() <= 3, "it is not asked again and again");
}
