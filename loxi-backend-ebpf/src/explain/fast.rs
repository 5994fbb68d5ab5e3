//! The short way: a record of an established flow, and whether it is believed.
//!
//! A frame that can't go this way at all, or that has no record, is not told of: the long way
//! begins at its first byte again. A record that is there is told of either way.

use super::flows::{Entry, Key};
use super::frame::{ETH, ethertype, fold, is_unicast, sum};
use super::{UNTAGGED, Walk, words};
use crate::sys::{PATH_MTUS, STATIONS};
use loxi_core::packet::{Fate, Stage};
use loxi_ebpf_layout::code::program;
use loxi_ebpf_layout::flow::{AGES, BUSY, FAST, IPIP, NAT, RECHECK, REPLY, ROUTED, TUNNEL, rest, state};
use loxi_ebpf_layout::l2::{Link as Wire, Port, Station, port};
use loxi_ebpf_layout::scratch::{flag, l4, tracking, way};
use loxi_ebpf_layout::{Addr, family};

/// TCP flags that move a connection's state, or may: FIN, SYN, RST.
const MOVING: u8 = 0x07;

/// A packet's headers as far as they are needed here.
struct Heads {
    family: u8,
    key: Key,
    dmac: [u8; 6],
    smac: [u8; 6],
    /// Length of the IP packet.
    len: u32,
    ttl: u8,
    tos: u8,
    df: bool,
    /// Where the transport header is.
    l4: usize,
}

/// What the link of a way says.
struct Link {
    mtu: u16,
    dmac: [u8; 6],
    smac: [u8; 6],
    outer_smac: [u8; 6],
}

