//! What another instance learned, in place of what was learned here.
//!
//! Numbers and generations of slots are an instance's own. A flow of a past generation there must not
//! become one of a present generation here: what was current where it comes from is current here, and nothing
//! else is.

use super::flow::codec::{self, Draft};
use super::flow::times::Timeouts;
use super::flow::{FAMILIES, Record, Room, accounts};
use super::store::Store;
use crate::sys::{KernelError, PORT_POLICY, TURNS, Table};
use loxi_core::dataplane::{DataplaneError, FlowInsertError, StateStore};
use loxi_core::net::{BackendName, IpProtocol};
use loxi_core::packet::{Flow, FlowTuple, State, Timestamp};
use loxi_ebpf_layout::flow::{REPLY, rest};
use loxi_ebpf_layout::l2::PortPolicy;
use std::collections::{BTreeMap, HashSet};
use std::mem::offset_of;

fn failed(error: KernelError) -> DataplaneError {
    DataplaneError::Internal(error.to_string())
}

fn refused(tuple: &FlowTuple, error: &dyn std::fmt::Display) -> DataplaneError {
    DataplaneError::BadRequest { field: "flows".to_owned(), message: format!("{tuple}: {error}") }
}

/// Takes over what another instance learned, in place of what was learned here. What refers to
/// entities that aren't configured is left out, and so are flows that have expired.
///
/// # Errors
/// [`DataplaneError::BadRequest`] if two flows have a tuple in common or one finds no room; then
/// nothing has changed, but that the flows are put back if programs have taken the room in the meantime.
/// [`DataplaneError::Internal`] if the kernel refuses: what was learned may be half of each.
pub fn import(store: &mut Store<'_>, state: State, now: Timestamp) -> Result<(), DataplaneError> {
    let slots: BTreeMap<BackendName, u64> =
        state.slots.into_iter().map(|slot| (slot.backend, slot.generation)).collect();
    let flows = admitted(store, state.flows, &slots, now)?;
    replace_flows(store, flows, now)?;
    store.drain_stations(Timestamp(0), |_, _| Some(Timestamp(0))).map_err(failed)?;
    store.drain_neighbors(Timestamp(0), |_, _| Some(Timestamp(0))).map_err(failed)?;
    store.drain_affinity(Timestamp(0), |_, _| Some(Timestamp(0))).map_err(failed)?;
    store.drain_fragments(Timestamp(0), |_, _| Some(Timestamp(0))).map_err(failed)?;
    store.sweep_path_mtus(Timestamp(u64::MAX));
    for entry in &state.fdb {
        store.keep_station(entry).map_err(failed)?;
    }
    for entry in &state.neighbors {
        store.keep_neighbor(entry).map_err(failed)?;
    }
    for mut entry in state.affinity {
        entry.backend.1 = translated(store, &entry.backend, &slots);
        store.keep_affinity(&entry).map_err(failed)?;
    }
    for entry in &state.path_mtus {
        store.keep_path_mtu(entry).map_err(failed)?;
    }
    for entry in &state.fragments {
        store.keep_fragment(entry).map_err(failed)?;
    }
    let kernel = &*store.kernel;
    let turns: BTreeMap<_, _> = state.round_robin.into_iter().collect();
    for (service, number) in store.names.services.all() {
        kernel.fill(TURNS, number, &turns.get(service).copied().unwrap_or(0));
    }
    // Generations only grow, so that a flow of a past policy can't match a present one.
    for (port, at) in state.policy_generations {
        let Some(number) = store.names.ports.number(&port) else { continue };
        if at > kernel.at(PORT_POLICY, number).generation {
            let offset = number as usize * size_of::<PortPolicy>() + offset_of!(PortPolicy, generation);
            kernel.memory(Table::PortPolicy).word(offset).store(at);
        }
    }
    store.outdate();
    Ok(())
}

/// The generation here of an endpoint that had one there.
fn translated(store: &Store<'_>, backend: &(BackendName, u64), slots: &BTreeMap<BackendName, u64>) -> u64 {
    let own = store.slot(&backend.0);
    match slots.get(&backend.0) {
        // Who doesn't tell its generations means ours.
        None => backend.1,
        Some(current) if *current == backend.1 => own,
        // The one before, to which no later one comes round.
        Some(_) => codec::generation(own).wrapping_sub(1).into(),
    }
}

