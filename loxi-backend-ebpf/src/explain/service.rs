//! Stages 7 and 8: services, addresses on which they live, destination NAT by rules.

use super::{Step, Walk, hash, words};
use crate::sys::{BACKENDS, NAT_RULES, SERVICE_RANGES, SERVICES, VERSIONS, VIPS, VRFS};
use loxi_core::ir::{EntityKey, NatKey, VipKey};
use loxi_core::packet::{Stage, TraceEntry};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::code::{self, Fate, drop, program, punt};
use loxi_ebpf_layout::flow::translation;
use loxi_ebpf_layout::l2::port;
use loxi_ebpf_layout::l3::{NatRule, VrfAddr, nat, nat_counts};
use loxi_ebpf_layout::lb::{RANGE_FIXED_BITS, RangeKey, Service, ServiceKey, mode, scope, vip};
use loxi_ebpf_layout::limits::NAT_RULES as MOST_RULES;
use loxi_ebpf_layout::scratch::{flag, l4, tracking};

impl Walk<'_> {
    /// Services, then NAT rules, for new connections to us.
    pub(super) fn service(&mut self) -> Step<u32> {
        let here = VrfAddr { vrf: self.p.vrf.into(), family: self.p.family.into(), addr: self.p.dst };
        let next = if self.has_egress_policy() { program::EGRESS_POLICY } else { program::FORWARD };
        let vip = self.t.look(VIPS, &here).filter(|kind| self.is_for_us(*kind));
        if self.p.tracking != tracking::NEW {
            return self.left_to_host(vip).map(|()| next);
        }
        let Some(kind) = vip else {
            self.dnat();
            return Ok(next);
        };
        self.meet(Stage::Service);
        if let Some(place) = self.claims(kind) {
            let Some(service) = self.t.array(VERSIONS, place) else {
                let entry = words::learned(format!("version {place}, beyond the table's end"));
                return Err(self.refuse(self.summary(), entry, drop::NO_SERVICE));
            };
            self.serve(&service)?;
            return Ok(next);
        }
        let entry = self.vip_entry();
        let key = self.summary();
        if kind & vip::EXCLUSIVE == 0 {
            return Err(self.refuse(key, entry, punt::NOT_OURS_SHARED));
        }
        let asks = self.p.kind == l4::REQUEST && (self.p.detail == 8 || self.p.detail == 128);
        if asks && kind & vip::ECHO != 0 {
            return Err(self.ends(key, entry, "answer echo".to_owned(), punt::ICMP_TO_BUILD));
        }
        let (effect, fate) = if kind & vip::REJECT != 0 {
            ("reject: no_service", self.rejected(drop::NO_SERVICE))
        } else {
            ("drop: no_service", drop::NO_SERVICE)
        };
        Err(self.ends(key, entry, effect.to_owned(), fate))
    }

    /// Whether an address of this kind decides about the packet: of a shared one only the services do, and where the port
    /// leaves the rest to the local stack also what becomes of that.
    fn is_for_us(&self, kind: u32) -> bool {
        let punts = || self.port_of(self.p.port).is_some_and(|port| port.flags & port::PUNT != 0);
        kind & vip::EXCLUSIVE != 0 || self.claims(kind).is_some() || punts()
    }

    /// Whether a packet that fits no flow may be of a connection of the host's own.
    fn left_to_host(&mut self, vip: Option<u32>) -> Step {
        let key = self.summary();
        let reason = if self.p.kind == l4::ERROR { drop::ICMP_WITHOUT_FLOW } else { drop::CT_INVALID };
        match vip {
            Some(kind) => {
                let entry = self.vip_entry();
                let shared = kind & vip::EXCLUSIVE == 0 && self.claims(kind).is_none();
                Err(self.refuse(key, entry, if shared { punt::NOT_OURS_SHARED } else { reason }))
            }
            None if self.is_hosts() => {
                self.saw(key, None, "untracked, the host's address");
                Ok(())
            }
            None => Err(self.refuse(key, None, reason)),
        }
    }

    /// Notes what ends the packet, in words of its own.
    fn ends(&mut self, key: String, entry: Option<TraceEntry>, effect: String, fate: Fate) -> Fate {
        self.refused = true;
        self.saw(key, entry, effect);
        fate
    }

    fn vip_entry(&self) -> Option<TraceEntry> {
        let address = words::ip(self.p.family, self.p.dst);
        let vrf = self.t.names.vrfs.live(self.p.vrf.into()).cloned();
        let key = vrf.map(|vrf| EntityKey::Vip(VipKey { vrf, address }));
        words::entity(key, || format!("vip {address}"))
    }

    /// A drop that is answered: TCP by a reset (but a reset itself), anything else by an ICMP error.
    fn rejected(&self, reason: Fate) -> Fate {
        if self.p.kind == l4::TCP { punt::ICMP_TO_BUILD } else { self.answered(reason) }
    }

    /// The place of the service that claims the packet; the most specific scope wins.
    fn claims(&self, kind: u32) -> Option<u32> {
        let external = self.port_of(self.p.port).is_some_and(|port| port.flags & port::EXTERNAL != 0);
        let own = if external { scope::EXTERNAL } else { scope::INTERNAL };
        self.of_scope(kind, own).or_else(|| self.of_scope(kind, scope::ANY))
    }

    fn of_scope(&self, kind: u32, scope: u16) -> Option<u32> {
        let p = &self.p;
        let (vrf, family, protocol, addr) = (p.vrf, p.family, p.protocol, p.dst);
        let key = ServiceKey { vrf, port: p.dport, family, protocol, scope, addr };
        if let Some(place) = self.t.look(SERVICES, &key) {
            // A place that was given to another service meanwhile is not this one's.
            if self.t.array(VERSIONS, place).is_some_and(|version| version.key == key) {
                return Some(place);
            }
        }
        if kind & vip::RANGES == 0 {
            return None;
        }
        let bits = RANGE_FIXED_BITS + 16;
        let key = RangeKey { bits, vrf, family, protocol, scope: scope.into(), addr, port: p.dport.into() };
        let place = self.t.longest(SERVICE_RANGES, &key)?;
        let k = self.t.array(VERSIONS, place)?.key;
        let same = (k.vrf, k.family, k.protocol, k.addr) == (vrf, family, protocol, addr);
        (same && k.scope == scope).then_some(place)
    }

    fn serve(&mut self, service: &Service) -> Step {
        let name = self.t.names.services.live(service.id).cloned().map(EntityKey::Service);
        let entry = words::entity(name, || format!("service {}", words::nameless(service.id)));
        let key = self.summary();
        if service.sources != 0 && !self.t.in_set(service.sources, self.p.family, &self.p.src) {
            return Err(self.refuse(key, entry, drop::SOURCE_RANGE));
        }
        if service.refusal != 0 {
            let reason = code::fate(service.refusal);
            let how = if service.reject != 0 { "reject" } else { "drop" };
            let fate = if service.reject != 0 { self.rejected(reason) } else { reason };
            let effect =
                format!("{how}: {}", words::verb(crate::run::fate_of(reason.get())).replace("drop ", ""));
            return Err(self.ends(key, entry, effect, fate));
        }
        let picked = self.remembered(service).or_else(|| self.pick(service));
        let chosen = picked.and_then(|choice| {
            let endpoint = self.t.array(BACKENDS, choice.backend)?;
            Some((choice.backend, *endpoint.of_generation(choice.generation)))
        });
        let Some((number, chosen)) = chosen else { return Err(self.refuse(key, entry, drop::NO_BACKEND)) };
        let p = &mut self.p;
        p.service = service.id;
        p.backend = number;
        p.backend_generation = chosen.generation;
        p.affinity = service.affinity;
        let how = match service.mode {
            mode::NAT | mode::FULL_NAT => {
                p.full_nat = u8::from(service.mode == mode::FULL_NAT);
                p.new_dst = chosen.addr;
                if chosen.port != 0 {
                    p.new_dport = chosen.port;
                }
                p.flags |= flag::NAT;
                if service.mode == mode::NAT { "nat" } else { "full nat" }
            }
            other => {
                let ipip = other == mode::DSR_IPIP;
                p.translation = if ipip { translation::DSR_IPIP } else { translation::DSR_L2 };
                p.dsr_target = chosen.addr;
                p.outer_family = chosen.family;
                if ipip { "dsr by ipip" } else { "dsr by mac" }
            }
        };
        let backend = words::name(&self.t.names.backends, number);
        let (address, port) = (words::ip(chosen.family, chosen.addr), u16::from_be(chosen.port));
        self.saw(key, entry, format!("{how} to backend {backend} {address}:{port}"));
        Ok(())
    }

    /// Whether a rule is about packets of these addresses that leave by this interface.
    pub(super) fn matches(&self, rule: &NatRule, src: &Addr, dst: &Addr, dport: u16, egress: u32) -> bool {
        let (family, port) = (self.p.family, u16::from_be(dport));
        (rule.counts & nat_counts::PROTOCOL == 0 || rule.protocol == self.p.protocol)
            && (rule.counts & nat_counts::PORTS == 0 || port >= rule.first && port <= rule.last)
            && (rule.egress == 0 || rule.egress == egress)
            && (rule.src == 0 || self.t.in_set(rule.src, family, src))
            && (rule.dst == 0 || self.t.in_set(rule.dst, family, dst))
    }

    /// A rule as the entry of a step.
    pub(super) fn rule_entry(&self, rule: &NatRule) -> Option<TraceEntry> {
        let vrf = self.t.names.vrfs.live(self.p.vrf.into()).cloned();
        let key = vrf.map(|vrf| EntityKey::NatRule(NatKey { vrf, priority: rule.priority }));
        words::entity(key, || format!("nat rule {}", rule.priority))
    }

    /// Stage 8: the first rule that matches decides.
    fn dnat(&mut self) {
        let Some(vrf) = self.t.current(VRFS, self.p.vrf.into()).filter(|vrf| vrf.nat_count != 0) else {
            return;
        };
        self.meet(Stage::Dnat);
        let (src, dst, dport) = (self.p.src, self.p.dst, self.p.dport);
        for n in 0..vrf.nat_count.min(MOST_RULES) {
            let Some(rule) = self.t.array(NAT_RULES, vrf.nat_base.wrapping_add(n)) else { return };
            let translates = rule.action == nat::DNAT || rule.action == nat::ONE_TO_ONE;
            // A rule without an egress interface only: none is known yet.
            if !translates || rule.egress != 0 || !self.matches(&rule, &src, &dst, dport, 0) {
                continue;
            }
            if rule.action == nat::DNAT {
                self.p.new_dst = rule.inside;
                if rule.low != 0 {
                    self.p.new_dport = rule.low;
                }
            } else {
                let same = rule.family == u32::from(self.p.family);
                let to = mapped(&self.p.dst, &rule.outside, &rule.inside, rule.length).filter(|_| same);
                let Some(to) = to else { continue };
                self.p.new_dst = to;
            }
            self.p.flags |= flag::NAT;
            let (entry, effect) = (self.rule_entry(&rule), format!("becomes {}", self.translated()));
            self.saw(self.summary(), entry, effect);
            return;
        }
    }

    /// The hash of the packet's flow.
    pub(super) fn flow_hash(&self, seed: u32) -> u32 {
        let p = &self.p;
        let tuple = hash::Tuple {
            family: p.family,
            src: p.src,
            dst: p.dst,
            protocol: p.protocol,
            sport: p.sport,
            dport: p.dport,
        };
        hash::of_tuple(seed, &tuple)
    }
}

/// The address at the same offset of another prefix.
pub(super) fn mapped(addr: &Addr, from: &Addr, to: &Addr, length: u32) -> Option<Addr> {
    let mut out = [0u32; 4];
    for (n, word) in out.iter_mut().enumerate() {
        let have = length.saturating_sub(32 * n as u32);
        let mask = match have {
            0 => 0,
            1..32 => (u32::MAX << (32 - have)).to_be(),
            _ => u32::MAX,
        };
        if (addr.0[n] ^ from.0[n]) & mask != 0 {
            return None;
        }
        *word = to.0[n] & mask | addr.0[n] & !mask;
    }
    Some(Addr(out))
}
