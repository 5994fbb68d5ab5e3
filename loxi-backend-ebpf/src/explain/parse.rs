//! Stage 0: headers, lengths, the IPv4 header's checksum, martians.

use super::frame::{ETH, ethertype, fold, is_unicast, sum};
use super::{Step, UNTAGGED, Walk};
use crate::sys::BARE_UDP;
use loxi_ebpf_layout::code::{drop, punt};
use loxi_ebpf_layout::scratch::{flag, l4};
use loxi_ebpf_layout::{Addr, family};

impl Walk<'_> {
    /// Reads the headers from an Ethernet header on: the packet's `l2` says where it is.
    pub(super) fn parse(&mut self) -> Step {
        let l2 = usize::from(self.p.l2);
        let (Some(dmac), Some(smac), Some(mut kind)) =
            (self.bytes(l2), self.bytes(l2 + 6), self.word16(l2 + 12))
        else {
            return Err(drop::TRUNCATED);
        };
        (self.p.dmac, self.p.smac) = (dmac, smac);
        let mut l3 = l2 + ETH;
        if kind == ethertype::VLAN && self.p.tag == UNTAGGED {
            let (Some(tci), Some(inner)) = (self.word16(l3), self.word16(l3 + 2)) else {
                return Err(drop::TRUNCATED);
            };
            self.p.tag = u16::from_be(tci);
            kind = inner;
            l3 += 4;
        }
        if self.p.tag != UNTAGGED && self.p.tag & 0x0fff == 0x0fff {
            return Err(drop::VLAN_FILTERED);
        }
        self.p.l3 = l3 as u16;
        self.p.ethertype = kind;
        if !is_unicast(smac) {
            return Err(drop::MARTIAN_MAC);
        }
        match kind {
            ethertype::IPV4 => self.ipv4(l3),
            ethertype::IPV6 => self.ipv6(l3),
            ethertype::ARP => self.arp(l3),
            _ => {
                self.p.family = 0;
                self.p.kind = l4::OTHER;
                Ok(())
            }
        }
    }

    /// Bytes of the frame, or of the inner one, from an offset on.
    fn rest(&self, from: usize) -> usize {
        (self.p.end as usize).saturating_sub(from)
    }

    fn arp(&mut self, l3: usize) -> Step {
        let Some(head) = self.bytes::<8>(l3) else { return Err(drop::TRUNCATED) };
        let [h0, h1, p0, p1, hardware, protocol, op0, op1] = head;
        let whole = 8 + 2 * (usize::from(hardware) + usize::from(protocol));
        if self.rest(l3) < whole {
            return Err(drop::TRUNCATED);
        }
        let operation = u16::from_be_bytes([op0, op1]);
        let ours = [h0, h1, p0, p1, hardware, protocol] == [0, 1, 8, 0, 6, 4];
        if !ours || operation != 1 && operation != 2 {
            return Err(drop::UNSUPPORTED_L3);
        }
        let (Some(sender), Some(target)) = (self.bytes(l3 + 14), self.bytes(l3 + 24)) else {
            return Err(drop::TRUNCATED);
        };
        self.p.family = 0;
        self.p.kind = l4::ARP;
        self.p.detail = operation as u8;
        (self.p.src, self.p.dst) = (Addr::v4(sender), Addr::v4(target));
        Ok(())
    }

    /// Reads an IPv4 header and what follows it.
    pub(super) fn ipv4(&mut self, l3: usize) -> Step {
        let Some(bytes) = self.bytes::<20>(l3) else { return Err(drop::TRUNCATED) };
        let mut words = [0u32; 5];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        let first = u32::from_be(words[0]);
        let (version, header) = (first >> 28, (first >> 24 & 15) * 4);
        if version != 4 {
            return Err(drop::UNSUPPORTED_L3);
        }
        if header < 20 {
            return Err(drop::BAD_HEADER_LENGTH);
        }
        let here = self.rest(l3);
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
        if fold(sum(&words)) != 0xffff {
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
        let (second, third) = (u32::from_be(words[1]), u32::from_be(words[2]));
        let p = &mut self.p;
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
        self.transport(l3 + 20, len - 20)
    }

    /// Reads an IPv6 header and what follows it.
    pub(super) fn ipv6(&mut self, l3: usize) -> Step {
        let (Some(head), Some(src), Some(dst)) =
            (self.bytes::<8>(l3), self.addr6(l3 + 8), self.addr6(l3 + 24))
        else {
            return Err(drop::TRUNCATED);
        };
        if head[0] >> 4 != 6 {
            return Err(drop::UNSUPPORTED_L3);
        }
        let payload = u32::from(u16::from_be_bytes([head[4], head[5]]));
        if 40 + payload as usize > self.rest(l3) {
            return Err(drop::TRUNCATED);
        }
        let loopback = Addr([0, 0, 0, 1u32.to_be()]);
        let group = |addr: &Addr| addr.octets()[0] == 0xff;
        if group(&src) || src == loopback || (src == Addr::ZERO && !group(&dst)) {
            return Err(drop::MARTIAN_SOURCE);
        }
        if dst == loopback || dst == Addr::ZERO {
            return Err(drop::MARTIAN_DESTINATION);
        }
        let p = &mut self.p;
        p.family = family::V6;
        (p.src, p.dst) = (src, dst);
        p.ttl = head[7];
        p.tos = head[0] << 4 | head[1] >> 4;
        p.ip_len = 40 + payload;
        p.flags |= flag::DF;
        let mut next = head[6];
        let (mut at, mut left) = (l3 + 40, payload);
        if next == 44 {
            if left < 8 {
                return Err(drop::BAD_EXTENSION_HEADER);
            }
            let Some(fragment) = self.bytes::<8>(at) else { return Err(drop::BAD_EXTENSION_HEADER) };
            let [kind, _, high, low, id @ ..] = fragment;
            let word = u16::from_be_bytes([high, low]);
            let (offset, more) = (word & 0xfff8, word & 1 != 0);
            next = kind;
            at += 8;
            left -= 8;
            let p = &mut self.p;
            if offset != 0 || more {
                p.flags |= flag::FRAGMENT | if more { flag::MORE } else { 0 };
                p.fragment_id = u32::from_be_bytes(id);
                p.fragment_offset = offset;
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
        self.p.protocol = next;
        self.p.l4 = at as u16;
        self.transport(at, left)
    }

    fn transport(&mut self, at: usize, len: u32) -> Step {
        (self.p.sport, self.p.dport) = (0, 0);
        let ipv4 = self.p.family == family::V4;
        match self.p.protocol {
            6 => self.tcp(at, len),
            17 => self.udp(at, len),
            132 => {
                if len < 12 {
                    return Err(drop::TRUNCATED);
                }
                let (Some(sport), Some(dport)) = (self.word16(at), self.word16(at + 2)) else {
                    return Err(drop::TRUNCATED);
                };
                self.p.kind = l4::SCTP;
                // 255 is no chunk's type (RFC 9260 section 3.2): nothing follows the common header.
                self.p.detail = if len > 12 { self.bytes(at + 12).map_or(255, |[chunk]| chunk) } else { 255 };
                (self.p.sport, self.p.dport) = (sport, dport);
                Ok(())
            }
            1 if ipv4 => self.icmp(at, len, |kind, _| match kind {
                8 | 13 => l4::REQUEST,
                0 | 14 => l4::REPLY,
                3 | 4 | 5 | 11 | 12 => l4::ERROR,
                _ => l4::ICMP_OTHER,
            }),
            58 if !ipv4 => self.icmp(at, len, |kind, ttl| match kind {
                128 => l4::REQUEST,
                129 => l4::REPLY,
                130..=132 | 143 => l4::MLD,
                133..=137 if ttl == 255 => l4::ND,
                0..=127 => l4::ERROR,
                _ => l4::ICMP_OTHER,
            }),
            1 | 58 => Err(drop::UNSUPPORTED_L4),
            _ => {
                self.p.kind = l4::OTHER;
                Ok(())
            }
        }
    }

    fn tcp(&mut self, at: usize, len: u32) -> Step {
        if len < 20 {
            return Err(drop::TRUNCATED);
        }
        let (Some(sport), Some(dport), Some([offset, flags])) =
            (self.word16(at), self.word16(at + 2), self.bytes(at + 12))
        else {
            return Err(drop::TRUNCATED);
        };
        let header = u32::from(offset >> 4) * 4;
        if header < 20 {
            return Err(drop::BAD_HEADER_LENGTH);
        }
        if len < header {
            return Err(drop::TRUNCATED);
        }
        self.p.kind = l4::TCP;
        self.p.detail = flags;
        (self.p.sport, self.p.dport) = (sport, dport);
        Ok(())
    }

    fn udp(&mut self, at: usize, len: u32) -> Step {
        if len < 8 {
            return Err(drop::TRUNCATED);
        }
        let Some(bytes) = self.bytes::<8>(at) else { return Err(drop::TRUNCATED) };
        let word = |n: usize| u16::from_ne_bytes([bytes[n], bytes[n + 1]]);
        let told = u32::from(u16::from_be(word(4)));
        if told < 8 {
            return Err(drop::BAD_HEADER_LENGTH);
        }
        if self.p.flags & flag::FRAGMENT == 0 && told > len {
            return Err(drop::TRUNCATED);
        }
        let v6 = self.p.family != family::V4;
        if word(6) == 0 && v6 && self.t.look(BARE_UDP, &word(2).into()).is_none() {
            return Err(drop::BAD_CHECKSUM_L4);
        }
        self.p.kind = l4::UDP;
        (self.p.sport, self.p.dport) = (word(0), word(2));
        Ok(())
    }

    fn icmp(&mut self, at: usize, len: u32, kind: fn(u8, u8) -> u8) -> Step {
        if len < 8 {
            return Err(drop::TRUNCATED);
        }
        let (Some([first, second]), Some(id)) = (self.bytes(at), self.word16(at + 4)) else {
            return Err(drop::TRUNCATED);
        };
        (self.p.detail, self.p.code) = (first, second);
        self.p.kind = kind(first, self.p.ttl);
        if matches!(self.p.kind, l4::REQUEST | l4::REPLY) {
            (self.p.sport, self.p.dport) = (id, id);
        }
        Ok(())
    }
}
