//! A bucket's first line: tags and lock.

use super::table::Flows;
use crate::sys::Word;
use loxi_ebpf_layout::flow::{self, BUCKET, Spot, Tags, lock, matching};
use std::mem::offset_of;
use std::time::Duration;

/// A place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) struct Place {
    /// Bucket.
    pub(in crate::state) bucket: u32,
    /// Place in it.
    pub(in crate::state) place: u32,
}

impl Place {
    /// Its number, as a record has it: bucket × 16 + place + 1, so that 0 is none.
    pub(in crate::state) fn number(self) -> u32 {
        self.bucket * 16 + self.place + 1
    }

    /// The place of a number in a table of `buckets` with `places` each.
    pub(super) fn of(number: u32, buckets: u32, places: u32) -> Option<Self> {
        let at = number.checked_sub(1)?;
        let place = Self { bucket: at >> 4, place: at & 15 };
        (place.bucket < buckets && place.place < places).then_some(place)
    }
}

/// Looks at a lock before this thread lets others run.
const SPINS: u32 = 256;
/// Times that it lets others run.
const YIELDS: u32 = 1024;
/// Naps after that: whoever holds it is a thread that was put aside.
const NAPS: u32 = 200;
const NAP: Duration = Duration::from_micros(100);

/// Waits a little longer each time; `false`: long enough.
pub(super) fn wait(attempt: u32) -> bool {
    if attempt < SPINS {
        std::hint::spin_loop();
    } else if attempt < SPINS + YIELDS {
        std::thread::yield_now();
    } else if attempt < SPINS + YIELDS + NAPS {
        std::thread::sleep(NAP);
    } else {
        return false;
    }
    true
}

/// Waits for what a program does in less than a microsecond, and for nobody else; `false`: long enough.
pub(super) fn wait_shortly(attempt: u32) -> bool {
    std::hint::spin_loop();
    attempt < SPINS
}

/// A bucket's lock; it comes free when this is dropped.
struct Lock<'m>(Word<'m>);

impl<'m> Lock<'m> {
    fn take(word: Word<'m>) -> Option<Self> {
        for attempt in 0.. {
            if word.replace(lock::FREE, lock::USER) {
                return Some(Self(word));
            }
            if !wait(attempt) {
                break;
            }
        }
        None
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.0.store(0);
    }
}

/// The locks of a key's buckets.
#[must_use]
pub(super) struct Locked<'m> {
    _low: Lock<'m>,
    _high: Option<Lock<'m>>,
}

/// Lanes of a word of tags that have one, a bit each. Exact, unlike [`matching`].
fn lanes(word: u64) -> u32 {
    const LOW: u64 = 0x7fff_7fff_7fff_7fff;
    const INTO_ROW: u64 = 1 << 48 | 1 << 33 | 1 << 18 | 1 << 3;
    let set = (((word & LOW) + LOW) | word) & !LOW;
    ((set >> 15).wrapping_mul(INTO_ROW) >> 48) as u32 & 15
}

/// The place for a key, by the free places of its first and its second bucket: one of its own, else
/// wherever there is more room.
pub(super) fn choose(spot: &Spot, free: u32, other: u32, places: u32) -> Option<Place> {
    let [first, second] = [free, other].map(|free| flow::Room { free, count: free.count_ones() });
    let (away, place) = match flow::own_place(spot, first, second, places) {
        Some(own) => own,
        None if free != 0 && first.count >= second.count => (false, free.trailing_zeros()),
        None if other != 0 => (true, other.trailing_zeros()),
        None => return None,
    };
    Some(Place { bucket: spot.bucket(away), place })
}