/// The flows that can be stored, with generations of here; all of them find room.
fn admitted(
    store: &Store<'_>,
    flows: Vec<Flow>,
    slots: &BTreeMap<BackendName, u64>,
    now: Timestamp,
) -> Result<Vec<(FlowTuple, Draft)>, DataplaneError> {
    let mut rooms = FAMILIES.map(|family| (family, Room::new(store.table(family))));
    let timeouts = Timeouts::all(&*store.kernel);
    let mut tuples = HashSet::new();
    let mut admitted = Vec::with_capacity(flows.len());
    for mut flow in flows {
        let zone: u8 = codec::number(&store.names.zones, &flow.id.zone);
        if zone == 0 || store.names.ports.number(&flow.ingress.port).is_none() || flow.expires <= now {
            continue;
        }
        if let Some(backend) = &mut flow.backend {
            backend.1 = translated(store, backend, slots);
            let unknown = store.names.backends.number(&backend.0).is_none();
            // Its next packet would find it stale, and without a number nothing could tell.
            if unknown && flow.id.tuple.protocol == IpProtocol::UDP {
                continue;
            }
        }
        let tuple = flow.id.tuple;
        let draft = codec::draft(store.names, &timeouts[usize::from(zone)], &flow)
            .ok_or_else(|| refused(&tuple, &"the addresses are of two families"))?;
        let own = if draft.is_single() { 1 } else { 2 };
        for (key, of) in [(&draft.original.key, tuple), (&draft.reply.key, flow.reply)].into_iter().take(own)
        {
            if !tuples.insert((zone, of)) {
                return Err(refused(&tuple, &FlowInsertError::Occupied));
            }
            let room = rooms.iter_mut().find(|(family, _)| *family == draft.family);
            if !room.is_some_and(|(_, room)| room.take(key)) {
                return Err(refused(&tuple, &FlowInsertError::Full));
            }
        }
        admitted.push((tuple, draft));
    }
    Ok(admitted)
}

fn replace_flows(
    store: &mut Store<'_>,
    new: Vec<(FlowTuple, Draft)>,
    now: Timestamp,
) -> Result<(), DataplaneError> {
    let old = remove_flows(store);
    let mut refusals = new
        .into_iter()
        .filter_map(|(tuple, draft)| put(store, draft, now).err().map(|error| refused(&tuple, &error)));
    let Some(refusal) = refusals.next() else { return Ok(()) };
    drop(refusals);
    remove_flows(store);
    for record in old {
        // What finds no room where it had some has lost it to a flow that began just now.
        let _ = put(store, Draft::again(&record), now);
    }
    Err(refusal)
}

/// Stores a flow, in place of those that programs have just made with its tuples.
fn put(store: &mut Store<'_>, draft: Draft, now: Timestamp) -> Result<(), FlowInsertError> {
    let result = store.put_draft(draft, now);
    if result != Err(FlowInsertError::Occupied) {
        return result;
    }
    let mut sources = accounts::Sources::default();
    let table = store.table(draft.family);
    for key in [&draft.original.key, &draft.reply.key] {
        if let Some((_, record)) = table.find(key).and_then(|place| table.record(place).ok()) {
            store.end(&record, &mut sources, |_| true);
        }
    }
    store.settle(sources);
    store.put_draft(draft, now)
}

/// Takes out every flow, those that are nobody's as well: what was there.
fn remove_flows(store: &mut Store<'_>) -> Vec<Record> {
    let mut sources = accounts::Sources::default();
    let mut removed = Vec::new();
    for family in FAMILIES {
        let table = store.table(family);
        let mut all = Vec::new();
        table.scan(0..table.buckets(), |place, word| {
            if rest::flags(word) & REPLY == 0 {
                all.push(place);
            }
        });
        for place in all {
            if let Ok((_, record)) = table.record(place)
                && store.end(&record, &mut sources, |_| true)
            {
                removed.push(record);
            }
        }
    }
    store.settle(sources);
    removed
}
