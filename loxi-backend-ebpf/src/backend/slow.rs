//! The slow path's side of live traffic, and time.
//!
//! Whoever holds the backend reads frames from the slow path's device, gives them to
//! [`Ebpf::finish_punted`], and writes what comes back to the same device; and calls [`Ebpf::tick`]
//! several times a second. While he does, the programs know that somebody attends.

use super::{Ebpf, Inner, inject::ended_by_drop, ports::set};
use crate::sys::KernelError;
use loxi_core::dataplane::EventKind;
use loxi_core::net::{PortName, ZoneName};
use loxi_core::packet::{ChoiceSource, FlowTotals, Timestamp};
use loxi_core::reason::PuntReason;
use loxi_ebpf_layout::count::{PUNT_REASONS, of_punt_tag, punt_tag};
use loxi_ebpf_layout::scratch::Globals;
use std::collections::BTreeMap;
use std::mem::offset_of;

/// Milliseconds after a tick for which somebody is taken to attend.
const ATTENDED_MS: u64 = 1000;

/// Buckets of the flow tables that are swept at a tick.
const BUCKETS: u32 = 4096;

/// ns between two sweeps.
const SWEEP: u64 = 200_000_000;

/// Frames of a port that the fast path has left to the slow path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlowPathCounters {
    /// Frames that the programs have handed on, also while nobody attended.
    pub handed_on: u64,
    /// Of these, what the slow path has finished since this process began, by why they were handed on.
    pub finished: BTreeMap<PuntReason, u64>,
}

impl Ebpf {
    /// Finishes a frame that the slow path's device gave: what is to be written to that device. A frame
    /// that no program of ours sent there comes to nothing.
    pub fn finish_punted(
        &mut self,
        frame: &[u8],
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Vec<Vec<u8>> {
        self.inner.get_mut().finish_punted(frame, now, choices).unwrap_or_default()
    }

    /// What the fast path has left to the slow path since the tables were made, by ingress port.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn slow_path_counters(&self) -> Result<BTreeMap<PortName, SlowPathCounters>, KernelError> {
        self.inner.borrow().slow_path_counters()
    }

    /// Lets time pass: what has expired goes, and what goes with entities that went. Cheap to call often.
    pub fn tick(&mut self, now: Timestamp) {
        self.inner.get_mut().tick(now);
    }

    /// The number by which the programs know a configured port.
    #[must_use]
    pub fn port_number(&self, port: &PortName) -> Option<u32> {
        self.inner.borrow().number_of(port).ok()
    }

    /// The index of the device to which a port is attached; none: it isn't, or has none.
    #[must_use]
    pub fn device(&self, port: &PortName) -> Option<u32> {
        let inner = self.inner.borrow();
        inner.installer.attached.get(port).map(|device| device.ifindex).filter(|index| *index != 0)
    }

    /// Whether somebody has taken our programs off the device of an attached port. Attaching again binds them again.
    #[must_use]
    pub fn has_lost(&self, port: &PortName) -> bool {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let device = inner.installer.attached.get(port).map(|device| device.ifindex);
        device.is_some_and(|device| inner.hooks.has_lost(&inner.place, port.as_str(), device))
    }

    /// Takes everything out of the kernel: hooks, programs, tables, and with them what was learned.
    ///
    /// # Errors
    /// If something of it stays.
    pub fn remove(&mut self) -> std::io::Result<()> {
        let inner = self.inner.get_mut();
        inner.hooks = crate::hook::Hooks::default();
        if let (Some(namespaces), Some(programs)) = (&inner.namespaces, &inner.tc) {
            crate::hook::let_go(namespaces, &programs.entry)?;
        }
        inner.place.remove()
    }
}

impl Inner {
    fn finish_punted(
        &mut self,
        frame: &[u8],
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Option<Vec<Vec<u8>>> {
        let (number, reason, bytes) = unwrap(frame)?;
        let port = self.installer.w.names.ports.live(number.into())?.clone();
        let punted = self.punted(&port, PuntReason::from_number(reason.into()), bytes);
        let finished = self.by_slow_path(&punted, now, choices, false)?;
        self.add_counters(&finished.counters);
        *self.finished.entry(port.clone()).or_default().entry(punted.reason).or_default() += 1;
        let verdict = finished.injected.verdict;
        if let Some(reason) = ended_by_drop(verdict.fate) {
            let text = format!("{} bytes, after {}", punted.bytes.len(), punted.reason);
            self.events.dropped(now, &port, reason, text);
        }
        let names = &self.installer.w.names;
        let outputs = verdict.outputs.iter();
        Some(
            outputs.filter_map(|out| Some(wrap(names.ports.number(&out.port)? as u16, &out.bytes))).collect(),
        )
    }

    fn tick(&mut self, now: Timestamp) {
        if self.slow_path.is_some() {
            set(&*self.installer.w.kernel, offset_of!(Globals, attended), now.plus_ms(ATTENDED_MS).0);
        }
        if now.0 < self.swept.0 + SWEEP {
            return;
        }
        self.swept = now;
        set(&*self.installer.w.kernel, offset_of!(Globals, clock_offset), super::open::clock_offset());
        self.forget_gone();
        self.forget_rehearsal();
        let mut store = self.installer.store(self.seed, &mut self.pace);
        self.sweeper.step(&mut store, now, BUCKETS);
        self.tell_zones(now);
    }

    fn tell_zones(&mut self, now: Timestamp) {
        let zones = self.installer.w.names.zones.all();
        let totals: Vec<(ZoneName, FlowTotals)> =
            zones.map(|(name, number)| (name.clone(), self.totals(number))).collect();
        for (zone, totals) in totals {
            let nearly = totals.flows * 10 >= totals.capacity * 9;
            if nearly && self.full_zones.insert(zone.clone()) {
                let kind = EventKind::ZoneNearlyFull { zone, flows: totals.flows, capacity: totals.capacity };
                self.events.push(now, kind);
            } else if !nearly {
                self.full_zones.remove(&zone);
            }
        }
    }
}

/// Port, reason and frame of what a program handed on.
fn unwrap(frame: &[u8]) -> Option<(u16, u8, Vec<u8>)> {
    let (macs, rest) = frame.split_at_checked(12)?;
    let [0x81, 0x00, high, low, rest @ ..] = rest else { return None };
    let (port, reason) = of_punt_tag(u16::from_be_bytes([*high, *low]));
    Some((port, reason, [macs, rest].concat()))
}

/// A frame that is to leave by a port.
fn wrap(port: u16, frame: &[u8]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(frame.len().min(12));
    let tag = punt_tag(port, PUNT_REASONS).to_be_bytes();
    [macs, &[0x81, 0x00], &tag, rest].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_frame_comes_out_as_it_went_in() {
        let frame: Vec<u8> = (0..60).collect();
        for port in [1, 5, 1023] {
            let wrapped = wrap(port, &frame);
            assert_eq!(unwrap(&wrapped).unwrap(), (port, PUNT_REASONS, frame.clone()));
        }
        assert_eq!(unwrap(&frame), None);
        assert_eq!(unwrap(&frame[..13]), None);
    }
}
