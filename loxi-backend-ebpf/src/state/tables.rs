//! Learned things in the kernel's hash tables: their counts, and how they are taken out.
//!
//! Programs put things in and count them; only this side takes any out. A thing that was renewed between
//! the look at it and its removal is lost, and learned again by the next packet.

use super::flow::accounts::counts_sources;
use super::flow::times::tick;
use super::store::{Search, Store};
use crate::sys::{
    AFFINITY, FRAGMENTS, Kernel, KernelError, NEIGHBORS, PATH_MTUS, SOURCES, STATIONS, Table, Typed, Word,
};
use loxi_core::packet::Timestamp;
use loxi_ebpf_layout::Plain;
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::l2::{Station, StationAt};
use loxi_ebpf_layout::l3::{Fragment, FragmentKey, Neighbor, NeighborKey, neighbor};
use loxi_ebpf_layout::lb::Affinity;

/// Seconds for which an expired record of a first fragment is kept: a fragment that comes too late is
/// told from one that came without a first.
const LATE_S: u32 = 30;

/// How many learned things of a kind there are.
pub(super) fn kept_word(kernel: &dyn Kernel, kind: u32) -> Word<'_> {
    kernel.memory(Table::Kept).word(kind as usize * size_of::<u64>())
}

/// How many learned stations a bridge has.
pub(super) fn station_word(kernel: &dyn Kernel, bridge: u16) -> Word<'_> {
    kernel.memory(Table::StationCount).word(usize::from(bridge) * size_of::<u64>())
}

/// One less, where there is one: a count that was too low must not become the largest of all, which
/// the programs would take for a full table and learn nothing any more.
fn less(word: Word<'_>) {
    loop {
        let now = word.load();
        if now == 0 || word.replace(now, now - 1) {
            return;
        }
    }
}

/// Whether a neighbour is configured.
pub(super) fn is_fixed(known: &Neighbor) -> bool {
    known.state == neighbor::FIXED
}

/// The path MTU of a word, and the tick at which it is forgotten: see
/// [`loxi_ebpf_layout::tunnel::path_mtu`].
pub(super) fn lowered(word: u64) -> (u16, u32) {
    (word as u16, (word >> 16) as u32)
}

/// What a search took out, and when the first of what is left ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drained {
    pub(super) taken: u64,
    pub(super) first: Timestamp,
}

