//! The conformance suite on the installed programs, by test runs of the kernel.
#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::{Devices, Ebpf, Mode, Options, Sizes, capabilities};
use loxi_conformance::{check_committed, run_generated, run_rows, run_rows_together};
use loxi_core::dataplane::Local;
use loxi_core::packet::Timestamp;
use loxi_reference::ReferencePath;
use std::sync::Arc;

fn dataplane(mode: Mode) -> Local<Ebpf> {
    let options = Options {
        mode,
        sizes: Sizes { flows_v4: 4096, flows_v6: 4096 },
        devices: Devices::None,
        slow_path: Some(Box::new(ReferencePath::assuming(&capabilities()))),
        ..Options::default()
    };
    Local::new(Ebpf::open(options).unwrap(), Arc::new(|| Timestamp(loxi_linux::clock::now())))
}

/// Generated cases of a run: more where somebody asks for more, and in CI, which runs over 20,000.
fn cases() -> usize {
    let usual = if std::env::var_os("CI").is_some() { 10_100 } else { 200 };
    std::env::var("LOXI_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

async fn rows(mode: Mode) {
    let report = run_rows(&dataplane(mode)).await.unwrap();
    println!("{report}");
    assert!(report.failures().is_empty(), "{report}");
}

async fn generated(mode: Mode) {
    println!("{}", run_generated(&dataplane(mode), cases()).await.unwrap_or_else(|error| panic!("{error}")));
}

async fn together(mode: Mode) {
    let report = run_rows_together(&dataplane(mode)).await.unwrap();
    assert!(report.failures().is_empty(), "{report}");
    assert!(report.rows.len() > 50, "{} rows", report.rows.len());
}

#[tokio::test]
async fn packets_of_one_question_at_tc() {
    together(Mode::Tc).await;
}

#[tokio::test]
async fn packets_of_one_question_at_xdp() {
    together(Mode::Xdp).await;
}

#[tokio::test]
async fn rows_at_tc() {
    rows(Mode::Tc).await;
}

#[tokio::test]
async fn rows_at_xdp() {
    rows(Mode::Xdp).await;
}

#[tokio::test]
async fn rows_at_both() {
    rows(Mode::Both).await;
}

#[tokio::test]
async fn generated_cases_at_tc() {
    generated(Mode::Tc).await;
}

#[tokio::test]
async fn generated_cases_at_xdp() {
    generated(Mode::Xdp).await;
}

#[test]
fn capabilities_are_as_committed() {
    let committed = include_str!("../../loxi-conformance/capabilities/ebpf.yaml");
    check_committed(&capabilities(), committed).unwrap();
}
