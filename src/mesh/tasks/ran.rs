//! Which tasks of one caller began: a bit for each id of a block, a few bytes for any other id.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{BuildHasher, Hash, Hasher};

use crate::mesh::ids::{Block, place};
use crate::mesh::keyed::Keyed;
use crate::mesh::task_id::TaskId;

/// What a word weighs in [`Ran::weight`]: it takes twice as many bytes as an id by itself.
pub(super) const WORD: usize = 2;

/// The ids of one block that are remembered, and the second from which they may be forgotten. Of parts that need no
/// alignment, since there may be many.
#[derive(Debug)]
struct Word {
    bits: [u32; 2],
    until: u32,
}

/// An id that is in no block, by its hash. Two ids of the same hash harm nobody but the caller who chose them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Other([u32; 2]);

impl Other {
    fn of(id: &TaskId) -> Self {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        Self([hash as u32, (hash >> 32) as u32])
    }
}

/// The tasks of one caller that began, by their ids, each until its time.
#[derive(Debug, Default)]
pub(super) struct Ran {
    words: HashMap<Block, Word, Keyed>,
    others: HashMap<Other, u32>,
    /// How many ids the words have.
    in_words: usize,
}

impl Ran {
    /// Whether the task of this id began.
    pub fn contains(&self, id: &TaskId) -> bool {
        match place(id) {
            Some((block, bit)) => self.words.get(&block).is_some_and(|word| word.bits[half(bit)] & mask(bit) != 0),
            None => !self.others.is_empty() && self.others.contains_key(&Other::of(id)),
        }
    }

    /// What [`weight`](Self::weight) would gain with this id.
    pub fn costs(&self, id: &TaskId) -> usize {
        match place(id) {
            Some((block, _)) if self.words.contains_key(&block) => 0,
            Some(_) => WORD,
            None => usize::from(!self.contains(id)),
        }
    }

    /// A task begins. It is remembered up to that second at least.
    pub fn insert(&mut self, id: &TaskId, until: u32) {
        let Some((block, bit)) = place(id) else {
            let before = self.others.entry(Other::of(id)).or_default();
            *before = until.max(*before);
            return;
        };
        match self.words.entry(block) {
            Entry::Occupied(mut word) => {
                let word = word.get_mut();
                self.in_words += usize::from(word.bits[half(bit)] & mask(bit) == 0);
                word.bits[half(bit)] |= mask(bit);
                word.until = word.until.max(until);
            }
            Entry::Vacant(place) => {
                let mut bits = [0; 2];
                bits[half(bit)] = mask(bit);
                place.insert(Word { bits, until });
                self.in_words += 1;
            }
        }
    }

    /// Forgets what has had its time in this second.
    pub fn expire(&mut self, second: u64) {
        let in_words = &mut self.in_words;
        self.words.retain(|_, word| {
            let stays = u64::from(word.until) > second;
            if !stays {
                *in_words -= (word.bits[0].count_ones() + word.bits[1].count_ones()) as usize;
            }
            stays
        });
        self.others.retain(|_, until| u64::from(*until) > second);
        fit(&mut self.words);
        fit(&mut self.others);
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.in_words + self.others.len()
    }

    /// What they take up: 1 for what an id by itself takes, at most 34 bytes.
    pub fn weight(&self) -> usize {
        WORD * self.words.len() + self.others.len()
    }

    /// What they take up, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let words = crate::mesh::weight::hash(self.words.capacity(), size_of::<(Block, Word)>());
        words + crate::mesh::weight::hash(self.others.capacity(), size_of::<(Other, u32)>())
    }
}

fn half(bit: u32) -> usize {
    usize::from(bit >= 32)
}

fn mask(bit: u32) -> u32 {
    1 << (bit % 32)
}

