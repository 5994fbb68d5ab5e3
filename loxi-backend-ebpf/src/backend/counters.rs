//! Counters: what each processor has counted, and what the slow path adds.

use super::Inner;
use super::slow::SlowPathCounters;
use crate::sys::{COUNTERS, FATES, Kernel, KernelError, Table, bytes, cpus, value};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, Fate, FlowTotals, PortCounters};
use loxi_ebpf_layout::code;
use loxi_ebpf_layout::count::{Fates, PortCount};
use loxi_ebpf_layout::{Plain, l3::Zone};
use std::collections::BTreeMap;

/// What every processor has for a key.
fn each<V: Plain>(kernel: &dyn Kernel, table: Table, key: u32) -> Result<Vec<V>, KernelError> {
    let found = kernel.get(table, bytes(&key))?.unwrap_or_default();
    let width = size_of::<V>().next_multiple_of(8);
    Ok(found.chunks_exact(width).filter_map(|one| value(&one[..size_of::<V>()])).collect())
}

/// The programs' counters of a port.
fn of_port(kernel: &dyn Kernel, number: u32) -> Result<PortCounters, KernelError> {
    let mut sum = PortCounters::default();
    for one in each::<PortCount>(kernel, COUNTERS.table, number)? {
        sum.rx_packets += one.rx_packets;
        sum.rx_bytes += one.rx_bytes;
        sum.tx_packets += one.tx_packets;
        sum.tx_bytes += one.tx_bytes;
        sum.forwarded += one.forwarded;
    }
    for one in each::<Fates>(kernel, FATES.table, number)? {
        for (fate, count) in (0..=u8::MAX).zip(one.by_fate).filter(|(fate, count)| *fate != 0 && *count != 0)
        {
            match crate::run::fate_of(fate) {
                Fate::Forwarded => {}
                Fate::Consumed(reason) => *sum.consumed.entry(reason).or_default() += count,
                Fate::Punted(reason) => *sum.punted.entry(reason).or_default() += count,
                Fate::Dropped(reason) => *sum.dropped.entry(reason).or_default() += count,
            }
        }
    }
    Ok(sum)
}

/// Adds counters.
pub(super) fn add(to: &mut PortCounters, more: &PortCounters) {
    to.rx_packets += more.rx_packets;
    to.rx_bytes += more.rx_bytes;
    to.tx_packets += more.tx_packets;
    to.tx_bytes += more.tx_bytes;
    to.forwarded += more.forwarded;
    for (reason, count) in &more.consumed {
        *to.consumed.entry(*reason).or_default() += count;
    }
    for (reason, count) in &more.punted {
        *to.punted.entry(*reason).or_default() += count;
    }
    for (reason, count) in &more.dropped {
        *to.dropped.entry(*reason).or_default() += count;
    }
    for (reason, count) in &more.unsent {
        *to.unsent.entry(*reason).or_default() += count;
    }
}

/// Begins a port's counters anew.
pub(super) fn clear(kernel: &mut dyn Kernel, number: u32) -> Result<(), KernelError> {
    for (table, width) in [(COUNTERS.table, size_of::<PortCount>()), (FATES.table, size_of::<Fates>())] {
        let processors = cpus().unwrap_or(1);
        let nothing = vec![0; width.next_multiple_of(8) * processors];
        kernel.put(table, bytes(&number), &nothing, crate::sys::Put::Any)?;
    }
    Ok(())
}

impl Inner {
    /// Everything that is counted.
    pub(super) fn counters(&self) -> Result<Counters, KernelError> {
        let (kernel, names) = (&*self.installer.w.kernel, &self.installer.w.names);
        let mut ports = BTreeMap::new();
        for (name, number) in self.configured() {
            let mut sum = of_port(kernel, number)?;
            if let Some(more) = self.slow_counters.get(name) {
                add(&mut sum, more);
            }
            ports.insert(name.clone(), sum);
        }
        let zones = names.zones.all().map(|(name, number)| (name.clone(), self.totals(number))).collect();
        Ok(Counters { ports, zones })
    }

    /// What the programs have handed on, and what became of it.
    pub(super) fn slow_path_counters(&self) -> Result<BTreeMap<PortName, SlowPathCounters>, KernelError> {
        let kernel = &*self.installer.w.kernel;
        let mut ports = BTreeMap::new();
        for (name, number) in self.configured() {
            let each = each::<PortCount>(kernel, COUNTERS.table, number)?;
            let handed_on = each.iter().map(|one| one.handed_on).sum();
            let finished = self.finished.get(name).cloned().unwrap_or_default();
            ports.insert(name.clone(), SlowPathCounters { handed_on, finished });
        }
        Ok(ports)
    }

    /// The configured ports, with their numbers: a port can have one only because something refers to it.
    fn configured(&self) -> impl Iterator<Item = (&PortName, u32)> {
        let there = |(name, _): &(&PortName, u32)| self.pipeline.get::<loxi_core::ir::Port>(*name).is_some();
        self.installer.w.names.ports.all().filter(there)
    }

    /// Flows of a zone. Its limit is the table's room where that is less.
    pub(super) fn totals(&self, zone: u32) -> FlowTotals {
        let kernel = &*self.installer.w.kernel;
        let config: Zone = *kernel.at(crate::sys::ZONES, zone).current();
        let count = kernel.at(crate::sys::ZONE_COUNT, zone);
        let room = u64::from(self.sizes.flows_v4.max(self.sizes.flows_v6));
        FlowTotals {
            flows: count.flows,
            half_open: count.half_open,
            capacity: u64::from(config.max_flows).min(room),
            created: count.created,
        }
    }
}

const _: () = assert!(code::FORWARDED == 0);