impl Store<'_> {
    /// Whether nothing of a kind is learned, so that a table of configured things need not be listed.
    fn has_none(&self, kind: u32) -> bool {
        kept_word(&*self.kernel, kind).load() == 0
    }

    /// Takes out what `ends` gives a time for that has come; `None`: it stays. `taken` is told of
    /// each.
    fn drain<K: Plain, V: Plain>(
        &mut self,
        table: Typed<K, V>,
        now: Timestamp,
        ends: impl Fn(&K, &V) -> Option<Timestamp>,
        taken: impl Fn(&dyn Kernel, &K),
    ) -> Result<Drained, KernelError> {
        let mut drained = Drained { taken: 0, first: Timestamp(u64::MAX) };
        for (key, value) in self.kernel.all(table)? {
            let Some(mut end) = ends(&key, &value) else { continue };
            if end <= now {
                // It may have been renewed since the list was made.
                let again = self.kernel.look(table, &key)?.and_then(|value| ends(&key, &value));
                end = again.unwrap_or(Timestamp(u64::MAX));
            }
            if end > now {
                drained.first = drained.first.min(end);
            } else if self.kernel.unset(table, &key)? {
                taken(&*self.kernel, &key);
                drained.taken += 1;
            }
        }
        Ok(drained)
    }

    /// Takes out learned stations for which `ends` gives a time that has come.
    pub(super) fn drain_stations(
        &mut self,
        now: Timestamp,
        ends: impl Fn(&Station, &StationAt) -> Option<Timestamp>,
    ) -> Result<Drained, KernelError> {
        let learned = |key: &Station, at: &StationAt| if at.fixed == 0 { ends(key, at) } else { None };
        self.drain(STATIONS, now, learned, |kernel, key| {
            less(kept_word(kernel, kept::STATIONS));
            less(station_word(kernel, key.link.id));
        })
    }

    /// Takes out expired stations.
    pub(super) fn sweep_stations(&mut self, now: Timestamp) -> Result<u64, KernelError> {
        if self.has_none(kept::STATIONS) {
            return Ok(0);
        }
        let drained = self.drain_stations(now, |_, at| Some(Timestamp(at.expires)))?;
        self.stations_searched(Search::done(now, drained.first));
        Ok(drained.taken)
    }

    /// Takes out learned neighbours for which `ends` gives a time that has come.
    pub(super) fn drain_neighbors(
        &mut self,
        now: Timestamp,
        ends: impl Fn(&NeighborKey, &Neighbor) -> Option<Timestamp>,
    ) -> Result<u64, KernelError> {
        let learned = |key: &NeighborKey, at: &Neighbor| if is_fixed(at) { None } else { ends(key, at) };
        let taken = |kernel: &dyn Kernel, _: &NeighborKey| less(kept_word(kernel, kept::NEIGHBORS));
        Ok(self.drain(NEIGHBORS, now, learned, taken)?.taken)
    }

    /// Takes out expired neighbours.
    pub(super) fn sweep_neighbors(&mut self, now: Timestamp) -> Result<u64, KernelError> {
        if self.has_none(kept::NEIGHBORS) {
            return Ok(0);
        }
        self.drain_neighbors(now, |_, at| Some(Timestamp(at.expires)))
    }

    /// Takes out records of fragments for which `ends` gives a time that has come.
    pub(super) fn drain_fragments(
        &mut self,
        now: Timestamp,
        ends: impl Fn(&FragmentKey, &Fragment) -> Option<Timestamp>,
    ) -> Result<Drained, KernelError> {
        self.drain(FRAGMENTS, now, ends, |kernel, _| less(kept_word(kernel, kept::FRAGMENTS)))
    }

    /// Takes out records of fragments that tell nothing any more.
    pub(super) fn sweep_fragments(&mut self, now: Timestamp) -> Result<u64, KernelError> {
        if self.has_none(kept::FRAGMENTS) {
            return Ok(0);
        }
        let drained = self.drain_fragments(now, |_, at| Some(Timestamp(at.expires).plus_s(LATE_S)))?;
        self.fragments_searched(Search::done(now, drained.first));
        Ok(drained.taken)
    }

    /// Takes out remembered endpoints for which `ends` gives a time that has come.
    pub(super) fn drain_affinity(
        &mut self,
        now: Timestamp,
        ends: impl Fn(u32, &Affinity) -> Option<Timestamp>,
    ) -> Result<u64, KernelError> {
        Ok(self.drain(AFFINITY, now, |key, at| ends(key.service, at), |_, _| ())?.taken)
    }

    /// Takes out expired endpoints of clients.
    pub(super) fn sweep_affinity(&mut self, now: Timestamp) -> Result<u64, KernelError> {
        self.drain_affinity(now, |_, at| Some(Timestamp(at.expires)))
    }

    /// Takes out sources without flows, and those of zones that limit none.
    pub(super) fn sweep_sources(&mut self, now: Timestamp) -> Result<u64, KernelError> {
        let limits: Vec<bool> = (0..=u8::MAX).map(|zone| counts_sources(&*self.kernel, zone)).collect();
        let over = |zone: u32, flows: u64| {
            let limited = usize::try_from(zone).ok().and_then(|zone| limits.get(zone)).copied();
            !limited.unwrap_or(false) || flows.cast_signed() <= 0
        };
        let ends = |key: &loxi_ebpf_layout::l3::Source, flows: &u64| over(key.zone, *flows).then_some(now);
        Ok(self.drain(SOURCES, now, ends, |_, _| ())?.taken)
    }

    /// Forgets expired path MTUs.
    pub(super) fn sweep_path_mtus(&mut self, now: Timestamp) -> u64 {
        let kernel = &*self.kernel;
        let memory = kernel.memory(Table::PathMtus);
        let mut taken = 0;
        for place in 0..kernel.length(PATH_MTUS) {
            let word = memory.word(place as usize * size_of::<u64>());
            let known = word.load();
            let (_, until) = lowered(known);
            if known != 0 && until <= tick(now) && word.replace(known, 0) {
                taken += 1;
            }
        }
        taken
    }
}
