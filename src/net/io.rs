//! The bytes under the messages: a TCP stream, or TLS on one.
//!
//! rustls keeps both directions of a connection in one object, so the two tasks of a connection share it under a lock.
//! It is held while at most [`TAKE`] bytes are encrypted or decrypted, some ten microseconds, never while a socket is
//! used, and by nobody else: this is the one lock under which there is cryptography.
//!
//! What comes is read onto the stack, and only as much as came is kept: a connection that waits has no buffer. An idle one
//! has nothing here beside the 4 KiB that rustls keeps for its input.

use std::future::poll_fn;
use std::io::{self, BufRead};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::coop::consume_budget;

/// The most that goes through the encryption at once, each way: four of TLS' largest records.
const TAKE: usize = 64 * 1024;

/// How many bytes are asked for at once. Of a message longer than that as many as there are already: it is read in ever
/// larger steps, and never more is asked for than has come of it.
pub(super) const READ: usize = 16 * 1024;

/// How many bytes of TLS are asked for at once: a little more than one of its largest records.
const SCRATCH: usize = 17 * 1024;

/// A stream while it has one owner.
#[derive(Debug)]
pub(super) struct Io {
    tcp: TcpStream,
    layer: Layer,
}

#[derive(Debug)]
enum Layer {
    /// Everybody on the way can read and write it.
    Plain,
    /// Only the two ends can.
    Tls(Box<Connection>),
    /// TLS was begun, and is not there yet or never will be: nothing can be said.
    Unfinished,
}

impl Io {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, layer: Layer::Plain }
    }

    /// The socket under it.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether only the two ends can read it.
    pub(super) fn encrypted(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    /// Does the TLS handshake. When it fails, or is given up half-way, nothing can be said on the stream any more; the
    /// other side was sent an alert if there is one for it.
    pub(super) async fn secure(&mut self, mut tls: Box<Connection>) -> io::Result<()> {
        self.layer = Layer::Unfinished;
        let mut out = Vec::new();
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut out)?;
            }
            self.tcp.write_all(&out).await?;
            out.clear();
            if !tls.is_handshaking() {
                self.layer = Layer::Tls(tls);
                return Ok(());
            }
            if let Err(error) = self.take_in(&mut tls).await {
                while tls.wants_write() {
                    tls.write_tls(&mut out)?;
                }
                // If it can't be sent there is nobody to hear it.
                let _ = self.tcp.write_all(&out).await;
                return Err(error);
            }
        }
    }

    /// Hands on what comes next.
    async fn take_in(&mut self, tls: &mut Connection) -> io::Result<()> {
        poll_scratch::<4096, _>(&mut self.tcp, |mut input| {
            if input.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while !input.is_empty() {
                tls.read_tls(&mut input)?;
                tls.process_new_packets().map_err(invalid)?;
            }
            Ok(())
        })
        .await
    }

    /// What names the TLS connection, and which protocol was agreed on inside it.
    pub(super) fn tls(&self) -> Option<&Connection> {
        match &self.layer {
            Layer::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// Reads what is there, or waits for it; 0 is the end. Giving it up loses nothing.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain => read_plain(&mut self.tcp, buffer).await,
            Layer::Tls(tls) => loop {
                if let Some(read) = decrypted(tls, buffer)? {
                    return Ok(read);
                }
                let read = poll_scratch::<SCRATCH, _>(&mut self.tcp, |input| decrypt(input, tls, buffer)).await?;
                if let Some(read) = read {
                    return Ok(read);
                }
            },
            Layer::Unfinished => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes all of it.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.layer {
            Layer::Plain => self.tcp.write_all(bytes).await,
            Layer::Tls(tls) => {
                let (mut rest, mut out) = (bytes, Vec::new());
                while !rest.is_empty() {
                    rest = &rest[encrypt(tls, rest, &mut out)?..];
                    self.tcp.write_all(&out).await?;
                    out.clear();
                }
                Ok(())
            }
            Layer::Unfinished => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends this half of the stream. What comes afterwards is thrown away until the other side ends its own.
    pub(super) async fn part(&mut self) -> io::Result<()> {
        if let Layer::Tls(tls) = &mut self.layer {
            let mut out = Vec::new();
            farewell(tls, &mut out)?;
            self.tcp.write_all(&out).await?;
        }
        self.tcp.shutdown().await?;
        // What it means is of no interest any more.
        while poll_scratch::<4096, _>(&mut self.tcp, |input| Ok(input.len())).await? > 0 {}
        Ok(())
    }

    /// For two owners.
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.tcp.into_split();
        let session = match self.layer {
            Layer::Tls(tls) => Some(Arc::new(Session(Mutex::new(*tls)))),
            Layer::Plain | Layer::Unfinished => None,
        };
        let out = Arc::new(Out { tcp: write, session: session.clone() });
        (ReadHalf { tcp: read, session }, WriteHalf { out, waiting: Vec::new(), written: 0 })
    }
}

/// See the module.
#[derive(Debug)]
struct Session(Mutex<Connection>);

impl Session {
    /// If one of the tasks panicked, the other one is being ended.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What reading brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// How much of it is for the buffer; `None`: the other side has ended the stream.
    pub(super) text: Option<usize>,
    /// How much came from the socket. With TLS that is more: of a byte in a record of its own, 23.
    pub(super) wire: usize,
}

/// What the reading task has.
#[derive(Debug)]
pub(super) struct ReadHalf {
    tcp: OwnedReadHalf,
    /// `None`: in plain text.
    session: Option<Arc<Session>>,
}

impl ReadHalf {
    /// Reads what is there, or waits for it. Giving it up loses nothing.
    ///
    /// It comes back with nothing for the buffer, too: when a record is not complete, and after records that say nothing
    /// (they may be empty, or ask for new keys), which a peer can send for ever.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<Read> {
        let Some(session) = &self.session else {
            let read = read_plain(&mut self.tcp, buffer).await?;
            return Ok(Read { text: (read > 0).then_some(read), wire: read });
        };
        // From the handshake something may be left.
        if let Some(read) = decrypted(&mut session.lock(), buffer)? {
            return Ok(Read { text: (read > 0).then_some(read), wire: 0 });
        }
        poll_scratch::<SCRATCH, _>(&mut self.tcp, |input| {
            let text = match decrypt(input, &mut session.lock(), buffer)? {
                None => Some(0),
                Some(0) => None,
                text => text,
            };
            Ok(Read { text, wire: input.len() })
        })
        .await
    }

    /// Throws away what still comes, until the other side ends the stream.
    pub(super) async fn discard(&mut self) {
        while poll_scratch::<4096, _>(&mut self.tcp, |input| Ok(input.len())).await.is_ok_and(|read| read > 0) {}
    }
}

