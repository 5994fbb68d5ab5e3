//! From table entries back to rows: what is installed, as a plan.
//!
//! Reads every table and changes nothing. What is learned is left out. An entry that
//! refers to a number without a name, or contradicts itself, is a row of its own kind
//! ([`Stray`]): no plan has it, so an audit finds it and an installation takes it out.

mod l2;
mod l3;
mod lb;
mod policy;
mod tunnel;

use super::names::Names;
use crate::plan::{LinkRef, Row, RowKey};
use crate::sys::{Kernel, KernelError, SETS, Table};
use loxi_core::net::{IpPrefix, MacAddr, PortName};
use loxi_ebpf_layout::l2::Link;
use loxi_ebpf_layout::l3::FIXED_BITS;
use loxi_ebpf_layout::{Addr, family};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An entry that is no row of any plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The table.
    pub table: Table,
    /// Its key.
    pub key: Vec<u8>,
}

/// What the tables hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Rows.
    pub rows: BTreeMap<RowKey, Row>,
    /// What is none.
    pub strays: Vec<Stray>,
}

/// Reads every table.
///
/// # Errors
/// [`KernelError`].
pub fn read(kernel: &dyn Kernel, names: &Names) -> Result<Read, KernelError> {
    let mut reader = Reader { kernel, names, read: Read::default() };
    reader.l3()?;
    reader.l2()?;
    reader.tunnels()?;
    reader.services()?;
    reader.policies()?;
    reader.members()?;
    Ok(reader.read)
}

struct Reader<'a> {
    kernel: &'a dyn Kernel,
    names: &'a Names,
    read: Read,
}

impl Reader<'_> {
    /// Notes a row, or an entry that is none.
    fn note(&mut self, table: Table, key: &[u8], row: Option<(RowKey, Row)>) {
        match row {
            Some((key, row)) => {
                self.read.rows.insert(key, row);
            }
            None => self.read.strays.push(Stray { table, key: key.to_vec() }),
        }
    }

    fn link(&self, link: Link) -> Option<LinkRef> {
        if link.vlan == 0 {
            return Some(LinkRef::Port(self.names.ports.live(link.id.into())?.clone()));
        }
        let bridge = self.names.bridges.live(link.id.into())?.clone();
        Some(LinkRef::Vlan(bridge, link.vlan))
    }

    fn port(&self, number: u16) -> Option<PortName> {
        self.names.ports.live(number.into()).cloned()
    }

    fn members(&mut self) -> Result<(), KernelError> {
        for (key, _) in self.kernel.all(SETS)? {
            let set = self.names.sets.live(key.set).cloned();
            let prefix = prefix_of(key.family, key.addr, key.bits.wrapping_sub(FIXED_BITS));
            let row = set.zip(prefix).map(|(set, prefix)| (RowKey::Member(set, prefix), Row::Present));
            self.note(Table::Sets, crate::sys::bytes(&key), row);
        }
        Ok(())
    }
}

/// An address as the tables have it.
pub(crate) fn ip_of(family: u32, addr: Addr) -> Option<IpAddr> {
    let octets = addr.octets();
    match u8::try_from(family).ok()? {
        family::V4 => {
            let [a, b, c, d, rest @ ..] = octets;
            (rest == [0; 12]).then(|| Ipv4Addr::new(a, b, c, d).into())
        }
        family::V6 => Some(Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// A prefix as the tables have it.
pub(crate) fn prefix_of(family: u32, addr: Addr, bits: u32) -> Option<IpPrefix> {
    IpPrefix::new(ip_of(family, addr)?, u8::try_from(bits).ok()?).ok()
}

fn mac(octets: [u8; 6]) -> MacAddr {
    MacAddr::new(octets)
}

/// `Some(None)` for 0, which is nothing; `None` for a number without a name.
fn optional<T: super::Named>(space: &super::Space<T>, number: u32) -> Option<Option<T>> {
    if number == 0 { Some(None) } else { space.live(number).cloned().map(Some) }
}
