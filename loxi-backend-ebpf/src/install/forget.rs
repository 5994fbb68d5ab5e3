//! What goes with entities that go.

use super::names::Names;
use crate::plan::{PlanDelta, RowKey};
use crate::state::Gone;

/// What an installed delta makes gone. The numbers are retired by then, and still known.
pub(crate) fn gone(delta: &PlanDelta, names: &Names) -> Gone {
    let mut gone = Gone::default();
    for unit in &delta.units {
        for key in unit.old.keys().filter(|key| !unit.new.contains_key(*key)) {
            match key {
                RowKey::Port(name) => gone.ports.extend(names.ports.last(name)),
                RowKey::Zone(name) => gone.zones.extend(names.zones.last(name)),
                RowKey::Bridge(name) => gone.bridges.extend(names.bridges.last(name)),
                RowKey::Interface(name) => gone.interfaces.extend(names.interfaces.last(name)),
                RowKey::Service(key) => gone.services.extend(names.services.last(key)),
                RowKey::Tunnel(name) => gone.tunnels.extend(names.tunnels.last(name)),
                RowKey::Endpoint(addr) => gone.endpoints.extend(names.endpoints.last(addr)),
                _ => {}
            }
        }
    }
    gone
}
