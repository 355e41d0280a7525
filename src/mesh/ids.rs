//! Ids: random ones, and those of tasks, of which many in a row take little memory where they are remembered.
//!
//! A task's id is a UUID of version 8 (RFC 9562): 116 random bits that up to [`BLOCK`] ids in a row share, and the number of
//! the id among these. The ids of one block are remembered as the bits of one word, which `tasks/memory.rs` does with
//! ids of version 8 whoever made them. Nothing else depends on how an id is made.

use std::time::Duration;

use rand::Rng;

use super::task_id::TaskId;

/// How many ids share what is random in them: as many as a word has bits.
pub const BLOCK: u32 = 64;

/// How long a block is used. Who gets two ids of one block can tell how many calls lie between them; so it is never more
/// than how many others there were within this second.
const BLOCK_FOR: Duration = Duration::from_secs(1);

/// The bits that say which version of UUID it is, and which variant.
const MARKS: u128 = 0xf << 76 | 0b11 << 62;
const VERSION_4: u128 = 0x4 << 76 | 0b10 << 62;
const VERSION_8: u128 = 0x8 << 76 | 0b10 << 62;

/// What makes the ids of this node's tasks.
#[derive(Debug, Default)]
pub struct TaskIds {
    /// The first id of the block.
    block: u128,
    /// How many ids of the block are not used yet.
    left: u32,
    /// Until when the block is used.
    until: Duration,
}

impl TaskIds {
    /// The next id.
    pub fn next(&mut self, rng: &mut impl Rng, now: Duration) -> TaskId {
        if self.left == 0 || now >= self.until {
            self.block = random_bits(rng) & !MARKS & !u128::from(BLOCK - 1) | VERSION_8;
            self.left = BLOCK;
            self.until = now.saturating_add(BLOCK_FOR);
        }
        let id = self.block | u128::from(BLOCK - self.left);
        self.left -= 1;
        TaskId::from_bits(id)
    }
}

/// 122 random bits as a UUID of version 4.
pub fn random(rng: &mut impl Rng) -> String {
    TaskId::from_bits(random_bits(rng) & !MARKS | VERSION_4).to_text()
}

/// What the ids of one block have in common: 16 bytes, of no alignment that would make a table of them larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block([u32; 4]);

/// The block of an id, and its place in it, if it is a UUID of version 8 in the one spelling that has no other.
pub fn place(id: &TaskId) -> Option<(Block, u32)> {
    let bits = id.bits().filter(|bits| bits & MARKS == VERSION_8)?;
    let block = bits / u128::from(BLOCK);
    let part = |n: u32| (block >> (32 * n)) as u32;
    Some((Block([part(0), part(1), part(2), part(3)]), (bits % u128::from(BLOCK)) as u32))
}

fn random_bits(rng: &mut impl Rng) -> u128 {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::wire::is_id;

    #[test]
    fn ids_are_uuids_and_no_two_are_alike() {
        let mut rng = StdRng::from_seed([3; 32]);
        let mut ids = TaskIds::default();
        let tasks: Vec<String> = (0..200).map(|_| ids.next(&mut rng, Duration::ZERO).to_text()).collect();
        let others: Vec<String> = (0..200).map(|_| random(&mut rng)).collect();
        for (id, version) in tasks.iter().map(|id| (id, '8')).chain(others.iter().map(|id| (id, '4'))) {
            assert!(is_id(id) && id.len() == 36, "{id}");
            let hyphens: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
            assert_eq!(hyphens, [8, 13, 18, 23], "{id}");
            assert_eq!(id.chars().nth(14), Some(version), "{id}");
            assert!(id.chars().nth(19).is_some_and(|c| "89ab".contains(c)), "{id}");
        }
        assert_eq!(tasks.iter().chain(&others).collect::<HashSet<_>>().len(), 400);
        assert!(others.iter().all(|id| place(&id.into()).is_none()));
    }

    #[test]
    fn those_made_in_a_row_share_blocks_for_a_second() {
        let mut rng = StdRng::from_seed([3; 32]);
        let mut ids = TaskIds::default();
        let mut blocks: HashMap<Block, Vec<u32>> = HashMap::new();
        for _ in 0..640 {
            let (block, bit) = place(&ids.next(&mut rng, Duration::from_millis(1999))).unwrap();
            blocks.entry(block).or_default().push(bit);
        }
        assert_eq!(blocks.len(), 10);
        assert!(blocks.values().all(|bits| *bits == (0..64).collect::<Vec<u32>>()));
        let mut block_at = |ms| place(&ids.next(&mut rng, Duration::from_millis(ms))).unwrap().0;
        let first = block_at(5000);
        assert_eq!(block_at(5999), first);
        // Nobody learns from two of them how many calls this node made in a longer time.
        assert_ne!(block_at(6000), first);
    }

    #[test]
    fn the_place_of_an_id_is_that_of_no_other() {
        let (block, bit) = place(&"01234567-89ab-8def-8123-456789abcdef".into()).unwrap();
        assert_eq!(bit, 0x2f);
        assert_eq!(place(&"01234567-89ab-8def-8123-456789abcdc0".into()), Some((block, 0)));
        assert_ne!(place(&"01234567-89ab-8def-8123-456789abcdbf".into()).unwrap().0, block);
        assert_ne!(place(&"11234567-89ab-8def-8123-456789abcdef".into()).unwrap().0, block);
        assert_ne!(place(&"01234567-89ab-8def-9123-456789abcdef".into()).unwrap().0, block);
        for other in [
            "01234567-89ab-4def-8123-456789abcdef",
            "01234567-89ab-8def-c123-456789abcdef",
            "01234567-89ab-8def-0123-456789abcdef",
            "01234567-89AB-8def-8123-456789abcdef",
            "0123456789ab8def8123456789abcdef",
            "{01234567-89ab-8def-8123-456789abcde}",
            "01234567-89ab-8def-8123-456789abcde",
            "01234567-89ab-8def-8123-456789abcdef0",
            "01234567-89ab-8def-8123-456789abcde-",
            "01234567-89ab-8def-8123_456789abcdef",
            "+1234567-89ab-8def-8123-456789abcdef",
            "1",
            "",
        ] {
            assert_eq!(place(&other.into()), None, "{other}");
        }
    }
}
