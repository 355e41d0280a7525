//! However a stream is split, it gives the same messages and the same end, within the limit.

#![no_main]

use bytes::{Bytes, BytesMut};
use elo::wire::{Codec, Framing};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;

const MAX: usize = 64;

/// The messages of a stream that arrives in pieces of `step` bytes, and whether it ended well.
fn read(framing: Framing, stream: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let mut codec = Codec::new(framing, MAX);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
        // The terminator, a length, and what arrived with the last piece.
        assert!(buffer.len() <= MAX + 4 + step);
    }
    loop {
        match codec.decode_eof(&mut buffer) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, true),
            Err(_) => return (messages, false),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&step, stream)) = data.split_first() else {
        return;
    };
    for framing in [Framing::Line, Framing::Length] {
        let whole = read(framing, stream, stream.len().max(1));
        assert!(whole.0.iter().all(|message| message.len() <= MAX));
        assert_eq!(whole, read(framing, stream, 1));
        assert_eq!(whole, read(framing, stream, usize::from(step).max(1)));
    }
});
