//! Stages 9 and 13: policies of the local source and of the local destination.

use super::flows::Key;
use super::tables::width;
use super::{By, Judgement, Step, Walk, words};
use crate::sys::{PEER_RULES, PEERS, POLICIES, PORT_POLICY, PORT_RULES, VRFS};
use loxi_core::ir::PolicyDirection;
use loxi_core::net::IpProtocol;
use loxi_core::packet::Stage;
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::code::{Fate, drop, program};
use loxi_ebpf_layout::flow::{rest, translation};
use loxi_ebpf_layout::l2::{PortPolicy, kind};
use loxi_ebpf_layout::limits::VRFS as MOST_VRFS;
use loxi_ebpf_layout::policy::{GroupClass, GroupPort, NO_CLASS, PEER_FIXED_BITS, PROTOCOL_BITS, PeerKey};
use loxi_ebpf_layout::scratch::tracking;

/// A connection as a group of rules sees it.
struct Connection {
    group: u32,
    /// Whose rules.
    subject: u16,
    src: Addr,
    dst: Addr,
    protocol: u8,
    dport: u16,
}

impl Walk<'_> {
    fn policy_of(&self, port: u16) -> PortPolicy {
        self.t.array(PORT_POLICY, port.into()).unwrap_or_default()
    }

    pub(super) fn egress_policy(&mut self) -> Step<u32> {
        if self.p.src != self.p.new_dst {
            self.meet(Stage::EgressPolicy);
            let p = &self.p;
            let connection = Connection {
                group: self.policy_of(p.port).groups as u32,
                subject: p.port,
                src: p.src,
                dst: p.new_dst,
                protocol: p.protocol,
                dport: p.new_dport,
            };
            self.evaluate(&connection)?;
        }
        Ok(program::FORWARD)
    }

    pub(super) fn ingress_policy(&mut self) -> Step<u32> {
        let p = &self.p;
        let applies =
            p.tracking == tracking::NEW || p.tracking == tracking::UNTRACKED && !self.is_link_protocol();
        if p.family == 0 || !applies || p.subject == 0 || p.src == p.new_dst {
            return Ok(program::COMMIT);
        }
        let group = (self.policy_of(p.subject).groups >> 32) as u32;
        if group == 0 || self.is_node_local() {
            return Ok(program::COMMIT);
        }
        let connection = Connection {
            group,
            subject: p.subject,
            src: p.src,
            dst: p.new_dst,
            protocol: p.protocol,
            dport: p.new_dport,
        };
        self.meet(Stage::IngressPolicy);
        self.evaluate(&connection)?;
        Ok(program::COMMIT)
    }

    /// Whether the node itself sends it.
    fn is_node_local(&self) -> bool {
        if self.p.vrf == 0 || self.port_of(self.p.port).is_none_or(|port| port.kind != kind::HOST) {
            return false;
        }
        let set = self.t.current(VRFS, self.p.vrf.into()).map_or(0, |vrf| vrf.node_local);
        set != 0 && self.t.in_set(set, self.p.family, &self.p.src)
    }

    /// What a group says of a connection.
    fn evaluate(&mut self, c: &Connection) -> Step {
        if c.group == 0 {
            return Ok(());
        }
        let family = self.p.family;
        let (direction, peer) = if self.at == Stage::EgressPolicy {
            (PolicyDirection::Egress, c.dst)
        } else {
            (PolicyDirection::Ingress, c.src)
        };
        let key = format!(
            "{direction} of {}: {} -> {} {} {}",
            self.port_name(c.subject),
            words::ip(family, c.src),
            words::ip(family, c.dst),
            IpProtocol(c.protocol),
            u16::from_be(c.dport)
        );
        let (verdict, by) = self.judge(c, &peer);
        let digest = self.t.names.rules.live(c.group);
        let group = digest.map_or_else(|| words::nameless(c.group), |digest| format!("{digest:?}"));
        let text = match by {
            By::Rule(number) => format!("rule {number}"),
            By::Isolation => "isolation".to_owned(),
            By::Nothing => "no rule".to_owned(),
        };
        let entry = words::learned(format!("{text} of rules {group}"));
        let port = self.t.names.ports.live(c.subject.into());
        if let (Some(group), Some(port)) = (digest, port) {
            let (step, port, group) = (self.steps.len(), port.clone(), *group);
            self.policies.push(Judgement { step, port, direction, group, by });
        }
        match verdict {
            Ok(()) => {
                self.saw(key, entry, "allow");
                Ok(())
            }
            Err(fate) => Err(self.refuse(key, entry, fate)),
        }
    }

    /// Verdict, and what gave it.
    fn judge(&self, c: &Connection, peer: &Addr) -> (Step, By) {
        let Some(rules) = self.t.array(POLICIES, c.group) else {
            return (Ok(()), By::Nothing);
        };
        let family = self.p.family;
        let key = PeerKey { bits: PEER_FIXED_BITS + width(family), family: family.into(), addr: *peer };
        let class = self.t.longest(PEERS, &key).unwrap_or(NO_CLASS);
        let port = GroupPort {
            bits: PROTOCOL_BITS + 16,
            group: c.group,
            protocol: c.protocol,
            port: c.dport.to_ne_bytes(),
            reserved: 0,
        };
        let by_peer = self.t.look(PEER_RULES, &GroupClass { group: c.group, class });
        let (Some(by_peer), Some(by_port)) = (by_peer, self.t.longest(PORT_RULES, &port)) else {
            // No rule means them, so what the group says without rules counts.
            let verdict = if rules.isolated != 0 { Err(drop::POLICY_ISOLATED) } else { Ok(()) };
            let by = if verdict.is_err() { By::Isolation } else { By::Nothing };
            return (verdict, by);
        };
        // In `admin` and `baseline` a rule that passes leaves its tier.
        let mut passed = 0;
        for (n, (peer, port)) in by_peer.words.iter().zip(&by_port.words).enumerate() {
            let at = n as u32;
            let tier = u32::from(at >= rules.admin) + u32::from(at >= rules.network_policy);
            if tier == 2 && rules.isolated != 0 {
                return (Err(drop::POLICY_ISOLATED), By::Isolation);
            }
            let both = peer & port;
            if both == 0 || passed == tier + 1 {
                continue;
            }
            let lowest = both & both.wrapping_neg();
            let rule = By::Rule(64 * at + lowest.trailing_zeros());
            if rules.allow.words[n] & lowest != 0 {
                return (Ok(()), rule);
            }
            if rules.deny.words[n] & lowest != 0 {
                return (Err(drop::POLICY_DENIED), rule);
            }
            passed = tier + 1;
        }
        if rules.isolated != 0 && rules.network_policy as usize >= by_peer.words.len() {
            return (Err(drop::POLICY_ISOLATED), By::Isolation);
        }
        (Ok(()), By::Nothing)
    }

    /// An established flow under another configuration than when it was decided.
    pub(super) fn revalidate(&mut self) -> Step<u32> {
        self.again()?;
        Ok(program::FORWARD)
    }

    fn again(&mut self) -> Step {
        let (family, number) = (self.p.family, self.p.place);
        let found = self.entry(family, number).and_then(|entry| self.cold_of(family, entry.word, number));
        let Some((cold, original)) = found else { return Err(drop::CT_CONTENDED) };
        let (source, destination) = (cold.source_port, cold.destination_port);
        let generation = |port: u16| self.policy_of(port).generation as u32;
        let now = (generation(source), if destination == 0 { 0 } else { generation(destination) });
        (self.p.source_generation, self.p.destination_generation) = now;
        let same =
            now.0 == cold.source_generation && (destination == 0 || now.1 == cold.destination_generation);
        if same {
            return Ok(());
        }
        let Some(first) = self.entry(family, original) else { return Err(drop::CT_CONTENDED) };
        let nat = translation::kind(cold.translation) == translation::NAT;
        let to = if nat { first.new } else { first.key };
        if cold.hairpin == 0 && self.policies(source, destination, &first.key, &to).is_err() {
            self.p.tracking = tracking::NEW;
            let revoked: Fate = drop::POLICY_REVOKED;
            return Err(self.refuse(self.summary(), words::learned("flow"), revoked));
        }
        Ok(())
    }

    fn policies(&mut self, source: u16, destination: u16, tuple: &Key, to: &Key) -> Step {
        if tuple.src == to.dst {
            return Ok(());
        }
        let (src, dst) = (tuple.src, to.dst);
        let (protocol, dport) = (rest::protocol(tuple.rest), rest::dport(to.rest));
        self.meet(Stage::EgressPolicy);
        let group = self.policy_of(source).groups as u32;
        self.evaluate(&Connection { group, subject: source, src, dst, protocol, dport })?;
        let group = (self.policy_of(destination).groups >> 32) as u32;
        if destination == 0 || group == 0 || self.is_from_node(source, &tuple.src) {
            return Ok(());
        }
        self.meet(Stage::IngressPolicy);
        self.evaluate(&Connection { group, subject: destination, src, dst, protocol, dport })
    }

    /// Whether a host port sends it from an address that any VRF has as the node's own.
    fn is_from_node(&self, source: u16, src: &Addr) -> bool {
        if self.port_of(source).is_none_or(|port| port.kind != kind::HOST) {
            return false;
        }
        (1..MOST_VRFS)
            .map_while(|n| self.t.current(VRFS, n))
            .any(|vrf| vrf.node_local != 0 && self.t.in_set(vrf.node_local, self.p.family, src))
    }
}
