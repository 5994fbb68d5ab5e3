//! Stage 4: where tunnels end. The inner packet then stands in the outer one's place.

use super::frame::{ETH, ethertype};
use super::{Step, UNTAGGED, Walk, words};
use crate::sys::{BACKS, ENDINGS, OUTERS};
use loxi_core::ir::{EntityKey, TerminationKey, TunnelKind};
use loxi_core::net::Vni;
use loxi_core::packet::Stage;
use loxi_ebpf_layout::code::{drop, punt};
use loxi_ebpf_layout::scratch::{flag, l4};
use loxi_ebpf_layout::tunnel::{ANY_KEY, BackKey, EndKey, Ending, OuterKey, kind};
use loxi_ebpf_layout::{Addr, family};

impl Walk<'_> {
    /// Whether the packet ended a tunnel.
    pub(super) fn terminate(&mut self) -> Step<bool> {
        if self.p.kind == l4::ERROR {
            self.about_outer()?;
        }
        let (of, port) = match self.p.protocol {
            17 if self.p.kind == l4::UDP => (kind::VXLAN, self.p.dport),
            4 | 41 => (kind::IPIP, 0),
            _ => return Ok(false),
        };
        let (vrf, family, dst) = (self.p.vrf, self.p.family, self.p.dst);
        let any = EndKey { vrf, port, family, kind: of | ANY_KEY, reserved: 0, vni: 0, dst };
        let Some(here) = self.t.look(ENDINGS, &any) else { return Ok(false) };
        let mut key = EndKey { kind: of, ..any };
        let end = usize::from(self.p.l3) + self.p.ip_len as usize;
        let whole = self.p.flags & flag::FRAGMENT == 0;
        if of == kind::VXLAN {
            let at = usize::from(self.p.l4) + 8;
            let header = if at + 8 <= end && whole { self.bytes::<8>(at) } else { None };
            let Some([flags, _, _, _, a, b, c, _]) = header else { return Err(drop::TUNNEL_DECAP_ERROR) };
            if flags & 0x08 == 0 {
                return Err(drop::TUNNEL_DECAP_ERROR);
            }
            key.vni = u32::from_ne_bytes([a, b, c, 0]);
        }
        let Some(ending) = self.t.look(ENDINGS, &key) else {
            return if here.exclusive != 0 { Err(drop::TUNNEL_UNKNOWN_KEY) } else { Ok(false) };
        };
        if of == kind::IPIP && !whole {
            return Err(drop::TUNNEL_DECAP_ERROR);
        }
        self.meet(Stage::TunnelTermination);
        self.end(&key, &ending, end)?;
        Ok(true)
    }

    fn end(&mut self, key: &EndKey, ending: &Ending, end: usize) -> Step {
        let source = words::ip(self.p.family, self.p.src);
        let (vrf, dst) = (self.vrf_name(key.vrf), words::ip(key.family, key.dst));
        let matches = match key.kind {
            kind::VXLAN => {
                let vni = Vni::new(u32::from_be(key.vni) >> 8).ok();
                vni.map(|vni| TunnelKind::Vxlan { vni, port: u16::from_be(key.port) })
            }
            _ => Some(TunnelKind::Ipip),
        };
        let encap = matches.map(|matches| matches.to_string()).unwrap_or_default();
        let named = self.t.names.vrfs.live(key.vrf.into()).cloned().zip(matches);
        let termination =
            named.map(|(vrf, matches)| EntityKey::Termination(TerminationKey { vrf, dst, matches }));
        let entry = words::entity(termination, || "termination".to_owned());
        if !self.t.in_set(ending.peers, self.p.family, &self.p.src) {
            return Err(self.refuse(format!("from {source}"), entry, drop::TUNNEL_UNTRUSTED_PEER));
        }
        if self.p.ended != 0 {
            return Err(self.refuse(format!("from {source}"), entry, drop::TUNNEL_LOOP));
        }
        let back = BackKey { port: ending.port, family: self.p.family.into(), remote: self.p.src };
        let back = self.t.look(BACKS, &back).unwrap_or(0) as u16;
        let effect = format!("decapsulate, restart at {}", self.port_name(ending.port));
        self.saw(format!("{vrf} {dst} {encap} from {source}"), entry, effect);
        self.enter(key.kind, end, ending.port, back)?;
        let (length, kind) = (end.saturating_sub(usize::from(self.p.l2)), self.kind());
        self.note(Stage::Parse, format!("{length} bytes"), None, kind);
        Ok(())
    }

    /// Makes the inner packet the one that is looked at.
    fn enter(&mut self, of: u8, end: usize, inner_port: u16, back: u16) -> Step {
        let (outer_ecn, outer_v6) = (self.p.tos & 3, self.p.family == family::V6);
        let inner_v6 = self.p.protocol == 41;
        let l4 = usize::from(self.p.l4);
        let bare = of == kind::IPIP;
        let l2 = if bare { l4 } else { l4 + 16 };
        let l3 = if bare { l4 } else { l2 + ETH };
        let inner = if bare {
            Some(if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 })
        } else {
            self.word16(l2 + 12)
        };
        let ecn = self.combined(inner, l3, end, outer_ecn)?;
        let p = &mut self.p;
        p.flags &= flag::ASKED | flag::DRY;
        if outer_v6 {
            p.flags |= flag::OUTER_V6;
        }
        p.ended = 1;
        p.port = inner_port;
        p.back = back;
        p.end = end as u32;
        p.tag = UNTAGGED;
        (p.fragment_id, p.fragment_offset) = (0, 0);
        (p.l2, p.l3) = (l2 as u16, l3 as u16);
        if bare {
            p.flags |= flag::BARE;
            // A frame is made for the port: the packet itself has no link layer.
            self.p.dmac = self.port_of(inner_port).map_or([0; 6], |port| port.mac);
            self.p.smac = [0x02, 0, 0, 0, 0, 0];
            self.p.ethertype = if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
            if inner_v6 { self.ipv6(l3)? } else { self.ipv4(l3)? }
        } else {
            self.parse()?;
            if self.p.family == 0 {
                // What becomes of it can't be said to the kernel: its protocol stays the outer one's.
                return Err(punt::PARSE);
            }
        }
        if self.p.family != 0 && self.p.tos & 3 != ecn {
            self.p.tos = self.p.tos & !3 | ecn;
            self.p.flags |= flag::ECN;
        }
        Ok(())
    }

    /// The inner packet's congestion field after the outer one's was combined with it (RFC 6040
    /// section 4.2, figure 4).
    fn combined(&self, inner: Option<u16>, l3: usize, end: usize, outer: u8) -> Step<u8> {
        const ECT1: u8 = 1;
        const ECT0: u8 = 2;
        const CE: u8 = 3;
        let v6 = match inner {
            Some(ethertype::IPV4) => false,
            Some(ethertype::IPV6) => true,
            _ => return Ok(0),
        };
        if l3 + 20 > end {
            return Ok(0);
        }
        let second = self.bytes::<2>(l3).map_or(0, |[_, second]| second);
        let inner = if v6 { second >> 4 & 3 } else { second & 3 };
        match (inner, outer) {
            (0, CE) => Err(drop::TUNNEL_DECAP_ERROR),
            (ECT0 | ECT1, CE) => Ok(CE),
            (ECT0, ECT1) => Ok(ECT1),
            _ => Ok(inner),
        }
    }

    /// An ICMP error that quotes an outer packet of ours ends here.
    fn about_outer(&mut self) -> Step {
        let at = usize::from(self.p.l4) + 8;
        let Some((mut key, protocol, l4)) = self.quoted_outer(at) else { return Ok(()) };
        match protocol {
            17 => {
                // Eight bytes of the transport header are quoted at least, or it is nobody's.
                let Some([_, _, high, low, ..]) = self.bytes::<8>(l4) else { return Ok(()) };
                if l4 + 8 > self.p.end as usize {
                    return Ok(());
                }
                key.kind = kind::VXLAN;
                key.port = u16::from_ne_bytes([high, low]);
            }
            4 | 41 => key.kind = kind::IPIP,
            _ => return Ok(()),
        }
        let Some(tunnel) = self.t.look(OUTERS, &key) else { return Ok(()) };
        self.meet(Stage::TunnelTermination);
        let text = format!("error about the tunnel to {}", words::ip(key.family, key.remote));
        let named = self.t.names.tunnels.live(tunnel).cloned().map(EntityKey::Tunnel);
        let entry = words::entity(named, || format!("tunnel {}", words::nameless(tunnel)));
        // The programs do not count this as that stage.
        self.p.stages &= !(1 << Stage::TunnelTermination.number());
        Err(self.refuse(text, entry, punt::PARSE))
    }

    /// Addresses and protocol of a quoted packet, and where its transport header is.
    fn quoted_outer(&self, at: usize) -> Option<(OuterKey, u8, usize)> {
        let mut key = OuterKey { vrf: self.p.vrf, family: self.p.family, ..OuterKey::default() };
        if self.p.family == family::V4 {
            let head = self.bytes::<20>(at)?;
            let fragment = u16::from_be_bytes([head[6], head[7]]);
            if head[0] >> 4 != 4 || head[0] & 15 < 5 || fragment & 0x1fff != 0 {
                return None;
            }
            key.local = Addr::v4([head[12], head[13], head[14], head[15]]);
            key.remote = Addr::v4([head[16], head[17], head[18], head[19]]);
            return Some((key, head[9], at + usize::from(head[0] & 15) * 4));
        }
        let head = self.bytes::<8>(at)?;
        (key.local, key.remote) = (self.addr6(at + 8)?, self.addr6(at + 24)?);
        (head[0] >> 4 == 6).then_some((key, head[6], at + 40))
    }
}
