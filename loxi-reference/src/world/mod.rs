//! Everything that a packet meets besides its own bytes: the configuration,
//! what was learned, and the counters. Cloning it is how packets are tried
//! without consequences.

mod flow_table;
mod install;
mod lookup;
mod persist;

pub(crate) use flow_table::FlowTable;
pub(crate) use install::Install;
pub(crate) use lookup::{Station, carries};

use loxi_core::dataplane::FlowStore;
use loxi_core::ir::{FdbKey, LbService, NeighborKey, Pipeline, PipelineEntity, ServiceKey};
use loxi_core::net::{BackendName, PortName, ZoneName};
use loxi_core::packet::{
    AffinityEntry, Counters, FdbEntry, FragmentEntry, NeighborEntry, PathMtuEntry, PortCounters, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// ICMP errors per second and port, and how many at once (RFC 4443 section 2.4 f
/// wants a token bucket; the values are Linux' `icmp_msgs_per_sec` and `icmp_msgs_burst`).
const ICMP_PER_SECOND: u64 = 1000;
const ICMP_BURST: u64 = 50;

/// Identity of a fragmented packet: zone, source, destination, identification, protocol.
pub(crate) type FragmentKey = (ZoneName, IpAddr, IpAddr, u32, u8);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Nanoseconds' worth of tokens.
    credit: u64,
    filled: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) config: Arc<Pipeline>,
    pub(crate) attached: BTreeSet<PortName>,
    pub(crate) flows: FlowTable,
    pub(crate) fdb: BTreeMap<FdbKey, FdbEntry>,
    pub(crate) neighbors: BTreeMap<NeighborKey, NeighborEntry>,
    pub(crate) affinity: BTreeMap<(ServiceKey, IpAddr), AffinityEntry>,
    pub(crate) path_mtus: BTreeMap<IpAddr, PathMtuEntry>,
    pub(crate) fragments: BTreeMap<FragmentKey, FragmentEntry>,
    pub(crate) slots: BTreeMap<BackendName, u64>,
    pub(crate) round_robin: BTreeMap<ServiceKey, u64>,
    pub(crate) policy_generations: BTreeMap<PortName, u64>,
    pub(crate) ports: BTreeMap<PortName, PortCounters>,
    buckets: BTreeMap<PortName, Bucket>,
}

impl World {
    pub(crate) fn get<T: PipelineEntity + 'static>(&self, key: &T::Key) -> Option<&T> {
        self.config.get::<T>(key)
    }

    /// Whether packets can leave by a port: it exists, is up and attached.
    pub(crate) fn is_open(&self, port: &PortName) -> bool {
        use loxi_core::ir::{Admin, Port, PortKind};
        self.get::<Port>(port).is_some_and(|config| {
            // A tunnel port has no device behind it that could be attached or not.
            config.admin == Admin::Up && (config.kind == PortKind::Tunnel || self.attached.contains(port))
        })
    }

    /// Takes a token for an ICMP error about a packet of this port.
    pub(crate) fn take_icmp_token(&mut self, port: &PortName, now: Timestamp) -> bool {
        const COST: u64 = Timestamp::SECOND / ICMP_PER_SECOND;
        let full = Bucket { credit: ICMP_BURST * COST, filled: now };
        let bucket = self.buckets.entry(port.clone()).or_insert(full);
        let since = now.0.saturating_sub(bucket.filled.0);
        bucket.credit = bucket.credit.saturating_add(since).min(ICMP_BURST * COST);
        bucket.filled = bucket.filled.max(now);
        if bucket.credit < COST {
            return false;
        }
        bucket.credit -= COST;
        true
    }

    pub(crate) fn policy_generation(&self, port: &PortName) -> u64 {
        self.policy_generations.get(port).copied().unwrap_or(0)
    }

    pub(crate) fn slot(&self, backend: &BackendName) -> u64 {
        self.slots.get(backend).copied().unwrap_or(0)
    }

    pub(crate) fn counters_of(&mut self, port: &PortName) -> &mut PortCounters {
        self.ports.entry(port.clone()).or_default()
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut ports = self.ports.clone();
        for port in self.config.ports() {
            ports.entry(port.name.clone()).or_default();
        }
        let zones = self.config.zones().map(|zone| (zone.name.clone(), self.flows.totals(zone))).collect();
        Counters { ports, zones }
    }

    /// Forgets what has expired. Cost grows with what is stored.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.flows.expire(now);
        self.fdb.retain(|_, entry| entry.expires > now);
        self.neighbors.retain(|_, entry| entry.expires > now);
        self.affinity.retain(|_, entry| entry.expires > now);
        self.path_mtus.retain(|_, entry| entry.expires > now);
        // A fragment that comes too late is told from one that came without a first.
        self.fragments.retain(|_, entry| entry.expires.plus_s(30) > now);
    }

    /// Services of an address and protocol, whatever their ports and scope.
    pub(crate) fn services_of(
        &self,
        vrf: &loxi_core::net::VrfName,
        vip: IpAddr,
    ) -> impl Iterator<Item = &LbService> {
        self.config.services().filter(move |service| service.vip == vip && service.vrf == *vrf)
    }
}
