//! Variations of a node: valid pipelines that differ in what stages look at.
//!
//! Each knob is a number, so that a failing case shrinks towards the
//! committed node. Every combination passes validation.

use loxi_core::ir::*;
use loxi_core::net::{IpProtocol, Mtu, PortName};
use proptest::prelude::*;

/// The pipeline that is varied.
const NODE: &str = include_str!("../rows/pipelines/node.yaml");

/// How a node differs from the committed one; 0 and `false` are as committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variation {
    /// Algorithm of the services.
    pub algorithm: u8,
    /// NAT, full NAT, DSR by IPIP.
    pub mode: u8,
    /// All endpoints, local ones, local ones preferred.
    pub traffic_policy: u8,
    /// Client affinity.
    pub affinity: bool,
    /// None; UDP to hs3 denied; hs2 isolated but for TCP; both.
    pub policy: u8,
    /// None; masquerade; a small pool; static 1:1 for hs3.
    pub nat: u8,
    /// TTL, DSCP, DF and checksum of the tunnel, a bit each.
    pub tunnel: u8,
    /// Unknown unicast, multicast, proxying and learning of the bridge, a bit each.
    pub bridge: u8,
    /// None; few flows; few half-open ones; few per source; mid-stream pickup.
    pub zone: u8,
    /// MTU of hs3 and of the interface: as committed, small, smallest.
    pub mtu: u8,
    /// Anti-spoofing of pods left out.
    pub unguarded: bool,
    /// The default route is a group of two.
    pub group: bool,
}

/// Variations.
pub(crate) fn variation() -> impl Strategy<Value = Variation> {
    let first = (0u8..5, 0u8..3, 0u8..3, any::<bool>(), 0u8..4, 0u8..4);
    // Limits refuse most of what comes: rarely, or too little is forwarded.
    let zone = prop_oneof![12 => Just(0u8), 1 => 1u8..5];
    let second = (0u8..16, 0u8..16, zone, 0u8..3, any::<bool>(), any::<bool>());
    (first, second).prop_map(|(first, second)| {
        let (algorithm, mode, traffic_policy, affinity, policy, nat) = first;
        let (tunnel, bridge, zone, mtu, unguarded, group) = second;
        Variation {
            algorithm,
            mode,
            traffic_policy,
            affinity,
            policy,
            nat,
            tunnel,
            bridge,
            zone,
            mtu,
            unguarded,
            group,
        }
    })
}

impl Variation {
    /// The node's entities.
    #[must_use]
    pub fn pipeline(&self) -> Vec<Entity> {
        // Committed and read by the rows as well: a file that can't be read fails there by name.
        let mut entities = loxi_core::text::from_yaml(NODE).unwrap_or_default();
        for entity in &mut entities {
            self.vary(entity);
        }
        entities.extend(self.policies(PolicyAction::Deny));
        entities.extend(self.nat_rules());
        if self.group {
            entities.extend(more(
                "version: 1
next_hop_groups: [{name: out, members: [{next_hop: host-v4}, {next_hop: pods, weight: 3}], seed: 7}]
routes: [{vrf: pods, prefix: 198.51.100.0/24, target: {group: out}}]
",
            ));
        }
        entities
    }

    /// A change in the middle of traffic.
    pub(crate) fn change(&self, which: u8) -> Vec<Entity> {
        let base = self.pipeline();
        let action = if which.is_multiple_of(2) { PolicyAction::Allow } else { PolicyAction::Deny };
        let mut changed: Vec<Entity> = match which {
            0 | 1 => Self { policy: 1, ..self.clone() }.policies(action),
            2 => base.into_iter().filter(|entity| matches!(entity, Entity::Backend(_))).collect(),
            3 => base
                .into_iter()
                .filter(|entity| matches!(entity, Entity::Port(port) if port.name.as_str() == "hs2"))
                .collect(),
            4 => more(
                "version: 1\nroutes: [{vrf: pods, prefix: 10.244.2.0/24, target: {next_hop: host-v4}}]\n",
            ),
            _ => base.into_iter().filter(|entity| matches!(entity, Entity::Route(_))).collect(),
        };
        for entity in &mut changed {
            match entity {
                Entity::Backend(backend) if backend.name.as_str().ends_with("-1") => {
                    backend.state = BackendState::Down
                }
                Entity::Port(port) => port.mtu = Mtu::new(1300).unwrap_or_default(),
                _ => {}
            }
        }
        changed
    }

