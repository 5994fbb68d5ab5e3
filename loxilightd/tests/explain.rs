//! What a daemon on eBPF says of a packet: what is installed, the reference beside it, and where they part
//! when somebody has changed a table.

#![allow(clippy::unwrap_used)]

mod place;

use place::Place;
use serde_json::Value;
use std::process::Command;

const PIPELINE: &str = "\
version: 1
zones: [{name: pods}]
bridges: [{name: pods, zone: pods}]
ports:
  - {name: loxi-none1, kind: pod, mac: \"02:00:00:00:00:01\", attachment: {bridge: {bridge: pods}}}
  - {name: loxi-none2, kind: pod, mac: \"02:00:00:00:00:02\", attachment: {bridge: {bridge: pods}}}
fdb:
  - {bridge: pods, mac: \"02:00:00:00:00:02\", target: {port: loxi-none2}, origin: pod/two}
";
/// UDP from 10.244.1.10:40000 to 10.244.1.11:53, no checksum.
const UDP: &str =
    "020000000002 020000000001 0800 4500001c 00004000 401122d5 0af4010a 0af4010b 9c40 0035 0008 0000";

fn bpftool(args: &[&str]) -> Value {
    let output = Command::new("bpftool").arg("-j").args(args).output().unwrap();
    assert!(output.status.success(), "bpftool {args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// The kernel's number of a process's table: others of that name may be about.
fn table(pid: u32, name: &str) -> String {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let told = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let mut ids =
        told.filter_map(|told| Some(told.lines().find_map(|l| l.strip_prefix("map_id:"))?.trim().to_owned()));
    let found = ids.find(|id| bpftool(&["map", "show", "id", id])["name"] == name);
    found.unwrap_or_else(|| panic!("process {pid} has no table {name}"))
}

/// Sends every station of a table to another port.
fn misdirect(map: &str, port: u8) {
    for entry in bpftool(&["map", "dump", "id", map]).as_array().unwrap() {
        let bytes = |of: &str| -> Vec<String> {
            entry[of].as_array().unwrap().iter().map(|byte| byte.as_str().unwrap().to_owned()).collect()
        };
        let (key, mut value) = (bytes("key"), bytes("value"));
        value[0] = format!("0x{port:02x}");
        let mut update = Command::new("bpftool");
        update.args(["map", "update", "id", map, "key"]).args(key).arg("value").args(value);
        assert!(update.status().unwrap().success());
    }
}

#[test]
fn the_reference_stands_beside_what_is_installed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: loading programs needs root");
        return;
    }
    let place = Place::with(PIPELINE);
    let daemon = place.start(&["--backend", "ebpf", "--no-devices"]);
    let explain =
        |more: &[&str]| place.prints(&[&["explain", "--port", "loxi-none1", "--hex", UDP], more].concat());
    let json = || -> Value { serde_json::from_str(&explain(&["-o", "json"])).unwrap() };

    let text = explain(&[]);
    assert!(text.contains("as installed in ebpf:\n 0 parse              42 bytes -> ipv4 udp\n"), "{text}");
    assert_eq!(text.matches("from pod/two] -> port loxi-none2\n").count(), 2, "{text}");
    assert!(text.contains("the reference says: forwarded\n") && text.contains("\nboth agree\n"), "{text}");
    let told = json();
    assert_eq!(told["agrees"], true);
    assert_eq!(told["parts"], Value::Null);
    assert_eq!(told["explanation"]["reference"]["verdict"]["outputs"], told["outputs"]);
    assert_eq!(told["outputs"][0]["port"], "loxi-none2");

    misdirect(&table(daemon.child.id(), "STATIONS"), 99);
    let text = explain(&[]);
    let installed = "  installed  10 forward            pods vlan 1 02:00:00:00:00:02 \
                     [fdb pods vlan 1 02:00:00:00:00:02 from pod/two] -> port #99 (no name)\n";
    assert!(text.contains(&format!("they part here:\n{installed}")), "{text}");
    assert!(text.contains("=> dropped, egress_down"), "{text}");
    let told = json();
    assert_eq!((&told["agrees"], told["fate"].as_str()), (&Value::Bool(false), Some("dropped")));
    assert_eq!(told["parts"]["installed"]["effect"], "port #99 (no name)");
    assert_eq!(told["parts"]["reference"]["effect"], "port loxi-none2");
    let yaml = explain(&["-o", "yaml"]);
    assert!(yaml.contains("agrees: false\n"), "{yaml}");

    // Neither has made a flow or counted a packet.
    assert_eq!(place.prints(&["flows"]).lines().count(), 1);
    let counted: Value =
        serde_json::from_str(&place.prints(&["counters", "--port", "loxi-none1", "-o", "json"])).unwrap();
    assert!(!counted.to_string().contains("\"rx_packets\":1"), "{counted}");
    daemon.stop();
}
