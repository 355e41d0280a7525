//! What a program wrote: read within bounds, made into values.

use crate::node::Payload;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use super::exec::{ChunkSink, ExecFailure};
use super::{PIPE_BUFFER, SETTLE, STDERR_TAIL};

/// One read.
const PIECE: usize = 16 * 1024;

/// The reading end of a program's stdout or stderr, which ends when nobody can write any more, even if somebody still
/// holds the other end.
pub struct Tap<R> {
    pipe: R,
    /// Set when the program has ended and its group was killed: from then on only what is in the pipe counts.
    ended: CancellationToken,
    left: usize,
    piece: BytesMut,
}

impl<R: AsyncRead + Unpin> Tap<R> {
    /// Reads from `pipe`; `ended` says that nothing more is expected.
    pub fn new(pipe: R, ended: CancellationToken) -> Tap<R> {
        Tap { pipe, ended, left: PIPE_BUFFER, piece: BytesMut::with_capacity(PIECE) }
    }

    /// The next piece, empty at the end. An error in reading is an end like any other: the exit status tells more.
    async fn next(&mut self) -> &[u8] {
        self.piece.clear();
        self.piece.reserve(PIECE);
        if !self.ended.is_cancelled() {
            tokio::select! {
                biased;
                read = self.pipe.read_buf(&mut self.piece) => {
                    return if read.is_ok() { &self.piece } else { &[] };
                }
                () = self.ended.cancelled() => {}
            }
        }
        // A process that left the group may hold the pipe open, or even write for ever: neither keeps us.
        let read = tokio::time::timeout(SETTLE, self.pipe.read_buf(&mut self.piece));
        match read.await {
            Ok(Ok(n)) if n <= self.left => {
                self.left -= n;
                &self.piece
            }
            _ => &[],
        }
    }
}

/// Reads everything, up to `limit` bytes, into one value.
pub async fn collect(mut tap: Tap<impl AsyncRead + Unpin>, limit: usize) -> Result<Payload, ExecFailure> {
    let mut all = Vec::new();
    loop {
        let piece = tap.next().await;
        if piece.is_empty() {
            return Ok(value(&all));
        }
        if all.len() + piece.len() > limit {
            return Err(ExecFailure::TooLarge { limit });
        }
        all.extend_from_slice(piece);
    }
}

/// Sends each line, of up to `limit` bytes, as it appears. Reads no further while the sink takes its time, so that a
/// slow caller slows the program down. The value says how many lines there were.
pub async fn lines(
    mut tap: Tap<impl AsyncRead + Unpin>,
    limit: usize,
    mut sink: impl ChunkSink,
) -> Result<Payload, ExecFailure> {
    let mut line = Vec::new();
    let mut count = 0u64;
    loop {
        let piece = tap.next().await;
        if piece.is_empty() {
            break;
        }
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            let whole = part.ends_with(b"\n");
            if line.len() + part.len() - usize::from(whole) > limit {
                return Err(ExecFailure::TooLarge { limit });
            }
            line.extend_from_slice(part);
            if whole {
                send(&mut sink, &line).await?;
                count += 1;
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        send(&mut sink, &line).await?;
        count += 1;
    }
    Ok(serde_json::json!({ "lines": count }).into())
}

async fn send(sink: &mut impl ChunkSink, line: &[u8]) -> Result<(), ExecFailure> {
    let sent = sink.send(value(line)).await;
    sent.map_err(|()| ExecFailure::NobodyListens)
}

/// JSON if it parses, else text without its last newline. Bytes that aren't UTF-8 become U+FFFD.
pub fn value(bytes: &[u8]) -> Payload {
    // Kept as the text it is, since a value would lose the digits of long integers.
    let json = std::str::from_utf8(bytes).ok().filter(|_| serde_json::from_slice::<serde_json::Value>(bytes).is_ok());
    json.map(Payload::json).unwrap_or_else(|| {
        let text = bytes.strip_suffix(b"\r\n");
        let text = text.or(bytes.strip_suffix(b"\n")).unwrap_or(bytes);
        serde_json::Value::String(String::from_utf8_lossy(text).into_owned()).into()
    })
}

/// The end of a stream of any length.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Reads to the end, keeping the last 2 KiB.
    pub async fn read(&mut self, mut tap: Tap<impl AsyncRead + Unpin>) {
        loop {
            let piece = tap.next().await;
            if piece.is_empty() {
                return;
            }
            self.push(piece);
        }
    }

    /// Adds a piece, forgetting what is too far back.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
        // One byte more than is shown, so as to know that something was cut off.
        let excess = self.0.len().saturating_sub(STDERR_TAIL + 1);
        self.0.drain(..excess);
    }

    /// As text, without white space at the end. What was cut begins with `…` and a whole character.
    pub fn text(&self) -> String {
        let cut = self.0.len() > STDERR_TAIL;
        let kept = &self.0[usize::from(cut)..];
        // At most three bytes can be what is left of a character cut in two.
        let broken = kept.iter().take(if cut { 3 } else { 0 });
        let broken = broken.take_while(|&&byte| byte & 0xC0 == 0x80).count();
        let text = String::from_utf8_lossy(&kept[broken..]);
        let text = text.trim_end();
        if cut { format!("…{text}") } else { text.to_owned() }
    }
}