/// The way out, which the writing task may lend to who has a message when nothing else is on its way. Dropping it ends this
/// half of the stream.
#[derive(Debug)]
pub(super) struct Out {
    tcp: OwnedWriteHalf,
    /// `None`: in plain text.
    session: Option<Arc<Session>>,
}

impl Out {
    /// Writes what the socket takes now. Gives the rest, as it is to be written: see [`WriteHalf::resume`]. An error is kept for
    /// who writes that.
    pub(super) fn write_now(&self, mut text: BytesMut) -> io::Result<Vec<u8>> {
        let Some(session) = &self.session else {
            let written = self.tcp.try_write(&text).unwrap_or_default();
            text.advance(written);
            return Ok(text.into());
        };
        let mut cipher = Vec::new();
        {
            let mut tls = session.lock();
            while text.has_remaining() {
                let taken = encrypt(&mut tls, &text, &mut cipher)?;
                text.advance(taken);
            }
        }
        let written = self.tcp.try_write(&cipher).unwrap_or_default();
        cipher.drain(..written);
        Ok(cipher)
    }

    /// Writes 1 byte at least.
    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // A socket that takes everything at once must not keep others from their turn.
        consume_budget().await;
        loop {
            match self.tcp.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.writable().await?,
                written => return written,
            }
        }
    }
}

/// What the writing task has.
#[derive(Debug)]
pub(super) struct WriteHalf {
    out: Arc<Out>,
    /// As it goes over the wire, and how much of it is written.
    waiting: Vec<u8>,
    written: usize,
}

impl WriteHalf {
    /// The way out, for others.
    pub(super) fn out(&self) -> Arc<Out> {
        Arc::clone(&self.out)
    }

    /// Takes over what [`Out::write_now`] left. Nothing may be [`kept`](Self::kept).
    pub(super) fn resume(&mut self, rest: Vec<u8>) {
        (self.waiting, self.written) = (rest, 0);
    }

    /// Writes as much as the socket takes now, 1 byte at least, and takes from `batch` what it needs for that. A part may
    /// be kept here: it is written when `batch` is empty and nothing is [`kept`](Self::kept).
    pub(super) async fn write_part(&mut self, batch: &mut BytesMut) -> io::Result<()> {
        if self.waiting.is_empty() {
            let Some(session) = &self.out.session else {
                let written = self.out.write(batch).await?;
                batch.advance(written);
                return Ok(());
            };
            let taken = encrypt(&mut session.lock(), batch, &mut self.waiting)?;
            batch.advance(taken);
        }
        self.write_waiting().await
    }

