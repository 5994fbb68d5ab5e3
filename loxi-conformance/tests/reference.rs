//! The reference against its own suite, and the suite against backends that must fail it.

use loxi_conformance::{Coverage, check_committed, run_rows, run_rows_together};
use loxi_core::dataplane::{Backend, Dataplane, Local};
use loxi_core::packet::Timestamp;
use loxi_reference::Reference;
use std::sync::Arc;

fn local(reference: Reference) -> Box<dyn Dataplane> {
    Box::new(Local::new(reference, Arc::new(|| Timestamp(0))))
}

loxi_conformance::suite!(reference, || async { local(Reference::new()) });

#[tokio::test]
async fn packets_of_one_question_see_what_the_ones_before_have_left() {
    let report = run_rows_together(&*local(Reference::new())).await.unwrap();
    assert!(report.failures().is_empty(), "{report}");
    assert!(report.rows.len() > 50, "{} rows", report.rows.len());
}

#[tokio::test]
async fn the_rows_cover_every_stage_and_reason() {
    let report = run_rows(&*local(Reference::new())).await.unwrap();
    let coverage = Coverage::of(&report);
    assert!(coverage.is_complete(), "{coverage:#?}");
}

#[tokio::test]
async fn a_backend_that_passes_nothing_fails_every_row() {
    let report = run_rows(&*local(Reference::new().passing_nothing())).await.unwrap();
    let passed: Vec<&str> = report
        .rows
        .iter()
        .filter(|row| !report.failures().contains(row))
        .map(|row| row.name.as_str())
        .collect();
    assert_eq!(passed, Vec::<&str>::new(), "rows that prove nothing");
}

#[test]
fn capabilities_are_as_committed() {
    let committed = include_str!("../capabilities/reference.yaml");
    check_committed(&Reference::new().capabilities(), committed).unwrap();
}
