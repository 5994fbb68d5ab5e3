//! Changing a frame in place. Checksums follow incrementally (RFC 1624), so
//! that a packet of which only a part is here stays right as well, and one
//! that came damaged stays wrong: where checksums aren't verified, the
//! receiver must see it.

use super::checksum::{carry, update};
use super::{ETH, Icmp, Ip, L4, be16, put16};
use loxi_core::net::IpProtocol;
use loxi_core::packet::FlowTuple;
use std::net::IpAddr;

/// CRC32c (RFC 9260 appendix A), least significant byte first.
pub(super) fn sctp_checksum(packet: &[u8]) -> [u8; 4] {
    const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let mut digest = CRC32C.digest();
    digest.update(&packet[..8]);
    digest.update(&[0; 4]);
    digest.update(packet.get(12..).unwrap_or_default());
    digest.finalize().to_le_bytes()
}

/// Whether a rewrite could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewrite {
    Done,
    /// A fragment of a protocol whose checksum covers more than is here.
    Impossible,
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Position of source and destination address behind the IP header's start.
fn address_at(ipv4: bool) -> (usize, usize) {
    if ipv4 { (12, 16) } else { (8, 24) }
}

fn replace(frame: &mut [u8], at: usize, new: &[u8]) -> Vec<u8> {
    match frame.get_mut(at..at + new.len()) {
        Some(place) => {
            let old = place.to_vec();
            place.copy_from_slice(new);
            old
        }
        None => new.to_vec(),
    }
}

/// Where a transport's checksum is, and whether it covers the pseudo header.
fn checksum_at(protocol: IpProtocol) -> Option<(usize, bool)> {
    match protocol {
        IpProtocol::TCP => Some((16, true)),
        IpProtocol::UDP => Some((6, true)),
        IpProtocol::ICMP => Some((2, false)),
        IpProtocol::ICMPV6 => Some((2, true)),
        _ => None,
    }
}

fn fix_checksum(frame: &mut [u8], l4_at: usize, protocol: IpProtocol, old: &[u8], new: &[u8]) {
    let Some((offset, _)) = checksum_at(protocol) else { return };
    // A quoted packet may end before its checksum.
    if frame.len() < l4_at + offset + 2 {
        return;
    }
    let before = be16(frame, l4_at + offset);
    if protocol == IpProtocol::UDP && before == 0 {
        return;
    }
    let after = update(before, old, new);
    // Zero would mean "none" (RFC 768).
    let after = if protocol == IpProtocol::UDP && after == 0 { 0xffff } else { after };
    put16(frame, l4_at + offset, after);
}

/// Gives a packet the addresses and ports (or identifier) of `new`.
pub(crate) fn rewrite_tuple(frame: &mut [u8], ip: &Ip, new: &FlowTuple) -> Rewrite {
    let old = FlowTuple { protocol: new.protocol, ..ip.tuple() };
    let later = ip.is_later_fragment();
    if ip.protocol == IpProtocol::SCTP && ip.fragment.is_some() {
        let ports_change = (old.src_port, old.dst_port) != (new.src_port, new.dst_port);
        if ports_change {
            return Rewrite::Impossible;
        }
    }
    let sctp = ip.l4_at..ETH + ip.len;
    let whole_sctp = ip.protocol == IpProtocol::SCTP && ip.fragment.is_none() && sctp.len() >= 12;
    // The difference between the checksum that came and that of what came.
    let error = frame
        .get(sctp.clone())
        .filter(|_| whole_sctp)
        .map(|packet| xor(&packet[8..12], sctp_checksum(packet)));
    rewrite_addresses(frame, ETH, ip.l4_at, ip.protocol, later, (new.src, new.dst));
    if later {
        return Rewrite::Done;
    }
    match &ip.l4 {
        L4::Tcp { .. } | L4::Udp { .. } | L4::Sctp { .. } => {
            rewrite_ports(frame, ip.l4_at, ip.protocol, (new.src_port, new.dst_port));
        }
        L4::Icmp(Icmp::Query { .. }) => rewrite_id(frame, ip.l4_at, ip.protocol, new.src_port),
        _ => {}
    }
    if let Some(error) = error
        && let Some(packet) = frame.get_mut(sctp)
    {
        let checksum = xor(&error, sctp_checksum(packet));
        packet[8..12].copy_from_slice(&checksum);
    }
    Rewrite::Done
}

fn xor(a: &[u8], b: [u8; 4]) -> [u8; 4] {
    let mut bytes = b;
    for (byte, other) in bytes.iter_mut().zip(a) {
        *byte ^= other;
    }
    bytes
}

