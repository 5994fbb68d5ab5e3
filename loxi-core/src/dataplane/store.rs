//! Where what was learned is kept.
//!
//! A fast path has tables of its own kind; the slow path that finishes its work
//! sees them through these traits, so that there is one state and not two that
//! must be kept alike. Both traits are object safe, and answer with owned
//! values: an entry of a table in another address space can't be borrowed.
//!
//! # Contract
//! A store keeps what it is given and judges nothing: whether an entry has
//! expired is for the reader to see, except where a method is given the time.
//! A store that has no room may leave out any entry but a flow, as if it had
//! expired at once.

use crate::ir::{CtZone, FdbKey, NeighborKey, ServiceKey};
use crate::net::{BackendName, BridgeName, PortName, ZoneName};
use crate::packet::{
    AffinityEntry, FdbEntry, Flow, FlowDirection, FlowId, FlowTotals, FlowTuple, FragmentEntry, FragmentKey,
    NeighborEntry, PathMtuEntry, Timestamp,
};
use std::net::IpAddr;

/// Why a flow can't be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowInsertError {
    /// The zone is full.
    #[error("the zone is full")]
    Full,
    /// One of the two tuples is another flow's.
    #[error("a tuple of the flow belongs to another")]
    Occupied,
}

/// Where flows are kept. Both tuples of a flow find it; both are unique in their zone.
pub trait FlowStore {
    /// The flow that a packet of this tuple belongs to, and its direction in it. None that has
    /// expired.
    fn lookup(&self, zone: &ZoneName, tuple: &FlowTuple, now: Timestamp) -> Option<(FlowDirection, Flow)>;

    /// A flow by its identity, expired or not.
    fn get(&self, id: &FlowId) -> Option<Flow>;

    /// Stores a new flow. Expired flows with one of its tuples make room.
    ///
    /// # Errors
    /// [`FlowInsertError`]; nothing but expired flows has changed then.
    fn insert(&mut self, flow: Flow, now: Timestamp) -> Result<(), FlowInsertError>;

    /// Changes a flow in place; none, if there is no such flow. Its tuples must stay.
    fn update(&mut self, id: &FlowId, change: &mut dyn FnMut(&mut Flow));

    /// Takes a flow out.
    fn remove(&mut self, id: &FlowId) -> Option<Flow>;

    /// Flows of a zone. Expired ones count until they are taken out.
    fn totals(&self, zone: &CtZone) -> FlowTotals;

    /// Flows of a zone that this source has opened. Expired ones count until they are taken out.
    fn of_source(&self, zone: &ZoneName, source: IpAddr) -> u64;

    /// Unexpired flows of an endpoint, in all zones.
    fn of_backend(&self, backend: &BackendName, now: Timestamp) -> u64;

    /// Takes out what has expired.
    fn expire(&mut self, now: Timestamp);
}

/// Where everything learned is kept: flows, and what is found out on the way.
pub trait StateStore: FlowStore {
    /// A learned station.
    fn station(&self, key: &FdbKey) -> Option<FdbEntry>;

    /// Learns a station, in place of what was known of it.
    fn put_station(&mut self, entry: FdbEntry);

    /// Learned stations of a bridge that haven't expired. May take out those that have.
    fn stations(&mut self, bridge: &BridgeName, now: Timestamp) -> u64;

    /// A learned neighbour.
    fn neighbor(&self, key: &NeighborKey) -> Option<NeighborEntry>;

    /// Learns a neighbour, in place of what was known of it.
    fn put_neighbor(&mut self, entry: NeighborEntry);

    /// The backend that a service remembers of a client.
    fn affinity(&self, service: &ServiceKey, client: IpAddr) -> Option<AffinityEntry>;

    /// Remembers a client's backend.
    fn put_affinity(&mut self, entry: AffinityEntry);

    /// The lowered path MTU towards an outer destination.
    fn path_mtu(&self, remote: IpAddr) -> Option<PathMtuEntry>;

    /// Learns a path MTU, in place of what was known of it.
    fn put_path_mtu(&mut self, entry: PathMtuEntry);

    /// What is known of a fragmented packet. An expired record is an answer too: its packet's
    /// fragments come too late.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry>;

    /// Remembers a first fragment.
    fn put_fragment(&mut self, entry: FragmentEntry);

    /// Records of fragmented packets that are kept at that time. May take out those whose fragments
    /// need not be told from ones without a first any more.
    fn fragments(&mut self, now: Timestamp) -> usize;

    /// The generation of a backend's slot; 0 before the first.
    fn slot(&self, backend: &BackendName) -> u64;

    /// A service's round-robin position, which then goes on by one.
    fn turn(&mut self, service: &ServiceKey) -> u64;

    /// The generation of the policies of a port; 0 before the first.
    fn policy_generation(&self, port: &PortName) -> u64;
}
