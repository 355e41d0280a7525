//! Talking to the DHT server of this very node.
//!
//! A Kademlia node puts what it announces at others, and asks others; `mainline` never turns to itself. In a large DHT
//! nobody notices. In one of two or three servers, which is what most meshes have, the only server would keep nothing of
//! its own to be found by, and not find what it keeps for others. So this node also asks and tells its own server, over
//! UDP like anybody.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_bencode::value::Value;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::identity::{NodeId, verify};
use crate::wire::item_signing_bytes;

/// How long this host takes to answer itself, at most: the server's thread looks at its socket all the time.
const PATIENCE: Duration = Duration::from_millis(500);

/// The transaction: one question at a time is asked over one socket.
const TRANSACTION: &[u8] = b"elo1";

/// A dictionary whose members are bencoded already; they must come in the order of their names.
fn dict(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![b'd'];
    for (name, value) in members {
        out.extend(bytes(name.as_bytes()));
        out.extend_from_slice(value);
    }
    out.push(b'e');
    out
}

fn bytes(value: &[u8]) -> Vec<u8> {
    let mut out = format!("{}:", value.len()).into_bytes();
    out.extend_from_slice(value);
    out
}

fn int(value: i64) -> Vec<u8> {
    format!("i{value}e").into_bytes()
}

fn query(name: &str, arguments: &[(&str, Vec<u8>)]) -> Vec<u8> {
    dict(&[("a", dict(arguments)), ("q", bytes(name.as_bytes())), ("t", bytes(TRANSACTION)), ("y", bytes(b"q"))])
}

/// Members of an answer.
struct Answer(Value);

impl Answer {
    fn read(datagram: &[u8]) -> Option<Self> {
        let Ok(Value::Dict(mut message)) = serde_bencode::from_bytes(datagram) else { return None };
        message.remove(&b"r"[..]).map(Self)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let Value::Dict(members) = &self.0 else { return None };
        members.get(name.as_bytes())
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let Value::Bytes(value) = self.get(name)? else { return None };
        Some(value)
    }

    fn int(&self, name: &str) -> Option<i64> {
        let Value::Int(value) = self.get(name)? else { return None };
        Some(*value)
    }

    fn addrs(&self) -> Vec<SocketAddrV4> {
        let Some(Value::List(values)) = self.get("values") else { return Vec::new() };
        let addr = |value: &Value| match value {
            Value::Bytes(b) if b.len() == 6 => {
                Some(SocketAddrV4::new(Ipv4Addr::new(b[0], b[1], b[2], b[3]), u16::from_be_bytes([b[4], b[5]])))
            }
            _ => None,
        };
        values.iter().filter_map(addr).collect()
    }
}

/// This node's DHT server.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnServer {
    /// The address it is asked at, and under which it keeps what it is told: one of this host's.
    pub(super) ip: Ipv4Addr,
    pub(super) port: u16,
    /// The name this node gives itself there: always the same, so that it is kept once.
    pub(super) id: [u8; 20],
}

impl OwnServer {
    async fn ask(&self, socket: &UdpSocket, question: &[u8]) -> Option<Answer> {
        socket.send(question).await.ok()?;
        let mut buffer = vec![0; 4096];
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.ok()?;
        Answer::read(buffer.get(..length)?)
    }

    async fn socket(&self) -> Option<UdpSocket> {
        let socket = UdpSocket::bind((self.ip, 0)).await.ok()?;
        socket.connect((self.ip, self.port)).await.ok()?;
        Some(socket)
    }

    async fn get_peers(&self, socket: &UdpSocket, key: &[u8; 20]) -> Option<Answer> {
        self.ask(socket, &query("get_peers", &[("id", bytes(&self.id)), ("info_hash", bytes(key))])).await
    }

    async fn get_item(&self, socket: &UdpSocket, target: &[u8; 20]) -> Option<Answer> {
        self.ask(socket, &query("get", &[("id", bytes(&self.id)), ("target", bytes(target))])).await
    }

