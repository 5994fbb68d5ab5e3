//! Virtual addresses, services, endpoints.

use super::{Written, addr_of, set_of};
use crate::install::ranges::prefixes;
use crate::install::writer::Writer;
use crate::plan::{BackendRow, ServiceRow, SetRef};
use crate::sys::{BACKENDS, HASHES, LISTS, SERVICE_RANGES, SERVICES, Table, VERSIONS, VIPS};
use loxi_core::algo::MaglevTable;
use loxi_core::ir::{ServiceKey, ServiceScope, VipKey};
use loxi_core::net::BackendName;
use loxi_ebpf_layout::l3::VrfAddr;
use loxi_ebpf_layout::lb::{
    self, Backend, Choice, HASHES_PER_WORD, RANGE_FIXED_BITS, RangeKey, Service, backend, scope,
};

const SECOND: u64 = 1_000_000_000;

/// What a new endpoint's slot is about; another address or port is another endpoint.
fn is_same(was: &Backend, now: &Backend) -> bool {
    (was.family, was.port, was.addr) == (now.family, now.port, now.addr)
}

pub(super) fn put_backend(w: &mut Writer, name: &BackendName, row: &BackendRow) -> Written {
    let number = w.number(|names| &mut names.backends, name)?;
    let (family, addr) = addr_of(row.address);
    let was = w.current(BACKENDS, number);
    let mut value = Backend {
        generation: was.generation,
        family,
        local: row.local.into(),
        port: row.port.to_be(),
        addr,
        weight: row.weight.into(),
        flags: backend::EXISTS | if row.down { backend::DOWN } else { 0 },
    };
    let (existed, was_down) = (was.flags & backend::EXISTS != 0, was.flags & backend::DOWN != 0);
    // What refers to the slot as it was is stale.
    if !existed || !is_same(&was, &value) || row.down && !was_down {
        w.generation = w.generation.wrapping_add(1);
        value.generation = w.generation;
    }
    Ok(w.prepare(number, &value)?)
}

pub(super) fn delete_backend(w: &mut Writer, name: &BackendName) -> Written {
    if let Some(number) = w.names.backends.number(name) {
        w.generation = w.generation.wrapping_add(1);
        w.flip(BACKENDS, number, &Backend { generation: w.generation, ..Backend::default() })?;
        w.retire_later(|names| &mut names.backends, name);
    }
    Ok(())
}

fn vip_key(w: &mut Writer, key: &VipKey) -> Written<VrfAddr> {
    let (family, addr) = addr_of(key.address);
    Ok(VrfAddr { vrf: w.number(|names| &mut names.vrfs, &key.vrf)?, family: family.into(), addr })
}

pub(super) fn put_vip(w: &mut Writer, key: &VipKey, flags: u32) -> Written {
    let key = vip_key(w, key)?;
    Ok(w.put(VIPS, &key, &flags)?)
}

pub(super) fn delete_vip(w: &mut Writer, key: &VipKey) -> Written {
    let key = vip_key(w, key)?;
    Ok(w.unset(VIPS, &key)?)
}

/// A scope as the tables have it.
pub(crate) fn scope_of(of: ServiceScope) -> u16 {
    match of {
        ServiceScope::Any => scope::ANY,
        ServiceScope::Internal => scope::INTERNAL,
        ServiceScope::External => scope::EXTERNAL,
    }
}

fn service_key(w: &mut Writer, key: &ServiceKey) -> Written<lb::ServiceKey> {
    let (family, addr) = addr_of(key.vip);
    Ok(lb::ServiceKey {
        vrf: w.number(|names| &mut names.vrfs, &key.vrf)? as u16,
        port: key.ports.first().to_be(),
        family,
        protocol: key.protocol.0,
        scope: scope_of(key.scope),
        addr,
    })
}

/// Keys of a range of ports: one for each prefix that it is made of.
fn range_keys(key: &lb::ServiceKey, first: u16, last: u16) -> impl Iterator<Item = RangeKey> {
    let key = *key;
    prefixes(first, last).map(move |(port, bits)| RangeKey {
        bits: RANGE_FIXED_BITS + u32::from(bits),
        vrf: key.vrf,
        family: key.family,
        protocol: key.protocol,
        scope: key.scope.into(),
        addr: key.addr,
        // The first two bytes, as they are in a packet.
        port: port.to_be().into(),
    })
}

