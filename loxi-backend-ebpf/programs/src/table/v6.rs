//! IPv6: an entry is two lines, a bucket has 7.

use super::{Family, Key, MASK_V6, SEED, apart, set_by_loader};
use crate::maps::{COLD_V6, FLOWS_V6};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::{
    self, BucketV6, Cold, EntryV6, HEAD_V6, IPIP, Out, PLACES_V6, Seen, Spot, rest,
};

/// IPv6.
pub struct V6;

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
        apart::find_v6()
    }

    #[inline(always)]
    fn claim_apart() -> u64 {
        apart::claim_v6()
    }

    #[inline(always)]
    fn remove_apart(number: u32) -> u32 {
        apart::remove_v6(number)
    }

    #[inline(always)]
    fn alive_apart(number: u32) -> u32 {
        apart::alive_v6(number)
    }

    #[inline(always)]
    fn taken_apart() -> u32 {
        apart::taken_v6()
    }

    #[inline(always)]
    fn forget_apart(number: u32) -> u32 {
        apart::forget_v6(number)
    }

    #[inline(always)]
    fn free_port_apart(start: u32, first: u32, count: u32) -> u32 {
        apart::free_port_v6(start, first, count)
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
