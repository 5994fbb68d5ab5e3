//! From a pipeline to its plan, unit by unit.
//!
//! A unit's rows follow from the pipeline and the unit's name alone ([`rows_of`]): a plan is compiled
//! by asking for every unit that an entity names, a change by asking for those that it may alter.

mod l2;
mod l3;
mod lb;
mod nat;
pub mod policy;
mod source;
mod tunnel;
mod units;

pub(super) use source::{Source, link_of};
pub(super) use units::units_of;

use super::room::{Room, Taken};
use super::{Plan, Row, RowKey, Rows, Unit};
use loxi_core::capability::Capabilities;
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{EntityKey, Pipeline};
use std::sync::Arc;

/// Compiles a valid pipeline for the tables as they are made.
///
/// # Errors
/// [`CompileError`] for what the capabilities don't have, and for what the tables have no room for.
pub fn compile(pipeline: &Pipeline, capabilities: &Capabilities) -> Result<Plan, CompileError> {
    compile_for(pipeline, capabilities, &Room::default())
}

/// Compiles a valid pipeline for tables of any size.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(
    pipeline: &Pipeline,
    capabilities: &Capabilities,
    room: &Room,
) -> Result<Plan, CompileError> {
    capabilities.check(pipeline)?;
    let source = Source::new(pipeline);
    let mut plan = Plan::default();
    let mut taken = Taken::default();
    for unit in units::all(&source) {
        let rows = rows_of(&source, &unit)?;
        let before = taken;
        taken.add(&rows);
        taken.check(&before, room, &rows, pipeline)?;
        if !rows.is_empty() {
            plan.units.insert(unit, Arc::new(rows));
        }
    }
    Ok(plan)
}

/// The rows of a unit; none: the pipeline has no such thing.
pub(super) fn rows_of(source: &Source<'_>, unit: &Unit) -> Result<Rows, CompileError> {
    let mut rows = Rows::new();
    match unit {
        Unit::Zone(name) => l3::zone(source, name, &mut rows),
        Unit::Vrf(name) => l3::vrf(source, name, &mut rows),
        Unit::Bridge(name) => l2::bridge(source, name, &mut rows),
        Unit::Port(name) => l2::port(source, name, &mut rows),
        Unit::Interface(name) => l3::interface(source, name, &mut rows),
        Unit::Link(link) => l2::link(source, link, &mut rows),
        Unit::LocalAddr(vrf, address) => l3::local_address(source, vrf, *address, &mut rows),
        Unit::Neighbor(key) => l3::neighbor(source, key, &mut rows),
        Unit::Proxy(link, address) => l2::proxy(source, link, *address, &mut rows),
        Unit::Endpoint(address) => tunnel::endpoint(source, *address, &mut rows),
        Unit::Tunnel(name) => tunnel::tunnel(source, name, &mut rows),
        Unit::Back(port, remote) => tunnel::back(source, port, *remote, &mut rows),
        Unit::Outer(vrf, encap, local, remote) => {
            tunnel::outer(source, (vrf, *encap, *local, *remote), &mut rows);
        }
        Unit::BareUdp(port) => tunnel::bare_udp(source, *port, &mut rows),
        Unit::Peers(name) => tunnel::peers(source, name, &mut rows),
        Unit::End(vrf, dst, encap, vni) => tunnel::end(source, (vrf, *dst, *encap, *vni), &mut rows),
        Unit::EndAny(vrf, dst, encap) => tunnel::end_any(source, vrf, *dst, *encap, &mut rows),
        Unit::Station(key) => l2::station(source, key, &mut rows),
        Unit::NextHop(name) => l3::next_hop(source, name, &mut rows),
        Unit::Group(name) => l3::group(source, name, &mut rows)?,
        Unit::Route(key) => l3::route(source, key, &mut rows),
        Unit::Nat(vrf) => nat::rules(source, vrf, &mut rows)?,
        Unit::Backend(name) => lb::backend(source, name, &mut rows),
        Unit::Vip(key) => lb::vip(source, key, &mut rows),
        Unit::Service(key) => lb::service(source, key, &mut rows)?,
        Unit::Policy => policy::policies(source.pipeline, &mut rows)?,
    }
    debug_assert!(rows.keys().all(|key| key.unit() == *unit), "rows of another unit than {unit:?}");
    Ok(rows)
}

/// Puts a set's members.
fn members<'a>(
    rows: &mut Rows,
    set: &super::SetRef,
    prefixes: impl IntoIterator<Item = &'a loxi_core::net::IpPrefix>,
) {
    rows.extend(prefixes.into_iter().map(|prefix| (RowKey::Member(set.clone(), *prefix), Row::Present)));
}

/// The error of what has no room.
fn too_many(entity: EntityKey, field: &str, limit: u64, asked: u64) -> CompileError {
    CompileError::TooMany { entity, field: field.to_owned(), limit, asked }
}
