//! The packets that a dataplane sends by itself.

use super::{ETH, Ip, L4, be16, carry, ethertype, finish, pseudo, put16, sum};
use loxi_core::net::{IpProtocol, MacAddr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TTL and TOS of what we make: precedence "internetwork control" (RFC 1812 4.3.2.5).
const TTL: u8 = 64;
const TOS: u8 = 0xc0;

/// ICMP errors that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IcmpError {
    TimeExceeded,
    PacketTooBig { mtu: u16 },
    PortUnreachable,
    NoRoute,
}

impl IcmpError {
    /// Type, code and the second word, for IPv4 (RFC 792, RFC 1191) or IPv6 (RFC 4443).
    fn fields(self, ipv4: bool) -> (u8, u8, u32) {
        match (self, ipv4) {
            (Self::TimeExceeded, true) => (11, 0, 0),
            (Self::PacketTooBig { mtu }, true) => (3, 4, mtu.into()),
            (Self::PortUnreachable, true) => (3, 3, 0),
            (Self::NoRoute, true) => (3, 0, 0),
            (Self::TimeExceeded, false) => (3, 0, 0),
            (Self::PacketTooBig { mtu }, false) => (2, 0, mtu.into()),
            (Self::PortUnreachable, false) => (1, 4, 0),
            (Self::NoRoute, false) => (1, 0, 0),
        }
    }
}

fn ethernet(dst: MacAddr, src: MacAddr, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&dst.octets());
    frame.extend_from_slice(&src.octets());
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

/// An IP packet in an Ethernet frame. Both addresses are of one family.
fn ip_frame(
    macs: (MacAddr, MacAddr),
    addrs: (IpAddr, IpAddr),
    protocol: IpProtocol,
    ttl: u8,
    tos: u8,
    payload: &[u8],
) -> Vec<u8> {
    let (dst_mac, src_mac) = macs;
    let mut frame = match addrs {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut frame = ethernet(dst_mac, src_mac, ethertype::IPV4);
            // What we make is below 1280 bytes.
            let len = (20 + payload.len()) as u16;
            frame.extend_from_slice(&[0x45, tos]);
            frame.extend_from_slice(&len.to_be_bytes());
            // Identification 0 with DF: never fragmented (RFC 6864 4.1).
            frame.extend_from_slice(&[0, 0, 0x40, 0, ttl, protocol.0, 0, 0]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
            let checksum = finish(sum(&frame[ETH..ETH + 20]));
            put16(&mut frame, ETH + 10, checksum);
            frame
        }
        (src, dst) => {
            let octets = |addr: IpAddr| match addr {
                IpAddr::V6(v6) => v6.octets(),
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            };
            let mut frame = ethernet(dst_mac, src_mac, ethertype::IPV6);
            frame.extend_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0]);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[protocol.0, ttl]);
            frame.extend_from_slice(&octets(src));
            frame.extend_from_slice(&octets(dst));
            frame
        }
    };
    frame.extend_from_slice(payload);
    frame
}

fn checksummed(mut message: Vec<u8>, at: usize, addrs: (IpAddr, IpAddr), protocol: IpProtocol) -> Vec<u8> {
    let mut total = sum(&message);
    if protocol != IpProtocol::ICMP {
        total += pseudo(addrs.0, addrs.1, protocol.0, message.len());
    }
    put16(&mut message, at, finish(total));
    message
}

/// An ICMP error about `packet` (an IP packet without its Ethernet header),
/// from `src`, with as much of the packet as fits into 576 or 1280 bytes.
pub(crate) fn icmp_error(
    error: IcmpError,
    macs: (MacAddr, MacAddr),
    src: IpAddr,
    dst: IpAddr,
    packet: &[u8],
) -> Vec<u8> {
    let ipv4 = src.is_ipv4();
    let (kind, code, word) = error.fields(ipv4);
    let room = if ipv4 { 576 - 20 - 8 } else { 1280 - 40 - 8 };
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&word.to_be_bytes());
    message.extend_from_slice(&packet[..packet.len().min(room)]);
    let protocol = if ipv4 { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
    let message = checksummed(message, 2, (src, dst), protocol);
    ip_frame(macs, (src, dst), protocol, TTL, TOS, &message)
}

