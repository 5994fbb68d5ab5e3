//! The daemon as a process, driven by `llcli` as a process: restarts, kills,
//! second holders, files that are wrong.

#![allow(clippy::unwrap_used)]

mod place;

use place::{Daemon, Place};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PIPELINE: &str = "\
version: 1
zones: [{name: pods}]
bridges: [{name: pods, zone: pods}]
ports:
  - {name: loxi-none1, kind: pod, mac: \"02:00:00:00:00:01\", attachment: {bridge: {bridge: pods}}}
  - {name: loxi-none2, kind: pod, mac: \"02:00:00:00:00:02\", attachment: {bridge: {bridge: pods}}}
";
/// UDP from 10.244.1.10:40000 to 10.244.1.11:53, no checksum.
const UDP: &str =
    "020000000002 020000000001 0800 4500001c 00004000 401122d5 0af4010a 0af4010b 9c40 0035 0008 0000";
/// A connection, as if its first packet had come long before the test.
const FLOW: &str = "\
flows:
  - id:
      zone: pods
      tuple: {src: 10.244.1.10, dst: 10.244.1.11, protocol: udp, src_port: 40000, dst_port: 53}
    reply: {src: 10.244.1.11, dst: 10.244.1.10, protocol: udp, src_port: 53, dst_port: 40000}
    state: replied
    created: 1
    expires: 9000000000000000000
    ingress: {port: loxi-none1, mac: \"02:00:00:00:00:01\"}
";

/// A place with that pipeline.
fn place() -> Place {
    Place::with(PIPELINE)
}

/// Gives the daemon a flow, without a packet or a device.
fn learns(place: &Place) {
    let file = place.write("state.yaml", FLOW);
    place.prints(&["state", "import", "-f", file.to_str().unwrap()]);
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_killed_daemon_goes_on_where_it_was() {
    let place = place();
    let daemon = place.start(&[]);
    let mine = "version: 1\nvrfs: [{name: mine}]\n";
    let first = place.apply("mine.yaml", mine, "once");
    assert_eq!(first, "generation 2: 1 created, 0 updated, 0 deleted\n");
    learns(&place);
    assert!(place.prints(&["flows"]).contains("udp 10.244.1.10:40000 -> 10.244.1.11:53"));
    place.prints(&["detach", "loxi-none2"]);
    // A transaction that was acknowledged right before the kill.
    let last = place.apply("last.yaml", "version: 1\nvrfs: [{name: mine}, {name: last}]\n", "last");
    drop(daemon);
    assert_eq!(place.llcli(&["get", "all"]).status.code(), Some(3));

    let daemon = place.start(&[]);
    assert_eq!(
        place.apply("last.yaml", "version: 1\nvrfs: []\n", "last"),
        last,
        "applied once, whatever it says"
    );
    assert_eq!(place.apply("mine.yaml", mine, "once"), first);
    assert!(place.prints(&["get", "vrfs"]).contains("last"));
    assert!(place.prints(&["flows"]).contains("udp 10.244.1.10:40000 -> 10.244.1.11:53"));
    let before = place.prints(&["get", "all", "-o", "json"]);
    daemon.stop();
    assert!(!place.run_dir().join("ready").exists());

    let daemon = place.start(&[]);
    assert_eq!(place.prints(&["get", "all", "-o", "json"]), before, "the same generation too");
    daemon.stop();
}

#[test]
fn what_packets_teach_is_saved_without_any_transaction() {
    let place = place();
    let daemon = place.start(&[]);
    let saved = || std::fs::read(place.run_dir().join("state.cbor")).unwrap();
    learns(&place);
    let before = saved();
    // A packet makes the flow younger, and nothing else happens.
    place.prints(&["inject", "--commit", "--port", "loxi-none1", "--hex", UDP]);
    eventually("the state file follows", || saved() != before);
    drop(daemon);
    let _daemon = place.start(&[]);
    assert!(place.prints(&["flows", "--l4-port", "53"]).contains("udp 10.244.1.10:40000"));
}

#[test]
fn a_second_holder_is_refused_and_the_first_unharmed() {
    let place = place();
    let daemon = place.start(&[]);
    let complaint = place.refused(&[]);
    let holder = format!("is held by process {}", daemon.child.id());
    assert!(complaint.contains(&holder), "{complaint}");
    assert!(place.prints(&["get", "ports"]).contains("loxi-none1"));
}

#[test]
fn a_pipeline_file_that_is_wrong_changes_nothing() {
    let place = place();
    let daemon = place.start(&[]);
    let before = place.prints(&["get", "all", "-o", "json"]);
    for (content, complaint) in [
        ("version: 1\nports:\n  - {name: a, kind: pood}\n", "node.yaml:3:21: "),
        ("version: 1\nbridges: [{name: a, zone: none}]\n", "zone none does not exist"),
        ("version: 9\n", "version 9"),
    ] {
        place.write("node.yaml", content);
        daemon.signal(rustix::process::Signal::HUP);
        eventually("the complaint is in the log", || {
            std::fs::read_to_string(place.path("log")).unwrap().contains(complaint)
        });
        assert_eq!(place.prints(&["get", "all", "-o", "json"]), before);
    }
    daemon.stop();
    let state = std::fs::read(place.run_dir().join("state.cbor")).unwrap();
    let complaint = place.refused(&[]);
    assert!(complaint.contains("version 9"), "{complaint}");
    assert_eq!(std::fs::read(place.run_dir().join("state.cbor")).unwrap(), state);
    place.write("node.yaml", PIPELINE);
    let _daemon = place.start(&[]);
    assert_eq!(place.prints(&["get", "all", "-o", "json"]), before);
}

#[test]
fn going_back_to_an_earlier_file_is_no_repetition() {
    let place = place();
    let daemon = place.start(&[]);
    let count = || place.prints(&["get", "ports"]).lines().count() - 1;
    for (content, ports) in [("version: 1\n", 0), (PIPELINE, 2), ("version: 1\n", 0), (PIPELINE, 2)] {
        place.write("node.yaml", content);
        daemon.signal(rustix::process::Signal::HUP);
        eventually("the file is applied", || count() == ports);
    }
}

#[test]
fn a_damaged_state_file_is_refused_by_name() {
    let place = place();
    place.start(&[]).stop();
    let path = place.run_dir().join("state.cbor");
    let mut damaged = std::fs::read(&path).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let complaint = place.refused(&[]);
    assert!(complaint.contains("state.cbor: its checksum is wrong"), "{complaint}");
    assert!(complaint.contains("--discard-state"), "{complaint}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "kept for whoever looks into it");
    place.start(&["--discard-state"]).stop();
    assert_ne!(std::fs::read(&path).unwrap(), damaged);
}

#[test]
fn the_state_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let _daemon = place.start(&[]);
    let mode = |name: &str| place.run_dir().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("state.cbor"), mode("lock")), (0o700, 0o600, 0o600));
}

#[test]
fn metrics_are_scraped_and_the_manager_is_told() {
    let place = place();
    let manager = std::os::unix::net::UnixDatagram::bind(place.path("notify")).unwrap();
    let metrics = format!("unix:{}", place.path("metrics.sock").display());
    let mut command = place.command(&["--metrics", &metrics]);
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let daemon = Daemon { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() };
    manager.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut told = [0; 64];
    let length = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1");

    let scrape = |request: &str| {
        let mut stream = UnixStream::connect(place.path("metrics.sock")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    place.prints(&["inject", "--commit", "--port", "loxi-none1", "--hex", UDP]);
    let answer = scrape("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for line in [
        "loxi_generation 1\n",
        "loxi_entities{kind=\"port\"} 2\n",
        "loxi_port_attached{port=\"loxi-none1\"} 0\n",
        "loxi_port_rx_packets_total{port=\"loxi-none1\"} 1\n",
        "loxi_zone_flows{zone=\"pods\"} ",
        "# EOF\n",
    ] {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    assert!(scrape("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(scrape("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    daemon.stop();
}

#[test]
fn packets_can_be_tried_without_devices() {
    let place = place();
    let daemon = place.start(&["--no-devices"]);
    let try_it = || place.prints(&["inject", "--port", "loxi-none1", "--hex", UDP]);
    assert!(try_it().contains(": forwarded\n  out loxi-none2 (42 bytes)\n"), "{}", try_it());
    place.prints(&["detach", "loxi-none2"]);
    assert!(try_it().contains("egress_down"));
    daemon.stop();
    let _daemon = place.start(&["--no-devices"]);
    assert!(try_it().contains("egress_down"), "detached by hand, over the restart too");
    place.prints(&["attach", "loxi-none2"]);
    assert!(try_it().contains("out loxi-none2"));
}

#[test]
fn the_negative_control_passes_nothing() {
    let place = place();
    let _daemon = place.start(&["--backend", "none", "--no-devices"]);
    let verdict = place.prints(&["inject", "--port", "loxi-none1", "--hex", UDP]);
    assert!(verdict.contains("dropped, unsupported"), "{verdict}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = place();
    let complaint = place.refused(&["--instance", "No Such"]);
    assert!(complaint.contains("is not an instance name"), "{complaint}");
    let complaint = place.refused(&["--dataplane-netns", "/nowhere"]);
    assert!(complaint.contains("/nowhere"), "{complaint}");
    let complaint = place.refused(&["--root-netns", "no-such-name"]);
    assert!(complaint.contains("no-such-name"), "{complaint}");
}
