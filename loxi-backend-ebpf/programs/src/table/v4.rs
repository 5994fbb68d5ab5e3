//! IPv4: an entry is one line, a bucket has 15.

use super::{Family, Key, MASK_V4, SEED, apart, set_by_loader};
use crate::maps::{COLD_V4, FLOWS_V4};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::{
    self, BucketV4, Cold, EntryV4, HEAD_V4, IPIP, Out, PLACES_V4, Seen, Spot, rest,
};

/// IPv4.
pub struct V4;

impl Family for V4 {
    type Entry = EntryV4;
    const PLACES: u32 = PLACES_V4;
    const HEAD: usize = HEAD_V4;

    #[inline(always)]
    fn find_apart() -> u32 {
        apart::find_v4()
    }

    #[inline(always)]
    fn claim_apart() -> u64 {
        apart::claim_v4()
    }

    #[inline(always)]
    fn remove_apart(number: u32) -> u32 {
        apart::remove_v4(number)
    }

    #[inline(always)]
    fn alive_apart(number: u32) -> u32 {
        apart::alive_v4(number)
    }

    #[inline(always)]
    fn taken_apart() -> u32 {
        apart::taken_v4()
    }

    #[inline(always)]
    fn forget_apart(number: u32) -> u32 {
        apart::forget_v4(number)
    }

    #[inline(always)]
    fn free_port_apart(start: u32, first: u32, count: u32) -> u32 {
        apart::free_port_v4(start, first, count)
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
            addrs == (key.src.0[0] as u64 | (key.dst.0[0] as u64) << 32) && (word ^ key.rest) & rest::KEY == 0
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
            let [src, dst] = if rest::flags(word) & IPIP == 0 { (*entry).new_addrs } else { (*entry).addrs };
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
