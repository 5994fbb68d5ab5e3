//! State out and in.

use super::World;
use loxi_core::dataplane::{DataplaneError, FlowStore};
use loxi_core::ir::{Bridge, CtZone, Interface, LbService, Port};
use loxi_core::net::BackendName;
use loxi_core::packet::{SlotEntry, State, Timestamp};

impl World {
    pub(crate) fn export(&self) -> State {
        let state = &self.state;
        let slot = |(backend, generation): (&BackendName, &u64)| SlotEntry {
            backend: backend.clone(),
            generation: *generation,
        };
        State {
            flows: state.flows.iter().cloned().collect(),
            fdb: state.fdb.values().cloned().collect(),
            neighbors: state.neighbors.values().cloned().collect(),
            affinity: state.affinity.values().cloned().collect(),
            path_mtus: state.path_mtus.values().cloned().collect(),
            fragments: state.fragments.values().cloned().collect(),
            slots: state.slots.iter().map(slot).collect(),
            round_robin: state.round_robin.iter().map(|(key, at)| (key.clone(), *at)).collect(),
            policy_generations: state
                .policy_generations
                .iter()
                .map(|(port, at)| (port.clone(), *at))
                .collect(),
        }
    }

    /// Takes over what another instance learned, in place of what was learned
    /// here. What refers to entities that aren't configured is left out.
    pub(crate) fn import(&mut self, state: State, now: Timestamp) -> Result<(), DataplaneError> {
        let mut next = self.state.clone();
        next.flows = super::FlowTable::default();
        for flow in state.flows {
            let known =
                self.get::<CtZone>(&flow.id.zone).is_some() && self.get::<Port>(&flow.ingress.port).is_some();
            if !known || flow.expires <= now {
                continue;
            }
            let what = flow.id.tuple;
            next.flows.insert(flow, now).map_err(|error| DataplaneError::BadRequest {
                field: "flows".to_owned(),
                message: format!("{what}: {error}"),
            })?;
        }
        let entries = state.fdb.into_iter();
        let known = entries
            .filter(|e| self.get::<Bridge>(&e.key.bridge).is_some() && self.get::<Port>(&e.port).is_some());
        next.fdb = known.map(|entry| (entry.key.clone(), entry)).collect();
        let entries = state.neighbors.into_iter();
        let known = entries.filter(|entry| self.get::<Interface>(&entry.key.interface).is_some());
        next.neighbors = known.map(|entry| (entry.key.clone(), entry)).collect();
        let entries = state.affinity.into_iter();
        let known = entries.filter(|entry| self.get::<LbService>(&entry.service).is_some());
        next.affinity = known.map(|entry| ((entry.service.clone(), entry.client), entry)).collect();
        next.path_mtus = state.path_mtus.into_iter().map(|entry| (entry.remote, entry)).collect();
        next.fragments = state.fragments.into_iter().map(|entry| (entry.key(), entry)).collect();
        // Generations only grow, so that a flow of a past slot can't match a present one.
        for slot in state.slots {
            let generation = next.slots.entry(slot.backend).or_default();
            *generation = (*generation).max(slot.generation);
        }
        next.round_robin = state.round_robin.into_iter().collect();
        for (port, at) in state.policy_generations {
            let generation = next.policy_generations.entry(port).or_default();
            *generation = (*generation).max(at);
        }
        self.state = next;
        Ok(())
    }
}
