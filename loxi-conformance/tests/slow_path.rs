//! What a dataplane may leave to its slow path, and what it may leave out.

#![allow(clippy::unwrap_used)]

use loxi_conformance::{
    MAXIMUM_PUNTED_PERCENT, Outcome, Report, SuiteError, run_generated, run_generated_from, run_rows,
};
use loxi_core::capability::{Capabilities, Feature};
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{
    Dataplane, DataplaneError, FlowPage, FlowQuery, InjectRequest, Injected, Local, SnapshotPage,
    SnapshotQuery,
};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, State, Timestamp};
use loxi_core::reason::PuntReason;
use loxi_reference::Reference;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const CASES: usize = 40;

/// A reference that says of every `every`th packet that its fast path left it to the slow path, and
/// declares what it is told to.
struct Leaving {
    reference: Local<Reference>,
    capabilities: Capabilities,
    every: usize,
    reason: PuntReason,
    seen: AtomicUsize,
}

impl Leaving {
    fn new(reference: Reference, declare: impl FnOnce(&mut Capabilities)) -> Self {
        let mut capabilities = Capabilities::full("leaving", 1 << 20);
        declare(&mut capabilities);
        let reference = Local::new(reference, Arc::new(|| Timestamp(0)));
        Self { reference, capabilities, every: usize::MAX, reason: PuntReason::Parse, seen: 0.into() }
    }

    fn every(every: usize, reason: PuntReason, declare: impl FnOnce(&mut Capabilities)) -> Self {
        Self { every, reason, ..Self::new(Reference::new(), declare) }
    }
}

#[async_trait::async_trait]
impl Dataplane for Leaving {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        Ok(self.capabilities.clone())
    }

    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        Dataplane::apply(&self.reference, transaction).await
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        Dataplane::snapshot(&self.reference, query).await
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        Dataplane::flows(&self.reference, query).await
    }

    async fn counters(&self) -> Result<Counters, DataplaneError> {
        Dataplane::counters(&self.reference).await
    }

    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        let mut injected = Dataplane::inject(&self.reference, request).await?;
        for one in &mut injected {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
            one.punt = seen.is_multiple_of(self.every).then_some(self.reason);
        }
        Ok(injected)
    }

    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        Dataplane::attach(&self.reference, port).await
    }

    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        Dataplane::detach(&self.reference, port).await
    }

    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        Dataplane::import_state(&self.reference, state).await
    }
}

fn declare(reason: PuntReason) -> impl FnOnce(&mut Capabilities) {
    move |capabilities| {
        capabilities.punts.insert(reason);
    }
}

fn verify_nothing(capabilities: &mut Capabilities) {
    capabilities.features.remove(&Feature::VerifyL4Checksum);
}

fn unverifying() -> Reference {
    let mut capabilities = Capabilities::full("leaving", 1 << 20);
    verify_nothing(&mut capabilities);
    Reference::new().assuming(&capabilities)
}

fn count(report: &Report, which: impl Fn(&Outcome) -> bool) -> usize {
    report.rows.iter().filter(|row| which(&row.outcome)).count()
}

async fn differs(dataplane: &Leaving) -> String {
    match run_generated(dataplane, CASES).await {
        Err(SuiteError::Differs { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_declared_punt_passes_and_is_told() {
    let dataplane = Leaving::every(5, PuntReason::Checksum, declare(PuntReason::Checksum));
    let report = run_rows(&dataplane).await.unwrap();
    assert!(report.failures().is_empty(), "{report}");
    let punted = count(&report, |outcome| *outcome == Outcome::Punted(PuntReason::Checksum));
    let passed = count(&report, |outcome| *outcome == Outcome::Passed);
    assert!(punted > 20 && passed > 20, "{report}");
    assert_eq!(punted + passed, report.rows.len());

    let line = run_generated(&dataplane, CASES).await.unwrap_or_else(|error| panic!("{error}"));
    let number = |word: &str| -> usize {
        let (before, _) = line.split_once(word).unwrap();
        before.trim().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (packets, punted) = (number("packets compared"), number("punted"));
    assert!(punted.abs_diff(packets / 5) <= 1, "{line}");
}

#[tokio::test]
async fn an_undeclared_punt_fails() {
    let dataplane = Leaving::every(1, PuntReason::Checksum, declare(PuntReason::Parse));
    let report = run_rows(&dataplane).await.unwrap();
    assert_eq!(report.failures().len(), report.rows.len(), "{report}");
    assert!(differs(&dataplane).await.contains("checksum, which is not declared"));
}

#[tokio::test]
async fn a_packet_for_the_local_stack_is_not_finished_by_the_slow_path() {
    // Declared, as every backend does that leaves packets to the local stack.
    let dataplane = Leaving::every(1, PuntReason::NotOursRoute, |_| {});
    assert!(dataplane.capabilities.punts.contains(&PuntReason::NotOursRoute));
    let report = run_rows(&dataplane).await.unwrap();
    assert_eq!(report.failures().len(), report.rows.len(), "{report}");
    assert!(differs(&dataplane).await.contains("nothing to finish"));
}

#[tokio::test]
async fn leaving_nearly_everything_fails() {
    for (every, fails) in [(2, true), (3, false)] {
        assert_eq!(100 / every > MAXIMUM_PUNTED_PERCENT, fails);
        let dataplane = Leaving::every(every, PuntReason::FirstPacket, declare(PuntReason::FirstPacket));
        match run_generated(&dataplane, CASES).await {
            Err(SuiteError::TooManyPunted { punted, packets }) => assert!(fails, "{punted} of {packets}"),
            Ok(line) => assert!(!fails, "{line}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_row_that_needs_what_is_missing_is_refused() {
    let dataplane = Leaving::new(unverifying(), verify_nothing);
    let report = run_rows(&dataplane).await.unwrap();
    assert!(report.failures().is_empty(), "{report}");
    let refused = |outcome: &Outcome| *outcome == Outcome::Refused(Feature::VerifyL4Checksum);
    assert_eq!(count(&report, refused), 1, "{report}");
    assert_eq!(count(&report, |outcome| *outcome == Outcome::Passed), report.rows.len() - 1);
    run_generated(&dataplane, CASES).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn what_is_declared_must_be_done_and_what_is_done_declared() {
    let dataplane = Leaving::new(unverifying(), |_| {});
    let report = run_rows(&dataplane).await.unwrap();
    assert_eq!(report.failures().len(), 1, "{report}");
    differs(&dataplane).await;
    differs(&Leaving::new(Reference::new(), verify_nothing)).await;
}

#[tokio::test]
async fn another_seed_makes_other_cases() {
    let dataplane = Leaving::new(Reference::new(), |_| {});
    let fixed = run_generated(&dataplane, CASES).await.unwrap();
    assert_eq!(run_generated_from(&dataplane, [7; 32], CASES).await.unwrap(), fixed);
    assert_ne!(run_generated_from(&dataplane, [8; 32], CASES).await.unwrap(), fixed);
}
