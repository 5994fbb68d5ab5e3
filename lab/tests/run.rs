//! The program itself: every row passes on each backend, none where nothing passes, and nothing stays.
//!
//! It takes loxilightd and llcli from beside it, as cargo puts them for a test of the workspace, and has them built if
//! they are not there.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixture::{plan, privileged, programs, setup, state};
use lab::daemon::{Backend, run_dir};
use lab::plan::Plan;
use lab::proof::bystander::suspicions;
use lab::rows::{Row, table};
use lab::session::{Mode, Progress, Session};
use loxi_linux::nftables;
use loxi_linux::packet::{FrameIo, PacketSocket};
use loxi_linux::process::{Process, Stop};
use loxi_linux::rtnetlink::{AddrFlags, Rtnl};
use loxi_linux::sysctl;

/// A run's command, its report's file, and the state of the machine before.
fn run(plan: &Plan, more: &[&str]) -> (Command, PathBuf) {
    let json = std::env::temp_dir().join(format!("{}.json", plan.instance()));
    let mut command = Command::new(programs());
    command.args(["run", "--instance", plan.instance(), "--json", json.to_str().unwrap()]).args(more);
    (command, json)
}

fn report(json: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(json).unwrap();
    std::fs::remove_file(json).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_row_passes_on_the_reference() {
    every_row_passes("every_row_passes_on_the_reference", "reference", "tc", "");
}

#[test]
fn every_row_passes_on_the_programs() {
    every_row_passes("every_row_passes_on_the_programs", "ebpf", "tc", "");
}

// Both families take the same way at XDP, so one of them shows it.

#[test]
fn rows_pass_with_programs_at_xdp() {
    every_row_passes("rows_pass_with_programs_at_xdp", "ebpf", "xdp", "v4");
}

#[test]
fn rows_pass_with_programs_at_both_hooks() {
    every_row_passes("rows_pass_with_programs_at_both_hooks", "ebpf", "both", "v6");
}

fn every_row_passes(test: &str, backend: &str, hooks: &str, only: &str) {
    if !privileged(test) {
        return;
    }
    let plan = plan(&format!("{}-{hooks}", &backend[..3]));
    let before = state(&plan);
    let (mut command, json) = run(&plan, &["--once", "--backend", backend, "--hooks", hooks, "--only", only]);
    let output = command.output().unwrap();
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(state(&plan), before);
    let report = report(&json);
    let rows = report["rows"].as_array().unwrap();
    let meant = table().into_iter().filter(|row| row.is_meant(only)).count();
    assert!(meant > 30 && rows.len() == meant, "a row that is left out is a failure");
    assert_eq!(report["totals"]["passed"], rows.len());
    for row in rows {
        assert!(row["ok"] == true && row["ms"].is_u64() && row["family"].is_string(), "{row}");
        let name = row["name"].as_str().unwrap();
        assert!(text.contains(name), "the table shows {name}");
    }
    assert_eq!(report["checks"].as_array().unwrap().len(), 4);
    assert_eq!((&report["backend"], &report["hooks"]), (&backend.into(), &hooks.into()));
}

#[test]
fn no_row_passes_where_nothing_passes() {
    if !privileged("no_row_passes_where_nothing_passes") {
        return;
    }
    let plan = plan("none");
    let before = state(&plan);
    let begun = Instant::now();
    let (mut command, json) = run(&plan, &["--once", "--backend", "none", "--expect-all-fail"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(state(&plan), before);
    let report = report(&json);
    assert_eq!(report["totals"]["failed"], table().len());
    assert_eq!(report["totals"]["passed"], 0);

    // The same without the turned exit code.
    let (mut command, json) = run(&plan, &["--once", "--backend", "none", "--only", "v4 gateway"]);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    std::fs::remove_file(json).unwrap();
}

#[test]
fn it_stays_until_it_is_told_to_go() {
    if !privileged("it_stays_until_it_is_told_to_go") {
        return;
    }
    let plan = plan("stay");
    let before = state(&plan);
    let (mut command, json) = run(&plan, &["--only", "v6 gateway"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !json.exists() {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "it has not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut llcli = Command::new(programs().with_file_name("llcli"));
    let output = llcli.arg("--socket").arg(run_dir(&plan, 2)).args(["get", "ports"]).output().unwrap();
    assert!(told(&output).contains("hs3"), "{}", told(&output));
    Process::open(child.id()).unwrap().stop(Stop::Ask).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(state(&plan), before);
    assert_eq!(report(&json)["totals"]["rows"], 1);
}

#[test]
fn it_can_be_interrupted_at_any_time() {
    if !privileged("it_can_be_interrupted_at_any_time") {
        return;
    }
    let plan = plan("stop");
    let before = state(&plan);
    for after in [5, 60, 150, 300, 500, 800, 1500] {
        let (mut command, json) = run(&plan, &["--once"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after));
        Process::open(child.id()).unwrap().stop(Stop::Ask).unwrap();
        child.wait().unwrap();
        assert_eq!(state(&plan), before, "interrupted after {after} ms");
        let _ = std::fs::remove_file(json);
    }
}

#[test]
fn a_frame_that_somebody_else_has_sent_is_noticed() {
    if !privileged("a_frame_that_somebody_else_has_sent_is_noticed") {
        return;
    }
    let plan = plan("foreign");
    let setup = setup(&plan, Backend::Reference);
    let rows: Vec<Row> = table().into_iter().take(2).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let results = runtime.block_on(async {
        let session = Session::start(&setup).await.unwrap();
        let dataplane = session.world().dataplane(1).unwrap();
        let mut told = 0;
        let mut intrude = |progress: Progress<'_>| {
            if matches!(progress, Progress::Begun(_)) && told == 0 {
                told = 1;
                // Of a local experimental ethertype (IEEE 802): the pod ignores it.
                let mut frame = vec![0xff; 12];
                frame.extend([0x88, 0xb5]);
                frame.resize(60, 0);
                dataplane.run(|| PacketSocket::open("hs1").unwrap().send(&frame).unwrap()).unwrap();
            }
        };
        let results = session.run(&rows, Mode::Proven, &mut intrude).await.unwrap();
        session.end().unwrap();
        results
    });
    assert!(
        !results[0].ok && results[0].detail.contains("n1 hs1: the kernel has sent 1 more"),
        "{results:?}"
    );
    assert!(results[1].ok, "{results:?}");
}

#[test]
fn a_kernel_that_could_forward_is_noticed() {
    if !privileged("a_kernel_that_could_forward_is_noticed") {
        return;
    }
    let setup = setup(&plan("suspect"), Backend::None);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let session = runtime.block_on(Session::start(&setup)).unwrap();
    let dataplane = session.world().dataplane(1).unwrap();
    assert_eq!(suspicions(dataplane), Vec::<String>::new());
    let notices = |what: &str, tamper: &(dyn Fn() + Sync), restore: &(dyn Fn() + Sync)| {
        dataplane.run(tamper).unwrap();
        let found = suspicions(dataplane);
        assert!(found.iter().any(|words| words.contains(what)), "{what}: {found:?}");
        dataplane.run(restore).unwrap();
        assert_eq!(suspicions(dataplane), Vec::<String>::new(), "after {what}");
    };
    let set = |key: &'static str, value: &'static str| move || sysctl::write(key, value).unwrap();
    notices("ip_forward is 1", &set("net.ipv4.ip_forward", "1"), &set("net.ipv4.ip_forward", "0"));
    let key = "net.ipv6.conf.all.forwarding";
    notices("forwarding is 1", &set(key, "1"), &set(key, "0"));
    notices("is a bridge", &|| Rtnl::open().unwrap().bridge_add("br0").unwrap(), &|| {
        Rtnl::open().unwrap().link_del("br0").unwrap()
    });
    let pods = loxi_linux::Prefix { addr: "10.244.1.1".parse().unwrap(), len: 24 };
    notices(
        "there is a route",
        &|| Rtnl::open().unwrap().addr_add("hs1", pods, AddrFlags::default()).unwrap(),
        &|| Rtnl::open().unwrap().addr_del("hs1", pods).unwrap(),
    );
    let table = "table ip t { chain c { type nat hook postrouting priority 0; masquerade; }; }";
    notices("no ingress drop", &|| nftables::apply_text(table).unwrap(), &|| {
        nftables::apply_text("delete table ip t").unwrap()
    });
}
