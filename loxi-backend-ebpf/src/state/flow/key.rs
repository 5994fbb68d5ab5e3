//! Keys of entries, and the tuples that they stand for.

use loxi_core::net::IpProtocol;
use loxi_core::packet::FlowTuple;
use loxi_ebpf_layout::flow::rest;
use loxi_ebpf_layout::{Addr, family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A key: both addresses, and the second word without state and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) struct Key {
    /// Source.
    pub(in crate::state) src: Addr,
    /// Destination.
    pub(in crate::state) dst: Addr,
    /// Ports, protocol, zone.
    pub(in crate::state) rest: u64,
}

impl Key {
    /// The key of packets with a tuple, and its family. `None`: the addresses are not of one family.
    pub(in crate::state) fn of(zone: u8, tuple: &FlowTuple) -> Option<(u8, Self)> {
        let ((family, src), (other, dst)) = (wire(tuple.src), wire(tuple.dst));
        let rest = rest::key(tuple.src_port.to_be(), tuple.dst_port.to_be(), tuple.protocol.0, zone);
        (family == other).then_some((family, Self { src, dst, rest }))
    }

    /// The tuple.
    pub(in crate::state) fn tuple(&self, family: u8) -> FlowTuple {
        FlowTuple {
            src: ip(family, self.src),
            dst: ip(family, self.dst),
            protocol: IpProtocol(rest::protocol(self.rest)),
            src_port: u16::from_be(rest::sport(self.rest)),
            dst_port: u16::from_be(rest::dport(self.rest)),
        }
    }

    /// The key of packets in the other direction.
    pub(in crate::state) fn reversed(&self) -> Self {
        let r = self.rest;
        let rest = rest::key(rest::dport(r), rest::sport(r), rest::protocol(r), rest::zone(r));
        Self { src: self.dst, dst: self.src, rest }
    }
}

/// An address as the tables have it, and its family.
pub(in crate::state) fn wire(addr: IpAddr) -> (u8, Addr) {
    match addr {
        IpAddr::V4(addr) => (family::V4, Addr::v4(addr.octets())),
        IpAddr::V6(addr) => (family::V6, Addr::v6(addr.octets())),
    }
}

/// The address that the tables have.
pub(in crate::state) fn ip(family: u8, addr: Addr) -> IpAddr {
    let octets = addr.octets();
    if family == family::V6 {
        return Ipv6Addr::from(octets).into();
    }
    let [a, b, c, d, ..] = octets;
    Ipv4Addr::new(a, b, c, d).into()
}

/// Two words of an IPv6 address in an entry's key.
pub(super) fn wide(addr: Addr) -> [u64; 2] {
    let [a, b, c, d] = addr.0.map(u64::from);
    [a | b << 32, c | d << 32]
}

/// The address of two words.
pub(super) fn narrow(words: [u64; 2]) -> Addr {
    let low = |word: u64| (word & 0xffff_ffff) as u32;
    Addr([low(words[0]), low(words[0] >> 32), low(words[1]), low(words[1] >> 32)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_survive_and_families_do_not_mix() {
        let tuple = |src: &str, dst: &str| FlowTuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: IpProtocol::UDP,
            src_port: 0x1234,
            dst_port: 53,
        };
        for (wanted, tuple) in
            [(family::V4, tuple("10.1.2.3", "192.0.2.9")), (family::V6, tuple("fd00::1", "2001:db8::2:3"))]
        {
            let (family, key) = Key::of(7, &tuple).unwrap();
            assert_eq!(family, wanted);
            assert_eq!(key.tuple(family), tuple);
            assert_eq!(key.reversed().tuple(family), tuple.reversed());
            assert_eq!(rest::zone(key.rest), 7);
            assert_eq!(narrow(wide(key.dst)), key.dst);
        }
        assert_eq!(Key::of(7, &tuple("10.1.2.3", "fd00::1")), None);
    }
}
