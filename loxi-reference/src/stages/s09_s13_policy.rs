//! Stages 9 and 13: policies of the local source and of the local destination.
//!
//! Both see the connection's original source and its translated destination.
//! They are looked at when a flow opens, for untracked traffic packet by
//! packet, and again for a flow whose subjects' policy generation has moved
//! on. Exempt: a port's traffic to itself, and to local subjects whatever the
//! node itself sends (its VRF's `node_local` addresses, by a host port).

use super::egress::Way;
use super::ingress::{Packet, Tracking};
use super::{Run, Step, drop, entity};
use loxi_core::ir::{
    AddrSet, EntityKey, PolicyAction, PolicyDirection, PolicyPeer, PolicyPorts, PolicyRule, PolicyTier, Port,
    PortKind, PortSet, Vrf,
};
use loxi_core::net::{IpProtocol, PortName, VrfName};
use loxi_core::packet::{Fate, Flow, PolicyStamp, Stage, TraceEntry, Translation};
use loxi_core::reason::DropReason;
use std::net::IpAddr;

/// What a policy looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: IpProtocol,
    pub(super) dst_port: u16,
}

impl Run<'_> {
    pub(super) fn s09_egress_policy(&mut self, packet: &Packet) -> Step {
        let Some(connection) = connection(packet) else { return Ok(()) };
        if connection.src == connection.dst {
            return Ok(());
        }
        self.policy(PolicyDirection::Egress, &packet.port, &connection)
    }

    pub(super) fn s13_ingress_policy(&mut self, packet: &Packet, way: &Way) -> Step {
        let (Some(connection), Some(egress)) = (connection(packet), way.port()) else { return Ok(()) };
        let Some(egress) = self.config.get::<Port>(egress).cloned() else { return Ok(()) };
        self.admits(packet, &egress, &connection)
    }

    /// Stage 13 for one egress port, for copies as well.
    pub(super) fn admits(&mut self, packet: &Packet, egress: &Port, connection: &Connection) -> Step {
        let own = connection.src == connection.dst || self.is_node_local(packet, connection.src);
        if own { Ok(()) } else { self.policy(PolicyDirection::Ingress, egress, connection) }
    }

    /// What stage 13 looks at in a copy that is flooded.
    pub(super) fn copy_connection(packet: &Packet) -> Option<Connection> {
        connection(packet).filter(|_| !packet.ip().is_some_and(crate::frame::Ip::is_link_protocol))
    }

    fn is_node_local(&self, packet: &Packet, src: IpAddr) -> bool {
        packet.port.kind == PortKind::Host
            && packet.vrf.as_ref().is_some_and(|vrf| self.vrf_is_node_local(vrf, src))
    }

    fn vrf_is_node_local(&self, vrf: &VrfName, src: IpAddr) -> bool {
        self.config
            .get::<Vrf>(vrf)
            .is_some_and(|vrf| vrf.node_local.iter().any(|prefix| prefix.contains(src)))
    }

    /// The generations under which a flow between two ports is admitted now.
    pub(super) fn stamp(&self, source: &PortName, destination: Option<&PortName>) -> PolicyStamp {
        let stamp = |port: &PortName| (port.clone(), self.state.policy_generation(port));
        PolicyStamp { source: Some(stamp(source)), destination: destination.map(stamp) }
    }

    /// Looks at the policies of a flow again if its generations are stale; a denial ends it.
    pub(super) fn revalidate(&mut self, flow: &Flow) -> Step {
        let stale = |stamp: &Option<(PortName, u64)>| {
            stamp.as_ref().is_some_and(|(port, at)| self.state.policy_generation(port) != *at)
        };
        if !stale(&flow.policy.source) && !stale(&flow.policy.destination) {
            return Ok(());
        }
        let result = self.policies_of(flow);
        if result.is_err() {
            self.state.remove(&flow.id);
            return drop(DropReason::PolicyRevoked);
        }
        let renew = |stamp: &Option<(PortName, u64)>| {
            stamp.as_ref().map(|(port, _)| (port.clone(), self.state.policy_generation(port)))
        };
        let policy =
            PolicyStamp { source: renew(&flow.policy.source), destination: renew(&flow.policy.destination) };
        self.state.update(&flow.id, &mut |flow| flow.policy = policy.clone());
        Ok(())
    }

    fn policies_of(&mut self, flow: &Flow) -> Step {
        let to = if flow.translation == Translation::Nat { flow.reply.reversed() } else { flow.id.tuple };
        let connection =
            Connection { src: flow.id.tuple.src, dst: to.dst, protocol: to.protocol, dst_port: to.dst_port };
        if flow.hairpin || connection.src == connection.dst {
            return Ok(());
        }
        let port = |stamp: &Option<(PortName, u64)>| {
            stamp.as_ref().and_then(|(name, _)| self.config.get::<Port>(name).cloned())
        };
        let (source, destination) = (port(&flow.policy.source), port(&flow.policy.destination));
        if let Some(source) = &source {
            self.policy(PolicyDirection::Egress, source, &connection)?;
        }
        let from_node = source.as_ref().is_some_and(|port| port.kind == PortKind::Host)
            && self.config.vrfs().any(|vrf| self.vrf_is_node_local(&vrf.name, connection.src));
        match destination {
            Some(destination) if !from_node => {
                self.policy(PolicyDirection::Ingress, &destination, &connection)
            }
            _ => Ok(()),
        }
    }

    /// Evaluates the tiers for one subject and direction.
    fn policy(&mut self, direction: PolicyDirection, subject: &Port, connection: &Connection) -> Step {
        let stage =
            if direction == PolicyDirection::Egress { Stage::EgressPolicy } else { Stage::IngressPolicy };
        let (verdict, entry) = self.evaluate(direction, subject, connection);
        if self.trace.is_some() && (entry.is_some() || verdict.is_err()) {
            let c = connection;
            let key = format!(
                "{direction} of {}: {} -> {} {} {}",
                subject.name, c.src, c.dst, c.protocol, c.dst_port
            );
            let effect = match verdict {
                Ok(()) => "allow".to_owned(),
                Err(reason) => format!("drop {reason}"),
            };
            self.note(stage, key, entry, effect);
        }
        verdict.map_err(Fate::Dropped)
    }

    fn evaluate(
        &self,
        direction: PolicyDirection,
        subject: &Port,
        connection: &Connection,
    ) -> (Result<(), DropReason>, Option<TraceEntry>) {
        let peer = match direction {
            PolicyDirection::Egress => connection.dst,
            PolicyDirection::Ingress => connection.src,
        };
        let matching = |tier: PolicyTier| {
            // Rules sort by direction, tier, priority.
            self.config.policy_rules().find(|rule| {
                rule.direction == direction
                    && rule.tier == tier
                    && rule.subject.contains(subject)
                    && self.peer_matches(rule, peer)
                    && self.ports_match(rule, connection)
            })
        };
        let by = |rule: &PolicyRule| entity(EntityKey::PolicyRule(rule.key()), &rule.origin);
        for tier in [PolicyTier::Admin, PolicyTier::NetworkPolicy, PolicyTier::Baseline] {
            match matching(tier) {
                Some(rule) if rule.action == PolicyAction::Allow => return (Ok(()), by(rule)),
                Some(rule) if rule.action == PolicyAction::Deny => {
                    return (Err(DropReason::PolicyDenied), by(rule));
                }
                _ => {}
            }
            if tier == PolicyTier::NetworkPolicy {
                let isolating = self.config.policy_isolations().find(|isolation| {
                    isolation.direction == direction && isolation.subject.contains(subject)
                });
                if let Some(isolation) = isolating {
                    let entry = entity(EntityKey::PolicyIsolation(isolation.key()), &isolation.origin);
                    return (Err(DropReason::PolicyIsolated), entry);
                }
            }
        }
        (Ok(()), None)
    }

    fn peer_matches(&self, rule: &PolicyRule, peer: IpAddr) -> bool {
        match &rule.peer {
            PolicyPeer::Any => true,
            PolicyPeer::Set(name) => self.config.get::<AddrSet>(name).is_some_and(|set| set.contains(peer)),
            PolicyPeer::Prefixes { prefixes, except } => {
                prefixes.iter().any(|prefix| prefix.contains(peer))
                    && !except.iter().any(|prefix| prefix.contains(peer))
            }
        }
    }

    fn ports_match(&self, rule: &PolicyRule, connection: &Connection) -> bool {
        rule.protocol.is_none_or(|protocol| protocol == connection.protocol)
            && match &rule.ports {
                PolicyPorts::Any => true,
                PolicyPorts::Ranges(ranges) => ranges.iter().any(|range| range.contains(connection.dst_port)),
                PolicyPorts::Set(name) => self
                    .config
                    .get::<PortSet>(name)
                    .is_some_and(|set| set.members.iter().any(|range| range.contains(connection.dst_port))),
            }
    }
}

/// What policies look at; `None` for what they don't apply to: established and
/// related packets, and what isn't IP or belongs to the link.
fn connection(packet: &Packet) -> Option<Connection> {
    let ip = packet.ip()?;
    let tuple = match &packet.tracking {
        Tracking::New(tentative) => {
            let (from, to) = (tentative.original, tentative.translated);
            return Some(Connection {
                src: from.src,
                dst: to.dst,
                protocol: to.protocol,
                dst_port: to.dst_port,
            });
        }
        Tracking::Untracked if !ip.is_link_protocol() => ip.tuple(),
        Tracking::Untracked | Tracking::Established(..) | Tracking::Related(..) => return None,
    };
    Some(Connection { src: tuple.src, dst: tuple.dst, protocol: tuple.protocol, dst_port: tuple.dst_port })
}
