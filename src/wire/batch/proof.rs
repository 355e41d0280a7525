//! The text of a signature in a batch.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::tree::{Hash, LEVELS, sides};
use crate::limits::BATCH_MAX;

/// What such a text begins with. A plain signature may as well, but has 86 characters; these have 92 at least.
const MARK: char = 'm';

/// Without any path: the root's signature, the index, the count.
const HEAD: usize = 64 + 2 + 2;

/// The most bytes of it, before they are base64.
pub(super) const MAX: usize = HEAD + 32 * LEVELS;

/// The length of a plain signature.
const PLAIN: usize = 86;

/// A signature in a batch, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof<'a> {
    /// Over the root.
    pub(super) signature: &'a [u8; 64],
    /// Which leaf the message is.
    pub(super) index: u16,
    /// How many leaves there are.
    pub(super) count: u16,
    /// The hashes beside the way to the root, from the leaf up.
    pub(super) path: &'a [Hash],
}

/// Whether a text means to be one.
pub(super) fn is_proof(text: &str) -> bool {
    text.starts_with(MARK) && text.len() != PLAIN
}

impl<'a> Proof<'a> {
    /// Reads a text into `bytes`. `None` unless it is the one text for what it says: the path is as long as the place
    /// demands, and nothing follows.
    pub(super) fn read(text: &str, bytes: &'a mut [u8; MAX]) -> Option<Self> {
        let text = text.strip_prefix(MARK)?;
        // This engine takes neither padding nor bits that are left over.
        let length = URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), bytes).ok()?;
        let (signature, rest) = bytes.get(..length)?.split_first_chunk::<64>()?;
        let (index, rest) = rest.split_first_chunk::<2>()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let (path, []) = rest.as_chunks::<32>() else { return None };
        let (index, count) = (u16::from_be_bytes(*index), u16::from_be_bytes(*count));
        let is_place = (1..=BATCH_MAX).contains(&usize::from(count)) && index < count;
        let is_whole = is_place && path.len() == sides(index.into(), count.into()).count();
        is_whole.then_some(Self { signature, index, count, path })
    }
}

/// Writes the texts of a batch's messages, one after the other. Most of a text is that of the one before, so only what is
/// another is put into base64.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: [u8; MAX],
    /// How many of them the text before has; none at first.
    length: usize,
    text: [u8; TEXT],
}

/// The length of the longest text.
const TEXT: usize = 1 + characters(MAX);

/// The first bytes are the same in every text of a batch: those of the signature, in whole groups of base64.
const SAME: usize = 64 / 3 * 3;

/// How many characters of base64 so many bytes are.
const fn characters(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

impl Texts {
    pub(super) fn new(signature: &[u8; 64], count: u16) -> Self {
        let mut bytes = [0; MAX];
        bytes[..64].copy_from_slice(signature);
        bytes[66..HEAD].copy_from_slice(&count.to_be_bytes());
        Self { bytes, length: 0, text: [MARK as u8; TEXT] }
    }

    /// The text for that place and path.
    pub(super) fn write<'a>(&mut self, index: u16, path: impl Iterator<Item = &'a Hash>) -> &[u8] {
        self.bytes[64..66].copy_from_slice(&index.to_be_bytes());
        let (mut length, mut changed) = (HEAD, HEAD);
        for (place, hash) in self.bytes[HEAD..].as_chunks_mut::<32>().0.iter_mut().zip(path) {
            length += 32;
            if place != hash {
                *place = *hash;
                changed = length;
            }
        }
        let from = if self.length == 0 { 0 } else { SAME };
        // The last group is another if the length is.
        let to = if self.length == length { changed.next_multiple_of(3).min(length) } else { length };
        let written = URL_SAFE_NO_PAD.encode_slice(&self.bytes[from..to], &mut self.text[1 + characters(from)..]);
        debug_assert_eq!(written, Ok(characters(to) - characters(from)));
        self.length = length;
        &self.text[..1 + characters(length)]
    }
}
