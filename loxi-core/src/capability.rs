//! What a backend can do, as a value.
//!
//! A feature that a pipeline needs and a backend lacks is an [`Unsupported`]
//! naming entity, field and feature, before anything is touched.

use crate::ir::{
    Attachment, EntityKey, EntityKind, InterfaceOn, LbAlgorithm, LbMode, NatAction, NextHopAction, Pipeline,
    RouteTarget, TunnelKind, VlanMode,
};
use crate::packet::Stage;
use crate::reason::{DropReason, PuntReason};
use std::collections::{BTreeMap, BTreeSet};

macro_rules! features {
    ($($feature:ident),+ $(,)?) => {
        /// Something that not every backend can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        #[allow(missing_docs)] // each is what its name says; `needs` says which entity and field asks for it
        pub enum Feature {
            $($feature,)+
        }

        impl Feature {
            /// Every feature of this version.
            pub const ALL: &'static [Self] = &[$(Self::$feature),+];
        }
    };
}

features! {
    VlanTrunk,
    BridgeLearning,
    BridgeFlooding,
    ProxyNeighbors,
    AntiSpoof,
    Ipv6,
    EcmpGroups,
    TunnelVxlan,
    TunnelIpip,
    FdbToTunnel,
    RoutedBridge,
    Conntrack,
    ConntrackSourceLimit,
    ConntrackHalfOpenLimit,
    Services,
    LbMaglev,
    LbSourceHash,
    LbRoundRobin,
    LbRandom,
    LbLeastConnections,
    LbAffinity,
    LbFullNat,
    LbDsrIpip,
    LbDsrL2,
    LbPortRange,
    NatSnat,
    NatMasquerade,
    NatOneToOne,
    NatDnat,
    Policies,
    IcmpErrors,
    VerifyL4Checksum,
    Fragments,
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Debug is the variant's name; the text form is its snake case.
        let name = format!("{self:?}");
        let mut text = String::new();
        for (index, c) in name.char_indices() {
            if c.is_ascii_uppercase() && index > 0 {
                text.push('_');
            }
            text.push(c.to_ascii_lowercase());
        }
        f.pad(&text)
    }
}

/// What a backend does with packets that need a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageSupport {
    /// It executes the stage.
    Full,
    /// It hands some packets on, for the declared punt reasons.
    Punts,
    /// It has no such stage.
    None,
}

/// What a backend can do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// The backend's name.
    pub backend: String,
    /// Entities at most, by kind; a kind that is missing can't be configured.
    pub capacity: BTreeMap<EntityKind, u64>,
    /// What it can do.
    pub features: BTreeSet<Feature>,
    /// Stages; one that is missing is `none`.
    pub stages: BTreeMap<Stage, StageSupport>,
    /// Punts for which the slow path finishes the work.
    pub punts: BTreeSet<PuntReason>,
    /// Drop reasons that it reports as another one, by what it reports instead.
    #[serde(default)]
    pub coarse_reasons: BTreeMap<DropReason, DropReason>,
    /// By how many connections a least-connections choice may be off.
    #[serde(default)]
    pub least_connections_slack: u32,
}

/// A need that a backend can't meet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{entity}: {field}: backend {backend} has no capability {feature}")]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    /// The entity that needs it.
    pub entity: EntityKey,
    /// Its field.
    pub field: String,
    /// What it needs.
    pub feature: Feature,
    /// The backend.
    pub backend: String,
}

/// Too many entities of a kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{asked} entities of kind {} exceed the backend's limit of {limit}", kind.name())]
#[serde(deny_unknown_fields)]
pub struct CapacityExceeded {
    /// The kind.
    pub kind: EntityKind,
    /// Entities at most.
    pub limit: u64,
    /// Entities asked for.
    pub asked: u64,
}

impl Capabilities {
    /// Everything this version of the IR has, with one limit for every kind.
    #[must_use]
    pub fn full(backend: &str, limit: u64) -> Self {
        Self {
            backend: backend.to_owned(),
            capacity: EntityKind::ALL.iter().map(|kind| (*kind, limit)).collect(),
            features: Feature::ALL.iter().copied().collect(),
            stages: Stage::EXECUTED.iter().map(|stage| (*stage, StageSupport::Full)).collect(),
            punts: PuntReason::ALL.iter().copied().filter(|reason| reason.is_not_ours()).collect(),
            coarse_reasons: BTreeMap::new(),
            least_connections_slack: 0,
        }
    }

    /// Whether a pipeline can be expressed.
    ///
    /// # Errors
    /// The first need that isn't met.
    pub fn check(&self, pipeline: &Pipeline) -> Result<(), crate::dataplane::CompileError> {
        for kind in EntityKind::ALL {
            let asked = pipeline.count(*kind) as u64;
            let limit = self.capacity.get(kind).copied().unwrap_or(0);
            if asked > limit {
                return Err(CapacityExceeded { kind: *kind, limit, asked }.into());
            }
        }
        for (entity, field, feature) in needs(pipeline) {
            if !self.features.contains(&feature) {
                let unsupported =
                    Unsupported { entity, field: field.to_owned(), feature, backend: self.backend.clone() };
                return Err(unsupported.into());
            }
        }
        Ok(())
    }
}

