//! Stage 0: headers, lengths, the IPv4 header's checksum, martians.
//!
//! The same checks in the same order as the reference's, but that transport
//! checksums are not verified: the receiver does that. IPv4 options and IPv6
//! extension headers other than the fragment header are the slow path's.

use crate::ctx::{Ctx, UNTAGGED, read};
use crate::maps::BARE_UDP;
use loxi_ebpf_layout::code::{Fate, drop, punt};
use loxi_ebpf_layout::scratch::{Packet, flag, l4};
use loxi_ebpf_layout::{Addr, family};

/// Nothing, or what ends the packet.
pub type Step<T = ()> = Result<T, Fate>;

/// Length of an Ethernet header.
pub const ETH: usize = 14;

/// Ethertypes as they are in a frame.
pub mod ethertype {
    #![allow(missing_docs)] // the field's own names
    pub const IPV4: u16 = 0x0800u16.to_be();
    pub const ARP: u16 = 0x0806u16.to_be();
    pub const VLAN: u16 = 0x8100u16.to_be();
    pub const IPV6: u16 = 0x86ddu16.to_be();
}

/// Folds a ones' complement sum to 16 bits. Of a number added to itself with its halves swapped, the upper
/// half is the sum of the halves and of their carry.
#[inline(always)]
pub fn fold(total: u64) -> u16 {
    let half = (total.wrapping_add(total.rotate_left(32)) >> 32) as u32;
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
}

