//! The conformance suite on the installed programs, by test runs of the kernel.
#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::{Devices, Ebpf, Mode, Options, Sizes, capabilities};
use loxi_conformance::{run_generated, run_rows};
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

#[tokio::test]
async fn rows_at_tc() {
    let report = run_rows(&dataplane(Mode::Tc)).await.unwrap();
    println!("{report}");
    assert!(report.failures().is_empty(), "{report}");
}

#[tokio::test]
async fn generated_cases_at_tc() {
    println!("{}", run_generated(&dataplane(Mode::Tc), 200).await.unwrap_or_else(|error| panic!("{error}")));
}

#[test]
fn dbg() {
    let _d = dataplane(Mode::Tc);
    std::thread::sleep(std::time::Duration::from_secs(8));
}
