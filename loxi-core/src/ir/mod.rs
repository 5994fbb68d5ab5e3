//! The description of a node's packet pipeline: one file per entity.
//!
//! Entities are plain data (serde, `Eq`). A single entity can only hold legal
//! values; what relates entities to one another (references, overlaps) is
//! checked by [`crate::validate`]. Durations end in `_s` and are seconds.

/// Derives that every entity and attribute has.
macro_rules! data {
    ($(#[$meta:meta])* pub struct $($rest:tt)*) => {
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        $(#[$meta])* pub struct $($rest)*
    };
    ($(#[$meta:meta])* pub enum $($rest:tt)*) => {
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        $(#[$meta])* pub enum $($rest)*
    };
}

mod bridge;
mod ct_zone;
mod entity;
mod fdb;
mod interface;
mod lb_backend;
mod lb_service;
mod nat;
mod neighbor;
mod next_hop;
mod origin;
mod pipeline;
mod policy;
mod port;
mod route;
mod sets;
mod tunnel;
mod vip;
mod vrf;

pub use bridge::{Bridge, Flooding};
pub use ct_zone::{CtTimeouts, CtZone};
pub(crate) use entity::entities;
pub use entity::{Entity, EntityKey, EntityKind};
pub use fdb::{Fdb, FdbKey, FdbTarget};
pub use interface::{Interface, InterfaceOn, LocalDelivery};
pub use lb_backend::{BackendState, LbBackend, Locality};
pub use lb_service::{
    Affinity, LbAlgorithm, LbMode, LbService, MaglevSize, OnNoBackend, ServiceKey, ServiceScope,
    TrafficPolicy,
};
pub use nat::{NatAction, NatKey, NatMatch, NatRule};
pub use neighbor::{Neighbor, NeighborKey};
pub use next_hop::{GroupMember, NextHop, NextHopAction, NextHopGroup};
pub use origin::{Origin, Owner};
pub use pipeline::{Owned, Pipeline, PipelineEntity};
pub use policy::{
    PolicyAction, PolicyDirection, PolicyIsolation, PolicyIsolationKey, PolicyPeer, PolicyPorts, PolicyRule,
    PolicyRuleKey, PolicySubject, PolicyTier,
};
pub use port::{Admin, AntiSpoof, Attachment, BridgePort, Port, PortKind, Scope, Unclaimed, VlanMode};
pub use route::{Route, RouteKey, RouteTarget};
pub use sets::{AddrSet, PortSet};
pub use tunnel::{
    OuterDf, OuterDscp, OuterTtl, TerminationKey, Tunnel, TunnelKind, TunnelTermination, UdpChecksum,
};
pub use vip::{OtherPorts, VipAddress, VipKey, VipMode};
pub use vrf::Vrf;
