//! What this backend can do.

use loxi_core::capability::{Capabilities, Feature, StageSupport};
use loxi_core::ir::EntityKind;
use loxi_core::packet::Stage;
use loxi_core::reason::PuntReason;
use loxi_ebpf_layout::limits;

/// The backend's name.
pub const NAME: &str = "ebpf";

/// Entities at most: half of what there is room for, since what replaces an entity is made before it goes.
const CAPACITY: &[(EntityKind, u32)] = &[
    (EntityKind::Zone, limits::ZONES / 2),
    (EntityKind::Vrf, limits::VRFS / 2),
    (EntityKind::Bridge, limits::BRIDGES / 2),
    (EntityKind::Port, limits::PORTS / 2),
    (EntityKind::Interface, limits::INTERFACES / 2),
    (EntityKind::Neighbor, limits::LEARNED_NEIGHBORS / 2),
    (EntityKind::Tunnel, limits::TUNNELS / 2),
    (EntityKind::Termination, limits::TUNNELS / 2),
    (EntityKind::Fdb, limits::LEARNED_STATIONS / 2),
    (EntityKind::NextHop, limits::NEXT_HOPS / 2),
    (EntityKind::NextHopGroup, limits::GROUPS / 2),
    (EntityKind::Route, limits::ROUTES / 2),
    (EntityKind::Vip, limits::VIPS / 2),
    (EntityKind::Backend, limits::BACKENDS / 2),
    (EntityKind::Service, limits::SERVICES / 2),
    (EntityKind::NatRule, limits::NAT_PLACES / 2),
    (EntityKind::AddrSet, limits::PEERS / 2),
    (EntityKind::PortSet, limits::PEERS / 2),
    (EntityKind::PolicyRule, limits::PEERS / 2),
    (EntityKind::PolicyIsolation, limits::PEERS / 2),
];

/// What the programs leave to the slow path.
const PUNTS: &[PuntReason] = &[
    PuntReason::Fragment,
    PuntReason::IcmpToBuild,
    PuntReason::IpOptions,
    PuntReason::FirstPacket,
    PuntReason::Neighbor,
    PuntReason::Multicast,
    PuntReason::Checksum,
    PuntReason::Fragmentation,
    PuntReason::Parse,
];

/// Stages of which some packets are the slow path's; the others are the programs' own.
const SHARED: &[Stage] = &[
    Stage::Parse,
    Stage::AntiSpoof,
    Stage::TunnelTermination,
    Stage::Fragment,
    Stage::Service,
    Stage::Forward,
    Stage::TtlMtu,
    Stage::Snat,
    Stage::Send,
];

/// What the programs can do, whatever the kernel.
#[must_use]
pub fn capabilities() -> Capabilities {
    let mut all = Capabilities::full(NAME, 0);
    all.capacity = CAPACITY.iter().map(|(kind, most)| (*kind, u64::from(*most))).collect();
    all.features.remove(&Feature::VerifyL4Checksum);
    all.punts.extend(PUNTS);
    for stage in SHARED {
        all.stages.insert(*stage, StageSupport::Punts);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_entity_has_a_limit() {
        let capacity = capabilities().capacity;
        for kind in EntityKind::ALL {
            assert!(capacity.get(kind).is_some_and(|most| *most > 0), "{kind:?}");
        }
    }
}
