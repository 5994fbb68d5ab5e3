//! Frames: reading headers (with etherparse, which no backend uses), changing
//! them in place, building the few packets that a dataplane sends by itself.
//!
//! Nothing here panics on any bytes: positions come from a [`View`] that was
//! parsed from the same frame.

mod build;
mod checksum;
mod fragment;
mod rewrite;
mod view;

pub(crate) use build::{IcmpError, arp_packet, echo_reply, icmp_error, nd_advert, nd_solicit, tcp_reset};
pub(crate) use checksum::{carry, finish, pseudo, sum};
pub(crate) use fragment::fragment_ipv4;
pub(crate) use rewrite::{Rewrite, decrement_ttl, rewrite_embedded, rewrite_tuple, set_ecn_ce, set_ect1};
pub(crate) use view::{Checksums, Icmp, Ip, L3, L4, View, embedded_tuple};

/// Length of an Ethernet header without a tag.
pub(crate) const ETH: usize = 14;

/// Ethertypes (IEEE 802 numbers).
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const IPV6: u16 = 0x86dd;
}

/// Two bytes at `at`, in network order; 0 beyond the end.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(word) => u16::from_be_bytes([word[0], word[1]]),
        None => 0,
    }
}

/// Writes two bytes at `at`, in network order; nothing beyond the end.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(word) = bytes.get_mut(at..at + 2) {
        word.copy_from_slice(&value.to_be_bytes());
    }
}