impl Walk<'_> {
    /// The fate of a packet that goes the short way.
    pub(super) fn fast(&mut self) -> Option<Fate> {
        let ingress = self.short_ingress()?;
        let heads = match self.word16(12)? {
            ethertype::IPV4 => self.heads_v4(ingress.zone)?,
            ethertype::IPV6 => self.heads_v6(ingress.zone)?,
            _ => return None,
        };
        let (entry, egress, link) = self.recorded(&ingress, &heads)?;
        self.met(&ingress, &entry);
        self.leave_short(&heads, &entry, &egress, &link);
        Some(Fate::Forwarded)
    }

    /// The program after the short way of what came out of a tunnel.
    pub(super) fn fast_inner(&mut self) -> Option<u32> {
        let p = &self.p;
        let keeps = match p.kind {
            l4::TCP => p.detail & MOVING == 0,
            l4::UDP | l4::REQUEST | l4::REPLY => true,
            _ => false,
        };
        if p.family == 0 || p.flags & flag::FRAGMENT != 0 || p.tag != UNTAGGED || !keeps {
            return None;
        }
        let ingress = self.short_ingress()?;
        let heads = Heads {
            family: p.family,
            key: Key { src: p.src, dst: p.dst, rest: rest::key(p.sport, p.dport, p.protocol, ingress.zone) },
            dmac: p.dmac,
            smac: p.smac,
            len: p.ip_len,
            ttl: p.ttl,
            tos: p.tos,
            df: p.flags & flag::DF != 0,
            l4: p.l4.into(),
        };
        let (entry, _, link) = self.recorded(&ingress, &heads)?;
        let before = self.p.stages;
        self.met(&ingress, &entry);
        self.p.stages = before | self.p.stages & !(1 << 0 | 1 << 16) | 1 << 11;
        self.p.zone = ingress.zone;
        self.p.tracking = tracking::ESTABLISHED;
        self.p.flags |= if rest::flags(entry.word) & NAT != 0 { flag::NAT } else { 0 };
        self.send_short(&heads, &entry, &link);
        let routed = self.p.routed != 0;
        let macs = if routed { (link.dmac, link.smac) } else { (heads.dmac, heads.smac) };
        (self.p.new_dmac, self.p.new_smac) = macs;
        Some(program::SEND)
    }

    /// The ingress port, where packets may go the short way.
    fn short_ingress(&self) -> Option<Port> {
        let may = |port: &Port| port.flags & (port::UP | port::TRUNK) == port::UP && port.zone != 0;
        self.port_of(self.p.port).filter(may)
    }

    /// The record of a packet, with the port and the link by which it leaves, if it is believed.
    fn recorded(&mut self, ingress: &Port, heads: &Heads) -> Option<(Entry, Port, Link)> {
        let number = self.find(heads.family, &heads.key)?;
        let entry = self.entry(heads.family, number)?;
        let zone = words::name(&self.t.names.zones, ingress.zone);
        let key = format!("short way: zone {zone} {}", words::tuple(heads.family, &heads.key));
        let epoch = entry.seen.epoch;
        let record = words::learned(format!("record {number}, {}, epoch {epoch}", self.flags_of(&entry)));
        match self.believed(ingress, heads, &entry) {
            Ok((egress, link)) => {
                self.note(Stage::Conntrack, key, record, "believed".to_owned());
                Some((entry, egress, link))
            }
            Err(why) => {
                self.note(Stage::Conntrack, key, record, format!("not believed: {why}"));
                None
            }
        }
    }

    fn flags_of(&self, entry: &Entry) -> String {
        let flags = rest::flags(entry.word);
        let names = [
            (REPLY, "reply"),
            (ROUTED, "routed"),
            (TUNNEL, "tunnel"),
            (IPIP, "ipip"),
            (NAT, "nat"),
            (FAST, "fast"),
            (AGES, "ages"),
            (BUSY, "busy"),
        ];
        let set: Vec<&str> =
            names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
        let state = words::state_name(rest::state(entry.word));
        if set.is_empty() { state.to_owned() } else { format!("{state}, {}", set.join("|")) }
    }

    /// Stages that such a packet counts as having met.
    fn met(&mut self, ingress: &Port, entry: &Entry) {
        let guarded = if ingress.flags & port::GUARDED != 0 { 1 << 3 } else { 0 };
        let routed = if rest::flags(entry.word) & ROUTED != 0 { 1 << 11 } else { 0 };
        self.p.stages = 1 << 0 | 1 << 1 | 1 << 6 | 1 << 10 | 1 << 16 | guarded | routed;
    }

    /// Ports or identifier of a transport that can go the short way.
    fn short_transport(&self, protocol: u8, at: usize, len: u32, v6: bool) -> Option<(u16, u16)> {
        match protocol {
            6 => {
                let bytes = self.bytes::<16>(at)?;
                let header = u32::from(bytes[12] >> 4) * 4;
                if header < 20 || header > len || bytes[13] & MOVING != 0 {
                    return None;
                }
                Some((self.word16(at)?, self.word16(at + 2)?))
            }
            17 => {
                let bytes = self.bytes::<8>(at)?;
                let told = u32::from(u16::from_be_bytes([bytes[4], bytes[5]]));
                // Without a checksum, IPv6 has rules of its own (RFC 6935).
                if told < 8 || told > len || [bytes[6], bytes[7]] == [0, 0] && v6 {
                    return None;
                }
                Some((self.word16(at)?, self.word16(at + 2)?))
            }
            1 | 58 => {
                let [kind, _, _, _, high, low, ..] = self.bytes::<8>(at)?;
                let query = if v6 { matches!(kind, 128 | 129) } else { matches!(kind, 0 | 8 | 13 | 14) };
                let id = u16::from_ne_bytes([high, low]);
                (len >= 8 && query).then_some((id, id))
            }
            _ => None,
        }
    }

    fn heads_v4(&self, zone: u8) -> Option<Heads> {
        let bytes = self.bytes::<20>(ETH)?;
        let mut w = [0u32; 5];
        for (word, chunk) in w.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        let len = u16::from_be_bytes([bytes[2], bytes[3]]);
        let fragment = u16::from_be_bytes([bytes[6], bytes[7]]);
        if bytes[0] != 0x45 || fragment & 0x3fff != 0 || fold(sum(&w)) != 0xffff {
            return None;
        }
        if len < 28 || ETH + usize::from(len) > self.frame.len() {
            return None;
        }
        let (ttl, protocol) = (bytes[8], bytes[9]);
        let (sport, dport) = self.short_transport(protocol, ETH + 20, u32::from(len) - 20, false)?;
        Some(Heads {
            family: family::V4,
            key: Key {
                src: Addr([w[3], 0, 0, 0]),
                dst: Addr([w[4], 0, 0, 0]),
                rest: rest::key(sport, dport, protocol, zone),
            },
            dmac: self.bytes(0)?,
            smac: self.bytes(6)?,
            len: len.into(),
            ttl,
            tos: bytes[1],
            df: fragment & 0x4000 != 0,
            l4: ETH + 20,
        })
    }

    fn heads_v6(&self, zone: u8) -> Option<Heads> {
        let head = self.bytes::<8>(ETH)?;
        let (src, dst) = (self.addr6(ETH + 8)?, self.addr6(ETH + 24)?);
        let payload = u16::from_be_bytes([head[4], head[5]]);
        if head[0] >> 4 != 6 || payload < 8 || ETH + 40 + usize::from(payload) > self.frame.len() {
            return None;
        }
        let (sport, dport) = self.short_transport(head[6], ETH + 40, payload.into(), true)?;
        Some(Heads {
            family: family::V6,
            key: Key { src, dst, rest: rest::key(sport, dport, head[6], zone) },
            dmac: self.bytes(0)?,
            smac: self.bytes(6)?,
            len: u32::from(payload) + 40,
            ttl: head[7],
            tos: head[0] << 4 | head[1] >> 4,
            df: true,
            l4: ETH + 40,
        })
    }

    /// Whether a record's decision holds for the packet: the port and the link by which it leaves, or
    /// what speaks against it.
    fn believed(&self, ingress: &Port, heads: &Heads, entry: &Entry) -> Result<(Port, Link), String> {
        let flags = rest::flags(entry.word);
        let is = |condition: bool, why: &str| if condition { Err(why.to_owned()) } else { Ok(()) };
        is(flags & BUSY != 0, "it is being written")?;
        is(flags & FAST == 0, "its packets go the long way")?;
        let keeps = match rest::state(entry.word) {
            state::ESTABLISHED | state::CLOSE_WAIT | state::REPLIED => true,
            state::UNREPLIED => flags & REPLY == 0,
            _ => false,
        };
        is(!keeps, "the packet may move its state")?;
        let seen = entry.seen;
        if seen.epoch != self.p.epoch {
            return Err(format!("decided in epoch {}, now {}", seen.epoch, self.p.epoch));
        }
        let now = super::flows::tick(self.p.now);
        let ages = flags & AGES != 0 && (now ^ seen.seen) / RECHECK != 0;
        is(now.wrapping_sub(seen.seen) >= RECHECK || ages, "its decision is to be looked at again by now")?;
        let out = entry.out;
        if out.in_port != self.p.port {
            return Err(format!("it was decided for port {}", self.port_name(out.in_port)));
        }
        let guarded = ingress.flags & port::GUARDED != 0;
        let source = if guarded { heads.smac == ingress.mac } else { is_unicast(heads.smac) };
        let wanted = if flags & ROUTED != 0 { ingress.gateway } else { out.mac };
        is(
            !source || heads.dmac != wanted,
            "another link layer than that of the packet that it was decided for",
        )?;
        let learns = ingress.flags & port::LEARN != 0;
        is(
            learns && !self.is_where_it_was(ingress, heads.smac),
            "its sender was not last seen here by the bridge",
        )?;
        let egress = self.port_of(out.port).ok_or_else(|| format!("its port {} is none", out.port))?;
        if egress.flags & port::OPEN == 0 {
            return Err(format!("port {} is closed", self.port_name(out.port)));
        }
        let inner = self.p.ended != 0;
        is(inner && flags & (TUNNEL | IPIP) != 0, "its packets leave in a tunnel")?;
        let padded = !inner && ETH + heads.len as usize != self.frame.len();
        is(flags & ROUTED != 0 && (heads.ttl <= 1 || padded), "its TTL is over, or it is padded")?;
        let link = self.link_of(heads.family, &egress, entry)?;
        is(heads.len > link.mtu.into(), "it is longer than the MTU")?;
        Ok((egress, link))
    }

    /// Whether a learning bridge has the sender at this port.
    fn is_where_it_was(&self, ingress: &Port, mac: [u8; 6]) -> bool {
        let link = Wire { id: ingress.bridge, vlan: ingress.vlan };
        let known = self.t.look(STATIONS, &Station { link, mac, reserved: 0 });
        known.is_some_and(|at| {
            let there = at.port == self.p.port && at.tunnel == self.p.back;
            at.fixed != 0 || there && at.expires > self.p.now
        })
    }

    fn link_of(&self, family: u8, egress: &Port, entry: &Entry) -> Result<Link, String> {
        let (flags, out) = (rest::flags(entry.word), entry.out);
        if flags & (ROUTED | TUNNEL | IPIP) == 0 {
            return Ok(Link { mtu: egress.mtu, dmac: out.mac, smac: [0; 6], outer_smac: [0; 6] });
        }
        let number = if flags & TUNNEL == 0 { out.via } else { egress.interface };
        let interface = self.interface_of(number).ok_or_else(|| format!("its interface {number} is none"))?;
        let mtu = egress.mtu.min(interface.mtu);
        let smac = interface.mac;
        if flags & IPIP != 0 {
            let header = if family == family::V4 { 20 } else { 40 };
            return Ok(Link { mtu: mtu.saturating_sub(header), dmac: out.mac, smac, outer_smac: smac });
        }
        if flags & TUNNEL == 0 {
            return Ok(Link { mtu, dmac: out.mac, smac, outer_smac: smac });
        }
        let name = words::name(&self.t.names.tunnels, out.via);
        let tunnel = self.tunnel_of(out.via).filter(|tunnel| tunnel.exists != 0);
        let tunnel = tunnel.ok_or_else(|| format!("tunnel {name} is none"))?;
        // A path that got narrower is the long way's to know.
        if self.t.array(PATH_MTUS, tunnel.endpoint).is_none_or(|lowered| lowered != 0) {
            return Err(format!("the path of tunnel {name} got narrower"));
        }
        let inner =
            self.open(tunnel.in_port).ok_or_else(|| format!("the port of tunnel {name} is closed"))?;
        let mtu = mtu.saturating_sub(tunnel.overhead).min(inner.mtu);
        Ok(Link { mtu, dmac: tunnel.inner_dst, smac: tunnel.inner_src, outer_smac: smac })
    }

    /// Where a record sends a packet.
    fn send_short(&mut self, heads: &Heads, entry: &Entry, link: &Link) {
        let flags = rest::flags(entry.word);
        let protocol = rest::protocol(heads.key.rest);
        let p = &mut self.p;
        p.flags |= if heads.df { flag::DF } else { 0 };
        (p.family, p.protocol, p.tos, p.ttl) = (heads.family, protocol, heads.tos, heads.ttl);
        (p.src, p.dst, p.new_src, p.new_dst) = (heads.key.src, heads.key.dst, entry.new.src, entry.new.dst);
        (p.sport, p.dport) = (rest::sport(heads.key.rest), rest::dport(heads.key.rest));
        (p.new_sport, p.new_dport) = (rest::sport(entry.new.rest), rest::dport(entry.new.rest));
        p.kind = match protocol {
            6 => l4::TCP,
            17 => l4::UDP,
            _ => l4::REQUEST,
        };
        p.l4 = heads.l4 as u16;
        p.routed = u8::from(flags & ROUTED != 0);
        (p.tag, p.out_port, p.out_tunnel) = (UNTAGGED, entry.out.port, entry.out.via);
        (p.outer_dmac, p.outer_smac) = (entry.out.mac, link.outer_smac);
        p.way = if flags & TUNNEL != 0 {
            way::TUNNEL
        } else if flags & IPIP != 0 {
            way::IPIP
        } else {
            way::PORT
        };
        if p.way == way::IPIP {
            p.outer_family = heads.family;
            [p.outer_src, p.dsr_target] = entry.pair;
        }
        let text = self.summary();
        let how = if flags & ROUTED != 0 {
            format!("routed to {}", words::mac(link.dmac))
        } else {
            "bridged".to_owned()
        };
        let port = self.port_name(entry.out.port);
        let becomes =
            if flags & NAT != 0 { format!("becomes {}, ", self.translated()) } else { String::new() };
        let entry = words::learned("flow");
        self.note(Stage::Forward, text, entry, format!("{becomes}port {port}, {how}, mtu {}", link.mtu));
    }

    fn leave_short(&mut self, heads: &Heads, entry: &Entry, egress: &Port, link: &Link) {
        let flags = rest::flags(entry.word);
        let mut frame = self.frame.to_vec();
        self.send_short(heads, entry, link);
        if flags & NAT != 0 {
            // The headers are all there: they were read.
            let _ = self.translate(&mut frame);
        }
        if flags & ROUTED != 0 {
            let _ = self.hop(&mut frame);
            if let Some((macs, _)) = frame.split_at_mut_checked(12) {
                macs[..6].copy_from_slice(&link.dmac);
                macs[6..].copy_from_slice(&link.smac);
            }
        }
        let egress = Port { flags: egress.flags & !port::TRUNK, ..*egress };
        self.leave(frame, &egress);
    }
}
