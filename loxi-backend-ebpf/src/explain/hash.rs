//! The hash of flows and addresses: MurmurHash3 x86 32, as the programs compute it.

use loxi_ebpf_layout::{Addr, family};

fn mix(hash: u32, word: u32) -> u32 {
    let k = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

fn mix_addr(hash: u32, family: u8, addr: &Addr) -> u32 {
    let words = if family == family::V6 { 4 } else { 1 };
    addr.0.iter().take(words).fold(hash, |hash, word| mix(hash, u32::from_be(*word)))
}

fn finish(mut hash: u32, words: u32) -> u32 {
    hash ^= words * 4;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// Addresses, ports, protocol of a flow. Ports in network order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuple {
    pub(super) family: u8,
    pub(super) src: Addr,
    pub(super) dst: Addr,
    pub(super) protocol: u8,
    pub(super) sport: u16,
    pub(super) dport: u16,
}

/// The hash of a tuple.
pub(super) fn of_tuple(seed: u32, t: &Tuple) -> u32 {
    let hash = mix_addr(mix_addr(seed, t.family, &t.src), t.family, &t.dst);
    let ports = u32::from(u16::from_be(t.sport)) << 16 | u32::from(u16::from_be(t.dport));
    finish(mix(mix(hash, ports), t.protocol.into()), if t.family == family::V6 { 10 } else { 4 })
}

/// The hash of an address.
pub(super) fn of_addr(seed: u32, family: u8, addr: &Addr) -> u32 {
    finish(mix_addr(seed, family, addr), if family == family::V6 { 4 } else { 1 })
}
