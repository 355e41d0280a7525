//! Framing: where in a stream of bytes one message ends and the next begins. No I/O; the caller owns the buffer.
//!
//! Memory follows what a peer has *sent*, never what it declares it will send, and at most `max` bytes of a message
//! are ever waited for.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::memchr;
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
            let Some(found) = memchr(b'\n', unseen) else {
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
    encode_parts(framing, &[payload], out);
}

/// The same for a message in pieces.
pub(super) fn encode_parts(framing: Framing, parts: &[&[u8]], out: &mut BytesMut) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // For a line's end, or the length.
    out.reserve(length + 4);
    match framing {
        Framing::Line => {
            let start = out.len();
            parts.iter().for_each(|part| out.extend_from_slice(part));
            // A message that came in the other framing, and is passed on, may be spread over lines. In JSON a line
            // end can only be white space between tokens, so a blank means the same.
            if memchr(b'\n', &out[start..]).is_some() {
                for byte in &mut out[start..] {
                    if *byte == b'\n' {
                        *byte = b' ';
                    }
                }
            }
            out.put_u8(b'\n');
        }
        Framing::Length => {
            debug_assert!(length <= crate::limits::MAX_MESSAGE);
            out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
            parts.iter().for_each(|part| out.extend_from_slice(part));
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(codec: &mut Codec, input: &[u8]) -> Result<Vec<Bytes>, CodecError> {
        let mut buffer = BytesMut::from(input);
        let mut messages = Vec::new();
        while let Some(message) = codec.decode_eof(&mut buffer)? {
            messages.push(message);
        }
        assert!(buffer.is_empty());
        Ok(messages)
    }

    fn lines(max: usize, input: &[u8]) -> Result<Vec<Bytes>, CodecError> {
        all(&mut Codec::new(Framing::Line, max), input)
    }

    #[test]
    fn the_first_byte_tells_the_framing() {
        for byte in 0..=255 {
            let expected = match byte {
                b'{' | b' ' | b'\t' | b'\r' | b'\n' => Some(Framing::Line),
                0 => Some(Framing::Length),
                _ => None,
            };
            assert_eq!(Framing::detect(byte), expected);
        }
    }

    #[test]
    fn lines_end_in_either_way_and_blank_ones_are_skipped() {
        let found = lines(9, b"{\"a\":1}\n\r\n \t\n{}\r\n\n  ").unwrap();
        assert_eq!(found, [&b"{\"a\":1}"[..], b"{}"]);
    }

    #[test]
    fn the_limit_is_exact() {
        assert_eq!(lines(4, b"1234\n1234\r\n").unwrap().len(), 2);
        for long in [&b"12345\n"[..], b"12345", b"12345\r\n", b"     \n", b"1234\r5"] {
            let result = lines(4, long);
            assert!(matches!(result, Err(CodecError::TooLarge { max: 4 })), "{long:?}");
        }
        let frames = |input: &[u8]| all(&mut Codec::new(Framing::Length, 4), input);
        assert_eq!(frames(b"\0\0\0\x041234\0\0\0\0").unwrap(), [&b"1234"[..], b""]);
        for long in [&b"\0\0\0\x05"[..], b"\xff\xff\xff\xff", b"{\"a\""] {
            let result = frames(long);
            assert!(matches!(result, Err(CodecError::TooLarge { max: 4 })), "{long:?}");
        }
    }

    #[test]
    fn a_stream_cut_short_is_told() {
        for (framing, cut) in
            [(Framing::Line, &b"{}\n{"[..]), (Framing::Length, b"\0\0\0\x02{}\0"), (Framing::Length, b"\0\0\0\x02{")]
        {
            let result = all(&mut Codec::new(framing, 9), cut);
            assert!(matches!(result, Err(CodecError::Truncated { .. })), "{cut:?}");
        }
    }

    #[test]
    fn the_limit_can_grow_between_messages() {
        let mut codec = Codec::new(Framing::Line, 2);
        let mut buffer = BytesMut::from(&b"{}\n{\"a\":1}\n"[..]);
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap(), "{}");
        codec.set_max(7);
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap(), "{\"a\":1}");
    }

    #[test]
    fn nothing_is_allocated_for_what_is_only_declared() {
        let mut codec = Codec::new(Framing::Length, usize::MAX);
        let mut buffer = BytesMut::from(&b"\xff\xff\xff\xff{"[..]);
        assert!(codec.decode(&mut buffer).unwrap().is_none());
        assert!(buffer.capacity() < 1024);
    }

    #[test]
    fn a_message_of_several_lines_is_sent_as_one() {
        let mut out = BytesMut::from(&b"before\n"[..]);
        encode(Framing::Line, b"{\r\n\"a\":1\n}", &mut out);
        assert_eq!(out, "before\n{\r \"a\":1 }\n");
        out.clear();
        encode(Framing::Length, b"{\n}", &mut out);
        assert_eq!(out, "\0\0\0\x03{\n}");
    }
}