impl<'m> Flows<'m> {
    pub(in crate::state) fn tag_word(&self, bucket: u32, n: usize) -> Word<'m> {
        self.flows.word(bucket as usize * BUCKET + offset_of!(Tags, words) + 8 * n)
    }

    /// The lock word of a bucket.
    pub(in crate::state) fn lock_word(&self, bucket: u32) -> Word<'m> {
        self.flows.word(bucket as usize * BUCKET + offset_of!(Tags, lock))
    }

    /// Takes the locks of two buckets, which may be one, in order.
    pub(super) fn lock(&self, one: u32, other: u32) -> Option<Locked<'m>> {
        let (low, high) = (one.min(other), one.max(other));
        let low_lock = Lock::take(self.lock_word(low))?;
        let high_lock = if low == high { None } else { Some(Lock::take(self.lock_word(high))?) };
        Some(Locked { _low: low_lock, _high: high_lock })
    }

    fn tag_words(&self) -> usize {
        self.shape.places.div_ceil(4) as usize
    }

    /// Places of a bucket that may have this tag, and some that haven't.
    pub(super) fn candidates(&self, bucket: u32, tag: u16) -> impl Iterator<Item = Place> + use<'m> {
        let this = *self;
        let places = this.shape.places;
        (0..this.tag_words()).flat_map(move |n| {
            let mut bits = matching(this.tag_word(bucket, n).load(), tag);
            std::iter::from_fn(move || {
                let lane = if bits == 0 { return None } else { bits.trailing_zeros() / 16 };
                bits &= bits - 1;
                Some(Place { bucket, place: 4 * n as u32 + lane })
            })
            .filter(move |place| place.place < places)
        })
    }

    /// All places of a bucket, a bit each.
    pub(super) fn all_places(&self) -> u32 {
        (1 << self.shape.places) - 1
    }

    /// Places of a bucket that have a tag, a bit each.
    pub(in crate::state) fn tagged(&self, bucket: u32) -> u32 {
        let bits =
            (0..self.tag_words()).fold(0, |bits, n| bits | lanes(self.tag_word(bucket, n).load()) << (4 * n));
        bits & self.all_places()
    }

    /// Gives a place a tag; 0: it is free. The bucket is locked.
    pub(super) fn set_tag(&self, place: Place, tag: u16) {
        let word = self.tag_word(place.bucket, place.place as usize / 4);
        let shift = 16 * (place.place % 4);
        word.store(word.load() & !(0xffff << shift) | u64::from(tag) << shift);
    }

    /// Puts right what a killed process left of its work on a bucket whose lock it held: places
    /// with a tag and no key, and with a key and no tag, are freed. Whether there was anything to do.
    pub(in crate::state) fn repair(&self, bucket: u32) -> bool {
        if self.lock_word(bucket).load() != lock::USER {
            return false;
        }
        // The lock is taken over as it is.
        let lock = Lock(self.lock_word(bucket));
        let tagged = self.tagged(bucket);
        for place in (0..self.shape.places).map(|place| Place { bucket, place }) {
            let has_key = self.rest(place).load() != 0;
            let has_tag = tagged >> place.place & 1 != 0;
            if has_tag != has_key {
                self.rest(place).store(0);
                self.set_tag(place, 0);
            }
        }
        drop(lock);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_with_a_tag_are_told_exactly() {
        let tags = [0, 1, 2, 0x7fff, 0x8000, 0xffff];
        for (a, b) in tags.iter().flat_map(|a| tags.iter().map(move |b| (*a, *b))) {
            for (c, d) in tags.iter().flat_map(|c| tags.iter().map(move |d| (*c, *d))) {
                let word = u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
                let wanted = [a, b, c, d].map(|tag: u16| u32::from(tag != 0));
                let wanted = wanted.iter().rev().fold(0, |bits, bit| bits << 1 | bit);
                assert_eq!(lanes(word), wanted, "{word:#x}");
            }
        }
    }

    #[test]
    fn numbers_of_places_come_back_and_others_are_none() {
        for place in [Place { bucket: 0, place: 0 }, Place { bucket: 7, place: 14 }] {
            assert_eq!(Place::of(place.number(), 8, 15), Some(place));
        }
        assert_eq!(Place::of(0, 8, 15), None);
        assert_eq!(Place::of(Place { bucket: 0, place: 15 }.number(), 8, 15), None);
        assert_eq!(Place::of(Place { bucket: 8, place: 0 }.number(), 8, 15), None);
        assert_eq!(Place::of(Place { bucket: 0, place: 7 }.number(), 8, 7), None);
    }
}
