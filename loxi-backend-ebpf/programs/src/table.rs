//! The flow table: finding, claiming and changing entries. Layout and protocol
//! are described in [`loxi_ebpf_layout::flow`].

use crate::atomic;
use crate::maps::{COLD_V4, COLD_V6, FLOWS_V4, FLOWS_V6};
use core::sync::atomic::{Ordering, compiler_fence};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::{
    self, BUSY, IPIP, BucketV4, BucketV6, Cold, EntryV4, EntryV6, HEAD_V4, HEAD_V6, Out, PLACES_V4, PLACES_V6,
    Seen, Spot, Tags, rest,
};

/// Size and seed of the tables, set by the loader. The values here are nobody else's: of equal
/// constants the compiler keeps one only, and what the loader sets would be all of them.
#[unsafe(no_mangle)]
static MASK_V4: u32 = 0x6c6f_7834;
#[unsafe(no_mangle)]
static MASK_V6: u32 = 0x6c6f_7836;
#[unsafe(no_mangle)]
static SEED: u64 = 0x6c6f_7873_6565_6421;

/// A number of which the compiler is to know nothing: what it knows it does not check, and what is
/// not checked the verifier does not know.
#[inline(always)]
fn unknown(number: u32) -> u32 {
    let mut number = number as u64;
    // SAFETY: adds nothing.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) number, options(pure, nomem, nostack)) };
    number as u32
}

/// A number that the loader sets before the program is loaded.
#[inline(always)]
fn set_by_loader<T: Copy>(at: &T) -> T {
    // SAFETY: a static of this program; volatile, since the compiler knows its initial value only.
    unsafe { core::ptr::read_volatile(at) }
}

/// Attempts to take a bucket's lock.
const ATTEMPTS: u32 = 64;

/// A key: both addresses, and the second word.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Ports, protocol, zone.
    pub rest: u64,
}

impl Key {
    /// The key of packets in the other direction.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        let r = self.rest;
        let turned = rest::key(rest::dport(r), rest::sport(r), rest::protocol(r), rest::zone(r));
        Self { src: self.dst, dst: self.src, rest: turned }
    }

    /// Whether both directions have this key.
    #[inline(always)]
    pub fn is_own_reverse(self) -> bool {
        self.src == self.dst && rest::sport(self.rest) == rest::dport(self.rest)
    }
}

/// Why an entry could not be claimed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is one of that key.
    Taken(u32),
    /// Both buckets are full.
    Full,
    /// Another processor holds them.
    Contended,
}

/// What differs between the families.
pub trait Family {
    /// An entry.
    type Entry;
    /// Entries of a bucket.
    const PLACES: u32;
    /// Bytes before the first.
    const HEAD: usize;

    /// Where a key may be.
    fn spot(key: &Key) -> Spot;
    /// A bucket's bytes.
    fn bucket(index: u32) -> Option<*mut u8>;
    /// The cold record beside a place.
    fn cold(bucket: u32, place: u32) -> Option<*mut Cold>;
    /// Whether the entry has this key, whatever its state and flags.
    fn is(entry: *const Self::Entry, key: &Key) -> bool;
    /// Writes addresses of a key and everything that a new entry has, but the second word.
    fn write(entry: *mut Self::Entry, key: &Key, new: &Key, seen: &Seen, out: &Out);
    /// The second word.
    fn rest(entry: *mut Self::Entry) -> *mut u64;
    /// Generations and counters.
    fn seen(entry: *mut Self::Entry) -> *mut Seen;
    /// Where packets go.
    fn out(entry: *mut Self::Entry) -> *mut Out;
    /// The key as it is.
    fn key(entry: *const Self::Entry) -> Key;
    /// The tuple with which its packets leave.
    fn new_key(entry: *const Self::Entry) -> Key;
    /// The entry's pair of new addresses: of packets that leave in IP in IP, the outer header's.
    fn pair(entry: *const Self::Entry) -> [Addr; 2];
    /// Changes that pair.
    fn set_pair(entry: *mut Self::Entry, pair: [Addr; 2]);

