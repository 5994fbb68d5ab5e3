//! What was learned of things that go.

use super::names::Names;
use crate::plan::{PlanDelta, RowKey};

/// Something of which nothing learned may stay, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forget {
    /// A port: flows, stations, counters.
    Port(u32),
    /// A zone: flows and fragments.
    Zone(u32),
    /// A bridge: stations.
    Bridge(u32),
    /// An interface: neighbours.
    Interface(u32),
    /// A service: clients' endpoints, and whose turn it is.
    Service(u32),
    /// A tunnel: ways back.
    Tunnel(u32),
}

/// What an installed delta makes forgotten. The numbers are retired by then, and still known.
pub(crate) fn forgets(delta: &PlanDelta, names: &Names) -> Vec<Forget> {
    let mut found = Vec::new();
    for unit in &delta.units {
        for key in unit.old.keys().filter(|key| !unit.new.contains_key(*key)) {
            found.extend(match key {
                RowKey::Port(name) => names.ports.last(name).map(Forget::Port),
                RowKey::Zone(name) => names.zones.last(name).map(Forget::Zone),
                RowKey::Bridge(name) => names.bridges.last(name).map(Forget::Bridge),
                RowKey::Interface(name) => names.interfaces.last(name).map(Forget::Interface),
                RowKey::Service(key) => names.services.last(key).map(Forget::Service),
                RowKey::Tunnel(name) => names.tunnels.last(name).map(Forget::Tunnel),
                _ => None,
            });
        }
    }
    found
}
