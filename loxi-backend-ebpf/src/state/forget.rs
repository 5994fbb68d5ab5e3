//! What goes with entities that go: the state that was learned about them.
//!
//! # Contract
//! - Everything is by number. It is called when the entity is no longer in the tables that programs read
//!   and a grace period is over, so that no packet that was under way can bring anything back;
//!   and before the number is given to another.
//! - All that goes at once is given at once ([`forget`]): the flow table is gone through one time.
//! - Decisions that flows have made stale by this are the installer's to outdate: it changes the epoch
//!   after every change.

use super::flow::{FAMILIES, Flows, Place, accounts};
use super::store::Store;
use crate::sys::{KernelError, SOURCES, Table};
use loxi_core::packet::Timestamp;
use loxi_ebpf_layout::flow::{Cold, REPLY, rest};
use loxi_ebpf_layout::l2::PortPolicy;
use std::collections::BTreeSet;
use std::mem::offset_of;

/// Entities that go, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Ports: their flows in every zone, their stations, the generation of their policies.
    pub ports: BTreeSet<u32>,
    /// Zones: their flows and fragments.
    pub zones: BTreeSet<u32>,
    /// Bridges: their stations.
    pub bridges: BTreeSet<u32>,
    /// L3 interfaces: their neighbours.
    pub interfaces: BTreeSet<u32>,
    /// Services: their clients' endpoints, and their turn.
    pub services: BTreeSet<u32>,
    /// Tunnels: stations behind them; flows that came by them lose the way back.
    pub tunnels: BTreeSet<u32>,
    /// Remote addresses: their path MTUs.
    pub endpoints: BTreeSet<u32>,
}

/// The word of a record that has its ports and its tunnel.
const PORTS: usize = offset_of!(Cold, source_port);

const _: () = assert!(
    PORTS.is_multiple_of(8)
        && offset_of!(Cold, destination_port) == PORTS + 2
        && offset_of!(Cold, in_port) == PORTS + 4
        && offset_of!(Cold, in_tunnel) == PORTS + 6
);

/// Source, destination, ingress port; tunnel.
fn halves(word: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes)
}

impl Gone {
    fn has_flow(&self, table: &Flows<'_>, place: Place, word: u64) -> bool {
        if self.zones.contains(&rest::zone(word).into()) {
            return true;
        }
        let [ports @ .., _] = halves(table.cold_word(place, PORTS).load());
        !self.ports.is_empty() && ports.iter().any(|port| *port != 0 && self.ports.contains(&(*port).into()))
    }

    fn has_tunnel(&self, table: &Flows<'_>, place: Place) -> bool {
        let [.., tunnel] = halves(table.cold_word(place, PORTS).load());
        tunnel != 0 && self.tunnels.contains(&tunnel.into())
    }
}

/// Takes everything away that was learned about what is gone.
///
/// # Errors
/// [`KernelError`]; what is taken away until then stays away, and it may be called again.
pub fn forget(store: &mut Store<'_>, gone: &Gone) -> Result<(), KernelError> {
    forget_flows(store, gone);
    let over = Some(Timestamp(0));
    let has = |set: &BTreeSet<u32>, number: u16| number != 0 && set.contains(&number.into());
    if !(gone.ports.is_empty() && gone.bridges.is_empty() && gone.tunnels.is_empty()) {
        store.drain_stations(Timestamp(0), |key, at| {
            // A link without VLAN is a port's.
            let on = key.link.vlan != 0 && has(&gone.bridges, key.link.id);
            if on || has(&gone.ports, at.port) || has(&gone.tunnels, at.tunnel) { over } else { None }
        })?;
    }
    if !gone.interfaces.is_empty() {
        let its = |interface: u32| if gone.interfaces.contains(&interface) { over } else { None };
        store.drain_neighbors(Timestamp(0), |key, _| its(key.interface))?;
    }
    if !gone.zones.is_empty() {
        let its = |zone: u32| if gone.zones.contains(&zone) { over } else { None };
        store.drain_fragments(Timestamp(0), |key, _| its(key.zone.into()))?;
        for (source, _) in store.kernel.all(SOURCES)? {
            if gone.zones.contains(&source.zone) {
                store.kernel.unset(SOURCES, &source)?;
            }
        }
        // The next zone of that number begins with none made.
        for zone in gone.zones.iter().filter_map(|zone| u8::try_from(*zone).ok()) {
            accounts::zone_word(&*store.kernel, zone, accounts::CREATED).store(0);
        }
    }
    if !gone.services.is_empty() {
        let its = |service: u32| if gone.services.contains(&service) { over } else { None };
        store.drain_affinity(Timestamp(0), |service, _| its(service))?;
    }
    let kernel = &*store.kernel;
    let word = |table, place: u32, size: usize, offset: usize| {
        kernel.memory(table).word(place as usize * size + offset)
    };
    for service in &gone.services {
        word(Table::Turns, *service, size_of::<u64>(), 0).store(0);
    }
    for port in &gone.ports {
        let offset = offset_of!(PortPolicy, generation);
        word(Table::PortPolicy, *port, size_of::<PortPolicy>(), offset).store(0);
    }
    for endpoint in &gone.endpoints {
        word(Table::PathMtus, *endpoint, size_of::<u64>(), 0).store(0);
    }
    Ok(())
}

fn forget_flows(store: &mut Store<'_>, gone: &Gone) {
    if gone.ports.is_empty() && gone.zones.is_empty() && gone.tunnels.is_empty() {
        return;
    }
    let mut sources = accounts::Sources::default();
    for family in FAMILIES {
        let table = store.table(family);
        let mut its = Vec::new();
        table.scan(0..table.buckets(), |place, word| {
            if rest::flags(word) & REPLY != 0 {
                return;
            }
            if gone.has_flow(&table, place, word) {
                its.push(place);
            } else if gone.has_tunnel(&table, place) {
                forget_way_back(&table, gone, place);
            }
        });
        for place in its {
            if let Ok((_, record)) = table.record(place) {
                // Unless it is another flow's by now.
                store.end(&record, &mut sources, |table| {
                    gone.has_flow(table, place, table.rest(place).load())
                });
            }
        }
    }
    store.settle(sources);
}

fn forget_way_back(table: &Flows<'_>, gone: &Gone, place: Place) {
    while gone.has_tunnel(table, place) {
        let word = table.cold_word(place, PORTS);
        let old = word.load();
        let [a, b, c, d, e, f, ..] = old.to_ne_bytes();
        if word.replace(old, u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])) {
            return;
        }
    }
}

macro_rules! one {
    ($($(#[$doc:meta])* $name:ident: $field:ident;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// As for [`forget`].
            pub fn $name(store: &mut Store<'_>, number: u32) -> Result<(), KernelError> {
                forget(store, &Gone { $field: BTreeSet::from([number]), ..Gone::default() })
            }
        )+
    };
}

one! {
    /// Forgets what was learned about a port.
    forget_port: ports;
    /// Forgets what was learned in a zone.
    forget_zone: zones;
    /// Forgets a bridge's stations.
    forget_bridge: bridges;
    /// Forgets an interface's neighbours.
    forget_interface: interfaces;
    /// Forgets a service's clients and its turn.
    forget_service: services;
    /// Forgets what leads back by a tunnel.
    forget_tunnel: tunnels;
    /// Forgets the path MTU towards a remote address.
    forget_endpoint: endpoints;
}