/// What a pipeline needs beyond the capacity: entity, field, feature.
#[must_use]
pub fn needs(pipeline: &Pipeline) -> Vec<(EntityKey, &'static str, Feature)> {
    let mut needs = Vec::new();
    l2_needs(pipeline, &mut needs);
    l3_needs(pipeline, &mut needs);
    lb_needs(pipeline, &mut needs);
    for rule in pipeline.policy_rules() {
        needs.push((EntityKey::PolicyRule(rule.key()), "subject", Feature::Policies));
    }
    for isolation in pipeline.policy_isolations() {
        needs.push((EntityKey::PolicyIsolation(isolation.key()), "subject", Feature::Policies));
    }
    needs
}

type Needs = Vec<(EntityKey, &'static str, Feature)>;

fn l2_needs(pipeline: &Pipeline, needs: &mut Needs) {
    for zone in pipeline.zones() {
        let key = || EntityKey::Zone(zone.name.clone());
        needs.push((key(), "name", Feature::Conntrack));
        if zone.max_half_open.is_some() {
            needs.push((key(), "max_half_open", Feature::ConntrackHalfOpenLimit));
        }
        if zone.max_per_source.is_some() {
            needs.push((key(), "max_per_source", Feature::ConntrackSourceLimit));
        }
    }
    for bridge in pipeline.bridges() {
        let key = || EntityKey::Bridge(bridge.name.clone());
        if bridge.learning {
            needs.push((key(), "learning", Feature::BridgeLearning));
        }
        if bridge.proxy_neighbors {
            needs.push((key(), "proxy_neighbors", Feature::ProxyNeighbors));
        }
        if !bridge.flood_tunnels.is_empty() {
            needs.push((key(), "flood_tunnels", Feature::FdbToTunnel));
        }
    }
    for port in pipeline.ports() {
        let key = || EntityKey::Port(port.name.clone());
        if let Attachment::Bridge(member) = &port.attachment
            && matches!(member.vlan, VlanMode::Trunk { .. })
        {
            needs.push((key(), "attachment.bridge.vlan", Feature::VlanTrunk));
        }
        if port.anti_spoof.is_some() {
            needs.push((key(), "anti_spoof", Feature::AntiSpoof));
        }
    }
    for entry in pipeline.fdb() {
        if matches!(entry.target, crate::ir::FdbTarget::Tunnel(_)) {
            needs.push((EntityKey::Fdb(entry.key()), "target.tunnel", Feature::FdbToTunnel));
        }
    }
}

fn l3_needs(pipeline: &Pipeline, needs: &mut Needs) {
    for interface in pipeline.interfaces() {
        let key = || EntityKey::Interface(interface.name.clone());
        if matches!(interface.on, InterfaceOn::Bridge { .. }) {
            needs.push((key(), "on.bridge", Feature::RoutedBridge));
        }
        if interface.addresses.iter().any(std::net::IpAddr::is_ipv6) {
            needs.push((key(), "addresses", Feature::Ipv6));
        }
    }
    for tunnel in pipeline.tunnels() {
        let feature = match tunnel.kind {
            TunnelKind::Vxlan { .. } => Feature::TunnelVxlan,
            TunnelKind::Ipip => Feature::TunnelIpip,
        };
        needs.push((EntityKey::Tunnel(tunnel.name.clone()), "kind", feature));
    }
    for route in pipeline.routes() {
        if matches!(route.target, RouteTarget::Group(_)) {
            needs.push((EntityKey::Route(route.key()), "target.group", Feature::EcmpGroups));
        }
        if !route.prefix.is_ipv4() {
            needs.push((EntityKey::Route(route.key()), "prefix", Feature::Ipv6));
        }
    }
    for hop in pipeline.next_hops() {
        if let NextHopAction::Tunnel(tunnel) = &hop.action
            && let Some(tunnel) = pipeline.get::<crate::ir::Tunnel>(tunnel)
            && !tunnel.remote.is_ipv4()
        {
            needs.push((EntityKey::NextHop(hop.name.clone()), "action.tunnel", Feature::Ipv6));
        }
    }
    for rule in pipeline.nat_rules() {
        let feature = match rule.action {
            NatAction::NoNat | NatAction::Snat { .. } => Feature::NatSnat,
            NatAction::Masquerade { .. } => Feature::NatMasquerade,
            NatAction::OneToOne { .. } => Feature::NatOneToOne,
            NatAction::Dnat { .. } => Feature::NatDnat,
        };
        needs.push((EntityKey::NatRule(rule.key()), "action", feature));
    }
}

fn lb_needs(pipeline: &Pipeline, needs: &mut Needs) {
    for service in pipeline.services() {
        let key = || EntityKey::Service(service.key());
        needs.push((key(), "vip", Feature::Services));
        if !service.vip.is_ipv4() {
            needs.push((key(), "vip", Feature::Ipv6));
        }
        if service.ports.count() > 1 {
            needs.push((key(), "ports", Feature::LbPortRange));
        }
        if service.affinity.is_some() {
            needs.push((key(), "affinity", Feature::LbAffinity));
        }
        let algorithm = match service.algorithm {
            LbAlgorithm::Maglev { .. } => Feature::LbMaglev,
            LbAlgorithm::SourceHash => Feature::LbSourceHash,
            LbAlgorithm::RoundRobin => Feature::LbRoundRobin,
            LbAlgorithm::Random => Feature::LbRandom,
            LbAlgorithm::LeastConnections => Feature::LbLeastConnections,
        };
        needs.push((key(), "algorithm", algorithm));
        match service.mode {
            LbMode::Nat => {}
            LbMode::FullNat => needs.push((key(), "mode", Feature::LbFullNat)),
            LbMode::DsrIpip => needs.push((key(), "mode", Feature::LbDsrIpip)),
            LbMode::DsrL2 => needs.push((key(), "mode", Feature::LbDsrL2)),
        }
    }
}
