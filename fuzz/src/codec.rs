//! Where a message ends: the same whatever the pieces a stream comes in, and in bounded memory.

use bytes::{Bytes, BytesMut};
use elo::wire::codec::encode;
use elo::wire::{Codec, CodecError, Framing};
use tokio_util::codec::Decoder;

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Good,
    TooLarge,
    Truncated,
}

/// The messages of a stream that comes in pieces, and how it ended.
fn read<'a>(framing: Framing, max: usize, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, End) {
    let mut codec = Codec::new(framing, max);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    let end = |error: CodecError| match error {
        CodecError::TooLarge { max: said } => {
            assert_eq!(said, max);
            End::TooLarge
        }
        CodecError::Truncated { buffered } => {
            assert!(buffered > 0);
            End::Truncated
        }
        CodecError::Io(error) => panic!("the codec does no I/O: {error}"),
    };
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, end(error)),
            }
        }
        // Between two pieces no more waits than a message of the largest size, and its terminator or length.
        assert!(buffer.len() <= max + 4, "{} bytes wait", buffer.len());
    }
    loop {
        match codec.decode_eof(&mut buffer) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => {
                assert!(buffer.is_empty());
                return (messages, End::Good);
            }
            Err(error) => return (messages, end(error)),
        }
    }
}

/// What the rules say, without a buffer or a state: for lines.
fn by_the_rules_lines(max: usize, stream: &[u8]) -> (Vec<Bytes>, End) {
    let blank = |line: &[u8]| line.iter().all(|b| b" \t\r\n".contains(b));
    let mut messages = Vec::new();
    let mut rest = stream;
    while let Some(at) = rest.iter().position(|b| *b == b'\n') {
        let line = rest[..at].strip_suffix(b"\r").unwrap_or(&rest[..at]);
        if line.len() > max {
            return (messages, End::TooLarge);
        }
        if !blank(line) {
            messages.push(Bytes::copy_from_slice(line));
        }
        rest = &rest[at + 1..];
    }
    let pending = rest.strip_suffix(b"\r").unwrap_or(rest);
    let end = if pending.len() > max {
        End::TooLarge
    } else if blank(rest) {
        End::Good
    } else {
        End::Truncated
    };
    (messages, end)
}

/// The same for frames.
fn by_the_rules_frames(max: usize, stream: &[u8]) -> (Vec<Bytes>, End) {
    let mut messages = Vec::new();
    let mut rest = stream;
    while let [a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if length > max {
            return (messages, End::TooLarge);
        }
        let Some(message) = after.get(..length) else { return (messages, End::Truncated) };
        messages.push(Bytes::copy_from_slice(message));
        rest = &after[length..];
    }
    (messages, if rest.is_empty() { End::Good } else { End::Truncated })
}

/// The first byte is the largest message; the second and the third say where the stream is cut.
pub(super) fn stream(framing: Framing, data: &[u8]) {
    let [max, step, salt, stream @ ..] = data else { return };
    let max = usize::from(*max);
    let expected = match framing {
        Framing::Line => by_the_rules_lines(max, stream),
        Framing::Length => by_the_rules_frames(max, stream),
    };
    assert_eq!(read(framing, max, std::iter::once(stream)), expected, "in one piece");
    assert_eq!(read(framing, max, stream.chunks(1)), expected, "byte by byte");
    assert_eq!(read(framing, max, stream.chunks(usize::from(*step).max(1))), expected, "in pieces of {step}");
    assert_eq!(read(framing, max, Uneven { rest: stream, next: *step, salt: *salt }), expected, "in uneven pieces");

    // What was read is sent on and read again.
    let mut sent = BytesMut::new();
    for message in &expected.0 {
        encode(framing, message, &mut sent);
    }
    let (mut again, end) = read(framing, max, std::iter::once(&sent[..]));
    assert_eq!(end, End::Good);
    let mut before = expected.0;
    if framing == Framing::Line {
        // White space at the end of a line says nothing, and the return there belongs to the next terminator.
        for message in before.iter_mut().chain(&mut again) {
            message.truncate(message.trim_ascii_end().len());
        }
    }
    assert_eq!(again, before, "read again");
}

/// Pieces of 0 to 255 bytes, one as long as the next is not.
struct Uneven<'a> {
    rest: &'a [u8],
    next: u8,
    salt: u8,
}

impl<'a> Iterator for Uneven<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.next = self.next.wrapping_mul(109).wrapping_add(self.salt | 1);
        let (piece, rest) = self.rest.split_at(usize::from(self.next >> 3).min(self.rest.len()));
        self.rest = rest;
        Some(piece)
    }
}
