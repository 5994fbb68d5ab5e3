//! Bytes of the frame, and sums over them.

use super::Walk;
use loxi_ebpf_layout::Addr;

/// Length of an Ethernet header.
pub(super) const ETH: usize = 14;

/// Offsets of headers are below this: the programs mask them, for the verifier's sake.
const OFFSET: usize = 0x1ff;

/// Ethertypes.
pub(super) mod ethertype {
    #![allow(missing_docs)] // the field's own names
    pub(in crate::explain) const IPV4: u16 = 0x0800u16.to_be();
    pub(in crate::explain) const ARP: u16 = 0x0806u16.to_be();
    pub(in crate::explain) const VLAN: u16 = 0x8100u16.to_be();
    pub(in crate::explain) const IPV6: u16 = 0x86ddu16.to_be();
}

impl Walk<'_> {
    /// Bytes at an offset. `None`: they aren't all there.
    pub(super) fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let at = at & OFFSET;
        self.frame.get(at..at + N)?.try_into().ok()
    }

    /// Two bytes, in network order as they are.
    pub(super) fn word16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    /// Four bytes, in network order as they are.
    pub(super) fn word32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    /// An IPv6 address.
    pub(super) fn addr6(&self, at: usize) -> Option<Addr> {
        self.bytes(at).map(Addr::v6)
    }
}

/// Folds a ones' complement sum to 16 bits.
pub(super) fn fold(mut total: u64) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The ones' complement sum of words.
pub(super) fn sum(words: &[u32]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// Whether a MAC can be a source: neither a group's nor zero.
pub(super) fn is_unicast(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}
