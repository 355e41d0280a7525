//! Against gateways made here, on loopback: honest ones, ones that forget, ones that lie.

mod upnp;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::PortMap;
use crate::info::PortMapping;

const PORT: u16 = 7878;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const SOON: Duration = Duration::from_millis(30);

/// What a gateway remembers.
#[derive(Debug)]
struct Book {
    outside: Ipv4Addr,
    /// The port outside for the next mapping.
    port: u16,
    lifetime: u32,
    /// By the port inside.
    mapped: BTreeMap<u16, u16>,
    asked: u64,
    given_back: u64,
}

impl Book {
    fn new() -> Arc<Mutex<Self>> {
        let book =
            Self { outside: OUTSIDE, port: 4000, lifetime: 600, mapped: BTreeMap::new(), asked: 0, given_back: 0 };
        Arc::new(Mutex::new(book))
    }

    /// The port outside and the lifetime that are granted.
    fn map(&mut self, inside: u16, lifetime: u32) -> (u16, u32) {
        self.asked += 1;
        if lifetime == 0 {
            self.given_back += u64::from(self.mapped.remove(&inside).is_some());
            return (0, 0);
        }
        (*self.mapped.entry(inside).or_insert(self.port), self.lifetime)
    }
}

type Answer = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>> + Send>;

/// How a gateway answers a packet.
type Speak = fn(&[u8], &mut Book) -> Option<Vec<u8>>;

/// Something that answers where gateways do. Each test has an address of its own.
async fn speaks(at: Ipv4Addr, mut answer: Answer) -> JoinHandle<()> {
    let socket = UdpSocket::bind((at, crab_nat::GATEWAY_PORT)).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
            if let Some(answer) = answer(&buffer[..n]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// RFC 6886.
fn nat_pmp(ask: &[u8], book: &mut Book) -> Option<Vec<u8>> {
    match ask {
        [0, 0] => Some([&[0, 128, 0, 0, 0, 0, 0, 1][..], &book.outside.octets()].concat()),
        [0, 2, ..] if ask.len() == 12 => {
            let (inside, lifetime) = (u16_at(ask, 4), u32_at(ask, 8));
            let (outside, lifetime) = book.map(inside, lifetime);
            let numbers = [&inside.to_be_bytes()[..], &outside.to_be_bytes(), &lifetime.to_be_bytes()].concat();
            Some([&[0, 130, 0, 0, 0, 0, 0, 1][..], &numbers].concat())
        }
        // PCP: it says that it speaks only the older one.
        [2, ..] => Some(vec![0, 128, 0, 1, 0, 0, 0, 1]),
        _ => None,
    }
}

/// RFC 6887.
fn pcp(ask: &[u8], book: &mut Book) -> Option<Vec<u8>> {
    if ask.len() != 60 || ask[..2] != [2, 1] || ask[36] != 6 {
        return None;
    }
    let (inside, lifetime) = (u16_at(ask, 40), u32_at(ask, 4));
    let (outside, lifetime) = book.map(inside, lifetime);
    let mut answer = vec![2, 0x81, 0, 0];
    answer.extend(lifetime.to_be_bytes());
    answer.extend(1u32.to_be_bytes());
    answer.extend([0; 12]);
    answer.extend(&ask[24..42]); // The nonce, the protocol, the port inside.
    // Giving back names what was asked for.
    answer.extend(if lifetime == 0 { u16_at(ask, 42).to_be_bytes() } else { outside.to_be_bytes() });
    answer.extend(if lifetime == 0 { ask[44..60].try_into().unwrap() } else { book.outside.to_ipv6_mapped().octets() });
    Some(answer)
}

fn map(gateway: Ipv4Addr, ssdp: SocketAddr) -> PortMap {
    PortMap {
        gateway: Some(gateway.into()),
        ssdp,
        on_loopback: vec![ssdp.ip()],
        ask: Duration::from_millis(100),
        search: Duration::from_millis(500),
        renew: [SOON, SOON],
        retry: [SOON, SOON],
        ..PortMap::new(PORT)
    }
}

/// Where nobody is.
fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 53, 0, 1], 9))
}