    async fn write_waiting(&mut self) -> io::Result<()> {
        self.written += self.out.write(&self.waiting[self.written..]).await?;
        if self.written == self.waiting.len() {
            (self.waiting, self.written) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// How many bytes are kept here.
    pub(super) fn kept(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Says that this half of the stream ends, so that the other side knows that it has everything. It does when this and all that
    /// was [lent](Self::out) is dropped.
    pub(super) async fn part(&mut self) -> io::Result<()> {
        if let Some(session) = &self.out.session {
            farewell(&mut session.lock(), &mut self.waiting)?;
            while self.kept() > 0 {
                self.write_waiting().await?;
            }
        }
        Ok(())
    }
}

/// Waits until something can be read, or the stream has ended, and hands on what that is; nothing is the end. It lies on
/// the stack, and only while it is handed on: whoever waits has no buffer.
async fn poll_scratch<const SIZE: usize, T>(
    tcp: &mut (impl AsyncRead + Unpin),
    mut take: impl FnMut(&[u8]) -> io::Result<T>,
) -> io::Result<T> {
    // A function of its own, as the room must not become a part of the future that is waiting.
    fn poll<const SIZE: usize, T>(
        tcp: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&[u8]) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let mut scratch = [const { MaybeUninit::uninit() }; SIZE];
        let mut read = ReadBuf::uninit(&mut scratch);
        ready!(tcp.poll_read(cx, &mut read))?;
        Poll::Ready(take(read.filled()))
    }
    poll_fn(|cx| poll::<SIZE, T>(Pin::new(&mut *tcp), cx, &mut take)).await
}

/// Appends what is there to `buffer`, or waits for it; 0 is the end. Giving it up loses nothing.
async fn read_plain(tcp: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<usize> {
    if buffer.len() < READ {
        return poll_scratch::<READ, _>(tcp, |input| {
            buffer.extend_from_slice(input);
            Ok(input.len())
        })
        .await;
    }
    // The way over the stack is not worth it.
    if buffer.capacity() - buffer.len() < READ {
        buffer.reserve(buffer.len());
    }
    tcp.read_buf(buffer).await
}

/// Puts what TLS says into `buffer`; `None` when a record is not complete yet.
fn decrypt(mut input: &[u8], tls: &mut Connection, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
    let mut total = 0;
    loop {
        // Also when there is nothing: that is how it learns of the end.
        tls.read_tls(&mut input)?;
        tls.process_new_packets().map_err(invalid)?;
        match decrypted(tls, buffer) {
            // What came before the end, or before what is wrong, is for the caller all the same; it asks again.
            Ok(Some(0)) | Err(_) if total > 0 => return Ok(Some(total)),
            Ok(Some(0)) => return Ok(Some(0)),
            Ok(Some(read)) => total += read,
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        if input.is_empty() {
            return Ok((total > 0).then_some(total));
        }
    }
}

/// Moves what is decrypted into `buffer`. `None`: there is nothing now. 0: the other side has said that it ends here. A
/// stream that ends without that was cut, by an accident or by somebody: that is an error.
fn decrypted(tls: &mut Connection, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
    let (mut reader, mut total) = (tls.reader(), 0);
    loop {
        match reader.fill_buf() {
            Ok([]) => return Ok(Some(total)),
            Ok(chunk) => {
                let length = chunk.len();
                buffer.extend_from_slice(chunk);
                reader.consume(length);
                total += length;
            }
            Err(_) if total > 0 => return Ok(Some(total)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let message = "the stream was cut: the other side did not end it";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Encrypts the beginning of `bytes` into `out`; tells how much of them that was.
fn encrypt(tls: &mut Connection, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
    let taken = io::Write::write(&mut tls.writer(), &bytes[..bytes.len().min(TAKE)])?;
    while tls.wants_write() {
        tls.write_tls(out)?;
    }
    Ok(taken)
}

/// The end of this half, encrypted.
fn farewell(tls: &mut Connection, out: &mut Vec<u8>) -> io::Result<()> {
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(out)?;
    }
    Ok(())
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Reads so many bytes from a stream that has them all, and gives how they came.
    async fn reads(total: usize) -> (BytesMut, Vec<usize>) {
        let (mut near, mut far) = tokio::io::duplex(4 * READ);
        let sent = tokio::spawn(async move { far.write_all(&vec![b'x'; total]).await });
        let (mut buffer, mut sizes) = (BytesMut::new(), Vec::new());
        loop {
            match read_plain(&mut near, &mut buffer).await.unwrap() {
                0 => break,
                read => sizes.push(read),
            }
        }
        sent.await.unwrap().unwrap();
        (buffer, sizes)
    }

    #[tokio::test]
    async fn only_what_came_is_kept_and_no_more_is_asked_for_than_twice_that() {
        let (buffer, _) = reads(100).await;
        assert_eq!(buffer.len(), 100);
        assert!(buffer.capacity() < 1024, "{} bytes for 100", buffer.capacity());
        let total = 40 * READ;
        let (buffer, sizes) = reads(total).await;
        assert_eq!((buffer.len(), buffer.iter().all(|b| *b == b'x')), (total, true));
        assert!(buffer.capacity() <= 2 * (total + READ), "{} bytes for {total}", buffer.capacity());
        assert!(sizes[0] <= READ && sizes.iter().any(|size| *size > READ), "{sizes:?}");
    }

    #[tokio::test]
    async fn whoever_waits_has_no_buffer() {
        let (mut near, _far) = tokio::io::duplex(16);
        let mut buffer = BytesMut::new();
        {
            let mut waits = std::pin::pin!(read_plain(&mut near, &mut buffer));
            assert!(size_of_val(&*waits) < 256, "{} bytes", size_of_val(&*waits));
            assert!(poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending())).await);
        }
        assert_eq!(buffer.capacity(), 0);
    }
}
