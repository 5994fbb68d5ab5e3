//! What a flow's beginning adds and its end takes back, as the programs count it: flows of the zone,
//! half-open ones, flows of the endpoint, and of the source where the zone limits those.
//!
//! Words are added to at once. Sources are in a table of the kernel, which has no such operation:
//! what a program adds between the two calls can be lost, so many changes are made in one, and
//! [`recount`](crate::state::recount) puts it right.

use crate::sys::{BACKEND_FLOWS, Kernel, KernelError, Put, SOURCES, Table, Word, ZONES, bytes};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::state;
use loxi_ebpf_layout::l3::{Source, ZoneCount};
use std::collections::BTreeMap;
use std::mem::offset_of;

/// What is counted of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) struct Account {
    /// Zone.
    pub(in crate::state) zone: u8,
    /// Family.
    pub(in crate::state) family: u8,
    /// Source of the original direction.
    pub(in crate::state) source: Addr,
    /// Endpoint; 0: none.
    pub(in crate::state) backend: u32,
    /// State.
    pub(in crate::state) state: u8,
}

/// Counts of flows by source that are still to be changed.
#[derive(Debug, Default)]
pub(in crate::state) struct Sources(BTreeMap<Source, i64>);

/// Attempts to put a source in that a program puts in as well.
const ATTEMPTS: u32 = 4;

impl Sources {
    fn add(&mut self, account: &Account, n: i64) {
        let Account { zone, family, source, .. } = *account;
        *self.0.entry(Source { zone: zone.into(), family: family.into(), addr: source }).or_default() += n;
    }

    /// Makes the changes. A source that isn't counted has nothing that could be taken back.
    pub(in crate::state) fn apply(self, kernel: &mut dyn Kernel) -> Result<(), KernelError> {
        for (key, change) in self.0.into_iter().filter(|(_, change)| *change != 0) {
            for _ in 0..ATTEMPTS {
                let known = kernel.look(SOURCES, &key)?;
                if known.is_none() && change < 0 {
                    break;
                }
                let next = known.unwrap_or(0).cast_signed().saturating_add(change).max(0).cast_unsigned();
                let how = if known.is_some() { Put::Old } else { Put::New };
                match kernel.put(Table::Sources, bytes(&key), bytes(&next), how) {
                    Err(error) if is_raced(&error) => {}
                    other => {
                        other?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a key came or went between two calls.
pub(in crate::state) fn is_raced(error: &KernelError) -> bool {
    matches!(error.source.raw_os_error(), Some(libc::EEXIST | libc::ENOENT))
}

/// A word of a zone's counts, by its offset.
pub(in crate::state) fn zone_word(kernel: &dyn Kernel, zone: u8, offset: usize) -> Word<'_> {
    kernel.memory(Table::ZoneCount).word(usize::from(zone) * size_of::<ZoneCount>() + offset)
}

/// Flows of an endpoint. One that isn't in the table has none.
pub(in crate::state) fn backend_word(kernel: &dyn Kernel, backend: u32) -> Option<Word<'_>> {
    let known = backend != 0 && backend < kernel.length(BACKEND_FLOWS);
    known.then(|| kernel.memory(Table::BackendFlows).word(backend as usize * size_of::<u64>()))
}

/// One more.
pub(in crate::state) fn more(word: Word<'_>) {
    let _ = word.fetch_add(1);
}

/// One less. Below zero for a moment, if whoever adds hasn't come to it yet.
pub(in crate::state) fn less(word: Word<'_>) {
    let _ = word.fetch_add(u64::MAX);
}

/// Offsets in a zone's counts.
pub(in crate::state) const FLOWS: usize = offset_of!(ZoneCount, flows);
pub(in crate::state) const HALF_OPEN: usize = offset_of!(ZoneCount, half_open);
pub(in crate::state) const CREATED: usize = offset_of!(ZoneCount, created);

/// Whether a zone limits the flows of one source, so that they are counted.
pub(in crate::state) fn counts_sources(kernel: &dyn Kernel, zone: u8) -> bool {
    kernel.at(ZONES, zone.into()).current().max_per_source != u32::MAX
}

/// A flow begins.
pub(in crate::state) fn begin(kernel: &dyn Kernel, account: &Account, sources: &mut Sources) {
    more(zone_word(kernel, account.zone, FLOWS));
    more(zone_word(kernel, account.zone, CREATED));
    if state::is_half_open(account.state) {
        more(zone_word(kernel, account.zone, HALF_OPEN));
    }
    if let Some(word) = backend_word(kernel, account.backend) {
        more(word);
    }
    if counts_sources(kernel, account.zone) {
        sources.add(account, 1);
    }
}

/// A flow has ended.
pub(in crate::state) fn end(kernel: &dyn Kernel, account: &Account, sources: &mut Sources) {
    less(zone_word(kernel, account.zone, FLOWS));
    if state::is_half_open(account.state) {
        less(zone_word(kernel, account.zone, HALF_OPEN));
    }
    if let Some(word) = backend_word(kernel, account.backend) {
        less(word);
    }
    if counts_sources(kernel, account.zone) {
        sources.add(account, -1);
    }
}