struct Kept {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    news: Receiver<PortMapping>,
}

fn keep(map: PortMap) -> Kept {
    let (cancel, (sender, news)) = (CancellationToken::new(), channel(256));
    let task = tokio::spawn(map.keep(cancel.clone(), move |news| drop(sender.try_send(news))));
    Kept { cancel, task, news }
}

impl Kept {
    async fn news(&mut self) -> PortMapping {
        loop {
            let news = timeout(Duration::from_secs(30), self.news.recv()).await.expect("some news").unwrap();
            if news != PortMapping::Looking {
                return news;
            }
        }
    }

    async fn mapped(&mut self) -> (SocketAddr, &'static str) {
        // A slow machine may miss a gateway's answer.
        for _ in 0..20 {
            match self.news().await {
                PortMapping::Mapped { external, protocol } => return (external, protocol),
                other => eprintln!("{other:?}"),
            }
        }
        panic!("nothing is mapped");
    }

    async fn failed(&mut self) -> String {
        match self.news().await {
            PortMapping::Failed { why } => why,
            other => panic!("{other:?}"),
        }
    }

    async fn ends(self) {
        self.cancel.cancel();
        timeout(Duration::from_secs(30), self.task).await.expect("it ends").unwrap();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), looking).await.is_ok(), "waited in vain: {what}");
}

async fn made_renewed_moved_forgotten_and_given_back(at: Ipv4Addr, speak: Speak, protocol: &'static str) {
    let book = Book::new();
    let own = Arc::clone(&book);
    let gateway = speaks(at, Box::new(move |ask| speak(ask, &mut own.lock().unwrap()))).await;
    let mut kept = keep(map(at, nobody()));
    assert_eq!(kept.mapped().await, ((OUTSIDE, 4000).into(), protocol));
    assert_eq!(book.lock().unwrap().mapped, BTreeMap::from([(PORT, 4000)]));
    eventually("it is renewed", || book.lock().unwrap().asked >= 4).await;
    // It restarts, has forgotten everything, and gives another port at another address.
    {
        let mut book = book.lock().unwrap();
        book.mapped.clear();
        (book.port, book.outside) = (4001, Ipv4Addr::new(203, 0, 113, 8));
    }
    let moved = async {
        // A renewal that was under way may have seen half of it.
        while kept.mapped().await.0 != "203.0.113.8:4001".parse().unwrap() {}
    };
    timeout(Duration::from_secs(30), moved).await.expect("it has moved");
    assert_eq!(book.lock().unwrap().mapped, BTreeMap::from([(PORT, 4001)]));
    kept.ends().await;
    let book = book.lock().unwrap();
    assert!(book.mapped.is_empty(), "{book:?}");
    assert_eq!(book.given_back, 1);
    gateway.abort();
}

#[tokio::test]
async fn a_port_by_nat_pmp() {
    made_renewed_moved_forgotten_and_given_back(Ipv4Addr::new(127, 53, 1, 1), nat_pmp, "NAT-PMP").await;
}

#[tokio::test]
async fn a_port_by_pcp() {
    made_renewed_moved_forgotten_and_given_back(Ipv4Addr::new(127, 53, 1, 2), pcp, "PCP").await;
}

