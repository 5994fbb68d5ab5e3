//! Finding, claiming and freeing places.

use super::bucket::{Place, choose, wait, wait_shortly};
use super::key::{Key, narrow, wide};
use super::shape::Shape;
use crate::sys::{Kernel, Memory, Word};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::family;
use loxi_ebpf_layout::flow::{
    self, BUCKET, BUSY, Cold, EntryV4, EntryV6, IPIP, PLACES_V4, PLACES_V6, Seen, Spot, rest,
};

/// A family's flow table.
#[derive(Clone, Copy)]
pub(in crate::state) struct Flows<'m> {
    pub(super) shape: &'static Shape,
    pub(super) flows: &'m Memory,
    pub(super) cold: &'m Memory,
    mask: u32,
    seed: u64,
    /// How long an entry that is being written is waited for.
    patience: fn(u32) -> bool,
}

/// Why a place could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum Refused {
    /// There is an entry of that key.
    Taken(Place),
    /// Both buckets are full.
    Full,
    /// Somebody holds them.
    Contended,
}

/// What a new entry is to be.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Seat {
    /// Its key.
    pub(in crate::state) key: Key,
    /// The tuple with which its packets leave.
    pub(in crate::state) new: Key,
    /// State.
    pub(in crate::state) state: u8,
    /// Flags.
    pub(in crate::state) flags: u8,
    /// Time and counters.
    pub(in crate::state) seen: Seen,
}

impl Seat {
    /// The second word of its key while it is being written.
    pub(in crate::state) fn claimed(&self) -> u64 {
        rest::with(self.key.rest, self.state, self.flags | BUSY)
    }
}

/// One direction's entry, copied at one time.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Half {
    /// The key's second word with state and flags.
    pub(in crate::state) word: u64,
    /// Its key.
    pub(in crate::state) key: Key,
    /// The tuple with which its packets leave.
    pub(in crate::state) new: Key,
    /// Time and counters.
    pub(in crate::state) seen: Seen,
}

/// Copies of an entry that changes under the reader, before it is given up.
const COPIES: u32 = 64;

impl<'m> Flows<'m> {
    /// The table of a family, hashed with a seed.
    pub(in crate::state) fn of(kernel: &'m dyn Kernel, family: u8, seed: u64) -> Self {
        let shape = Shape::of(family);
        let flows = kernel.memory(shape.flows);
        let mask = u32::try_from(flows.len() / BUCKET).unwrap_or(u32::MAX).saturating_sub(1);
        Self { shape, flows, cold: kernel.memory(shape.cold), mask, seed, patience: wait }
    }

    /// The same for whoever holds a lock: it waits for nothing that takes longer than a program.
    pub(in crate::state) fn hasty(self) -> Self {
        Self { patience: wait_shortly, ..self }
    }

    /// Its family.
    pub(in crate::state) fn family(&self) -> u8 {
        self.shape.family
    }

    /// How many buckets it has.
    pub(in crate::state) fn buckets(&self) -> u32 {
        self.mask + 1
    }

    /// The place of a number; `None`: there is no such place.
    pub(in crate::state) fn place(&self, number: u32) -> Option<Place> {
        Place::of(number, self.buckets(), self.shape.places)
    }

    /// Where a key may be.
    pub(in crate::state) fn spot(&self, key: &Key) -> Spot {
        if self.shape.family == family::V6 {
            let hash = flow::hash_v6(self.seed, wide(key.src), wide(key.dst), key.rest);
            return flow::spot(hash, self.mask, PLACES_V6);
        }
        let hash = flow::hash_v4(self.seed, [key.src.0[0], key.dst.0[0]], key.rest);
        flow::spot(hash, self.mask, PLACES_V4)
    }

    fn entry(&self, place: Place) -> usize {
        place.bucket as usize * BUCKET + self.shape.head + place.place as usize * self.shape.entry
    }