    /// [`find`] apart.
    fn find_apart() -> u32;
    /// [`claim`] apart.
    fn claim_apart() -> u64;
    /// [`remove`] apart.
    fn remove_apart(number: u32) -> u32;
    /// Whether a flow lives, apart.
    fn alive_apart(number: u32) -> u32;
    /// Whether a key is taken, apart.
    fn taken_apart() -> u32;
    /// The end of a flow, apart.
    fn forget_apart(number: u32) -> u32;
    /// A free port, apart.
    fn free_port_apart(start: u32, first: u32, count: u32) -> u32;
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

impl Family for V4 {
    type Entry = EntryV4;
    const PLACES: u32 = PLACES_V4;
    const HEAD: usize = HEAD_V4;

    #[inline(always)]
    fn find_apart() -> u32 {
        find_v4()
    }

    #[inline(always)]
    fn claim_apart() -> u64 {
        claim_v4()
    }

    #[inline(always)]
    fn remove_apart(number: u32) -> u32 {
        remove_v4(number)
    }

    #[inline(always)]
    fn alive_apart(number: u32) -> u32 {
        alive_v4(number)
    }

    #[inline(always)]
    fn taken_apart() -> u32 {
        taken_v4()
    }

    #[inline(always)]
    fn forget_apart(number: u32) -> u32 {
        forget_v4(number)
    }

    #[inline(always)]
    fn free_port_apart(start: u32, first: u32, count: u32) -> u32 {
        free_port_v4(start, first, count)
    }

    #[inline(always)]
    fn spot(key: &Key) -> Spot {
        let hash = flow::hash_v4(set_by_loader(&SEED), [key.src.0[0], key.dst.0[0]], key.rest);
        flow::spot(hash, set_by_loader(&MASK_V4), PLACES_V4)
    }

    #[inline(always)]
    fn bucket(index: u32) -> Option<*mut u8> {
        FLOWS_V4.ptr(&index).map(<*mut BucketV4>::cast)
    }

    #[inline(always)]
    fn cold(bucket: u32, place: u32) -> Option<*mut Cold> {
        let records = COLD_V4.ptr(&bucket)?;
        // SAFETY: the place is masked to the array's length.
        Some(unsafe { records.cast::<Cold>().add((place & 15) as usize) })
    }

    #[inline(always)]
    fn is(entry: *const EntryV4, key: &Key) -> bool {
        // SAFETY: the entry lies within a bucket; single words are read, each at once.
        unsafe {
            let addrs = (&raw const (*entry).addrs).cast::<u64>().read_volatile();
            let word = (&raw const (*entry).rest).read_volatile();
            addrs == (key.src.0[0] as u64 | (key.dst.0[0] as u64) << 32)
                && (word ^ key.rest) & rest::KEY == 0
        }
    }

    #[inline(always)]
    fn write(entry: *mut EntryV4, key: &Key, new: &Key, seen: &Seen, out: &Out) {
        // SAFETY: the entry is claimed by this program.
        unsafe {
            (*entry).addrs = [key.src.0[0], key.dst.0[0]];
            (*entry).seen = *seen;
            (*entry).new_addrs = [new.src.0[0], new.dst.0[0]];
            (*entry).new_ports = [rest::sport(new.rest), rest::dport(new.rest)];
            (*entry).out = *out;
        }
    }

    #[inline(always)]
    fn rest(entry: *mut EntryV4) -> *mut u64 {
        // SAFETY: an address within the entry, here and below.
        unsafe { &raw mut (*entry).rest }
    }

    #[inline(always)]
    fn seen(entry: *mut EntryV4) -> *mut Seen {
        unsafe { &raw mut (*entry).seen }
    }

    #[inline(always)]
    fn out(entry: *mut EntryV4) -> *mut Out {
        unsafe { &raw mut (*entry).out }
    }

    #[inline(always)]
    fn key(entry: *const EntryV4) -> Key {
        unsafe {
            let [src, dst] = (*entry).addrs;
            Key { src: Addr([src, 0, 0, 0]), dst: Addr([dst, 0, 0, 0]), rest: (*entry).rest & rest::KEY }
        }
    }

