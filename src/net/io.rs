//! The bytes under the messages: a TCP stream, or TLS on one.
//!
//! rustls keeps both directions of a connection in one object, so the two tasks of a connection share it under a lock.
//! It is held while at most [`TAKE`] bytes are encrypted or decrypted, some ten microseconds, never while a socket is
//! used, and by nobody else: this is the one lock under which there is cryptography. An idle connection keeps no
//! buffer of its own here beside the 4 KiB that rustls has for its input.

use std::io::{self, BufRead};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use rustls::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::coop::consume_budget;

/// The most that goes through the encryption at once, each way: four of TLS' largest records.
const TAKE: usize = 64 * 1024;

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
    pub(super) async fn secure(&mut self, mut tls: Connection) -> io::Result<()> {
        self.layer = Layer::Unfinished;
        let mut out = Vec::new();
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut out)?;
            }
            self.tcp.write_all(&out).await?;
            out.clear();
            if !tls.is_handshaking() {
                self.layer = Layer::Tls(Box::new(tls));
                return Ok(());
            }
            self.tcp.readable().await?;
            if let Err(error) = self.take_in(&mut tls) {
                while tls.wants_write() {
                    tls.write_tls(&mut out)?;
                }
                // If it can't be sent there is nobody to hear it.
                let _ = self.tcp.write_all(&out).await;
                return Err(error);
            }
        }
    }

    /// Hands on what came; nothing, if nothing did.
    fn take_in(&self, tls: &mut Connection) -> io::Result<()> {
        // On the stack, and given back before anything is waited for.
        let mut scratch = [0; 4096];
        let read = match self.tcp.try_read(&mut scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut input = &scratch[..read];
        while !input.is_empty() {
            tls.read_tls(&mut input)?;
            tls.process_new_packets().map_err(invalid)?;
        }
        Ok(())
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
            Layer::Plain => self.tcp.read_buf(buffer).await,
            Layer::Tls(tls) => loop {
                if let Some(read) = decrypted(tls, buffer)? {
                    return Ok(read);
                }
                self.tcp.readable().await?;
                // Unlike other reads `try_read` never makes room for other tasks, nor for the handshake's time to be up.
                consume_budget().await;
                if let Some(input) = Input::read(|scratch| self.tcp.try_read(scratch))? {
                    let read = input.decrypt(tls, buffer)?;
                    if let Some(read) = read {
                        return Ok(read);
                    }
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
        let mut scratch = [0; 4096];
        while self.tcp.read(&mut scratch).await? > 0 {}
        Ok(())
    }

    /// For two owners.
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.tcp.into_split();
        let session = match self.layer {
            Layer::Tls(tls) => Some(Arc::new(Session(Mutex::new(*tls)))),
            Layer::Plain | Layer::Unfinished => None,
        };
        let write = WriteHalf { tcp: write, session: session.clone(), waiting: Vec::new(), written: 0 };
        (ReadHalf { tcp: read, session }, write)
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
            let read = self.tcp.read_buf(buffer).await?;
            return Ok(Read { text: (read > 0).then_some(read), wire: read });
        };
        // From the handshake something may be left.
        if let Some(read) = decrypted(&mut session.lock(), buffer)? {
            return Ok(Read { text: (read > 0).then_some(read), wire: 0 });
        }
        loop {
            self.tcp.readable().await?;
            // Unlike other reads `try_read` never makes room for other tasks.
            consume_budget().await;
            if let Some(input) = Input::read(|scratch| self.tcp.try_read(scratch))? {
                let text = match input.decrypt(&mut session.lock(), buffer)? {
                    None => Some(0),
                    Some(0) => None,
                    text => text,
                };
                return Ok(Read { text, wire: input.length });
            }
        }
    }

    /// Throws away what still comes, until the other side ends the stream.
    pub(super) async fn discard(&mut self) {
        let mut scratch = vec![0; 4096];
        while self.tcp.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
    }
}

/// What the writing task has.
#[derive(Debug)]
pub(super) struct WriteHalf {
    tcp: OwnedWriteHalf,
    /// `None`: in plain text.
    session: Option<Arc<Session>>,
    /// Encrypted, and how much of it is written.
    waiting: Vec<u8>,
    written: usize,
}

impl WriteHalf {
    /// Writes as much as the socket takes now, 1 byte at least, and takes from `batch` what it needs for that. A part may
    /// be kept here: it is written when `batch` is empty and nothing is [`kept`](Self::kept).
    pub(super) async fn write_part(&mut self, batch: &mut BytesMut) -> io::Result<()> {
        let Some(session) = &self.session else {
            let written = self.tcp.write(batch).await?;
            batch.advance(written);
            return if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) };
        };
        if self.waiting.is_empty() {
            let taken = encrypt(&mut session.lock(), batch, &mut self.waiting)?;
            batch.advance(taken);
        }
        self.write_waiting().await
    }

    async fn write_waiting(&mut self) -> io::Result<()> {
        match self.tcp.write(&self.waiting[self.written..]).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => self.written += written,
        }
        if self.written == self.waiting.len() {
            (self.waiting, self.written) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// How many bytes are kept here.
    pub(super) fn kept(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Ends this half of the stream, so that the other side knows that it has everything.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        if let Some(session) = &self.session {
            farewell(&mut session.lock(), &mut self.waiting)?;
            while self.kept() > 0 {
                self.write_waiting().await?;
            }
        }
        self.tcp.shutdown().await
    }
}

/// TLS as it came from a socket. Lives on the stack, for a moment: an idle connection has none.
struct Input {
    bytes: [u8; SCRATCH],
    length: usize,
}

impl Input {
    /// What the socket has; `None` when it has nothing.
    fn read(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Option<Self>> {
        let mut input = Self { bytes: [0; SCRATCH], length: 0 };
        match read(&mut input.bytes) {
            Ok(length) => {
                input.length = length;
                Ok(Some(input))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts what it says into `buffer`; `None` when a record is not complete yet.
    fn decrypt(&self, tls: &mut Connection, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let (mut input, mut total) = (&self.bytes[..self.length], 0);
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
