//! Whatever call of an installation fails, everything is as before; taking one back comes to what was, and where
//! that fails too, the tables are read and the next installation comes out right.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod generate;

use loxi_backend_ebpf::install::Installer;
use loxi_backend_ebpf::plan::{Plan, PlanDelta, PlanIndex, compile, difference};
use loxi_backend_ebpf::sys::{Faults, FaultyKernel, SimulatedKernel};
use loxi_core::capability::Capabilities;
use loxi_core::change::diff;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::Cell;

fn full() -> Capabilities {
    Capabilities::full("test", 1 << 20)
}

/// The plan in the tables, in which nothing else may be.
fn read(installer: &Installer) -> Result<Plan, TestCaseError> {
    let (plan, strays) = installer.read().unwrap();
    prop_assert!(strays.is_empty(), "{strays:?}");
    Ok(plan)
}

fn towards(now: &Plan, wanted: &Plan, stale: &PlanDelta) -> PlanDelta {
    PlanDelta { units: difference(now, wanted), stale_ports: stale.stale_ports.clone(), passage: Vec::new() }
}

/// Cases of a run: more where somebody asks for more.
fn cases() -> u32 {
    std::env::var("LOXI_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16)
}

#[test]
fn every_failing_call_is_undone() {
    let failed = Cell::new(0u64);
    let doubtful = Cell::new(0u64);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: cases(), max_shrink_iters: 0, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let seeds = (vec(any::<u64>(), 1..12), vec(any::<u64>(), 1..6));
    let done = runner.run(&seeds, |(first, second)| {
        let old = generate::pipeline(&first);
        let new = generate::changed(&old, &second);
        let faults = Faults::default();
        let kernel = FaultyKernel::new(Box::new(SimulatedKernel::new([256, 256]).unwrap()), faults.clone());
        let (mut installer, plan) = Installer::new(Box::new(kernel)).unwrap();
        let before = compile(&old, &full()).unwrap();
        let units = difference(&plan, &before);
        installer.install(PlanDelta { units, ..PlanDelta::default() }).unwrap();
        prop_assert!(read(&installer)? == before);
        let delta = PlanIndex::from_plan(before.clone()).compile_change(&new, &diff(&old, &new), &full());
        let delta = delta.unwrap();
        let after = compile(&new, &full()).unwrap();

        // Installed with every call failing in turn, until none is left to fail.
        let mut call = 0;
        let undo = loop {
            faults.fail_at(Some(call));
            match installer.install(delta.clone()) {
                Ok(undo) => break undo,
                Err(error) => prop_assert!(error.to_string().contains("fault plan"), "{error}"),
            }
            faults.fail_at(None);
            prop_assert!(!installer.is_doubtful(), "call {call} left a doubt");
            prop_assert!(read(&installer)? == before, "call {call} left something");
            (call, _) = (call + 1, failed.set(failed.get() + 1));
        };
        prop_assert!(read(&installer)? == after);
        faults.fail_at(None);
        installer.undo(undo);
        prop_assert!(read(&installer)? == before);

        // Taken back with every call failing in turn.
        for call in 0.. {
            faults.fail_at(None);
            let undo = installer.install(towards(&read(&installer)?, &after, &delta)).unwrap();
            faults.fail_at(Some(call));
            installer.undo(undo);
            let made = faults.calls();
            let reached = made > call;
            faults.fail_at(None);
            doubtful.set(doubtful.get() + u64::from(installer.is_doubtful()));
            let now = installer.reread().unwrap();
            prop_assert!(
                installer.is_doubtful() || now == before,
                "call {call} of {} was no doubt: {:?}",
                made,
                difference(&before, &now)
            );
            installer.install(towards(&now, &before, &delta)).unwrap();
            let mended = read(&installer)?;
            let left = difference(&before, &mended);
            prop_assert!(
                left.is_empty(),
                "call {call} of {made} can't be mended: {left:?}; it had been {:?}",
                difference(&before, &now)
            );
            if !reached {
                break;
            }
        }
        Ok(())
    });
    done.unwrap();
    println!(
        "{} calls failed in installations, {} left a doubt in taking back",
        failed.get(),
        doubtful.get()
    );
    assert!(failed.get().min(doubtful.get()) > 5 * u64::from(cases()), "too few to show anything");
}
