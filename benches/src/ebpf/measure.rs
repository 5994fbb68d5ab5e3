//! How figures are taken: in pairs, one after the other, of which the median counts.

use super::node::Ready;
use anyhow::{Result, ensure};
use loxi_backend_ebpf::measure::{Hook, Target};

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Numbers of flows: powers of two.
    pub flows: Vec<u32>,
    /// Families: whether it is IPv6.
    pub families: Vec<bool>,
    /// Pairs of runs.
    pub pairs: usize,
    /// Packets of a run at least.
    pub packets: u32,
}

impl Effort {
    /// For a first look: within a minute, so IPv4 only.
    #[must_use]
    pub fn quick() -> Self {
        Self { flows: vec![1, 1 << 16], families: vec![false], pairs: 3, packets: 1 << 15 }
    }

    /// For the record.
    #[must_use]
    pub fn full() -> Self {
        Self {
            flows: vec![1, 1 << 10, 1 << 16, 1 << 20],
            families: vec![false, true],
            pairs: 11,
            packets: 1 << 17,
        }
    }
}

/// What a target came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Net {
    /// ns per packet over the empty program.
    pub(super) ns: f64,
    /// ns per packet of the empty program in its wrapper.
    pub(super) empty: f64,
}

/// The middle of some values, at least one.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Measures a target by runs of many packets.
pub(super) fn repeated(ready: &Ready<'_>, hook: Hook, target: Target, effort: &Effort) -> Result<Net> {
    let packets = ready.case.flows.max(effort.packets);
    let run = |target| -> Result<f64> {
        ready.bench.aim(hook, target)?;
        let before = ready.forwarded();
        let run = ready.bench.run(hook, &ready.frame, packets)?;
        if target == Target::Installed {
            let after = ready.forwarded();
            ensure!(run.action == ready.sent(hook), "the programs say {}", run.action);
            let packets = u64::from(packets);
            ensure!(
                (after.0 - before.0, after.1 - before.1) == (packets, packets),
                "of {packets} packets {} were forwarded and {} left",
                after.0 - before.0,
                after.1 - before.1
            );
        }
        Ok(run.ns.into())
    };
    // Of each pair the first, so that both begin with what the other left in the caches.
    run(Target::Empty)?;
    let (mut nets, mut empties) = (Vec::new(), Vec::new());
    for _ in 0..effort.pairs {
        let full = run(target)?;
        let empty = run(Target::Empty)?;
        nets.push(full - empty);
        empties.push(empty);
    }
    Ok(Net { ns: median(&mut nets), empty: median(&mut empties) })
}

/// Measures a target by runs of one packet each: for what can't be done twice to a frame.
pub(super) fn single(ready: &Ready<'_>, hook: Hook, target: Target, effort: &Effort) -> Result<Net> {
    let shots = effort.packets / 16;
    let run = |target| -> Result<f64> {
        ready.bench.aim(hook, target)?;
        let mut all = Vec::new();
        for _ in 0..shots / effort.pairs as u32 {
            let run = ready.bench.run(hook, &ready.frame, 1)?;
            ensure!(
                target == Target::Empty || run.action == ready.sent(hook),
                "the programs say {}",
                run.action
            );
            all.push(f64::from(run.ns));
        }
        Ok(median(&mut all))
    };
    run(Target::Empty)?;
    let (mut nets, mut empties) = (Vec::new(), Vec::new());
    for _ in 0..effort.pairs {
        let full = run(target)?;
        let empty = run(Target::Empty)?;
        nets.push(full - empty);
        empties.push(empty);
    }
    Ok(Net { ns: median(&mut nets), empty: median(&mut empties) })
}