/// Gives back what a table took that had many more entries.
fn fit<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::mesh::ids::TaskIds;

    #[test]
    fn a_minute_of_a_hundred_thousand_calls_a_second_takes_few_bytes() {
        let (mut rng, mut ids, mut ran) = (StdRng::from_seed([1; 32]), TaskIds::default(), Ran::default());
        // Every tenth of them: 600,000 ids, as a node makes them that calls at full speed.
        for n in 0..600_000u32 {
            let now = Duration::from_micros(u64::from(n) * 10);
            ran.insert(&ids.next(&mut rng, now), now.as_secs() as u32 + 61);
        }
        assert_eq!(ran.len(), 600_000);
        // A block ends with its second: a few words more than the bits fill.
        assert!(ran.weight() / WORD <= 600_000 / 64 + 7, "{}", ran.weight());
        assert!(ran.bytes() <= 600_000, "{} bytes", ran.bytes());
        ran.expire(1000);
        assert_eq!((ran.len(), ran.weight()), (0, 0));
        assert!(ran.bytes() < 4096, "{} bytes", ran.bytes());
    }

    #[test]
    fn what_a_unit_of_weight_takes_is_bounded_whatever_ids_a_caller_chooses() {
        // The worst moment of a hash table: just after it grew.
        for n in [1usize << 12, 1 << 14] {
            let most = n * 7 / 8 + 1;
            let (mut own, mut sparse) = (Ran::default(), Ran::default());
            for i in 0..most {
                own.insert(&i.to_string().as_str().into(), 9);
                sparse.insert(&format!("{i:08x}-0000-8000-8000-000000000000").as_str().into(), 9);
            }
            assert_eq!((own.weight(), sparse.weight(), sparse.len()), (most, WORD * most, most));
            for ran in [own, sparse] {
                assert!(ran.bytes() <= 34 * ran.weight(), "{} bytes for {}", ran.bytes(), ran.weight());
            }
        }
    }

    /// Ids near each other, at the edges of blocks, in other spellings, and such as other programs make.
    fn id() -> impl Strategy<Value = String> {
        let of_block = (0u8..3, 0u16..200).prop_map(|(run, n)| format!("{run:08x}-0000-8000-8000-00000000{n:04x}"));
        let at_the_top = (0u64..130).prop_map(|n| format!("ffffffff-ffff-8fff-bfff-{:012x}", 0xffff_ffff_ffff - n));
        let version = (4u8..9, 0u8..70).prop_map(|(v, n)| format!("00000000-0000-{v}000-8000-0000000000{n:02x}"));
        let loud = (10u8..80).prop_map(|n| format!("00000000-0000-8000-8000-00000000AA{n:02X}"));
        prop_oneof![4 => of_block, 1 => at_the_top, 1 => version, 1 => loud, 2 => "[0-9]{1,2}", 1 => "[ -~]{1,64}"]
    }

    proptest! {
        /// Beside a list of all ids, each with its own time: whatever that has, this has; and what this has began.
        #[test]
        fn nothing_is_forgotten_before_its_time_and_nothing_is_made_up(
            steps in prop::collection::vec((id(), 1u32..20, 0u64..3), 1..300),
            others in prop::collection::vec(id(), 0..50),
        ) {
            let (mut ran, mut second) = (Ran::default(), 0u64);
            let mut began: BTreeMap<TaskId, u64> = BTreeMap::new();
            let others: Vec<TaskId> = others.iter().map(TaskId::from).collect();
            for (id, lives, pause) in steps {
                let id = TaskId::from(&id);
                second += pause;
                ran.expire(second);
                let until = second + u64::from(lives);
                let (len, weight, costs) = (ran.len(), ran.weight(), ran.costs(&id));
                let is_new = !ran.contains(&id);
                ran.insert(&id, until as u32);
                prop_assert_eq!(ran.weight(), weight + costs);
                prop_assert_eq!(ran.len(), len + usize::from(is_new));
                let last = began.entry(id).or_default();
                *last = until.max(*last);
                for (id, until) in &began {
                    prop_assert!(*until <= second || ran.contains(id), "{} is forgotten", id);
                }
                for id in &others {
                    prop_assert!(!ran.contains(id) || began.contains_key(id), "{} never began", id);
                }
            }
            // Together with the last of its block everything goes.
            ran.expire(second + 20);
            prop_assert_eq!((ran.len(), ran.weight(), ran.in_words), (0, 0, 0));
        }
    }
}