fn rewrite_addresses(
    frame: &mut [u8],
    l3_at: usize,
    l4_at: usize,
    protocol: IpProtocol,
    later_fragment: bool,
    (src, dst): (IpAddr, IpAddr),
) {
    let ipv4 = src.is_ipv4();
    let (src_at, dst_at) = address_at(ipv4);
    for (offset, addr) in [(src_at, src), (dst_at, dst)] {
        let new = octets(addr);
        let old = replace(frame, l3_at + offset, &new);
        if old == new {
            continue;
        }
        if ipv4 {
            let before = be16(frame, l3_at + 10);
            put16(frame, l3_at + 10, update(before, &old, &new));
        }
        if !later_fragment && checksum_at(protocol).is_some_and(|(_, pseudo)| pseudo) {
            fix_checksum(frame, l4_at, protocol, &old, &new);
        }
    }
}

fn rewrite_ports(frame: &mut [u8], l4_at: usize, protocol: IpProtocol, (src, dst): (u16, u16)) {
    for (offset, port) in [(0, src), (2, dst)] {
        let new = port.to_be_bytes();
        let old = replace(frame, l4_at + offset, &new);
        if old != new {
            fix_checksum(frame, l4_at, protocol, &old, &new);
        }
    }
}

fn rewrite_id(frame: &mut [u8], l4_at: usize, protocol: IpProtocol, id: u16) {
    let new = id.to_be_bytes();
    let old = replace(frame, l4_at + 4, &new);
    if old != new {
        fix_checksum(frame, l4_at, protocol, &old, &new);
    }
}

/// Gives an ICMP error and the packet that it quotes other addresses and
/// ports: the quoted ones first, then the outer addresses, then the ICMP
/// checksum, which covers both.
pub(crate) fn rewrite_embedded(
    frame: &mut [u8],
    ip: &Ip,
    quoted_at: usize,
    quoted_l4_at: usize,
    quoted: &FlowTuple,
    outer: (IpAddr, IpAddr),
) {
    let sum_of = |frame: &[u8], addrs: (IpAddr, IpAddr)| {
        let message = frame.get(ip.l4_at..ETH + ip.len).unwrap_or_default();
        let header =
            if ip.is_ipv4() { 0 } else { super::pseudo(addrs.0, addrs.1, ip.protocol.0, message.len()) };
        header + super::sum(message)
    };
    let told = be16(frame, ip.l4_at + 2);
    put16(frame, ip.l4_at + 2, 0);
    let old = sum_of(frame, (ip.src, ip.dst));
    rewrite_addresses(frame, quoted_at, quoted_l4_at, quoted.protocol, false, (quoted.src, quoted.dst));
    match quoted.protocol {
        protocol if protocol.has_ports() => {
            rewrite_ports(frame, quoted_l4_at, protocol, (quoted.src_port, quoted.dst_port));
        }
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            rewrite_id(frame, quoted_l4_at, quoted.protocol, quoted.src_port);
        }
        _ => {}
    }
    rewrite_addresses(frame, ETH, ip.l4_at, ip.protocol, false, outer);
    // The addresses have left an update of the zero there.
    put16(frame, ip.l4_at + 2, 0);
    let new = sum_of(frame, outer);
    // A part of an error tells nothing about the whole.
    let checksum = if ip.fragment.is_none() { carry(told, old, new) } else { super::finish(new) };
    put16(frame, ip.l4_at + 2, checksum);
}

/// One hop less.
pub(crate) fn decrement_ttl(frame: &mut [u8], ipv4: bool) {
    if ipv4 {
        let old = [frame[ETH + 8], frame[ETH + 9]];
        let new = [old[0].saturating_sub(1), old[1]];
        frame[ETH + 8] = new[0];
        let before = be16(frame, ETH + 10);
        put16(frame, ETH + 10, update(before, &old, &new));
    } else {
        frame[ETH + 7] = frame[ETH + 7].saturating_sub(1);
    }
}

fn set_ecn(frame: &mut [u8], ipv4: bool, ecn: u8) {
    if ipv4 {
        let old = [frame[ETH], frame[ETH + 1]];
        let new = [old[0], old[1] & !3 | ecn];
        frame[ETH + 1] = new[1];
        let before = be16(frame, ETH + 10);
        put16(frame, ETH + 10, update(before, &old, &new));
    } else {
        // Traffic class: low nibble of byte 0, high nibble of byte 1; ECN is its low two bits.
        frame[ETH + 1] = frame[ETH + 1] & !0x30 | ecn << 4;
    }
}

/// Marks congestion experienced (RFC 3168).
pub(crate) fn set_ecn_ce(frame: &mut [u8], ipv4: bool) {
    set_ecn(frame, ipv4, 3);
}

/// Marks ECT(1).
pub(crate) fn set_ect1(frame: &mut [u8], ipv4: bool) {
    set_ecn(frame, ipv4, 1);
}
