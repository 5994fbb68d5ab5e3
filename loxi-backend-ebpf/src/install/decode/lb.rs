//! Virtual addresses, services, endpoints.

use super::{Reader, ip_of};
use crate::install::encode::lb::{hashes, scope_of};
use crate::install::ranges::prefixes;
use crate::plan::{BackendRow, Row, RowKey, ServiceRow, SetRef};
use crate::sys::{
    BACKENDS, HASHES, KernelError, LISTS, SERVICE_RANGES, SERVICES, Table, VERSIONS, VIPS, bytes,
};
use loxi_core::ir::{ServiceKey, ServiceScope, VipKey};
use loxi_core::net::{BackendName, IpProtocol, L4Ports};
use loxi_ebpf_layout::lb::{Backend, HASHES_PER_WORD, Service, backend};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Reader<'_> {
    pub(super) fn services(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        for number in 1..kernel.length(BACKENDS) {
            let value = *kernel.at(BACKENDS, number).current();
            if value.flags & backend::EXISTS != 0 {
                let row = names.backends.live(number).cloned().zip(backend_row(&value));
                let row = row.map(|(name, row)| (RowKey::Backend(name), Row::Backend(row)));
                self.note(Table::Backends, bytes(&number), row);
            }
        }
        for (key, flags) in kernel.all(VIPS)? {
            let row = names.vrfs.live(key.vrf).cloned().and_then(|vrf| {
                let key = VipKey { vrf, address: ip_of(key.family, key.addr)? };
                Some((RowKey::Vip(key), Row::Flags(flags)))
            });
            self.note(Table::Vips, bytes(&key), row);
        }
        for (key, place) in kernel.all(SERVICES)? {
            let version = self.version(place).filter(|version| version.key == key);
            let row = version.and_then(|version| self.service_row(&version));
            self.note(Table::Services, bytes(&key), row);
        }
        self.ranges()
    }

    /// A service of a range of ports has an entry for each prefix; it is one row.
    fn ranges(&mut self) -> Result<(), KernelError> {
        let mut by_place: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (key, place) in self.kernel.all(SERVICE_RANGES)? {
            by_place.entry(place).or_default().push(key);
        }
        for (place, keys) in by_place {
            let version = self.version(place);
            let whole = version.is_some_and(|version| {
                let (first, last) = (u16::from_be(version.key.port), u16::from_be(version.last_port as u16));
                first <= last && prefixes(first, last).count() == keys.len()
            });
            let row = version.filter(|_| whole).and_then(|version| self.service_row(&version));
            match row {
                Some((key, row)) => self.note(Table::ServiceRanges, &[], Some((key, row))),
                None => keys.iter().for_each(|key| self.note(Table::ServiceRanges, bytes(key), None)),
            }
        }
        Ok(())
    }

    fn version(&self, place: u32) -> Option<Service> {
        (place < self.kernel.length(VERSIONS)).then(|| self.kernel.at(VERSIONS, place))
    }

    fn service_row(&self, value: &Service) -> Option<(RowKey, Row)> {
        let scopes = [ServiceScope::Any, ServiceScope::Internal, ServiceScope::External];
        let key = ServiceKey {
            vrf: self.names.vrfs.live(value.key.vrf.into())?.clone(),
            vip: ip_of(value.key.family.into(), value.key.addr)?,
            protocol: IpProtocol(value.key.protocol),
            ports: L4Ports::new(u16::from_be(value.key.port), u16::from_be(value.last_port as u16)).ok()?,
            scope: scopes.into_iter().find(|scope| scope_of(*scope) == value.key.scope)?,
        };
        let own = SetRef::Sources(key.clone());
        let known = self.names.services.number(&key) == Some(value.id)
            && (value.sources == 0 || self.names.sets.live(value.sources) == Some(&own));
        if !known {
            return None;
        }
        let affinity_s = u32::try_from(value.affinity / 1_000_000_000).ok()?;
        let row = ServiceRow {
            mode: value.mode,
            algorithm: value.algorithm,
            refusal: value.refusal,
            reject: value.reject != 0,
            sources: value.sources != 0,
            affinity_s: (affinity_s != 0).then_some(affinity_s),
            list: self.list(value)?,
            idle: self.idle(value)?,
            table: value.size,
        };
        self.has_hashes(value, &row).then_some((RowKey::Service(key), Row::Service(row)))
    }

    fn list(&self, value: &Service) -> Option<Vec<(BackendName, IpAddr, u16, u16)>> {
        let end = value.list.checked_add(value.count)?;
        if end > self.kernel.length(LISTS) {
            return None;
        }
        let mut before = 0;
        let mut list = Vec::new();
        for place in value.list..end {
            let choice = self.kernel.at(LISTS, place);
            let weight = u16::try_from(choice.up_to.checked_sub(before)?).ok()?;
            before = choice.up_to;
            let name = self.names.backends.live(choice.backend)?.clone();
            let endpoint = self.kernel.at(BACKENDS, choice.backend);
            let endpoint = endpoint.current();
            if endpoint.generation != choice.generation {
                return None;
            }
            let endpoint = backend_row(endpoint)?;
            list.push((name, endpoint.address, endpoint.port, weight));
        }
        (before == value.total).then_some(list)
    }

    fn idle(&self, value: &Service) -> Option<Vec<BackendName>> {
        let start = value.list.checked_add(value.count)?;
        let end = start.checked_add(value.idle)?;
        if end > self.kernel.length(LISTS) {
            return None;
        }
        (start..end)
            .map(|place| self.names.backends.live(self.kernel.at(LISTS, place).backend).cloned())
            .collect()
    }

    /// Whether the table of hashes is the one that follows from the list.
    fn has_hashes(&self, value: &Service, row: &ServiceRow) -> bool {
        let wanted = hashes(row);
        let words = value.size.div_ceil(HASHES_PER_WORD);
        let Some(end) = value.table.checked_add(words) else { return false };
        wanted.len() == words as usize
            && end <= self.kernel.length(HASHES)
            && wanted.iter().zip(value.table..end).all(|(word, place)| self.kernel.at(HASHES, place) == *word)
    }
}

fn backend_row(value: &Backend) -> Option<BackendRow> {
    Some(BackendRow {
        address: ip_of(value.family.into(), value.addr)?,
        port: u16::from_be(value.port),
        weight: u16::try_from(value.weight).ok()?,
        local: value.local != 0,
        down: value.flags & backend::DOWN != 0,
    })
}
