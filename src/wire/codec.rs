//! Framing: where in a stream of bytes one message ends and the next begins. No I/O; the caller owns the buffer.
//!
//! Memory follows what a peer has *sent*, never what it declares it will send, and at most `max` bytes of a message
//! are ever waited for.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// How messages are told apart in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One message a line, ended by `\n`.
    Line,
    /// A 4-byte big-endian length before each message, as the Python package does it.
    Length,
}

impl Framing {
    /// Tells the framing by the first byte of a connection; `None` if it is neither.
    pub fn detect(first_byte: u8) -> Option<Self> {
        match first_byte {
            b'{' | b' ' | b'\t' | b'\n' | b'\r' => Some(Self::Line),
            // The first byte of a length below 16 MiB.
            0x00 => Some(Self::Length),
            _ => None,
        }
    }
}

/// Why a stream can't be read on. Close it: what follows has no known beginning.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The peer sent, or announced, a message longer than allowed.
    #[error("a message of more than {max} bytes")]
    TooLarge {
        /// The most that is allowed.
        max: usize,
    },
    /// The stream ended in the middle of a message.
    #[error("the stream ended in the middle of a message, after {buffered} bytes of it")]
    Truncated {
        /// How much of it had arrived.
        buffered: usize,
    },
    /// Reading from the stream failed. The codec itself never gives this; tokio's `Framed` does.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Takes messages out of a buffer as they become complete, each without its terminator or length.
#[derive(Debug, Clone)]
pub struct Codec {
    framing: Framing,
    max: usize,
    /// How much of the buffer is known to hold no line end. Without it a line that trickles in byte by byte would be
    /// searched from its start each time.
    searched: usize,
}

impl Codec {
    /// For messages of at most `max` bytes, not counting a terminator or length.
    pub fn new(framing: Framing, max: usize) -> Self {
        Self { framing, max, searched: 0 }
    }

    /// Allows messages of another size from the next on.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// How messages are told apart.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    fn decode_line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        loop {
            let unseen = buffer.get(self.searched..).unwrap_or_default();
            let Some(found) = unseen.iter().position(|&byte| byte == b'\n') else {
                self.searched = buffer.len();
                // A last `\r` may turn out to belong to the terminator.
                let ends_in_return = buffer.last() == Some(&b'\r');
                return self.check(buffer.len() - usize::from(ends_in_return)).map(|()| None);
            };
            let length = self.searched + found;
            self.searched = 0;
            let mut line = buffer.split_to(length);
            buffer.advance(1);
            if line.last() == Some(&b'\r') {
                line.truncate(length - 1);
            }
            self.check(line.len())?;
            if !is_blank(&line) {
                return Ok(Some(line.freeze()));
            }
        }
    }

    fn decode_length(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        let Some(prefix) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        // A length that doesn't fit is too large in any case.
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        self.check(length)?;
        if buffer.len() - 4 < length {
            return Ok(None);
        }
        buffer.advance(4);
        Ok(Some(buffer.split_to(length).freeze()))
    }

    fn check(&self, length: usize) -> Result<(), CodecError> {
        if length > self.max {
            return Err(CodecError::TooLarge { max: self.max });
        }
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = Bytes;
    type Error = CodecError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        match self.framing {
            Framing::Line => self.decode_line(buffer),
            Framing::Length => self.decode_length(buffer),
        }
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        if let Some(message) = self.decode(buffer)? {
            return Ok(Some(message));
        }
        let blank = self.framing == Framing::Line && is_blank(buffer);
        if !blank && !buffer.is_empty() {
            return Err(CodecError::Truncated { buffered: buffer.len() });
        }
        buffer.clear();
        self.searched = 0;
        Ok(None)
    }
}

/// Appends a message to what is to be sent. The caller has seen to it that it is within the limits.
pub fn encode(framing: Framing, payload: &[u8], out: &mut BytesMut) {
    match framing {
        Framing::Line => {
            out.reserve(payload.len() + 1);
            let start = out.len();
            out.extend_from_slice(payload);
            // A message that came in the other framing, and is passed on, may be spread over lines. In JSON a line
            // end can only be white space between tokens, so a blank means the same.
            if payload.contains(&b'\n') {
                for byte in &mut out[start..] {
                    if *byte == b'\n' {
                        *byte = b' ';
                    }
                }
            }
            out.put_u8(b'\n');
        }
        Framing::Length => {
            debug_assert!(payload.len() <= crate::limits::MAX_MESSAGE);
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            out.reserve(payload.len() + 4);
            out.put_u32(length);
            out.extend_from_slice(payload);
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}
