//! Several packets in one question: they are run with all consequences, on a copy that is nobody's.
//!
//! # Contract
//! - The copy has programs and tables of its own, on a bpf file system that nobody else sees; no device leads there, and
//!   what its packets would send stays.
//! - What is configured and what was learned is as it was when the question came, under the same numbers. Connections
//!   are entered anew, in tables with room for them and for those of the question; the programs decide about each
//!   one's next packet.
//! - Loading takes the kernel's verifier most of the time, so programs and tables are kept for the next question, which
//!   makes the tables equal again; not for longer than [`KEPT`] without one.
//! - Where the kernel refuses the copy nobody is answered: a packet by itself needs none.

use super::{Inner, OpenError};
use crate::hook::Hooks;
use crate::load::{self, Kinds, LoadOptions, Objects, Sizes, place::Place};
use crate::state;
use crate::sys::{Kernel, KernelError, MAPPED, Put, Table};
use loxi_core::dataplane::{DataplaneError, InjectRequest, Injected};
use loxi_core::packet::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a copy is kept for another question.
const KEPT: Duration = Duration::from_secs(60);

/// Tables of which the copy's are its own: what tells how it was loaded, what travels beside a packet, and what nobody
/// reads there.
const OWN: &[Table] =
    &[Table::Meta, Table::Answers, Table::Question, Table::Told, Table::Counters, Table::Fates];

/// Tables that begin empty: connections, and their counts.
const ANEW: &[Table] = &[
    Table::FlowsV4,
    Table::FlowsV6,
    Table::ColdV4,
    Table::ColdV6,
    Table::ZoneCount,
    Table::BackendFlows,
    Table::Sources,
];

/// Where a copy is, and what it has room for.
pub(super) struct Rehearsal {
    place: Place,
    sizes: Sizes,
    asked: Instant,
}

impl Inner {
    /// Runs the packets of a request that may change nothing, each on what the ones before have left.
    pub(super) fn rehearse(
        &mut self,
        request: &InjectRequest,
        now: Timestamp,
    ) -> Result<Vec<Injected>, DataplaneError> {
        let copied = self.copy(request.packets.len(), now);
        let mut copy = copied.map_err(|error| {
            // Whatever is there is not to be built upon.
            self.rehearsal = None;
            DataplaneError::Internal(format!("a copy to run the packets on: {error}"))
        })?;
        copy.run_all(request, now, true)
    }

    /// Lets a copy go for which nobody has asked for a while.
    pub(super) fn forget_rehearsal(&mut self) {
        self.rehearsal = self.rehearsal.take().filter(|kept| kept.asked.elapsed() < KEPT);
    }

    fn copy(&mut self, packets: usize, now: Timestamp) -> Result<Self, OpenError> {
        let store = self.installer.store(self.seed, &mut self.pace);
        let [v4, v6] = state::connections(&store).map(|flows| flows.saturating_add(packets as u64));
        let mut installation = self.installation(v4, v6)?;
        make_equal(&*self.installer.w.kernel, &mut installation.kernel)?;
        let slow_path = self.slow_path.as_ref().map(|path| path.trial());
        let mut copy = Self::new(installation, None, Hooks::default(), self.mode, slow_path, None)?;
        copy.installer.w.kernel.set_quiet(true);
        copy.pipeline = Arc::clone(&self.pipeline);
        copy.attached_names = self.attached_names.clone();
        copy.rehearses = true;
        let from = self.installer.store(self.seed, &mut self.pace);
        state::copy_flows(&from, &mut copy.installer.store(copy.seed, &mut copy.pace), now);
        Ok(copy)
    }

    /// Programs and tables for so many connections: those that were kept, or new ones.
    fn installation(&mut self, v4: u64, v6: u64) -> Result<load::Installation, OpenError> {
        let fits =
            |kept: &Rehearsal| u64::from(kept.sizes.flows_v4) >= v4 && u64::from(kept.sizes.flows_v6) >= v6;
        let kept = match self.rehearsal.take().filter(fits) {
            Some(kept) => kept,
            None => {
                // As much again, so that the next question finds room too.
                let room = |flows: u64| u32::try_from(flows.saturating_mul(2)).unwrap_or(u32::MAX);
                let place = Place::detached().map_err(load::step("make a bpf file system"))?;
                let sizes = Sizes { flows_v4: room(v4), flows_v6: room(v6) };
                Rehearsal { place, sizes, asked: Instant::now() }
            }
        };
        let at_xdp = self.asker.is_at_xdp();
        let installation = load::open(&LoadOptions {
            objects: Objects::new().map_err(OpenError::Objects)?,
            kinds: Kinds { tc: !at_xdp, xdp: at_xdp },
            sizes: kept.sizes,
            seed: Some(self.seed),
            pins: Some(kept.place.at("copy")),
            discard: false,
        })?;
        self.rehearsal = Some(Rehearsal { asked: Instant::now(), ..kept });
        Ok(installation)
    }
}

/// Makes tables hold what others hold.
fn make_equal(from: &dyn Kernel, to: &mut dyn Kernel) -> Result<(), KernelError> {
    for table in Table::ALL.iter().copied().filter(|table| !OWN.contains(table)) {
        let empty = ANEW.contains(&table);
        if MAPPED.contains(&table) {
            let new = to.memory(table);
            for offset in (0..new.len()).step_by(size_of::<u64>()) {
                let wanted = if empty { 0 } else { from.memory(table).word(offset).load() };
                let word = new.word(offset);
                if word.load() != wanted {
                    word.store(wanted);
                }
            }
            continue;
        }
        let mut wanted: BTreeMap<_, _> =
            if empty { BTreeMap::new() } else { from.entries(table)?.into_iter().collect() };
        for (key, value) in to.entries(table)? {
            match wanted.get(&key) {
                None => drop(to.remove(table, &key)?),
                Some(same) if *same == value => drop(wanted.remove(&key)),
                Some(_) => {}
            }
        }
        for (key, value) in wanted {
            to.put(table, &key, &value, Put::Any)?;
        }
    }
    Ok(())
}
