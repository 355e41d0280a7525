//! Somebody on the local network who says what is not so. Run in the namespace by `Space::flood`.

use std::net::{Ipv4Addr, UdpSocket};

use elo::NodeId;

const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const A: u16 = 1;

const SERVICE: &str = "_elo._tcp.local";

fn name(out: &mut Vec<u8>, text: &str) {
    for label in text.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
}

fn record(out: &mut Vec<u8>, owner: &str, kind: u16, data: &[u8]) {
    name(out, owner);
    out.extend(kind.to_be_bytes());
    out.extend(1u16.to_be_bytes());
    out.extend(4500u32.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
}

/// A response with these records.
fn response(records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0, 0, 0x84, 0, 0, 0];
    out.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    out.extend([0; 4]);
    for (owner, kind, data) in records {
        record(&mut out, owner, *kind, data);
    }
    out
}

fn text(members: &[String]) -> Vec<u8> {
    members.iter().flat_map(|m| std::iter::once(u8::try_from(m.len()).unwrap()).chain(m.bytes())).collect()
}

fn announcement(id: &str, host: &str, ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let instance = format!("{id}.{SERVICE}");
    let named = |what: &str| {
        let mut out = Vec::new();
        name(&mut out, what);
        out
    };
    let srv = [&[0, 0, 0, 0][..], &port.to_be_bytes(), &named(host)].concat();
    response(&[
        (SERVICE, PTR, named(&instance)),
        (&instance, SRV, srv),
        (&instance, TXT, text(&[format!("id={id}"), "v=1".to_owned()])),
        (host, A, ip.octets().to_vec()),
    ])
}

#[test]
#[ignore = "run by other tests, in a namespace"]
fn sender() {
    let args = std::env::var("ELO_TEST_ARGS").unwrap();
    let args: Vec<&str> = args.split(' ').collect();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // From here it goes out on loopback only.
    let send = |packet: &[u8]| socket.send_to(packet, "224.0.0.251:5353").unwrap();
    let count = |text: &str| text.parse::<u32>().unwrap();
    match args[..] {
        ["one", id, ip, port] => {
            let host = format!("liar-{port}.local");
            // The same instance twice would be put together: one says an id at an instance of another name.
            send(&announcement(id, &host, ip.parse().unwrap(), port.parse().unwrap()));
        }
        ["many", n] => {
            for n in 0..count(n) {
                let mut bytes = [0x5a; 32];
                bytes[..4].copy_from_slice(&n.to_be_bytes());
                let [_, a, b, c] = (n + 2).to_be_bytes();
                let ip = Ipv4Addr::new(127, a.max(1), b, c);
                send(&announcement(&NodeId::from_bytes(bytes).to_string(), &format!("h{n}.local"), ip, 9));
                if n % 100 == 0 {
                    // A thousand packets at once would be lost in the socket's buffer, and cost nobody anything.
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
        }
        ["stray", n] => {
            let filler: Vec<String> = (0..31).map(|_| "x".repeat(254)).collect();
            for n in 0..count(n) {
                send(&response(&[(&format!("s{n}._else._tcp.local"), TXT, text(&filler))]));
                if n % 10 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
        ["full-speed", seconds] => {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(u64::from(count(seconds)));
            let mut n = 0u64;
            while std::time::Instant::now() < end {
                for _ in 0..100 {
                    n += 1;
                    let packet = response(&[(&format!("s{n}._else._tcp.local"), TXT, text(&["x".to_owned()]))]);
                    let _ = socket.send_to(&packet, "224.0.0.251:5353");
                }
            }
            println!("> {n} packets in {seconds} s");
        }
        ["hold", seconds] => {
            // Without the options that let others have it too.
            let _sockets = ["0.0.0.0:5353", "[::]:5353"].map(UdpSocket::bind);
            std::thread::sleep(std::time::Duration::from_secs(u64::from(count(seconds))));
        }
        _ => panic!("{args:?}"),
    }
}
