//! The flow table: finding, claiming and changing entries. Layout and protocol
//! are described in [`loxi_ebpf_layout::flow`].

mod apart;
mod bucket;
mod change;
mod find;
mod v4;
mod v6;

pub use apart::{
    CONTENDED, NO_ROOM, TAKEN, Work, claim_apart, find_apart, find_for_work, remove_apart, taken_apart, work,
};
pub use change::{claim, publish, remove};
pub use find::look_up;
pub use v4::V4;
pub use v6::V6;

use bucket::entry;
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::{Cold, Out, Seen, Spot, rest};

/// Size and seed of the tables, set by the loader. The values here are nobody else's: of equal
/// constants the compiler keeps one only, and what the loader sets would be all of them.
#[unsafe(no_mangle)]
static MASK_V4: u32 = 0x6c6f_7834;
#[unsafe(no_mangle)]
static MASK_V6: u32 = 0x6c6f_7836;
#[unsafe(no_mangle)]
static SEED: u64 = 0x6c6f_7873_6565_6421;

/// A number that the loader sets before the program is loaded.
#[inline(always)]
fn set_by_loader<T: Copy>(at: &T) -> T {
    // SAFETY: a static of this program; volatile, since the compiler knows its initial value only.
    unsafe { core::ptr::read_volatile(at) }
}

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

/// A found entry.
pub struct Found<F: Family> {
    /// It.
    pub entry: *mut F::Entry,
    /// Its place's number.
    pub number: u32,
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

/// A place: bucket × 16 + place. Never 0: place 15 of IPv4 and 7 of IPv6 don't exist, so 1 is added.
#[inline(always)]
pub fn number(bucket: u32, place: u32) -> u32 {
    bucket * 16 + place + 1
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