    fn vary(&self, entity: &mut Entity) {
        match entity {
            Entity::Service(service) if !service.backends.is_empty() => {
                service.algorithm = match self.algorithm {
                    0 => LbAlgorithm::Random,
                    1 => LbAlgorithm::SourceHash,
                    2 => LbAlgorithm::RoundRobin,
                    3 => LbAlgorithm::Maglev { table_size: MaglevSize::try_from(251).unwrap_or_default() },
                    _ => LbAlgorithm::LeastConnections,
                };
                service.mode = [LbMode::Nat, LbMode::FullNat, LbMode::DsrIpip][usize::from(self.mode % 3)];
                service.traffic_policy =
                    [TrafficPolicy::Cluster, TrafficPolicy::Local, TrafficPolicy::PreferLocal]
                        [usize::from(self.traffic_policy % 3)];
                service.affinity = self.affinity.then_some(Affinity { timeout_s: 60 });
            }
            Entity::Tunnel(tunnel) => {
                tunnel.ttl = if self.tunnel & 1 == 1 { OuterTtl::Inherit } else { OuterTtl::Fixed(64) };
                tunnel.dscp = if self.tunnel & 2 == 2 { OuterDscp::Inherit } else { OuterDscp::Fixed(0) };
                tunnel.df = if self.tunnel & 4 == 4 { OuterDf::Inherit } else { OuterDf::Set };
                tunnel.udp_checksum =
                    if self.tunnel & 8 == 8 { UdpChecksum::Computed } else { UdpChecksum::Zero };
            }
            Entity::Bridge(bridge) => {
                bridge.unknown_unicast = if self.bridge & 1 == 1 { Flooding::Drop } else { Flooding::Flood };
                bridge.multicast = if self.bridge & 2 == 2 { Flooding::Drop } else { Flooding::Flood };
                bridge.proxy_neighbors = self.bridge & 4 == 0;
                bridge.learning = self.bridge & 8 == 0;
            }
            Entity::Zone(zone) => match self.zone {
                1 => zone.max_flows = 4,
                2 => zone.max_half_open = Some(2),
                3 => zone.max_per_source = Some(3),
                4 => zone.mid_stream_pickup = true,
                _ => {}
            },
            Entity::Port(port) => {
                if self.unguarded {
                    port.anti_spoof = None;
                }
                if port.name.as_str() == "hs3" {
                    port.mtu = self.mtu();
                }
            }
            Entity::Interface(interface) if interface.name.as_str() == "hsvlan110" => {
                interface.mtu = self.mtu();
            }
            _ => {}
        }
    }

    fn mtu(&self) -> Mtu {
        Mtu::new([1450, 1400, 1280][usize::from(self.mtu % 3)]).unwrap_or_default()
    }

    fn policies(&self, action: PolicyAction) -> Vec<Entity> {
        let mut entities = Vec::new();
        if self.policy & 1 == 1 {
            entities.push(Entity::PolicyRule(PolicyRule {
                direction: PolicyDirection::Ingress,
                tier: PolicyTier::Admin,
                priority: 100,
                subject: PolicySubject::Ports(PortName::new("hs3").into_iter().collect()),
                peer: PolicyPeer::Any,
                protocol: Some(IpProtocol::UDP),
                ports: PolicyPorts::Any,
                action,
                origin: Origin::default(),
            }));
        }
        if self.policy & 2 == 2 {
            entities.extend(more(
                "version: 1
policy_isolations: [{policy: closed, direction: ingress, subject: {ports: [hs2]}}]
policy_rules:
  - {direction: ingress, tier: network_policy, priority: 1, subject: {ports: [hs2]}, peer: any, protocol: tcp, action: allow}
",
            ));
        }
        entities
    }

    fn nat_rules(&self) -> Vec<Entity> {
        let action = match self.nat {
            1 => "{masquerade: {}}",
            2 => "{snat: {pool: [203.0.113.7, 203.0.113.8], ports: 40000-40003}}",
            3 => "{one_to_one: {internal: 10.244.1.12/32, external: 203.0.113.12/32}}",
            _ => return Vec::new(),
        };
        more(&format!(
            "version: 1
nat_rules:
  - {{vrf: pods, priority: 1, matches: {{dst: [10.0.0.0/8]}}, action: no_nat}}
  - {{vrf: pods, priority: 2, action: {action}}}
"
        ))
    }
}

/// Entities that are written here; one that can't be read fails the test below.
fn more(text: &str) -> Vec<Entity> {
    loxi_core::text::from_yaml(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::test_runner::{Config, TestRunner};

    #[test]
    fn every_variation_is_valid_and_every_knob_turns_something() {
        let owner = Owner::new("test").unwrap();
        let pipeline = |variation: &Variation| Pipeline::from_entities(&owner, variation.pipeline());
        let committed = pipeline(&Variation::default());
        let mut runner = TestRunner::new(Config::with_cases(200));
        runner
            .run(&variation(), |variation| {
                loxi_core::validate::validate(&pipeline(&variation)).unwrap();
                for which in 0..6 {
                    assert!(!variation.change(which).is_empty());
                }
                Ok(())
            })
            .unwrap();
        let one = Variation::default;
        let turned = [
            Variation { algorithm: 1, ..one() },
            Variation { mode: 1, ..one() },
            Variation { traffic_policy: 1, ..one() },
            Variation { affinity: true, ..one() },
            Variation { policy: 1, ..one() },
            Variation { policy: 2, ..one() },
            Variation { nat: 1, ..one() },
            Variation { nat: 2, ..one() },
            Variation { nat: 3, ..one() },
            Variation { tunnel: 1, ..one() },
            Variation { bridge: 1, ..one() },
            Variation { zone: 1, ..one() },
            Variation { mtu: 1, ..one() },
            Variation { unguarded: true, ..one() },
            Variation { group: true, ..one() },
        ];
        for variation in turned {
            assert_ne!(pipeline(&variation), committed, "{variation:?}");
        }
    }
}
