//! State: what the dataplane has learned. Not configuration; no diff touches it.

use crate::ir::{FdbKey, NeighborKey, ServiceKey};
use crate::net::{BackendName, MacAddr, PortName, TunnelName, ZoneName};
use crate::packet::{Flow, FlowTuple, Timestamp};
use std::net::IpAddr;

/// A learned station.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbEntry {
    /// Bridge, VLAN and MAC.
    pub key: FdbKey,
    /// The port it was seen at.
    pub port: PortName,
    /// For tunnel ports, the tunnel back to the outer source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelName>,
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// How sure we are of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighborState {
    /// Asked, no answer yet.
    Incomplete,
    /// Answered.
    Reachable(MacAddr),
}

/// A learned neighbour.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighborEntry {
    /// Interface and address.
    pub key: NeighborKey,
    /// Its state.
    pub state: NeighborState,
    /// When it was last asked for.
    pub asked: Timestamp,
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// A client's remembered backend.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AffinityEntry {
    /// The service.
    pub service: ServiceKey,
    /// The client.
    pub client: IpAddr,
    /// Its backend and slot generation.
    pub backend: (BackendName, u64),
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// A lowered path MTU towards an outer destination.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathMtuEntry {
    /// Outer destination.
    pub remote: IpAddr,
    /// Largest outer packet in bytes.
    pub mtu: u16,
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// Identity of a fragmented packet: RFC 791's identification within a zone, before translation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FragmentKey {
    /// Zone.
    pub zone: ZoneName,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol number.
    pub protocol: u8,
}

/// What later fragments of a packet need of the first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FragmentEntry {
    /// Zone.
    pub zone: ZoneName,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol number.
    pub protocol: u8,
    /// The first fragment's tuple, or the reason for which it was dropped.
    pub first: Result<FlowTuple, crate::reason::DropReason>,
    /// When it is forgotten.
    pub expires: Timestamp,
}

impl FragmentEntry {
    /// The packet that it is about.
    #[must_use]
    pub fn key(&self) -> FragmentKey {
        FragmentKey {
            zone: self.zone.clone(),
            src: self.src,
            dst: self.dst,
            id: self.id,
            protocol: self.protocol,
        }
    }
}

/// Generation of a backend's slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotEntry {
    /// The backend.
    pub backend: BackendName,
    /// Its generation.
    pub generation: u64,
}

/// Everything learned, for export and import.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Connections.
    #[serde(default)]
    pub flows: Vec<Flow>,
    /// Learned stations.
    #[serde(default)]
    pub fdb: Vec<FdbEntry>,
    /// Learned neighbours.
    #[serde(default)]
    pub neighbors: Vec<NeighborEntry>,
    /// Affinity.
    #[serde(default)]
    pub affinity: Vec<AffinityEntry>,
    /// Path MTUs.
    #[serde(default)]
    pub path_mtus: Vec<PathMtuEntry>,
    /// Fragments.
    #[serde(default)]
    pub fragments: Vec<FragmentEntry>,
    /// Slot generations of backends.
    #[serde(default)]
    pub slots: Vec<SlotEntry>,
    /// Round-robin positions of services.
    #[serde(default)]
    pub round_robin: Vec<(ServiceKey, u64)>,
    /// Policy generations of ports.
    #[serde(default)]
    pub policy_generations: Vec<(PortName, u64)>,
}
