//! Stage 16: the frame as it would leave. It goes nowhere.

use super::frame::{ETH, ethertype, fold, sum};
use super::hash::{self, Tuple};
use super::{Step, UNTAGGED, Walk};
use crate::sys::PORT_VLANS;
use loxi_core::packet::{Output, Stage};
use loxi_ebpf_layout::code::drop;
use loxi_ebpf_layout::l2::{Port, PortVlan, carried, port};
use loxi_ebpf_layout::l3::interface;
use loxi_ebpf_layout::scratch::{flag, l4, tracking, way};
use loxi_ebpf_layout::tunnel::{self, Tunnel};
use loxi_ebpf_layout::{Addr, family};

/// Bytes of UDP and VXLAN headers.
const VXLAN: usize = 16;

/// Fields of an outer IP header.
struct Outer {
    v6: bool,
    src: Addr,
    dst: Addr,
    protocol: u8,
    ttl: u8,
    tos: u8,
    df: bool,
}

impl Walk<'_> {
    pub(super) fn send(&mut self) -> Step {
        self.meet(Stage::Send);
        if self.p.way == way::TUNNEL {
            let port = self.tunnel_of(self.p.out_tunnel).map(|tunnel| tunnel.in_port);
            if let Some(closed) = port.filter(|port| self.open(*port).is_none()) {
                return Err(self.closed(closed));
            }
            if port.is_none() {
                return Err(drop::EGRESS_DOWN);
            }
        }
        let Some(egress) = self.open(self.p.out_port) else { return Err(self.closed(self.p.out_port)) };
        let Some(frame) = self.rewritten() else { return Err(drop::TUNNEL_NO_HEADROOM) };
        self.leave(frame, &egress);
        Ok(())
    }

    fn closed(&mut self, port: u16) -> loxi_ebpf_layout::code::Fate {
        let (key, entry) = (format!("port {}", self.port_name(port)), self.port_entry(port));
        self.refuse(key, entry, drop::EGRESS_DOWN)
    }

    /// Encapsulates a frame that is ready, and lets it go.
    pub(super) fn leave(&mut self, frame: Vec<u8>, egress: &Port) {
        let (bytes, tag) = match self.p.way {
            way::PORT => (frame, self.tag_for(egress)),
            way::IPIP => (self.ip_in_ip(&frame), UNTAGGED),
            _ => match self.tunnel_of(self.p.out_tunnel) {
                Some(tunnel) => (self.tunnelled(&tunnel, &frame), UNTAGGED),
                None => return,
            },
        };
        if let Some(name) = self.t.names.ports.live(self.p.out_port.into()) {
            self.outputs.push(Output { port: name.clone(), bytes: tagged(&bytes, tag) });
        }
    }

    /// The tag with which the packet leaves a port of a bridge.
    fn tag_for(&self, egress: &Port) -> u16 {
        if egress.flags & port::TRUNK == 0 {
            return UNTAGGED;
        }
        let vlan = if self.p.routed == 0 {
            self.p.vlan
        } else {
            match self.interface_of(self.p.out_interface) {
                Some(own) if own.flags & interface::ON_BRIDGE != 0 => own.link.vlan,
                _ => return UNTAGGED,
            }
        };
        let how = self.t.look(PORT_VLANS, &PortVlan { port: self.p.out_port, vlan }).unwrap_or(0);
        if how == 0 || how & carried::NATIVE != 0 {
            return UNTAGGED;
        }
        let priority = if self.p.tag == UNTAGGED { 0 } else { self.p.tag & 0xe000 };
        priority | vlan
    }

    /// Everything that happens to the packet itself.
    fn rewritten(&mut self) -> Option<Vec<u8>> {
        let strip = usize::from(self.p.l3).checked_sub(ETH)?;
        let ethernet = self.frame.get(..ETH)?;
        let mut frame = ethernet.to_vec();
        frame.extend_from_slice(self.frame.get(ETH + strip..)?);
        if self.p.ended == 0 && strip > 0 {
            // The tag lay between the MACs and the ethertype.
            frame[12..14].copy_from_slice(&self.p.ethertype.to_ne_bytes());
        }
        self.p.end = self.p.end.wrapping_sub(strip as u32);
        self.p.l4 = self.p.l4.wrapping_sub(strip as u16);
        self.p.l3 = ETH as u16;
        let wanted = if self.p.routed != 0 { ETH + self.p.ip_len as usize } else { self.p.end as usize };
        frame.truncate(wanted);
        if self.p.flags & flag::ECN != 0 {
            self.congestion(&mut frame)?;
        }
        let changed = matches!(self.p.tracking, tracking::NEW | tracking::ESTABLISHED);
        if self.p.flags & flag::NAT != 0 && changed {
            self.translate(&mut frame)?;
        }
        if self.p.routed != 0 {
            self.hop(&mut frame)?;
        }
        if self.p.routed != 0 || self.p.ended != 0 {
            frame.get_mut(..6)?.copy_from_slice(&self.p.new_dmac);
            frame.get_mut(6..12)?.copy_from_slice(&self.p.new_smac);
            frame.get_mut(12..14)?.copy_from_slice(&self.p.ethertype.to_ne_bytes());
        }
        Some(frame)
    }

    /// One hop less.
    pub(super) fn hop(&self, frame: &mut [u8]) -> Option<()> {
        if self.p.family == family::V4 {
            let word = read32(frame, ETH + 8)?;
            // The TTL is the word's first byte, so the checksum grows by one in this machine's order.
            let check = (word >> 16) + 1;
            let check = if check >= 0xffff { check + 1 } else { check };
            write(frame, ETH + 8, &((word & 0xffff).wrapping_sub(1) | check << 16).to_ne_bytes())
        } else {
            write(frame, ETH + 7, &[self.p.ttl.wrapping_sub(1)])
        }
    }

    /// The congestion field that the outer packet's left.
    fn congestion(&self, frame: &mut [u8]) -> Option<()> {
        let word = read32(frame, ETH)?;
        if self.p.family == family::V4 {
            let new = word & 0xffff_00ff | u32::from(self.p.tos) << 8;
            let check = read16(frame, ETH + 10)?;
            let total = u64::from(!check) + u64::from(!word & 0xffff) + u64::from(new & 0xffff);
            write(frame, ETH, &new.to_ne_bytes())?;
            write(frame, ETH + 10, &(!fold(total)).to_ne_bytes())
        } else {
            let host = u32::from_be(word) & 0xf00f_ffff | u32::from(self.p.tos) << 20;
            write(frame, ETH, &host.to_be_bytes())
        }
    }

    /// Gives the packet its new addresses and ports.
    pub(super) fn translate(&self, frame: &mut [u8]) -> Option<()> {
        let p = &self.p;
        let v4 = p.family == family::V4;
        let words = if v4 { 1 } else { 4 };
        let addrs = difference(&p.src, &p.new_src, words) + difference(&p.dst, &p.new_dst, words);
        let moved = p.src != p.new_src || p.dst != p.new_dst;
        let l4 = usize::from(p.l4);
        let id = p.protocol == 1 || p.protocol == 58;
        let query = p.kind == l4::REQUEST || p.kind == l4::REPLY;
        let has_ports = matches!(p.kind, l4::TCP | l4::UDP | l4::SCTP);
        if p.kind != l4::LATER {
            let old = u32::from(p.sport) | u32::from(p.dport) << 16;
            let new = u32::from(p.new_sport) | u32::from(p.new_dport) << 16;
            let ports = if old == new || !(query || has_ports) {
                0
            } else if id {
                u64::from(!old & 0xffff) + u64::from(new & 0xffff)
            } else {
                u64::from(!old) + u64::from(new)
            };
            let field = match p.protocol {
                6 => 16,
                17 => 6,
                1 | 58 => 2,
                _ => 0,
            };
            // ICMP for IPv4 has no pseudo header.
            let pseudo = if p.protocol == 1 || !moved { 0 } else { addrs };
            if field != 0 {
                checksum(frame, l4 + field, pseudo + ports, p.protocol == 17)?;
            }
            if query {
                write(frame, l4 + 4, &p.new_sport.to_ne_bytes())?;
            }
            if has_ports {
                write(frame, l4, &new.to_ne_bytes())?;
            }
        }
        if !moved {
            return Some(());
        }
        let bytes: Vec<u8> = [p.new_src, p.new_dst]
            .iter()
            .flat_map(|addr| addr.0[..words].iter().flat_map(|word| word.to_ne_bytes()))
            .collect();
        if v4 {
            let check = read16(frame, ETH + 10)?;
            write(frame, ETH + 10, &(!fold(u64::from(!check) + addrs)).to_ne_bytes())?;
            write(frame, ETH + 12, &bytes)
        } else {
            write(frame, ETH + 8, &bytes)
        }
    }

    /// An outer Ethernet and IP header before `payload` bytes.
    fn outer_header(&mut self, outer: &Outer, payload: usize) -> Vec<u8> {
        let mut out = [self.p.outer_dmac, self.p.outer_smac].concat();
        let length = payload as u32;
        if outer.v6 {
            let head = [
                (0x6000_0000 | u32::from(outer.tos) << 20).to_be(),
                ((length & 0xffff) << 16 | u32::from(outer.protocol) << 8 | u32::from(outer.ttl)).to_be(),
            ];
            out.extend_from_slice(&ethertype::IPV6.to_ne_bytes());
            let words = [&head[..], &outer.src.0, &outer.dst.0].concat();
            out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            return out;
        }
        // What may not be fragmented needs no identification (RFC 6864 section 4.1).
        let random = u64::from(self.p.random >> 16);
        let id = if outer.df { 0 } else { self.choose(0, 0xffff, 0, random) as u32 };
        let mut words = [
            (0x4500_0000 | u32::from(outer.tos) << 16 | 20u32.wrapping_add(length) & 0xffff).to_be(),
            (id << 16 | if outer.df { 0x4000 } else { 0 }).to_be(),
            (u32::from(outer.ttl) << 24 | u32::from(outer.protocol) << 16).to_be(),
            outer.src.0[0],
            outer.dst.0[0],
        ];
        words[2] |= u32::from(!fold(sum(&words))) << 16;
        out.extend_from_slice(&ethertype::IPV4.to_ne_bytes());
        out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        out
    }

    fn inner_protocol(&self) -> u8 {
        if self.p.family == family::V4 { 4 } else { 41 }
    }

    fn ip_in_ip(&mut self, frame: &[u8]) -> Vec<u8> {
        let p = &self.p;
        let outer = Outer {
            v6: p.outer_family == family::V6,
            src: p.outer_src,
            dst: p.dsr_target,
            protocol: self.inner_protocol(),
            ttl: 64,
            tos: p.tos,
            df: true,
        };
        let inner = frame.get(ETH..).unwrap_or_default();
        [self.outer_header(&outer, inner.len()), inner.to_vec()].concat()
    }

    /// TTL, TOS and DF of a tunnel's outer header.
    fn outer_of(&self, tunnel: &Tunnel, protocol: u8) -> Outer {
        let p = &self.p;
        let ip = p.family != 0;
        let tos = if ip { p.tos } else { 0 };
        let dscp = if tunnel.flags & tunnel::flag::DSCP_INHERIT != 0 { tos & 0xfc } else { tunnel.tos };
        let ttl = if tunnel.flags & tunnel::flag::TTL_INHERIT == 0 {
            tunnel.ttl
        } else if !ip {
            64
        } else if p.routed != 0 {
            p.ttl.wrapping_sub(1)
        } else {
            p.ttl
        };
        let inherits = tunnel.flags & tunnel::flag::DF_INHERIT != 0 && ip && p.flags & flag::DF != 0;
        Outer {
            v6: tunnel.family == family::V6,
            src: tunnel.local,
            dst: tunnel.remote,
            protocol,
            ttl,
            tos: dscp | tos & 3,
            df: tunnel.flags & tunnel::flag::DF != 0 || inherits,
        }
    }

    fn tunnelled(&mut self, tunnel: &Tunnel, frame: &[u8]) -> Vec<u8> {
        if tunnel.kind != tunnel::kind::VXLAN {
            let outer = self.outer_of(tunnel, self.inner_protocol());
            let inner = frame.get(ETH..).unwrap_or_default();
            return [self.outer_header(&outer, inner.len()), inner.to_vec()].concat();
        }
        let (first, last) = (u64::from(tunnel.first), u64::from(tunnel.last));
        let span = u32::from(tunnel.last).wrapping_sub(tunnel.first.into()).wrapping_add(1).max(1);
        let hashed = first + u64::from(self.entropy() % span);
        let source = self.choose(first, last, hashed, hashed) as u16;
        let length = frame.len() + VXLAN;
        let outer = self.outer_of(tunnel, 17);
        let mut out = self.outer_header(&outer, length);
        out.extend_from_slice(&source.to_be_bytes());
        out.extend_from_slice(&tunnel.port.to_ne_bytes());
        out.extend_from_slice(&(length as u16).to_be_bytes());
        out.extend_from_slice(&[0, 0, 8, 0, 0, 0]);
        out.extend_from_slice(&tunnel.vni.to_ne_bytes());
        out.extend_from_slice(frame);
        out
    }

    /// What the outer source port depends on: the inner flow. Fragments have no ports, so none
    /// counts any.
    fn entropy(&self) -> u32 {
        let p = &self.p;
        let tuple = if p.family == 0 {
            let (sport, dport) = (u16::from(p.smac[5]).to_be(), u16::from(p.dmac[5]).to_be());
            Tuple { family: family::V4, src: Addr::ZERO, dst: Addr::ZERO, protocol: 0, sport, dport }
        } else {
            let whole = p.flags & flag::FRAGMENT == 0;
            let (sport, dport) = if whole { (p.new_sport, p.new_dport) } else { (0, 0) };
            let (family, src, dst) = (p.family, p.new_src, p.new_dst);
            Tuple { family, src, dst, protocol: p.protocol, sport, dport }
        };
        hash::of_tuple(0, &tuple)
    }
}

/// The difference that replacing words makes to a checksum.
fn difference(old: &Addr, new: &Addr, words: usize) -> u64 {
    old.0.iter().zip(&new.0).take(words).map(|(old, new)| u64::from(!old) + u64::from(*new)).sum()
}

/// Changes a checksum by a difference. `udp`: 0 stays 0.
fn checksum(frame: &mut [u8], at: usize, difference: u64, udp: bool) -> Option<()> {
    let before = read16(frame, at)?;
    if udp && before == 0 || difference == 0 {
        return Some(());
    }
    let after = !fold(u64::from(!before) + difference);
    write(frame, at, &if udp && after == 0 { 0xffff } else { after }.to_ne_bytes())
}

fn read16(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn read32(frame: &[u8], at: usize) -> Option<u32> {
    frame.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn write(frame: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    frame.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}

/// The frame with the 802.1Q tag that goes beside it.
pub(super) fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    if tag == UNTAGGED || frame.len() < 12 {
        return frame.to_vec();
    }
    [&frame[..12], &[0x81, 0x00], &tag.to_be_bytes(), &frame[12..]].concat()
}