pub(super) fn put_service(w: &mut Writer, key: &ServiceKey, row: &ServiceRow) -> Written {
    let own = service_key(w, key)?;
    let (count, idle) = (row.list.len() as u32, row.idle.len() as u32);
    let list = w.take(Table::Lists, count + idle)?;
    let mut total = 0u32;
    for ((name, .., weight), place) in row.list.iter().zip(list..) {
        total = total.saturating_add((*weight).into());
        fill_choice(w, place, total, name)?;
    }
    for (name, place) in row.idle.iter().zip(list + count..) {
        fill_choice(w, place, total, name)?;
    }
    let table = w.take(Table::Hashes, row.table.div_ceil(HASHES_PER_WORD))?;
    for (word, place) in hashes(row).iter().zip(table..) {
        w.kernel.fill(HASHES, place, word);
    }
    let sources = if row.sources { set_of(w, &SetRef::Sources(key.clone()))? } else { 0 };
    let version = Service {
        key: own,
        id: w.number(|names| &mut names.services, key)?,
        mode: row.mode,
        algorithm: row.algorithm,
        refusal: row.refusal,
        reject: row.reject.into(),
        sources,
        list,
        count,
        total,
        table,
        size: row.table,
        affinity: u64::from(row.affinity_s.unwrap_or(0)) * SECOND,
        last_port: key.ports.last().to_be().into(),
        idle,
    };
    let place = w.take(Table::Versions, 1)?;
    w.kernel.fill(VERSIONS, place, &version);
    let before = place_of(w, &own, key)?;
    if key.ports.count() == 1 {
        w.put(SERVICES, &own, &place)?;
    } else {
        for key in range_keys(&own, key.ports.first(), key.ports.last()) {
            w.put(SERVICE_RANGES, &key, &place)?;
        }
    }
    if let Some(before) = before {
        free(w, before);
    }
    Ok(())
}

fn fill_choice(w: &mut Writer, place: u32, up_to: u32, name: &BackendName) -> Written {
    let backend = w.number(|names| &mut names.backends, name)?;
    let choice = Choice { up_to, backend, generation: w.generation_of(backend), reserved: 0 };
    w.kernel.fill(LISTS, place, &choice);
    Ok(())
}

/// Words of the table by which a service chooses.
pub(crate) fn hashes(row: &ServiceRow) -> Vec<u64> {
    if row.table == 0 {
        return Vec::new();
    }
    let backends: Vec<_> =
        row.list.iter().map(|(_, addr, port, weight)| (*addr, *port, u32::from(*weight))).collect();
    let table = MaglevTable::build(row.table, &backends);
    let words = table.slots().chunks(HASHES_PER_WORD as usize);
    words
        .map(|places| places.iter().rev().fold(0, |word, index| word << 16 | u64::from(*index & 0xffff)))
        .collect()
}

/// The place of the version that is read now.
fn place_of(w: &Writer, own: &lb::ServiceKey, key: &ServiceKey) -> Written<Option<u32>> {
    if key.ports.count() == 1 {
        return Ok(w.kernel.look(SERVICES, own)?);
    }
    match range_keys(own, key.ports.first(), key.ports.last()).next() {
        Some(first) => Ok(w.kernel.look(SERVICE_RANGES, &first)?),
        None => Ok(None),
    }
}

/// Gives back a version with its list and its table.
fn free(w: &mut Writer, place: u32) {
    let version = w.kernel.at(VERSIONS, place);
    w.give(Table::Versions, place, 1);
    w.give(Table::Lists, version.list, version.count.saturating_add(version.idle));
    w.give(Table::Hashes, version.table, version.size.div_ceil(HASHES_PER_WORD));
}

pub(super) fn delete_service(w: &mut Writer, key: &ServiceKey) -> Written {
    let own = service_key(w, key)?;
    let Some(place) = place_of(w, &own, key)? else { return Ok(()) };
    if key.ports.count() == 1 {
        w.unset(SERVICES, &own)?;
    } else {
        for key in range_keys(&own, key.ports.first(), key.ports.last()) {
            w.unset(SERVICE_RANGES, &key)?;
        }
    }
    free(w, place);
    w.retire_later(|names| &mut names.services, key);
    Ok(())
}
