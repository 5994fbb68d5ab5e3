//! Everything that a packet meets besides its own bytes, where the reference
//! runs by itself: the configuration, what was learned, and the counters.
//! Cloning it is how packets are tried without consequences.

mod flow_table;
mod icmp_tokens;
mod install;
mod memory;
mod persist;

pub(crate) use flow_table::FlowTable;
pub(crate) use icmp_tokens::IcmpTokens;
pub(crate) use install::Install;
pub(crate) use memory::MemoryState;

use loxi_core::dataplane::FlowStore;
use loxi_core::ir::{Pipeline, PipelineEntity};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, PortCounters};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) config: Arc<Pipeline>,
    pub(crate) attached: BTreeSet<PortName>,
    pub(crate) state: MemoryState,
    pub(crate) ports: BTreeMap<PortName, PortCounters>,
    pub(crate) tokens: IcmpTokens,
}

impl World {
    pub(crate) fn get<T: PipelineEntity + 'static>(&self, key: &T::Key) -> Option<&T> {
        self.config.get::<T>(key)
    }

    pub(crate) fn counters_of(&mut self, port: &PortName) -> &mut PortCounters {
        self.ports.entry(port.clone()).or_default()
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut ports = self.ports.clone();
        for port in self.config.ports() {
            ports.entry(port.name.clone()).or_default();
        }
        let zones = self.config.zones().map(|zone| (zone.name.clone(), self.state.totals(zone))).collect();
        Counters { ports, zones }
    }
}