/// The answer to an echo request, which `frame` holds whole. Its checksum is as
/// right or wrong as the request's.
pub(crate) fn echo_reply(frame: &[u8], ip: &Ip, macs: (MacAddr, MacAddr)) -> Vec<u8> {
    let mut message = frame.get(ip.l4_at..ETH + ip.len).unwrap_or_default().to_vec();
    if message.len() < 4 {
        return Vec::new();
    }
    let addrs = (ip.dst, ip.src);
    // The pseudo header's sum is the same in both directions.
    let header = if ip.is_ipv4() { 0 } else { pseudo(addrs.0, addrs.1, ip.protocol.0, message.len()) };
    let asked = be16(&message, 2);
    put16(&mut message, 2, 0);
    let old = header + sum(&message);
    message[0] = if ip.is_ipv4() { 0 } else { 129 };
    let new = header + sum(&message);
    // A part of a request tells nothing about the whole.
    let checksum = if ip.fragment.is_none() { carry(asked, old, new) } else { finish(new) };
    put16(&mut message, 2, checksum);
    // The DSCP is the request's (RFC 1122 3.2.2.6 wants options and the like mirrored).
    ip_frame(macs, addrs, ip.protocol, TTL, ip.tos, &message)
}

/// The reset that answers a TCP segment to a closed port (RFC 9293 section 3.10.7.1).
/// `None` for a segment that is a reset itself.
pub(crate) fn tcp_reset(frame: &[u8], ip: &Ip, macs: (MacAddr, MacAddr)) -> Option<Vec<u8>> {
    let L4::Tcp { src, dst, syn, ack, fin, rst } = ip.l4 else { return None };
    if rst {
        return None;
    }
    let segment = frame.get(ip.l4_at..ETH + ip.len)?;
    let word = |at: usize| u32::from(be16(segment, at)) << 16 | u32::from(be16(segment, at + 2));
    let header_len = usize::from(segment.get(12)? >> 4) * 4;
    let text = segment.len().saturating_sub(header_len) as u32;
    let (seq, answer, flags) = if ack {
        (word(8), 0, 0x04)
    } else {
        (0, word(4).wrapping_add(text).wrapping_add(u32::from(syn) + u32::from(fin)), 0x14)
    };
    let mut message = Vec::with_capacity(20);
    message.extend_from_slice(&dst.to_be_bytes());
    message.extend_from_slice(&src.to_be_bytes());
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(&answer.to_be_bytes());
    message.extend_from_slice(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
    let addrs = (ip.dst, ip.src);
    let message = checksummed(message, 16, addrs, IpProtocol::TCP);
    Some(ip_frame(macs, addrs, IpProtocol::TCP, TTL, 0, &message))
}

/// An ARP packet (RFC 826): a request to everybody, or a reply to one station.
pub(crate) fn arp_packet(sender: (MacAddr, Ipv4Addr), target: (Option<MacAddr>, Ipv4Addr)) -> Vec<u8> {
    let (operation, dst) = match target.0 {
        None => (1, MacAddr::BROADCAST),
        Some(mac) => (2, mac),
    };
    let mut frame = ethernet(dst, sender.0, ethertype::ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&sender.0.octets());
    frame.extend_from_slice(&sender.1.octets());
    frame.extend_from_slice(&target.0.unwrap_or(MacAddr::ZERO).octets());
    frame.extend_from_slice(&target.1.octets());
    frame
}

/// A neighbour solicitation to the target's solicited-node group (RFC 4861 section 7.2.2).
pub(crate) fn nd_solicit(mac: MacAddr, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let t = target.octets();
    let mut group = [0u8; 16];
    group[..2].copy_from_slice(&[0xff, 0x02]);
    group[11..13].copy_from_slice(&[1, 0xff]);
    group[13..].copy_from_slice(&t[13..]);
    let group = Ipv6Addr::from(group);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&t);
    message.extend_from_slice(&[1, 1]);
    message.extend_from_slice(&mac.octets());
    let addrs = (src.into(), group.into());
    let message = checksummed(message, 2, addrs, IpProtocol::ICMPV6);
    ip_frame((MacAddr::from_ipv6_multicast(group), mac), addrs, IpProtocol::ICMPV6, 255, 0, &message)
}

/// A solicited neighbour advertisement (RFC 4861 section 7.2.4). `router` and
/// `override_` are its flags; a proxy clears the latter (section 7.2.8).
pub(crate) fn nd_advert(
    macs: (MacAddr, MacAddr),
    addrs: (Ipv6Addr, Ipv6Addr),
    target_mac: MacAddr,
    target: Ipv6Addr,
    (router, override_): (bool, bool),
) -> Vec<u8> {
    let (src, asker) = addrs;
    // DAD is answered to all nodes, unsolicited (RFC 4861 7.2.4).
    let (dst, solicited) = if asker.is_unspecified() {
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), false)
    } else {
        (asker, true)
    };
    let dst_mac = if solicited { macs.0 } else { MacAddr::from_ipv6_multicast(dst) };
    let flags = u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(override_) << 5;
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&target_mac.octets());
    let addrs = (src.into(), dst.into());
    let message = checksummed(message, 2, addrs, IpProtocol::ICMPV6);
    ip_frame((dst_mac, macs.1), addrs, IpProtocol::ICMPV6, 255, 0, &message)
}
