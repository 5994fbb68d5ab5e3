//! Paged questions.

use crate::change::Generation;
use crate::ir::{Entity, EntityKind, Owned, Owner};
use crate::net::{IpPrefix, IpProtocol, PortName, ZoneName};
use crate::packet::{FdbEntry, Flow, FlowId, NeighborEntry};
use std::collections::BTreeSet;

/// Which flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Of this zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// With any of the four addresses inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpPrefix>,
    /// Of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<IpProtocol>,
    /// With this source or destination port, before or after translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l4_port: Option<u16>,
    /// First seen at this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<PortName>,
}

impl FlowFilter {
    /// Whether a flow is meant.
    #[must_use]
    pub fn admits(&self, flow: &Flow) -> bool {
        let (o, r) = (&flow.id.tuple, &flow.reply);
        self.zone.as_ref().is_none_or(|zone| *zone == flow.id.zone)
            && self.protocol.is_none_or(|protocol| protocol == o.protocol)
            && self.ingress.as_ref().is_none_or(|port| *port == flow.ingress.port)
            && self
                .address
                .is_none_or(|prefix| [o.src, o.dst, r.src, r.dst].iter().any(|a| prefix.contains(*a)))
            && self
                .l4_port
                .is_none_or(|port| [o.src_port, o.dst_port, r.src_port, r.dst_port].contains(&port))
    }
}

/// A question for a page of flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// Which flows.
    #[serde(default)]
    pub filter: FlowFilter,
    /// Where the last page ended; none: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<FlowId>,
    /// Flows at most, 1 to [`FlowQuery::MAX_LIMIT`]; 0: [`FlowQuery::DEFAULT_LIMIT`].
    #[serde(default)]
    pub limit: u32,
}

impl FlowQuery {
    /// Flows of a page at most.
    pub const MAX_LIMIT: u32 = 10_000;
    /// Flows of a page unless asked otherwise.
    pub const DEFAULT_LIMIT: u32 = 1_000;

    /// Flows of this page at most.
    #[must_use]
    pub fn page_size(&self) -> usize {
        let limit = if self.limit == 0 { Self::DEFAULT_LIMIT } else { self.limit.min(Self::MAX_LIMIT) };
        limit as usize
    }
}

/// A page of flows, by zone and tuple. A flow that exists all the while is on exactly one page.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowPage {
    /// Flows.
    pub flows: Vec<Flow>,
    /// Where the next page starts; none: this was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<FlowId>,
}

/// A question for a page of what is configured and learned.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotQuery {
    /// Kinds; empty: all.
    #[serde(default)]
    pub kinds: BTreeSet<EntityKind>,
    /// Of this owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Entities to pass over, in dependency and key order.
    #[serde(default)]
    pub skip: u64,
    /// Entities at most; 0: 10,000.
    #[serde(default)]
    pub limit: u32,
}

/// A page of what is configured and learned.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPage {
    /// The generation of all of this page; pages of different generations don't fit together.
    pub generation: Generation,
    /// Entities in dependency and key order.
    pub entities: Vec<Owned<Entity>>,
    /// What to skip for the next page; none: this was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Ports that are attached.
    #[serde(default)]
    pub attached: Vec<PortName>,
    /// Learned stations, where the kind `fdb` was asked for.
    #[serde(default)]
    pub learned_fdb: Vec<FdbEntry>,
    /// Learned neighbours, where the kind `neighbor` was asked for.
    #[serde(default)]
    pub learned_neighbors: Vec<NeighborEntry>,
}
