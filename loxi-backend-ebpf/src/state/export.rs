//! Everything learned, as a value.

use super::flow::times::Timeouts;
use super::flow::{FAMILIES, codec};
use super::store::Store;
use super::tables::is_fixed;
use crate::sys::{AFFINITY, ENDPOINTS, FRAGMENTS, KernelError, NEIGHBORS, STATIONS, TURNS};
use loxi_core::dataplane::StateStore;
use loxi_core::packet::{Flow, SlotEntry, State};
use loxi_ebpf_layout::flow::{REPLY, rest};

/// Everything that was learned, in order. Flows that are made, changed or ended meanwhile are
/// told as they were or as they are.
///
/// # Errors
/// [`KernelError`].
pub fn export(store: &Store<'_>) -> Result<State, KernelError> {
    let kernel = &*store.kernel;
    let names = store.names;
    let stations = kernel.all(STATIONS)?;
    let learned = stations.iter().filter(|(_, at)| at.fixed == 0);
    let neighbors = kernel.all(NEIGHBORS)?;
    let heard = neighbors.iter().filter(|(_, known)| !is_fixed(known));
    let endpoints = kernel.all(ENDPOINTS)?;
    let remotes = endpoints.iter().filter_map(|(key, place)| {
        let remote = super::flow::key::ip(u8::try_from(key.family).ok()?, key.addr);
        store.path_mtu_entry(remote, *place)
    });
    let slots = names
        .backends
        .all()
        .map(|(name, _)| SlotEntry { backend: name.clone(), generation: store.slot(name) });
    let turns = names.services.all().map(|(key, number)| (key.clone(), kernel.at(TURNS, number)));
    let generations = names.ports.all().map(|(name, _)| (name.clone(), store.policy_generation(name)));
    let mut state = State {
        flows: flows(store),
        fdb: learned.filter_map(|(key, at)| store.fdb_entry(key, at)).collect(),
        neighbors: heard.filter_map(|(key, known)| store.neighbor_entry(key, known)).collect(),
        affinity: kernel
            .all(AFFINITY)?
            .iter()
            .filter_map(|(k, known)| store.affinity_entry(k, known))
            .collect(),
        path_mtus: remotes.collect(),
        fragments: kernel
            .all(FRAGMENTS)?
            .iter()
            .filter_map(|(k, known)| store.fragment_entry(k, known))
            .collect(),
        slots: slots.filter(|slot| slot.generation != 0).collect(),
        round_robin: turns.filter(|(_, turn)| *turn != 0).collect(),
        policy_generations: generations.filter(|(_, at)| *at != 0).collect(),
    };
    state.fdb.sort_by(|a, b| a.key.cmp(&b.key));
    state.neighbors.sort_by(|a, b| a.key.cmp(&b.key));
    state.affinity.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
    state.path_mtus.sort_by_key(|entry| entry.remote);
    state.fragments.sort_by_key(loxi_core::packet::FragmentEntry::key);
    Ok(state)
}

/// Every flow, in order.
pub(super) fn flows(store: &Store<'_>) -> Vec<Flow> {
    let timeouts = Timeouts::all(&*store.kernel);
    let mut flows = Vec::new();
    for family in FAMILIES {
        let table = store.table(family);
        table.scan(0..table.buckets(), |place, word| {
            if rest::flags(word) & REPLY == 0
                && let Ok((_, record)) = table.record(place)
                && record.original == place
            {
                flows.extend(codec::flow(store.names, &timeouts[usize::from(record.zone())], &record));
            }
        });
    }
    flows.sort_by(|a, b| a.id.cmp(&b.id));
    flows
}