    /// The second word of a place's key.
    pub(in crate::state) fn rest(&self, place: Place) -> Word<'m> {
        self.flows.word(self.entry(place) + self.shape.rest)
    }

    /// A word of a place's time and counters: 0 epoch and tick, 1 packets, 2 bytes.
    pub(in crate::state) fn seen_word(&self, place: Place, n: usize) -> Word<'m> {
        self.flows.word(self.entry(place) + self.shape.seen + 8 * n)
    }

    /// Tick of the last packet at a place.
    pub(in crate::state) fn tick(&self, place: Place) -> u32 {
        let [_, _, _, _, tick @ ..] = self.seen_word(place, 0).load().to_ne_bytes();
        u32::from_ne_bytes(tick)
    }

    fn cold_at(&self, place: Place) -> usize {
        (place.bucket as usize * self.shape.colds + place.place as usize) * size_of::<Cold>()
    }

    /// The cold record beside a place.
    pub(in crate::state) fn cold(&self, place: Place) -> Cold {
        self.cold.read(self.cold_at(place))
    }

    /// Writes the cold record beside a place: that of an entry which is being written.
    pub(in crate::state) fn set_cold(&self, place: Place, cold: &Cold) {
        self.cold.write(self.cold_at(place), cold);
    }

    /// The word of a cold record at an offset in it.
    pub(in crate::state) fn cold_word(&self, place: Place, offset: usize) -> Word<'m> {
        self.cold.word(self.cold_at(place) + offset)
    }

    fn addr_words(&self, key: &Key) -> [u64; 4] {
        if self.shape.family == family::V6 {
            let ([a, b], [c, d]) = (wide(key.src), wide(key.dst));
            return [a, b, c, d];
        }
        [u64::from(key.src.0[0]) | u64::from(key.dst.0[0]) << 32, 0, 0, 0]
    }

    /// Whether the entry at a place has this key, whatever its state and flags.
    pub(in crate::state) fn is(&self, place: Place, key: &Key) -> bool {
        let at = self.entry(place);
        let words = self.addr_words(key);
        let same = |n: usize| self.flows.word(at + 8 * n).load() == words[n];
        (0..self.shape.addrs).all(same) && (self.rest(place).load() ^ key.rest) & rest::KEY == 0
    }

    fn search(&self, bucket: u32, key: &Key, tag: u16) -> Option<Place> {
        self.candidates(bucket, tag).find(|place| self.is(*place, key))
    }

    /// The place of a key. Its entry may be one that is being written.
    pub(in crate::state) fn find(&self, key: &Key) -> Option<Place> {
        let spot = self.spot(key);
        let mut own = spot.own().into_iter().map(|(away, place)| Place { bucket: spot.bucket(away), place });
        if let Some(place) = own.find(|place| self.is(*place, key)) {
            return Some(place);
        }
        self.search(spot.first, key, spot.tag).or_else(|| self.search(spot.second, key, spot.tag))
    }

    /// The second word of a place when nobody writes it; `None`: there is no entry, or that
    /// never comes.
    pub(in crate::state) fn settled(&self, place: Place) -> Option<u64> {
        for attempt in 0.. {
            let word = self.rest(place).load();
            if word == 0 {
                return None;
            }
            if rest::flags(word) & BUSY == 0 {
                return Some(word);
            }
            if !(self.patience)(attempt) {
                break;
            }
        }
        None
    }

    /// Claims a place for a key that no entry has, and leaves it busy.
    pub(in crate::state) fn claim(&self, seat: &Seat) -> Result<Place, Refused> {
        let spot = self.spot(&seat.key);
        let Some(_locked) = self.lock(spot.first, spot.second) else { return Err(Refused::Contended) };
        for bucket in [spot.first, spot.second] {
            if let Some(place) = self.search(bucket, &seat.key, spot.tag) {
                return Err(Refused::Taken(place));
            }
        }
        let [free, other] = [spot.first, spot.second].map(|n| self.all_places() & !self.tagged(n));
        let place = choose(&spot, free, other, self.shape.places).ok_or(Refused::Full)?;
        self.write(place, seat);
        self.rest(place).store(seat.claimed());
        self.set_tag(place, spot.tag);
        Ok(place)
    }

    /// Writes an entry but for the second word of its key, which is 0 meanwhile.
    fn write(&self, place: Place, seat: &Seat) {
        let Seat { key, new, seen, .. } = *seat;
        let (at, new_ports) = (self.entry(place), [rest::sport(new.rest), rest::dport(new.rest)]);
        if self.shape.family == family::V6 {
            let (src, dst, new_addrs) = (wide(key.src), wide(key.dst), [new.src, new.dst]);
            self.flows.write(at, &EntryV6 { src, dst, seen, new_addrs, new_ports, ..EntryV6::default() });
        } else {
            let (addrs, new_addrs) = ([key.src.0[0], key.dst.0[0]], [new.src.0[0], new.dst.0[0]]);
            self.flows.write(at, &EntryV4 { addrs, seen, new_addrs, new_ports, ..EntryV4::default() });
        }
    }

    /// Lets everybody see an entry that is held busy. A state that it was given meanwhile stays.
    /// Whether it was still there: programs take out an entry by its key, whoever holds it.
    pub(in crate::state) fn publish(&self, place: Place, key: &Key) -> bool {
        for attempt in 0.. {
            let word = self.rest(place).load();
            if rest::flags(word) & BUSY == 0 || !self.is(place, key) {
                break;
            }
            let state = (word >> rest::STATE) as u8;
            if self.rest(place).replace(word, rest::with(word, state, rest::flags(word) & !BUSY)) {
                return true;
            }
            if !wait(attempt) {
                break;
            }
        }
        false
    }

    /// Marks an entry as being written, if it has this key; [`Flows::publish`] ends that.
    pub(in crate::state) fn hold(&self, place: Place, key: &Key) -> bool {
        for attempt in 0.. {
            let Some(word) = self.settled(place) else { return false };
            if !self.is(place, key) {
                return false;
            }
            let busy = rest::revised(word, rest::state(word), rest::flags(word) | BUSY);
            if self.rest(place).replace(word, busy) {
                return true;
            }
            if !wait(attempt) {
                break;
            }
        }
        false
    }

    /// Frees a place, if its entry has this key and `still` says so under the lock: what its word
    /// and its cold record were.
    pub(in crate::state) fn take_out(
        &self,
        place: Place,
        key: &Key,
        still: impl FnOnce(&Self) -> bool,
    ) -> Option<(u64, Cold)> {
        let _locked = self.lock(place.bucket, place.bucket)?;
        let table = self.hasty();
        if !self.is(place, key) || !still(&table) {
            return None;
        }
        for attempt in 0.. {
            // Whoever writes a decision must not come back to a place that is another's by then.
            let word = table.settled(place)?;
            let cold = self.cold(place);
            if self.rest(place).replace(word, 0) {
                self.set_tag(place, 0);
                return Some((word, cold));
            }
            if !wait_shortly(attempt) {
                break;
            }
        }
        None
    }

    /// Frees a place whose word is still this one, whether it is busy or not.
    pub(in crate::state) fn clear(&self, place: Place, word: u64) -> bool {
        let Some(_locked) = self.lock(place.bucket, place.bucket) else { return false };
        let cleared = self.rest(place).replace(word, 0);
        if cleared {
            self.set_tag(place, 0);
        }
        cleared
    }

    /// Copies the entry at a place. `None`: there is none, or it doesn't hold still.
    pub(in crate::state) fn copy(&self, place: Place) -> Option<Half> {
        for _ in 0..COPIES {
            let word = self.settled(place)?;
            let half = self.read(place, word);
            if self.rest(place).load() == word {
                return Some(half);
            }
        }
        None
    }

    /// The entry at a place as it is now, whose second word was this one: whoever keeps
    /// it looks again.
    pub(in crate::state) fn read(&self, place: Place, word: u64) -> Half {
        let at = self.entry(place);
        let v4 = |addr| Addr([addr, 0, 0, 0]);
        let (src, dst, seen, new_src, new_dst, [sport, dport]) = if self.shape.family == family::V6 {
            let e: EntryV6 = self.flows.read(at);
            (narrow(e.src), narrow(e.dst), e.seen, e.new_addrs[0], e.new_addrs[1], e.new_ports)
        } else {
            let e: EntryV4 = self.flows.read(at);
            let [[src, dst], [new_src, new_dst]] = [e.addrs, e.new_addrs];
            (v4(src), v4(dst), e.seen, v4(new_src), v4(new_dst), e.new_ports)
        };
        let new_rest = rest::key(sport, dport, rest::protocol(word), rest::zone(word));
        let key = Key { src, dst, rest: word & rest::KEY };
        // In IP in IP the new addresses are the outer header's; the packet's own stay.
        let own = rest::flags(word) & IPIP != 0;
        let (new_src, new_dst) = if own { (src, dst) } else { (new_src, new_dst) };
        Half { word, key, new: Key { src: new_src, dst: new_dst, rest: new_rest }, seen }
    }

    /// The key of the entry at a place, as it is now.
    pub(in crate::state) fn key(&self, place: Place, word: u64) -> Key {
        let at = self.entry(place);
        let load = |n: usize| self.flows.word(at + 8 * n).load();
        let (src, dst) = if self.shape.family == family::V6 {
            (narrow([load(0), load(1)]), narrow([load(2), load(3)]))
        } else {
            let Addr([src, dst, ..]) = narrow([load(0), 0]);
            (Addr([src, 0, 0, 0]), Addr([dst, 0, 0, 0]))
        };
        Key { src, dst, rest: word & rest::KEY }
    }

    /// Whether the entry at a place and its other direction belong together, as their records say.
    pub(in crate::state) fn is_linked(&self, place: Place) -> bool {
        self.place(self.cold(place).partner)
            .is_some_and(|other| self.rest(other).load() != 0 && self.cold(other).partner == place.number())
    }

    /// Shows every place of some buckets that has an entry, with the second word of its key.
    pub(in crate::state) fn scan(&self, buckets: std::ops::Range<u32>, mut show: impl FnMut(Place, u64)) {
        for bucket in buckets.start..buckets.end.min(self.buckets()) {
            let mut tagged = self.tagged(bucket);
            while tagged != 0 {
                let place = Place { bucket, place: tagged.trailing_zeros() };
                tagged &= tagged - 1;
                let word = self.rest(place).load();
                if word != 0 {
                    show(place, word);
                }
            }
        }
    }
}

/// Room in a table as it would be without entries.
pub(in crate::state) struct Room<'m> {
    table: Flows<'m>,
    free: Vec<u32>,
}

impl<'m> Room<'m> {
    /// All of a table's.
    pub(in crate::state) fn new(table: Flows<'m>) -> Self {
        Self { free: vec![table.all_places(); table.buckets() as usize], table }
    }

    /// Takes the place that a key would get; whether there is one.
    pub(in crate::state) fn take(&mut self, key: &Key) -> bool {
        let spot = self.table.spot(key);
        let [free, other] = [spot.first, spot.second].map(|bucket| self.free[bucket as usize]);
        let place = choose(&spot, free, other, self.table.shape.places);
        if let Some(place) = place {
            self.free[place.bucket as usize] &= !(1 << place.place);
        }
        place.is_some()
    }
}