    #[inline(always)]
    fn new_key(entry: *const EntryV4) -> Key {
        unsafe {
            let word = (*entry).rest;
            let [src, dst] =
                if rest::flags(word) & IPIP == 0 { (*entry).new_addrs } else { (*entry).addrs };
            let [sport, dport] = (*entry).new_ports;
            Key {
                src: Addr([src, 0, 0, 0]),
                dst: Addr([dst, 0, 0, 0]),
                rest: rest::key(sport, dport, rest::protocol(word), rest::zone(word)),
            }
        }
    }

    #[inline(always)]
    fn pair(entry: *const EntryV4) -> [Addr; 2] {
        unsafe { (*entry).new_addrs.map(|addr| Addr([addr, 0, 0, 0])) }
    }

    #[inline(always)]
    fn set_pair(entry: *mut EntryV4, pair: [Addr; 2]) {
        unsafe { (*entry).new_addrs = [pair[0].0[0], pair[1].0[0]] };
    }
}

#[inline(always)]
fn wide(addr: Addr) -> [u64; 2] {
    let [a, b, c, d] = addr.0;
    [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
}

#[inline(always)]
fn narrow(words: [u64; 2]) -> Addr {
    Addr([words[0] as u32, (words[0] >> 32) as u32, words[1] as u32, (words[1] >> 32) as u32])
}

impl Family for V6 {
    type Entry = EntryV6;
    const PLACES: u32 = PLACES_V6;
    const HEAD: usize = HEAD_V6;

    #[inline(always)]
    fn find_apart() -> u32 {
        find_v6()
    }

    #[inline(always)]
    fn claim_apart() -> u64 {
        claim_v6()
    }

    #[inline(always)]
    fn remove_apart(number: u32) -> u32 {
        remove_v6(number)
    }

    #[inline(always)]
    fn alive_apart(number: u32) -> u32 {
        alive_v6(number)
    }

    #[inline(always)]
    fn taken_apart() -> u32 {
        taken_v6()
    }

    #[inline(always)]
    fn forget_apart(number: u32) -> u32 {
        forget_v6(number)
    }

    #[inline(always)]
    fn free_port_apart(start: u32, first: u32, count: u32) -> u32 {
        free_port_v6(start, first, count)
    }

    #[inline(always)]
    fn spot(key: &Key) -> Spot {
        let hash = flow::hash_v6(set_by_loader(&SEED), wide(key.src), wide(key.dst), key.rest);
        flow::spot(hash, set_by_loader(&MASK_V6), PLACES_V6)
    }

    #[inline(always)]
    fn bucket(index: u32) -> Option<*mut u8> {
        FLOWS_V6.ptr(&index).map(<*mut BucketV6>::cast)
    }

    #[inline(always)]
    fn cold(bucket: u32, place: u32) -> Option<*mut Cold> {
        let records = COLD_V6.ptr(&bucket)?;
        // SAFETY: the place is masked to the array's length.
        Some(unsafe { records.cast::<Cold>().add((place & 7) as usize) })
    }

    #[inline(always)]
    fn is(entry: *const EntryV6, key: &Key) -> bool {
        let (src, dst) = (wide(key.src), wide(key.dst));
        // SAFETY: the entry lies within a bucket; single words are read, each at once.
        unsafe {
            let at = entry.cast::<u64>();
            let word = at.add(4).read_volatile();
            let differs = at.read_volatile() ^ src[0]
                | at.add(1).read_volatile() ^ src[1]
                | at.add(2).read_volatile() ^ dst[0]
                | at.add(3).read_volatile() ^ dst[1]
                | (word ^ key.rest) & rest::KEY;
            differs == 0
        }
    }

    #[inline(always)]
    fn write(entry: *mut EntryV6, key: &Key, new: &Key, seen: &Seen, out: &Out) {
        // SAFETY: the entry is claimed by this program.
        unsafe {
            (*entry).src = wide(key.src);
            (*entry).dst = wide(key.dst);
            (*entry).seen = *seen;
            (*entry).new_addrs = [new.src, new.dst];
            (*entry).new_ports = [rest::sport(new.rest), rest::dport(new.rest)];
            (*entry).out = *out;
        }
    }

    #[inline(always)]
    fn rest(entry: *mut EntryV6) -> *mut u64 {
        // SAFETY: an address within the entry, here and below.
        unsafe { &raw mut (*entry).rest }
    }

    #[inline(always)]
    fn seen(entry: *mut EntryV6) -> *mut Seen {
        unsafe { &raw mut (*entry).seen }
    }

    #[inline(always)]
    fn out(entry: *mut EntryV6) -> *mut Out {
        unsafe { &raw mut (*entry).out }
    }

    #[inline(always)]
    fn key(entry: *const EntryV6) -> Key {
        unsafe {
            Key { src: narrow((*entry).src), dst: narrow((*entry).dst), rest: (*entry).rest & rest::KEY }
        }
    }

    #[inline(always)]
    fn new_key(entry: *const EntryV6) -> Key {
        unsafe {
            let word = (*entry).rest;
            let [src, dst] = if rest::flags(word) & IPIP == 0 {
                (*entry).new_addrs
            } else {
                [narrow((*entry).src), narrow((*entry).dst)]
            };
            let [sport, dport] = (*entry).new_ports;
            Key { src, dst, rest: rest::key(sport, dport, rest::protocol(word), rest::zone(word)) }
        }
    }

    #[inline(always)]
    fn pair(entry: *const EntryV6) -> [Addr; 2] {
        unsafe { (*entry).new_addrs }
    }

    #[inline(always)]
    fn set_pair(entry: *mut EntryV6, pair: [Addr; 2]) {
        unsafe { (*entry).new_addrs = pair };
    }
}

/// A place: bucket × 16 + place. Never 0: place 15 of IPv4 and 7 of IPv6 don't exist, so 1 is added.
#[inline(always)]
pub fn number(bucket: u32, place: u32) -> u32 {
    bucket * 16 + place + 1
}

/// The entry at a place of a bucket.
#[inline(always)]
fn entry<F: Family>(bucket: *mut u8, place: u32) -> *mut F::Entry {
    // SAFETY: the place is below the number of places, which the bucket has room for.
    unsafe { bucket.add(F::HEAD + place as usize * size_of::<F::Entry>()).cast() }
}

/// The entry of a place's number.
#[inline(always)]
pub fn at<F: Family>(number: u32) -> Option<*mut F::Entry> {
    let place = number.wrapping_sub(1) & 15;
    if number == 0 || place >= F::PLACES {
        return None;
    }
    Some(entry::<F>(F::bucket((number - 1) >> 4)?, place))
}

/// The cold record of a place's number.
#[inline(always)]
pub fn cold_at<F: Family>(number: u32) -> Option<*mut Cold> {
    if number == 0 { None } else { F::cold((number - 1) >> 4, (number - 1) & 15) }
}

/// Four bits, one per lane in which bit 15 is set.
#[inline(always)]
fn gather(lanes: u64) -> u32 {
    const INTO_ROW: u64 = 1 << 48 | 1 << 33 | 1 << 18 | 1 << 3;
    ((lanes >> 15).wrapping_mul(INTO_ROW) >> 48) as u32 & 15
}

/// A bit per place whose tag is this one.
#[inline(always)]
fn candidates<F: Family>(bucket: *const u8, tag: u16) -> u32 {
    let tags = bucket.cast::<Tags>();
    // SAFETY: a bucket begins with its tags.
    let word = |n: usize| unsafe { (&raw const (*tags).words[n]).read_volatile() };
    let low = gather(flow::matching(word(0), tag)) | gather(flow::matching(word(1), tag)) << 4;
    let all = if F::PLACES > 8 {
        low | gather(flow::matching(word(2), tag)) << 8 | gather(flow::matching(word(3), tag)) << 12
    } else {
        low
    };
    all & ((1 << F::PLACES) - 1)
}

/// Number of the lowest bit of 16; the bits are not all 0.
#[inline(always)]
fn lowest(bits: u32) -> u32 {
    let b = bits & bits.wrapping_neg();
    let mut n = 0;
    if b & 0xff00 != 0 {
        n += 8;
    }
    if b & 0xf0f0 != 0 {
        n += 4;
    }
    if b & 0xcccc != 0 {
        n += 2;
    }
    if b & 0xaaaa != 0 {
        n += 1;
    }
    n
}

#[inline(always)]
fn search<F: Family>(bucket: *mut u8, key: &Key, tag: u16) -> Option<u32> {
    let mut bits = candidates::<F>(bucket, tag);
    for _ in 0..F::PLACES {
        if bits == 0 {
            return None;
        }
        let place = lowest(bits);
        bits &= bits - 1;
        if place < F::PLACES && F::is(entry::<F>(bucket, place), key) {
            return Some(place);
        }
    }
    None
}

/// A found entry.
pub struct Found<F: Family> {
    /// It.
    pub entry: *mut F::Entry,
    /// Its place's number.
    pub number: u32,
}

/// The entry of a key if it is at its home place. A freed place keeps its addresses, but its
/// second word is 0, which is no key's.
#[inline(always)]
pub fn find_home<F: Family>(key: &Key) -> Option<*mut F::Entry> {
    let spot = F::spot(key);
    let home = unknown(spot.home);
    if home >= F::PLACES {
        return None;
    }
    let home = entry::<F>(F::bucket(spot.first)?, home);
    if F::is(home, key) { Some(home) } else { None }
}

/// Finds an entry. The home place is looked at before any tag.
#[inline(always)]
fn find<F: Family>(key: &Key) -> Option<Found<F>> {
    let spot = F::spot(key);
    let first = F::bucket(spot.first)?;
    if spot.home < F::PLACES {
        let home = entry::<F>(first, spot.home);
        if F::is(home, key) {
            return Some(Found { entry: home, number: number(spot.first, spot.home) });
        }
    }
    if let Some(place) = search::<F>(first, key, spot.tag) {
        return Some(Found { entry: entry::<F>(first, place), number: number(spot.first, place) });
    }
    let second = F::bucket(spot.second)?;
    let place = search::<F>(second, key, spot.tag)?;
    Some(Found { entry: entry::<F>(second, place), number: number(spot.second, place) })
}

#[inline(always)]
fn lock_of(bucket: *mut u8) -> *mut u64 {
    // SAFETY: a bucket begins with its tags.
    unsafe { &raw mut (*bucket.cast::<Tags>()).lock }
}

#[inline(always)]
fn lock(bucket: *mut u8) -> bool {
    for _ in 0..ATTEMPTS {
        if atomic::replace(lock_of(bucket), flow::lock::FREE, flow::lock::PROGRAM) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn unlock(bucket: *mut u8) {
    atomic::swap(lock_of(bucket), flow::lock::FREE);
}

/// The lane of a place, in its word of tags.
#[inline(always)]
fn set_tag(bucket: *mut u8, place: u32, tag: u16) {
    // SAFETY: the place is below 16, so the lane is within the four words; the bucket is locked.
    unsafe { bucket.cast::<u16>().add((place & 15) as usize).write_volatile(tag) };
}

/// Claims a place for a key that no entry has. The entry is left [`BUSY`]: the
/// caller publishes it.
#[inline(always)]
pub fn claim<F: Family>(
    key: &Key,
    new: &Key,
    state_and_flags: u64,
    seen: &Seen,
    out: &Out,
) -> Result<Found<F>, Refused> {
    let spot = F::spot(key);
    let (Some(first), Some(second)) = (F::bucket(spot.first), F::bucket(spot.second)) else {
        return Err(Refused::Full);
    };
    // In order, so that two processors can't wait for each other.
    let ordered = spot.first <= spot.second;
    let (low, high) = if ordered { (first, second) } else { (second, first) };
    if !lock(low) {
        return Err(Refused::Contended);
    }
    if spot.first != spot.second && !lock(high) {
        unlock(low);
        return Err(Refused::Contended);
    }
    let result = claim_locked::<F>(key, new, state_and_flags, seen, out, &spot, first, second);
    if spot.first != spot.second {
        unlock(high);
    }
    unlock(low);
    result
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // inlined into its one caller
fn claim_locked<F: Family>(
    key: &Key,
    new: &Key,
    state_and_flags: u64,
    seen: &Seen,
    out: &Out,
    spot: &Spot,
    first: *mut u8,
    second: *mut u8,
) -> Result<Found<F>, Refused> {
    if let Some(place) = search::<F>(first, key, spot.tag) {
        return Err(Refused::Taken(number(spot.first, place)));
    }
    if let Some(place) = search::<F>(second, key, spot.tag) {
        return Err(Refused::Taken(number(spot.second, place)));
    }
    let (free, other) = (candidates::<F>(first, 0), candidates::<F>(second, 0));
    // The home place where it is free; else wherever there is more room.
    let (bucket, index, place) = if free >> spot.home & 1 != 0 {
        (first, spot.first, spot.home)
    } else if free != 0 && (other == 0 || bits(free) >= bits(other)) {
        (first, spot.first, lowest(free))
    } else if other != 0 {
        (second, spot.second, lowest(other))
    } else {
        return Err(Refused::Full);
    };
    if place >= F::PLACES {
        return Err(Refused::Full);
    }
    let found = entry::<F>(bucket, place);
    F::write(found, key, new, seen, out);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the entry is this program's until it is published.
    unsafe {
        F::rest(found).write_volatile(key.rest & rest::KEY | state_and_flags | (BUSY as u64) << rest::FLAGS);
    }
    set_tag(bucket, place, spot.tag);
    Ok(Found { entry: found, number: number(index, place) })
}

/// Bits that are set among 16.
#[inline(always)]
fn bits(x: u32) -> u32 {
    let x = x - (x >> 1 & 0x5555);
    let x = (x & 0x3333) + (x >> 2 & 0x3333);
    let x = (x + (x >> 4)) & 0x0f0f;
    (x + (x >> 8)) & 0x1f
}

/// Lets everybody see a claimed entry.
#[inline(always)]
pub fn publish<F: Family>(entry: *mut F::Entry) {
    let word = F::rest(entry);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the entry is this program's while it is busy.
    unsafe { word.write_volatile(*word & !((BUSY as u64) << rest::FLAGS)) };
}

/// Takes an entry of this key out, if it is still there; whether this call did it.
#[inline(always)]
pub fn remove<F: Family>(place: u32, key: &Key) -> bool {
    let at = place.wrapping_sub(1) & 15;
    if place == 0 || at >= F::PLACES {
        return false;
    }
    let Some(bucket) = F::bucket((place - 1) >> 4) else { return false };
    if !lock(bucket) {
        return false;
    }
    let entry = entry::<F>(bucket, at);
    let is = F::is(entry, key);
    if is {
        atomic::swap(F::rest(entry), 0);
        set_tag(bucket, at, 0);
    }
    unlock(bucket);
    is
}

/// What the functions below work on: one per processor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Work {
    /// The key that is meant.
    pub key: Key,
    /// The tuple with which its packets leave.
    pub new: Key,
    /// State and flags of a new entry, in their places.
    pub bits: u64,
    /// Generations and counters of a new entry.
    pub seen: Seen,
    /// Where its packets go.
    pub out: Out,
    /// Family of an address that is asked about.
    pub family: u32,
}

/// This processor's.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    // SAFETY: this processor's own value; programs don't nest.
    crate::maps::WORK.ptr(&0).map(|work| unsafe { &mut *work })
}

/// No place: both buckets are full.
pub const NO_ROOM: u64 = 1 << 32;
/// No place: another processor holds the buckets.
pub const CONTENDED: u64 = 2 << 32;
/// Added to the place of an entry that has the key already.
pub const TAKEN: u64 = 3 << 32;

/// [`find`] for the work's key; 0: none.
#[inline(always)]
pub fn find_for_work<F: Family>() -> u32 {
    let Some(work) = work() else { return 0 };
    let key = work.key;
    find::<F>(&key).map_or(0, |found| found.number)
}

#[inline(always)]
fn claim_for_work<F: Family>() -> u64 {
    let Some(work) = work() else { return NO_ROOM };
    let (key, new, bits, seen, out) = (work.key, work.new, work.bits, work.seen, work.out);
    match claim::<F>(&key, &new, bits, &seen, &out) {
        Ok(found) => found.number as u64,
        Err(Refused::Taken(number)) => TAKEN | number as u64,
        Err(Refused::Full) => NO_ROOM,
        Err(Refused::Contended) => CONTENDED,
    }
}

#[inline(always)]
fn remove_for_work<F: Family>(number: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    let key = work.key;
    remove::<F>(number, &key) as u32
}

/// Functions that the verifier looks at by themselves, once, whoever calls them: they
/// take numbers only, and what they work on lies in [`Work`] and in the packet between programs.
/// Inlined into the stages, the searches would exceed what it is willing to look at.
macro_rules! apart {
    ($($family:ty: $find:ident, $claim:ident, $remove:ident, $alive:ident, $taken:ident, $forget:ident, $port:ident;)+) => {
        $(
            /// The place of the key; 0: none.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $find() -> u32 {
                find_for_work::<$family>()
            }

            /// A place for the key, or why there is none.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $claim() -> u64 {
                claim_for_work::<$family>()
            }

            /// Takes the key out of its place; 1: this call did it.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $remove(number: u32) -> u32 {
                remove_for_work::<$family>(number)
            }

            /// Whether the flow at a place still lives; 0: it has ended.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $alive(number: u32) -> u32 {
                crate::life::is_alive::<$family>(number) as u32
            }

            /// Whether the key is that of a flow that lives; 0: it is not.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $taken() -> u32 {
                let number = find_for_work::<$family>();
                (number != 0 && crate::life::is_alive::<$family>(number)) as u32
            }

