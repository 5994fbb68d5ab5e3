//! Floors: the product's parse, one look-up of 64 bytes, the product's rewrite, and nothing else.
//!
//! What the look-up is made in differs: an array is the least that it can be; the kernel's hash tables are
//! what the flow table could have been.

use crate::wrapper::FRAMES;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::bindings::bpf_map_type::*;
use core::marker::PhantomData;
use loxi_ebpf_layout::bench::{KeyV4, KeyV6, Value};
use loxi_ebpf_layout::flow::{hash_v4, hash_v6, rest};
use loxi_ebpf_programs::ctx::{Ctx, at};
use loxi_ebpf_programs::fast::{Heads, heads_v4, heads_v6, translate};
use loxi_ebpf_programs::maps::Table;
use loxi_ebpf_programs::parse::ethertype;
use loxi_ebpf_programs::table::{Family, Key, V4, V6, look_up};

/// What a floor finds by index.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "FLOOR_ARRAY")]
static FLOOR_ARRAY: Table<u32, Value> = Table::new(BPF_MAP_TYPE_ARRAY, 1, BPF_F_MMAPABLE);
/// What it finds by key.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "FLOOR_HASH_V4")]
static FLOOR_HASH_V4: Table<KeyV4, Value> = Table::new(BPF_MAP_TYPE_HASH, 1, 0);
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "FLOOR_HASH_V6")]
static FLOOR_HASH_V6: Table<KeyV6, Value> = Table::new(BPF_MAP_TYPE_HASH, 1, 0);
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "FLOOR_LRU_V4")]
static FLOOR_LRU_V4: Table<KeyV4, Value> = Table::new(BPF_MAP_TYPE_LRU_HASH, 1, 0);
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "FLOOR_LRU_V6")]
static FLOOR_LRU_V6: Table<KeyV6, Value> = Table::new(BPF_MAP_TYPE_LRU_HASH, 1, 0);

/// Places of the array less one, set by the loader; the value here is nobody else's.
#[unsafe(no_mangle)]
static FLOOR_MASK: u32 = 0x6c6f_7866;

/// What a floor finds a flow's record in.
pub trait Store {
    /// The record of a key; `None`: it has none.
    fn find(key: &Key, v6: bool) -> Option<*mut Value>;
}

/// An array, by the key's hash.
pub struct Array;
/// The kernel's hash table.
pub struct Hash;
/// The kernel's hash table that evicts what was used least recently.
pub struct Lru;

impl Store for Array {
    #[inline(always)]
    fn find(key: &Key, v6: bool) -> Option<*mut Value> {
        let [a, b, c, d] = key.src.0;
        let [e, f, g, h] = key.dst.0;
        let wide = |low: u32, high: u32| low as u64 | (high as u64) << 32;
        let hash = if v6 {
            hash_v6(0, [wide(a, b), wide(c, d)], [wide(e, f), wide(g, h)], key.rest)
        } else {
            hash_v4(0, [a, e], key.rest)
        };
        // SAFETY: a static of this program, which the loader sets.
        let mask = unsafe { core::ptr::read_volatile(&FLOOR_MASK) };
        FLOOR_ARRAY.ptr(&(hash as u32 & mask))
    }
}

#[inline(always)]
fn key_v4(key: &Key) -> KeyV4 {
    KeyV4 { addrs: [key.src.0[0], key.dst.0[0]], rest: key.rest & rest::KEY }
}

#[inline(always)]
fn key_v6(key: &Key) -> KeyV6 {
    KeyV6 { addrs: [key.src, key.dst], rest: key.rest & rest::KEY }
}

impl Store for Hash {
    #[inline(always)]
    fn find(key: &Key, v6: bool) -> Option<*mut Value> {
        if v6 { FLOOR_HASH_V6.ptr(&key_v6(key)) } else { FLOOR_HASH_V4.ptr(&key_v4(key)) }
    }
}

impl Store for Lru {
    #[inline(always)]
    fn find(key: &Key, v6: bool) -> Option<*mut Value> {
        if v6 { FLOOR_LRU_V6.ptr(&key_v6(key)) } else { FLOOR_LRU_V4.ptr(&key_v4(key)) }
    }
}

/// Parse, one look-up, rewrite.
#[inline(always)]
pub fn floor<C: Ctx, S: Store>(ctx: C) -> i32 {
    match with_heads(ctx, PhantomData::<S>) {
        Some(()) => C::PASS,
        None => C::DROP,
    }
}

#[inline(always)]
fn heads<C: Ctx>(ctx: C) -> Option<(Heads, bool)> {
    let zone = FRAMES.get(&0)?.zone as u8;
    // SAFETY: `at` has checked 14 bytes.
    match unsafe { *at::<C, u16>(ctx, 12)? } {
        ethertype::IPV4 => Some((heads_v4(ctx, zone)?, false)),
        ethertype::IPV6 => Some((heads_v6(ctx, zone)?, true)),
        _ => None,
    }
}

#[inline(always)]
fn with_heads<C: Ctx, S: Store>(ctx: C, _: PhantomData<S>) -> Option<()> {
    let (heads, v6) = heads(ctx)?;
    let found = S::find(&heads.key, v6)?;
    // SAFETY: a value of a table.
    let value = unsafe { &mut *found };
    value.packets += 1;
    value.bytes += heads.len as u64;
    let [sport, dport] = value.ports;
    let key = rest::key(sport, dport, rest::protocol(heads.key.rest), rest::zone(heads.key.rest));
    let new = Key { src: value.addrs[0], dst: value.addrs[1], rest: key };
    let done = if v6 {
        translate::<C, V6>(ctx, &heads, &new, false)
    } else {
        translate::<C, V4>(ctx, &heads, &new, false)
    };
    done.then_some(())
}

/// The same with the flow table.
#[inline(always)]
pub fn floor_flows<C: Ctx>(ctx: C) -> i32 {
    let done = match heads(ctx) {
        Some((heads, false)) => in_table::<C, V4>(ctx, &heads),
        Some((heads, true)) => in_table::<C, V6>(ctx, &heads),
        None => None,
    };
    if done.is_some() { C::PASS } else { C::DROP }
}

#[inline(always)]
fn in_table<C: Ctx, F: Family>(ctx: C, heads: &Heads) -> Option<()> {
    let entry = look_up::<F>(&heads.key)?;
    // SAFETY: counters of an entry.
    let seen = unsafe { &mut *F::seen(entry) };
    seen.packets += 1;
    seen.bytes += heads.len as u64;
    translate::<C, F>(ctx, heads, &F::new_key(entry), false).then_some(())
}