/// Adds two ones' complement sums of 32 bits.
#[inline(always)]
pub fn add32(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// What a hop less makes of a sum that has IPv6's header in it: the limit is the second byte of its word.
pub const LESS_HOP: u32 = 0xffff - 0x0100;

/// The word of TTL, protocol and checksum, one hop later (RFC 1624): the TTL is its first byte, so
/// the checksum grows by one in this machine's order. All ones is zero.
#[inline(always)]
pub fn older(word: u32) -> u32 {
    let check = (word >> 16) + 1;
    let check = if check >= 0xffff { check + 1 } else { check };
    (word & 0xffff) - 1 | check << 16
}

/// Whether a MAC can be a source: neither a group's nor zero.
#[inline(always)]
pub fn is_unicast(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Reads the headers from an Ethernet header on. The packet's `l2` says where it is.
#[inline(always)]
pub fn parse<C: Ctx>(ctx: C, p: &mut Packet) -> Step {
    let l2 = p.l2 as usize;
    let (Some(dmac), Some(smac), Some(kind)) =
        (read::<C, [u8; 6]>(ctx, l2), read::<C, [u8; 6]>(ctx, l2 + 6), read::<C, u16>(ctx, l2 + 12))
    else {
        return Err(drop::TRUNCATED);
    };
    (p.dmac, p.smac) = (dmac, smac);
    let mut l3 = l2 + ETH;
    let mut kind = kind;
    if kind == ethertype::VLAN && p.tag == UNTAGGED {
        let (Some(tci), Some(inner)) = (read::<C, u16>(ctx, l3), read::<C, u16>(ctx, l3 + 2)) else {
            return Err(drop::TRUNCATED);
        };
        p.tag = u16::from_be(tci);
        kind = inner;
        l3 += 4;
    }
    if p.tag != UNTAGGED && p.tag & 0x0fff == 0x0fff {
        return Err(drop::VLAN_FILTERED);
    }
    p.l3 = l3 as u16;
    p.ethertype = kind;
    if !is_unicast(smac) {
        return Err(drop::MARTIAN_MAC);
    }
    match kind {
        ethertype::IPV4 => ipv4(ctx, p, l3),
        ethertype::IPV6 => ipv6(ctx, p, l3),
        ethertype::ARP => arp(ctx, p, l3),
        _ => {
            p.family = 0;
            p.kind = l4::OTHER;
            Ok(())
        }
    }
}

/// Bytes of the frame, or of the inner one, from an offset on.
#[inline(always)]
fn rest(p: &Packet, from: usize) -> usize {
    (p.end as usize).saturating_sub(from)
}

#[inline(always)]
fn arp<C: Ctx>(ctx: C, p: &mut Packet, l3: usize) -> Step {
    let (Some(head), Some(operation)) = (read::<C, [u16; 3]>(ctx, l3), read::<C, u16>(ctx, l3 + 6)) else {
        return Err(drop::TRUNCATED);
    };
    // Lengths of hardware and protocol addresses say how long it must be.
    let [hardware, protocol, lengths] = [head[0], head[1], head[2]].map(u16::from_be);
    let whole = 8 + 2 * ((lengths >> 8) as usize + (lengths & 0xff) as usize);
    if rest(p, l3) < whole {
        return Err(drop::TRUNCATED);
    }
    if hardware != 1 || protocol != 0x0800 || lengths != 0x0604 {
        return Err(drop::UNSUPPORTED_L3);
    }
    let operation = u16::from_be(operation);
    if operation != 1 && operation != 2 {
        return Err(drop::UNSUPPORTED_L3);
    }
    let (Some(sender), Some(target)) = (read::<C, [u8; 4]>(ctx, l3 + 14), read::<C, [u8; 4]>(ctx, l3 + 24))
    else {
        return Err(drop::TRUNCATED);
    };
    p.family = 0;
    p.kind = l4::ARP;
    p.detail = operation as u8;
    p.src = Addr::v4(sender);
    p.dst = Addr::v4(target);
    Ok(())
}

/// Reads an IPv4 header and what follows it.
#[inline(always)]
pub fn ipv4<C: Ctx>(ctx: C, p: &mut Packet, l3: usize) -> Step {
    let Some(words) = read::<C, [u32; 5]>(ctx, l3) else { return Err(drop::TRUNCATED) };
    let first = u32::from_be(words[0]);
    let (version, header) = (first >> 28, (first >> 24 & 15) * 4);
    if version != 4 {
        return Err(drop::UNSUPPORTED_L3);
    }
    if header < 20 {
        return Err(drop::BAD_HEADER_LENGTH);
    }
    let here = rest(p, l3);
    if here < header as usize {
        return Err(drop::TRUNCATED);
    }
    if header > 20 {
        return Err(punt::IP_OPTIONS);
    }
    let len = first & 0xffff;
    if len < 20 {
        return Err(drop::BAD_HEADER_LENGTH);
    }
    if len as usize > here {
        return Err(drop::TRUNCATED);
    }
    let sum = words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64;
    if fold(sum) != 0xffff {
        return Err(drop::BAD_CHECKSUM_L3);
    }
    let (src, dst) = (u32::from_be(words[3]), u32::from_be(words[4]));
    let to_group = dst >> 28 == 14 || dst == u32::MAX;
    if src >> 28 == 14 || src == u32::MAX || src >> 24 == 127 || (src == 0 && !to_group) {
        return Err(drop::MARTIAN_SOURCE);
    }
    if dst >> 24 == 127 || dst == 0 {
        return Err(drop::MARTIAN_DESTINATION);
    }
    let second = u32::from_be(words[1]);
    let third = u32::from_be(words[2]);
    p.family = family::V4;
    p.src = Addr([words[3], 0, 0, 0]);
    p.dst = Addr([words[4], 0, 0, 0]);
    p.ttl = (third >> 24) as u8;
    p.protocol = (third >> 16) as u8;
    p.tos = (first >> 16) as u8;
    p.ip_len = len;
    p.l4 = (l3 + 20) as u16;
    let offset = (second & 0x1fff) * 8;
    if second & 0x4000 != 0 {
        p.flags |= flag::DF;
    }
    if offset + (len - 20) > 65_535 {
        return Err(drop::BAD_HEADER_LENGTH);
    }
    if second & 0x3fff != 0 {
        p.flags |= flag::FRAGMENT | if second & 0x2000 != 0 { flag::MORE } else { 0 };
        p.fragment_id = second >> 16;
        p.fragment_offset = offset as u16;
        if offset != 0 {
            p.kind = l4::LATER;
            (p.sport, p.dport) = (0, 0);
            return Ok(());
        }
    }
    transport(ctx, p, l3 + 20, len - 20)
}

/// Reads an IPv6 header and what follows it.
#[inline(always)]
pub fn ipv6<C: Ctx>(ctx: C, p: &mut Packet, l3: usize) -> Step {
    let (Some(head), Some(src), Some(dst)) =
        (read::<C, [u32; 2]>(ctx, l3), read::<C, [u32; 4]>(ctx, l3 + 8), read::<C, [u32; 4]>(ctx, l3 + 24))
    else {
        return Err(drop::TRUNCATED);
    };
    let (first, second) = (u32::from_be(head[0]), u32::from_be(head[1]));
    if first >> 28 != 6 {
        return Err(drop::UNSUPPORTED_L3);
    }
    let payload = second >> 16;
    if 40 + payload as usize > rest(p, l3) {
        return Err(drop::TRUNCATED);
    }
    let loopback = |a: &[u32; 4]| a[0] | a[1] | a[2] == 0 && a[3] == 1u32.to_be();
    let unspecified = |a: &[u32; 4]| a[0] | a[1] | a[2] | a[3] == 0;
    let group = |a: &[u32; 4]| u32::from_be(a[0]) >> 24 == 0xff;
    if group(&src) || loopback(&src) || (unspecified(&src) && !group(&dst)) {
        return Err(drop::MARTIAN_SOURCE);
    }
    if loopback(&dst) || unspecified(&dst) {
        return Err(drop::MARTIAN_DESTINATION);
    }
    p.family = family::V6;
    p.src = Addr(src);
    p.dst = Addr(dst);
    p.ttl = second as u8;
    p.tos = (first >> 20) as u8;
    p.ip_len = 40 + payload;
    p.flags |= flag::DF;
    let mut next = (second >> 8) as u8;
    let (mut at, mut left) = (l3 + 40, payload);
    if next == 44 {
        if left < 8 {
            return Err(drop::BAD_EXTENSION_HEADER);
        }
        let Some(fragment) = read::<C, [u32; 2]>(ctx, at) else { return Err(drop::BAD_EXTENSION_HEADER) };
        let word = u32::from_be(fragment[0]);
        let (offset, more) = (word & 0xfff8, word & 1 != 0);
        next = (word >> 24) as u8;
        at += 8;
        left -= 8;
        if offset != 0 || more {
            p.flags |= flag::FRAGMENT | if more { flag::MORE } else { 0 };
            p.fragment_id = u32::from_be(fragment[1]);
            p.fragment_offset = offset as u16;
        }
        if offset != 0 {
            p.protocol = next;
            p.l4 = at as u16;
            p.kind = l4::LATER;
            (p.sport, p.dport) = (0, 0);
            return Ok(());
        }
    }
    // Hop-by-hop, routing, another fragment header, authentication, destination options.
    if matches!(next, 0 | 43 | 44 | 51 | 60) {
        return Err(punt::PARSE);
    }
    p.protocol = next;
    p.l4 = at as u16;
    transport(ctx, p, at, left)
}

#[inline(always)]
fn transport<C: Ctx>(ctx: C, p: &mut Packet, at: usize, len: u32) -> Step {
    (p.sport, p.dport) = (0, 0);
    let ipv4 = p.family == family::V4;
    match p.protocol {
        6 => {
            if len < 20 {
                return Err(drop::TRUNCATED);
            }
            let (Some(ports), Some(bits)) = (read::<C, [u16; 2]>(ctx, at), read::<C, [u8; 2]>(ctx, at + 12))
            else {
                return Err(drop::TRUNCATED);
            };
            let header = (bits[0] >> 4) as u32 * 4;
            if header < 20 {
                return Err(drop::BAD_HEADER_LENGTH);
            }
            if len < header {
                return Err(drop::TRUNCATED);
            }
            p.kind = l4::TCP;
            p.detail = bits[1];
            (p.sport, p.dport) = (ports[0], ports[1]);
        }
        17 => {
            if len < 8 {
                return Err(drop::TRUNCATED);
            }
            let Some(head) = read::<C, [u16; 4]>(ctx, at) else { return Err(drop::TRUNCATED) };
            let told = u16::from_be(head[2]) as u32;
            if told < 8 {
                return Err(drop::BAD_HEADER_LENGTH);
            }
            if p.flags & flag::FRAGMENT == 0 && told > len {
                return Err(drop::TRUNCATED);
            }
            if head[3] == 0 && !ipv4 && BARE_UDP.get(&(head[1] as u32)).is_none() {
                return Err(drop::BAD_CHECKSUM_L4);
            }
            p.kind = l4::UDP;
            (p.sport, p.dport) = (head[0], head[1]);
        }
        132 => {
            if len < 12 {
                return Err(drop::TRUNCATED);
            }
            let Some(ports) = read::<C, [u16; 2]>(ctx, at) else { return Err(drop::TRUNCATED) };
            p.kind = l4::SCTP;
            // 255 is no chunk's type (RFC 9260 section 3.2): nothing follows the common header.
            p.detail = if len > 12 { read::<C, u8>(ctx, at + 12).unwrap_or(255) } else { 255 };
            (p.sport, p.dport) = (ports[0], ports[1]);
        }
        1 if ipv4 => return icmp_v4(ctx, p, at, len),
        58 if !ipv4 => return icmp_v6(ctx, p, at, len),
        1 | 58 => return Err(drop::UNSUPPORTED_L4),
        _ => p.kind = l4::OTHER,
    }
    Ok(())
}

#[inline(always)]
fn icmp_v4<C: Ctx>(ctx: C, p: &mut Packet, at: usize, len: u32) -> Step {
    if len < 8 {
        return Err(drop::TRUNCATED);
    }
    let (Some(head), Some(id)) = (read::<C, [u8; 2]>(ctx, at), read::<C, u16>(ctx, at + 4)) else {
        return Err(drop::TRUNCATED);
    };
    (p.detail, p.code) = (head[0], head[1]);
    p.kind = match head[0] {
        8 | 13 => l4::REQUEST,
        0 | 14 => l4::REPLY,
        3 | 4 | 5 | 11 | 12 => l4::ERROR,
        _ => l4::ICMP_OTHER,
    };
    if p.kind == l4::REQUEST || p.kind == l4::REPLY {
        (p.sport, p.dport) = (id, id);
    }
    Ok(())
}

#[inline(always)]
fn icmp_v6<C: Ctx>(ctx: C, p: &mut Packet, at: usize, len: u32) -> Step {
    if len < 8 {
        return Err(drop::TRUNCATED);
    }
    let (Some(head), Some(id)) = (read::<C, [u8; 2]>(ctx, at), read::<C, u16>(ctx, at + 4)) else {
        return Err(drop::TRUNCATED);
    };
    (p.detail, p.code) = (head[0], head[1]);
    p.kind = match head[0] {
        128 => l4::REQUEST,
        129 => l4::REPLY,
        130..=132 | 143 => l4::MLD,
        133..=137 if p.ttl == 255 => l4::ND,
        0..=127 => l4::ERROR,
        _ => l4::ICMP_OTHER,
    };
    if p.kind == l4::REQUEST || p.kind == l4::REPLY {
        (p.sport, p.dport) = (id, id);
    }
    Ok(())
}