            /// The first of some source ports that makes the work's key nobody's; see
            /// [`crate::stage::free_port`].
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $port(start: u32, first: u32, count: u32) -> u32 {
                crate::stage::free_port::<$family>(start, first, count)
            }

            /// Takes the flow at a place out, both directions; the number is of no use.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $forget(number: u32) -> u32 {
                crate::life::forget::<$family>(number);
                0
            }
        )+
    };
}

apart! {
    V4: find_v4, claim_v4, remove_v4, alive_v4, taken_v4, forget_v4, free_port_v4;
    V6: find_v6, claim_v6, remove_v6, alive_v6, taken_v6, forget_v6, free_port_v6;
}

/// [`find`], apart.
#[inline(always)]
pub fn find_apart<F: Family>(key: &Key) -> Option<Found<F>> {
    work()?.key = *key;
    let number = F::find_apart();
    Some(Found { entry: at::<F>(number)?, number })
}

/// [`claim`] for what the work says, apart.
#[inline(always)]
pub fn claim_apart<F: Family>() -> Result<Found<F>, Refused> {
    let result = F::claim_apart();
    let number = result as u32;
    match result & !0xffff_ffff {
        0 => match at::<F>(number) {
            Some(entry) => Ok(Found { entry, number }),
            None => Err(Refused::Full),
        },
        TAKEN => Err(Refused::Taken(number)),
        CONTENDED => Err(Refused::Contended),
        _ => Err(Refused::Full),
    }
}

/// [`remove`], apart.
#[inline(always)]
pub fn remove_apart<F: Family>(number: u32, key: &Key) -> bool {
    match work() {
        Some(work) => {
            work.key = *key;
            F::remove_apart(number) != 0
        }
        None => false,
    }
}

/// Whether a key is that of a flow that lives, apart.
#[inline(always)]
pub fn taken_apart<F: Family>(key: &Key) -> bool {
    match work() {
        Some(work) => {
            work.key = *key;
            F::taken_apart() != 0
        }
        None => true,
    }
}
