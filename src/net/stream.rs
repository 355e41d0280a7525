//! A stream of messages while it still has one owner: during the handshake, and when refusing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Decoder;

use super::handshake::HandshakeError;
use super::io::Io;
use super::tls;
use crate::error::CloseReason;
use crate::limits::{MAX_HANDSHAKE_MESSAGE, MAX_MESSAGE};
use crate::mesh::handshake::{Binding, Refusal};
use crate::wire::{Codec, CodecError, Framing, Object, codec, draft};

/// How long a peer that is refused, or told goodbye, may take to take it in.
const PARTING: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) io: Io,
    pub(super) codec: Codec,
    pub(super) buffer: BytesMut,
    /// Bytes of messages written and read so far.
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, framing: Framing) -> Self {
        // Without it a small message waits for the answer to the one before. If it fails, so will the first write.
        let _ = tcp.set_nodelay(true);
        let codec = Codec::new(framing, MAX_HANDSHAKE_MESSAGE);
        Self { io: Io::new(tcp), codec, buffer: BytesMut::new(), bytes_out: 0, bytes_in: 0 }
    }

    /// Gives the connection up when what was sent is not acknowledged for so long. Otherwise TCP sends it again after ever
    /// longer pauses, and finds out late that a cut network has healed. A system that doesn't know the option does as it
    /// likes.
    pub(super) fn give_up_after(&self, unacked: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // The option counts milliseconds in 32 bits, and takes 0 for "as the system likes".
            let unacked = unacked.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
            let _ = socket2::SockRef::from(self.io.tcp()).set_tcp_user_timeout(Some(unacked));
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = unacked;
    }

    /// The other end's address and this one's. IPv4 is written as such, also on a socket for both.
    pub(super) fn addrs(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Ok((plain(self.io.tcp().peer_addr()?), plain(self.io.tcp().local_addr()?)))
    }

    /// Waits for the first byte, which tells the framing; `None` if it is neither.
    pub(super) async fn detect(&mut self) -> Result<Option<Framing>, HandshakeError> {
        while self.buffer.is_empty() {
            self.fill().await?;
        }
        let framing = self.buffer.first().copied().and_then(Framing::detect);
        if let Some(framing) = framing {
            self.codec = Codec::new(framing, MAX_HANDSHAKE_MESSAGE);
        }
        Ok(framing)
    }

    async fn fill(&mut self) -> Result<(), HandshakeError> {
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => Err(HandshakeError::Ended { heard: self.bytes_in > 0 }),
            Ok(read) => {
                self.bytes_in += read as u64;
                Ok(())
            }
            Err(error) if self.io.encrypted() => Err(tls::failure(error)),
            // Closing with our bytes unread makes a reset of it: it means the same.
            Err(error) if is_reset(&error) => Err(HandshakeError::Ended { heard: self.bytes_in > 0 }),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message.
    pub(super) async fn read(&mut self) -> Result<Object, HandshakeError> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(message)) => return parse(message),
                Ok(None) => self.fill().await?,
                Err(error @ CodecError::TooLarge { .. }) => {
                    return Err(Refusal::new(CloseReason::TooLarge, format!("handshake: {error}")).into());
                }
                Err(error) => return Err(Refusal::new(CloseReason::BadHandshake, error.to_string()).into()),
            }
        }
    }

    /// Sends a message and waits for the answer. When the other side has refused already, sending may fail, and what it
    /// said is worth more than the failure: so that shows only as the end of the stream.
    pub(super) async fn ask(&mut self, message: &Object) -> Result<Object, HandshakeError> {
        let _ = self.write(message).await;
        self.read().await
    }

    pub(super) async fn write(&mut self, message: &Object) -> Result<(), HandshakeError> {
        let mut out = BytesMut::new();
        codec::encode(self.codec.framing(), message.raw(), &mut out);
        self.io.write_all(&out).await?;
        self.bytes_out += out.len() as u64;
        Ok(())
    }

    /// From now on messages may have full length.
    pub(super) fn trusted(&mut self) {
        self.codec.set_max(MAX_MESSAGE);
    }

    /// From now on the stream is TLS; gives what names the TLS connection. What the other side has said already was said
    /// where everybody on the way can write: it is not taken for something said inside.
    pub(super) async fn secure(
        &mut self,
        tls: Result<Box<rustls::Connection>, rustls::Error>,
    ) -> Result<Binding, HandshakeError> {
        if !self.buffer.is_empty() {
            let message = "bytes between the messages in plain text and the beginning of TLS";
            return Err(Refusal::new(CloseReason::BadHandshake, message).into());
        }
        let tls = tls.map_err(|error| Refusal::new(CloseReason::BadHandshake, format!("TLS: {error}")))?;
        self.io.secure(tls).await.map_err(tls::failure)?;
        let tls = self.io.tls().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(tls::binding(tls)?)
    }

    /// Says why, and closes. A stream closed with unread bytes in it is reset, and a reset can overtake the `bye`: so
    /// what still comes is read for a while.
    pub(super) async fn refuse(mut self, reason: CloseReason, message: &str) {
        let part = async {
            // Between plain text and TLS nothing can be said.
            let _ = self.write(&draft::bye(reason, message)).await;
            self.io.part().await
        };
        // Nobody is left to be told if that fails.
        let _ = timeout(PARTING, part).await;
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

fn parse(message: Bytes) -> Result<Object, HandshakeError> {
    Object::parse(message).map_err(|error| Refusal::new(CloseReason::BadMessage, error.to_string()).into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_gives_up_what_nobody_acknowledges() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
        for (tcp, ms) in [(near.unwrap(), 15_000), (far.unwrap().0, 1)] {
            let stream = Stream::new(tcp, Framing::Line);
            stream.give_up_after(Duration::from_millis(ms));
            let set = socket2::SockRef::from(stream.io.tcp()).tcp_user_timeout().unwrap();
            assert_eq!(set, Some(Duration::from_millis(ms)));
        }
    }
}