    /// The addresses it keeps for a key.
    pub(super) async fn addrs(&self, key: &[u8; 20]) -> Vec<SocketAddrV4> {
        let Some(socket) = self.socket().await else { return Vec::new() };
        self.get_peers(&socket, key).await.map(|answer| answer.addrs()).unwrap_or_default()
    }

    /// The item it keeps for a node, its signature checked: `seq` and value.
    pub(super) async fn item(&self, node: &NodeId, target: &[u8; 20]) -> Option<(i64, Vec<u8>)> {
        let answer = self.get_item(&self.socket().await?, target).await?;
        let (value, seq) = (answer.bytes("v")?, answer.int("seq")?);
        let signature: &[u8; 64] = answer.bytes("sig")?.try_into().ok()?;
        verify(node, &item_signing_bytes(seq, value), signature).then(|| (seq, value.to_vec()))
    }

    /// Has it keep this node's address for a key.
    pub(super) async fn announce(&self, key: &[u8; 20], port: u16) -> Option<()> {
        let socket = self.socket().await?;
        let token = self.get_peers(&socket, key).await?.bytes("token")?.to_vec();
        let arguments = [
            ("id", bytes(&self.id)),
            ("implied_port", int(0)),
            ("info_hash", bytes(key)),
            ("port", int(port.into())),
            ("token", bytes(&token)),
        ];
        self.ask(&socket, &query("announce_peer", &arguments)).await.map(drop)
    }

    /// Has it keep an item.
    pub(super) async fn put(
        &self,
        node: &NodeId,
        target: &[u8; 20],
        seq: i64,
        value: &[u8],
        signature: &[u8; 64],
    ) -> Option<()> {
        let socket = self.socket().await?;
        let token = self.get_item(&socket, target).await?.bytes("token")?.to_vec();
        let arguments = [
            ("id", bytes(&self.id)),
            ("k", bytes(node.as_bytes())),
            ("seq", int(seq)),
            ("sig", bytes(signature)),
            // Not in BEP 44; mainline wants it.
            ("target", bytes(target)),
            ("token", bytes(&token)),
            ("v", bytes(value)),
        ];
        self.ask(&socket, &query("put", &arguments)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Join, capability_key};
    use super::*;
    use crate::identity::Identity;

    #[tokio::test]
    async fn its_own_server_keeps_what_this_node_announces() {
        let join = Join { bootstrap: Vec::new(), server: true, bind: Ipv4Addr::LOCALHOST, port: 0 };
        let dht = tokio::task::spawn_blocking(move || mainline::Dht::new(join.config())).await.unwrap().unwrap();
        let dht = dht.as_async();
        let port = dht.info().await.local_addr().port();
        let own = OwnServer { ip: Ipv4Addr::LOCALHOST, port, id: [7; 20] };
        let key = capability_key("work");
        assert_eq!(own.addrs(&key).await, []);
        own.announce(&key, 7878).await.unwrap();
        own.announce(&key, 7879).await.unwrap();
        // Kept once, as what it was last.
        assert_eq!(own.addrs(&key).await, [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7879)]);

        let identity = Identity::from_seed([1; 32]);
        let node = identity.id();
        let target = *mainline::MutableItem::target_from_key(node.as_bytes(), None).as_bytes();
        assert_eq!(own.item(&node, &target).await, None);
        let signature = identity.sign(&item_signing_bytes(5, b"{}"));
        own.put(&node, &target, 5, b"{}", &signature).await.unwrap();
        assert_eq!(own.item(&node, &target).await, Some((5, b"{}".to_vec())));
        // A signature that is none is not taken.
        assert_eq!(own.put(&node, &target, 6, b"{}", &signature).await, None);
        assert_eq!(own.item(&node, &target).await, Some((5, b"{}".to_vec())));
    }
}
