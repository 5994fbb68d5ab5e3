//! Stages 11 and 12: TTL, then MTU; the source of a new flow.

use super::flows::Key;
use super::service::mapped;
use super::{Step, Walk, hash, words};
use crate::sys::{NAT_POOL, NAT_RULES, PORT_POLICY, VRFS};
use loxi_core::packet::{Stage, TraceEntry};
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::flow::rest;
use loxi_ebpf_layout::l3::{NatRule, Vrf, interface, nat};
use loxi_ebpf_layout::limits::{NAT_RULES as MOST_RULES, PORT_TRIES};
use loxi_ebpf_layout::scratch::{flag, tracking};
use loxi_ebpf_layout::{Addr, family};

/// Lowest port that a translation gives by itself.
const UNPRIVILEGED: u16 = 1024;

/// What becomes of a source.
#[derive(Clone)]
struct Source {
    addr: Addr,
    first: u16,
    last: u16,
    hairpin: bool,
    fixed: bool,
    entry: Option<TraceEntry>,
}

impl Source {
    fn any(addr: Addr) -> Self {
        Self { addr, first: UNPRIVILEGED, last: u16::MAX, hairpin: false, fixed: false, entry: None }
    }
}

impl Walk<'_> {
    pub(super) fn snat(&mut self) -> Step<u32> {
        self.fits()?;
        if self.p.tracking == tracking::NEW {
            self.meet(Stage::Snat);
            self.source()?;
        }
        let p = &self.p;
        // SCTP's checksum covers the whole packet.
        let moved = (p.sport, p.dport) != (p.new_sport, p.new_dport);
        if p.protocol == 132 && moved && p.tracking != tracking::RELATED {
            return Err(punt::CHECKSUM);
        }
        let applies =
            p.tracking == tracking::NEW || p.tracking == tracking::UNTRACKED && !self.is_link_protocol();
        let policy = self.t.array(PORT_POLICY, p.subject.into());
        let guarded = policy.is_some_and(|policy| policy.groups >> 32 != 0);
        Ok(if applies && guarded && p.family != 0 { program::INGRESS_POLICY } else { program::COMMIT })
    }

    /// Stage 11.
    fn fits(&mut self) -> Step {
        let (ttl, length, mtu) = (self.p.ttl, self.p.ip_len, self.p.mtu);
        if self.p.family == 0 {
            let length = self.p.end.saturating_sub(self.p.l3.into());
            if length > mtu.into() {
                self.at = Stage::TtlMtu;
                return Err(self.refuse(format!("length {length}, mtu {mtu}"), None, drop::MTU));
            }
            return Ok(());
        }
        self.meet(Stage::TtlMtu);
        if self.p.routed != 0 && ttl <= 1 {
            let fate = self.answered(drop::TTL);
            self.saw(format!("ttl {ttl}"), None, "drop ttl, time exceeded");
            self.refused = true;
            return Err(fate);
        }
        if length <= mtu.into() {
            let left = if self.p.routed != 0 { ttl.wrapping_sub(1) } else { ttl };
            self.saw(format!("ttl {ttl}, length {length}, mtu {mtu}"), None, format!("ttl {left}, fits"));
            return Ok(());
        }
        let key = format!("length {length}, mtu {mtu}");
        let (effect, fate) = if self.p.routed == 0 {
            ("drop mtu", drop::MTU)
        } else if self.p.flags & flag::DF == 0 {
            ("fragment", punt::FRAGMENTATION)
        } else {
            ("drop mtu, too big", self.answered(drop::MTU))
        };
        self.saw(key, None, effect);
        self.refused = true;
        Err(fate)
    }

    /// Stage 12.
    fn source(&mut self) -> Step {
        // Two flows may come to the same tuple by their destinations' translation alone.
        let source = self.decide()?.unwrap_or_else(|| Source::any(self.p.new_src));
        let sport = self.unique(&source)?;
        if source.addr == self.p.new_src && sport == self.p.new_sport {
            return Ok(());
        }
        let before = self.translated();
        let paired = self.is_paired();
        let p = &mut self.p;
        p.new_src = source.addr;
        p.new_sport = sport;
        if paired {
            p.new_dport = sport;
        }
        p.hairpin = source.hairpin.into();
        p.flags |= flag::NAT;
        let entry = source.entry.or_else(|| words::learned("tuple was taken"));
        let effect = format!("becomes {}", self.translated());
        self.saw(before, entry, effect);
        Ok(())
    }

    /// Whether both ports are one identifier.
    fn is_paired(&self) -> bool {
        self.p.protocol == 1 || self.p.protocol == 58
    }

    /// The VRF's own source address.
    fn snat_address(&self, vrf: &Vrf) -> Option<Addr> {
        let v4 = self.p.family == family::V4;
        let addr = if v4 { Addr([vrf.snat_v4, 0, 0, 0]) } else { vrf.snat_v6 };
        (addr != Addr::ZERO).then_some(addr)
    }

    /// An interface's first address.
    fn own_address(&self, number: u16) -> Option<Addr> {
        let own = self.interface_of(number).filter(|_| number != 0)?;
        if self.p.family == family::V4 {
            (own.flags & interface::V4 != 0).then_some(Addr([own.v4, 0, 0, 0]))
        } else {
            (own.flags & interface::V6 != 0).then_some(own.v6)
        }
    }

    fn decide(&mut self) -> Step<Option<Source>> {
        if self.p.vrf == 0 || self.p.routed == 0 {
            return Ok(None);
        }
        let Some(vrf) = self.t.current(VRFS, self.p.vrf.into()) else { return Ok(None) };
        let p = &self.p;
        let moved = p.new_dst != p.dst || p.new_dport != p.dport;
        if moved && p.subject == p.port {
            let own = self.own_address(p.interface).or_else(|| self.snat_address(&vrf));
            let entry = words::learned("hairpin");
            return Ok(own.map(|addr| Source { hairpin: true, entry, ..Source::any(addr) }));
        }
        if p.full_nat != 0 {
            let Some(addr) = self.snat_address(&vrf) else { return Err(drop::UNSUPPORTED) };
            return Ok(Some(Source { entry: words::learned("full nat"), ..Source::any(addr) }));
        }
        Ok(self.by_rules(vrf.nat_base, vrf.nat_count))
    }

    /// The source that a VRF's rules give the packet.
    fn by_rules(&self, base: u32, count: u32) -> Option<Source> {
        let p = &self.p;
        let egress = if p.egress == 0 { u32::MAX } else { p.egress.into() };
        for n in 0..count.min(MOST_RULES) {
            let rule = self.t.array(NAT_RULES, base.wrapping_add(n))?;
            if !self.matches(&rule, &p.new_src, &p.new_dst, p.new_dport, egress) {
                continue;
            }
            if rule.action == nat::NO_NAT {
                return None;
            }
            if let Some(source) = self.by_rule(&rule) {
                return Some(Source { entry: self.rule_entry(&rule), ..source });
            }
        }
        None
    }

    /// What a matching rule does; `None`: the search goes on.
    fn by_rule(&self, rule: &NatRule) -> Option<Source> {
        let of = |addr| Source { first: rule.low, last: rule.high, ..Source::any(addr) };
        match rule.action {
            nat::SNAT => {
                let v4 = self.p.family == family::V4;
                let count = if v4 { rule.pool_v4 } else { rule.pool_v6 };
                let index = hash::of_addr(0, self.p.family, &self.p.new_src).checked_rem(count)?;
                let base = if v4 { rule.pool } else { rule.pool.wrapping_add(rule.pool_v4) };
                self.t.array(NAT_POOL, base.wrapping_add(index)).map(of)
            }
            nat::MASQUERADE => self.own_address(self.p.egress).map(of),
            nat::ONE_TO_ONE if rule.family == u32::from(self.p.family) => {
                let addr = mapped(&self.p.new_src, &rule.inside, &rule.outside, rule.length)?;
                Some(Source { first: 0, fixed: true, ..Source::any(addr) })
            }
            _ => None,
        }
    }

    /// The tuple of replies, if a source port is this one.
    fn reply_key(&self, source: &Source, port: u16) -> Key {
        let dport = if self.is_paired() { port } else { self.p.new_dport };
        let rest = rest::key(dport, port, self.p.protocol, self.p.zone);
        Key { src: self.p.new_dst, dst: source.addr, rest }
    }

    fn is_free(&self, key: &Key) -> bool {
        let own = self.own_key();
        !self.is_taken(self.p.family, key) && (*key != own || own.is_own_reverse())
    }

    /// A source port (network order) with which the reply's tuple is unique.
    fn unique(&mut self, source: &Source) -> Step<u16> {
        let (p, paired) = (&self.p, self.is_paired());
        // The tuple as it is: of ICMP the identifier counts once.
        let plain_rest = rest::key(p.new_dport, p.new_sport, p.protocol, p.zone);
        let plain = Key { src: p.new_dst, dst: source.addr, rest: plain_rest };
        if self.is_free(&plain) {
            return Ok(p.new_sport);
        }
        let has_ports = matches!(p.protocol, 6 | 17 | 132);
        if source.fixed || !(has_ports || paired) {
            return Err(drop::PORTS_EXHAUSTED);
        }
        let (first, last) = if paired { (0, u16::MAX) } else { (source.first, source.last) };
        let count = u32::from(last).wrapping_sub(first.into()).wrapping_add(1);
        let wanted = u16::from_be(p.new_sport);
        // The search starts behind the port itself, or at the range's start, and goes round once.
        let start = if wanted >= first && wanted <= last { u32::from(wanted - first) + 1 } else { 0 };
        let Some(preferred) = self.free_port(source, start, first.into(), count) else {
            return Err(if count > PORT_TRIES { punt::FIRST_PACKET } else { drop::PORTS_EXHAUSTED });
        };
        let value = self.choose(first.into(), last.into(), preferred.into(), preferred.into()) as u16;
        // A choice whose tuple is taken is not admissible.
        if value != preferred && self.is_free(&self.reply_key(source, value.to_be())) {
            return Ok(value.to_be());
        }
        Ok(preferred.to_be())
    }

    /// The first port from `start` on, going round once, with which the reply's tuple is nobody's.
    fn free_port(&self, source: &Source, start: u32, first: u32, count: u32) -> Option<u16> {
        (0..count.min(PORT_TRIES)).find_map(|n| {
            let at = start.wrapping_add(n);
            let at = if at >= count { at.wrapping_sub(count) } else { at };
            let port = first.wrapping_add(at) as u16;
            self.is_free(&self.reply_key(source, port.to_be())).then_some(port)
        })
    }
}