#[tokio::test]
async fn a_gateway_that_goes_silent_is_told_and_asked_again() {
    let at = Ipv4Addr::new(127, 53, 1, 3);
    let book = Book::new();
    let (own, silent) = (Arc::clone(&book), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let hush = Arc::clone(&silent);
    let gateway = speaks(
        at,
        Box::new(move |ask| match hush.load(std::sync::atomic::Ordering::SeqCst) {
            true => None,
            false => nat_pmp(ask, &mut own.lock().unwrap()),
        }),
    )
    .await;
    let mut kept = keep(map(at, nobody()));
    kept.mapped().await;
    silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let why = kept.failed().await;
    assert!(why.contains("NAT-PMP"), "{why}");
    silent.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(kept.mapped().await.0, (OUTSIDE, 4000).into());
    kept.ends().await;
    gateway.abort();
}

#[tokio::test]
async fn garbage_and_lies_map_nothing_and_do_no_harm() {
    let at = Ipv4Addr::new(127, 53, 1, 4);
    let lies: Vec<Speak> = vec![
        |_, _| Some(Vec::new()),
        |_, _| Some(vec![0; 2000]),
        |_, _| Some(vec![255; 60]),
        |ask, _| Some(ask.to_vec()),
        // No port outside.
        |ask, book| {
            book.port = 0;
            nat_pmp(ask, book)
        },
        |ask, book| {
            book.port = 0;
            pcp(ask, book)
        },
        // An address that is none.
        |ask, book| {
            book.outside = Ipv4Addr::UNSPECIFIED;
            nat_pmp(ask, book)
        },
        |ask, book| {
            book.outside = Ipv4Addr::LOCALHOST;
            pcp(ask, book)
        },
        |ask, book| {
            book.outside = Ipv4Addr::BROADCAST;
            nat_pmp(ask, book)
        },
        // For another port, with another nonce, for another protocol.
        |ask, book| {
            let mut answer = nat_pmp(ask, book)?;
            if answer.len() == 16 {
                answer[9] ^= 1;
            }
            Some(answer)
        },
        |ask, book| {
            let mut answer = pcp(ask, book)?;
            answer[24] ^= 1;
            Some(answer)
        },
        |ask, book| {
            let mut answer = pcp(ask, book)?;
            answer[36] = 17;
            Some(answer)
        },
        // Cut off at every length, one after the other.
        |ask, book| {
            book.asked += 1;
            let mut answer = pcp(ask, book).or_else(|| nat_pmp(ask, book))?;
            answer.truncate(book.asked as usize % 59);
            Some(answer)
        },
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let mut book = Book::new().lock().map(|b| Book { mapped: BTreeMap::new(), ..*b }).unwrap();
        let gateway = speaks(at, Box::new(move |ask| lie(ask, &mut book))).await;
        let mut kept = keep(PortMap { search: SOON, ..map(at, nobody()) });
        let why = kept.failed().await;
        assert!(!why.is_empty() && why.len() < 2000, "{n}: {why}");
        kept.ends().await;
        gateway.abort();
        let _ = gateway.await;
    }
    // Bytes by chance behind a beginning that is right.
    let mut rng = StdRng::seed_from_u64(7);
    let gateway = speaks(
        at,
        Box::new(move |ask| {
            let mut answer = vec![0; rng.random_range(0..80)];
            rng.fill_bytes(&mut answer);
            let begin: &[u8] = if ask[0] == 2 { &[2, 0x81, 0, 0] } else { &[0, 128 | ask[1], 0, 0] };
            for (to, from) in answer.iter_mut().zip(begin) {
                *to = *from;
            }
            Some(answer)
        }),
    )
    .await;
    let mut kept =
        keep(PortMap { retry: [Duration::ZERO, Duration::from_millis(1)], search: SOON, ..map(at, nobody()) });
    for _ in 0..10 {
        kept.failed().await;
    }
    kept.ends().await;
    gateway.abort();
}

#[tokio::test]
async fn where_nobody_answers_it_fails_with_words_and_ends_at_once() {
    let mut kept = keep(map(Ipv4Addr::new(127, 53, 1, 5), nobody()));
    let why = kept.failed().await;
    assert!(why.contains("PCP") && why.contains("NAT-PMP") && why.contains("UPnP"), "{why}");
    kept.ends().await;
    // Also in the middle of asking.
    let at = Ipv4Addr::new(127, 53, 1, 6);
    let gateway = speaks(at, Box::new(|_| None)).await;
    keep(map(at, nobody())).ends().await;
    gateway.abort();
}
