//! Every command against a daemon's channel: what is shown, and how it ends.
//!
//! The dataplane is the reference in this process, with a clock that stands
//! still. What is shown is held to `golden/`; `LOXI_WRITE_GOLDEN=1` writes the
//! missing files and never changes one.

#![allow(clippy::unwrap_used)]

use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, Identity, Limits, Served, serve};
use loxi_core::change::Transaction;
use loxi_core::dataplane::Local;
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use loxi_reference::Reference;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const PIPELINE: &str = include_str!("node.yaml");
/// ARP request of the pod behind hs1 for the one behind hs2.
const ARP: &str =
    "ffffffffffff 020000000001 0806 0001 0800 0604 0001 020000000001 0af4010a 000000000000 0af4010b";
/// The same, claiming an address that is not its own.
const SPOOFED: &str =
    "ffffffffffff 020000000001 0806 0001 0800 0604 0001 020000000001 0af40163 000000000000 0af4010b";

struct Daemon {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    served: Option<Served>,
}

impl Daemon {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
        let local = Arc::new(Local::new(Reference::new(), Arc::new(|| Timestamp(1_000_000_000))));
        let entities = loxi_core::text::from_yaml(PIPELINE).unwrap();
        local.apply(&Transaction::replace("start", Owner::new("file").unwrap(), entities)).unwrap();
        for port in ["hs1", "hs2"] {
            local.attach(&PortName::new(port).unwrap()).unwrap();
        }
        let server = Peer { name: "test".to_owned(), version: "0".to_owned() };
        let identity = Identity { server, instance: "test".to_owned(), boot: 1 };
        let served = runtime.block_on(serve(&endpoint, Limits::default(), 4, identity, local)).unwrap();
        Self { folder, runtime, served: Some(served) }
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_llcli"))
            .arg("--socket")
            .arg(self.folder.path().join("run"))
            .args(args)
            .env_remove("LOXI_INSTANCE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, "")
    }

    /// What a command prints that succeeds.
    fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command complains that ends with this code and prints nothing.
    fn complains(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
        let folder = self.folder.path().to_str().unwrap();
        String::from_utf8(output.stderr).unwrap().replace(folder, "DIR")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(served) = self.served.take() {
            self.runtime.block_on(served.shutdown());
        }
    }
}

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("LOXI_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(found, golden, "{name}");
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn tables_keep_their_form() {
    let daemon = Daemon::start();
    for (name, args) in [
        ("get-all.txt", &["get", "all"][..]),
        ("get-ports.txt", &["get", "ports"]),
        ("get-ports.json", &["get", "ports", "-o", "json"]),
        ("get-routes.yaml", &["get", "routes", "-o", "yaml"]),
        ("counters.txt", &["counters"]),
        ("flows-none.txt", &["flows"]),
        ("drops-none.txt", &["drops"]),
    ] {
        golden(name, &daemon.prints(args));
    }
    // These grow with the description: a line of each stands for all.
    let reasons = daemon.prints(&["reasons"]);
    assert!(reasons.contains("dropped   32      spoof_arp"), "{reasons}");
    let capabilities = daemon.prints(&["capabilities"]);
    assert!(capabilities.starts_with("backend reference\n"), "{capabilities}");
}

#[test]
fn a_packet_is_tried_and_explained() {
    let daemon = Daemon::start();
    let at = ["--at", "5"];
    let inject = |more: &[&str]| daemon.prints(&[&["inject", "--port", "hs1"], &at[..], more].concat());
    golden("inject.txt", &inject(&["--hex", ARP, "--hex", SPOOFED]));
    golden("inject.json", &inject(&["--hex", ARP, "--hex", SPOOFED, "-o", "json"]));
    let explain = |more: &[&str]| daemon.prints(&[&["explain", "--port", "hs1"], &at[..], more].concat());
    let text = explain(&["--hex", SPOOFED]);
    assert!(text.contains("\n 3 anti_spoof ") && text.contains("[port hs1]"), "{text}");
    assert!(text.ends_with("=> dropped, spoof_arp (the ARP sender is not the port's)\n"), "{text}");
    let explained = json(&explain(&["--hex", SPOOFED, "-o", "json"]));
    assert_eq!(explained["reason"], "spoof_arp");
    assert_eq!(explained["explanation"]["backend"], "reference");
    assert!(daemon.prints(&["get", "fdb"]).lines().count() == 1, "nothing was kept");

    // The same from stdin, and committed.
    let args = ["inject", "--port", "hs1", "--hex", "-", "--commit", "-o", "json"];
    let output = daemon.run_with(&args, &format!("# a comment\n{ARP}\n"));
    let line = json(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(
        (line["fate"].as_str(), line["outputs"][0]["port"].as_str()),
        (Some("forwarded"), Some("hs2"))
    );
    assert!(daemon.prints(&["get", "fdb"]).contains("02:00:00:00:00:01  port hs1  learned"));
    assert!(daemon.prints(&["counters", "--port", "hs1", "-o", "json"]).contains("\"rx_packets\": 1"));
}

#[test]
fn packets_at_several_ports_and_captures() {
    let daemon = Daemon::start();
    let hex = ARP.replace(' ', "");
    let list = daemon.write(
        "list.yaml",
        &format!("- {{port: hs1, bytes: \"{hex}\"}}\n- {{port: hs2, bytes: \"{hex}\", at: 7}}\n"),
    );
    let lines = daemon.prints(&["inject", "--packets", &list, "-o", "json"]);
    let lines: Vec<_> = lines.lines().map(json).collect();
    assert_eq!((lines.len(), &lines[1]["port"], &lines[1]["at"]), (2, &"hs2".into(), &7.into()));

    let bytes = loxi_core::packet::parse_hex(ARP).unwrap();
    let mut pcap = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for second in [100_u32, 103] {
        let length = u32::try_from(bytes.len()).unwrap();
        for field in [second, 0, length, length] {
            pcap.extend(field.to_le_bytes());
        }
        pcap.extend(&bytes);
    }
    let path = daemon.folder.path().join("two.pcap");
    std::fs::write(&path, pcap).unwrap();
    let args = ["inject", "--port", "hs1", "--at", "2s", "-o", "json", "--pcap", path.to_str().unwrap()];
    let times: Vec<_> = daemon.prints(&args).lines().map(|line| json(line)["at"].as_u64()).collect();
    assert_eq!(times, [Some(2_000_000_000), Some(5_000_000_000)]);
}

#[test]
fn a_file_is_compared_applied_and_read_back() {
    let daemon = Daemon::start();
    let mine = daemon.write("mine.yaml", "version: 1\nvrfs: [{name: mine}]\n");
    let differs = daemon.run(&["diff", "-f", &mine]);
    assert_eq!(differs.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&differs.stdout),
        "+ vrf mine\n1 to create, 0 to update, 0 to delete\n"
    );
    assert!(daemon.prints(&["apply", "-f", &mine, "--dry-run"]).starts_with("+ vrf mine\n"));
    assert_eq!(
        daemon.prints(&["apply", "-f", &mine, "--id", "a"]),
        "generation 2: 1 created, 0 updated, 0 deleted\n"
    );
    assert_eq!(
        daemon.prints(&["apply", "-f", &mine, "--id", "a"]),
        "generation 2: 1 created, 0 updated, 0 deleted\n"
    );
    assert_eq!(daemon.prints(&["diff", "-f", &mine]), "0 to create, 0 to update, 0 to delete\n");

    let output = daemon.run_with(&["diff", "-f", "-"], "version: 1\nvrfs: [{name: mine, zone: pods}]\n");
    assert!(String::from_utf8_lossy(&output.stdout).contains("~ vrf mine\n    zone: none -> pods\n"));

    // What is written is what is read, by its owner and in both forms.
    for form in ["yaml", "json"] {
        let file = daemon.prints(&["get", "all", "--owner", "file", "--as-file", "-o", form]);
        let path = daemon.write(&format!("back.{form}"), &file);
        assert_eq!(daemon.run(&["diff", "--owner", "file", "-f", &path]).status.code(), Some(0), "{form}");
    }
    assert_eq!(daemon.prints(&["delete", "vrf", "mine"]), "generation 3: 0 created, 0 updated, 1 deleted\n");
}

#[test]
fn refusals_change_nothing() {
    let daemon = Daemon::start();
    let before = daemon.prints(&["get", "all", "-o", "json"]);
    let taken = daemon.write("taken.yaml", "version: 1\nzones: [{name: pods, max_flows: 7}]\n");
    assert_eq!(daemon.complains(&["apply", "-f", &taken], 4), "llcli: zone pods is owned by file\n");
    let dangling = daemon.write("dangling.yaml", "version: 1\nvrfs: [{name: mine, zone: none}]\n");
    let complaint = daemon.complains(&["apply", "-f", &dangling], 4);
    assert_eq!(complaint, "llcli: vrf mine: zone: zone none does not exist\n");
    let fine = daemon.write("fine.yaml", "version: 1\nvrfs: [{name: mine}]\n");
    let complaint = daemon.complains(&["apply", "-f", &fine, "--base", "9"], 4);
    assert_eq!(complaint, "llcli: based on generation 9, but the dataplane is at 1\n");
    let complaint = daemon.complains(&["inject", "--port", "hs9", "--hex", ARP], 4);
    assert_eq!(complaint, "llcli: port hs9 does not exist\n");
    assert_eq!(daemon.complains(&["attach", "hs9"], 4), "llcli: port hs9 does not exist\n");
    assert_eq!(daemon.complains(&["counters", "--port", "hs9"], 4), "llcli: port hs9 does not exist\n");
    let complaint = daemon.complains(&["delete", "vrf", "mine"], 2);
    assert_eq!(complaint, "llcli: vrf mine does not exist\n");
    let complaint = daemon.complains(&["delete", "zone", "pods", "--owner", "me"], 4);
    assert_eq!(complaint, "llcli: zone pods is owned by file\n");
    assert_eq!(daemon.prints(&["get", "all", "-o", "json"]), before);
}

#[test]
fn bad_input_names_its_place_and_is_not_sent() {
    let daemon = Daemon::start();
    let bad = daemon.write("bad.yaml", "version: 1\nports:\n  - {name: a, kind: pood}\n");
    let complaint = daemon.complains(&["apply", "-f", &bad], 2);
    assert!(
        complaint.starts_with("llcli: DIR/bad.yaml:3:21: ") && complaint.contains("`pood`"),
        "{complaint}"
    );
    let bad = daemon.write("bad.json", "{\"version\": 1,\n \"vrfs\": 3}");
    let complaint = daemon.complains(&["diff", "-f", &bad], 2);
    assert!(complaint.starts_with("llcli: DIR/bad.json:2:10: "), "{complaint}");
    let twice = daemon.write("twice.yaml", "version: 1\nvrfs: [{name: a}, {name: a}]\n");
    let complaint = daemon.complains(&["apply", "-f", &twice], 2);
    assert_eq!(complaint, "llcli: DIR/twice.yaml: vrfs[1]: `vrf a` was already given\n");
    let complaint = daemon.complains(&["apply", "-f", "/nowhere/x.yaml"], 2);
    assert!(complaint.starts_with("llcli: /nowhere/x.yaml: No such file"), "{complaint}");

    let inject = |more: &[&str]| daemon.complains(&[&["inject", "--port", "hs1"], more].concat(), 2);
    assert_eq!(inject(&["--hex", "abc"]), "llcli: --hex: 3 hexadecimal digits don't make whole bytes\n");
    assert_eq!(inject(&["--hex", "0g"]), "llcli: --hex: `g` at offset 1 is not a hexadecimal digit\n");
    assert_eq!(inject(&["--hex", ""]), "llcli: --hex: no bytes\n");
    assert_eq!(inject(&[]), "llcli: no packets: one of --hex, --pcap and --packets is needed\n");
    assert!(inject(&["--hex", "00", "--at", "soon"]).starts_with("llcli: --at: `soon` is no time"));
    assert!(inject(&["--hex", "00", "--pcap", "x"]).contains("cannot be used with"));
    let nothing = daemon.write("nothing.pcap", "not a capture, and long enough for a header");
    assert_eq!(inject(&["--pcap", &nothing]), "llcli: DIR/nothing.pcap: not a pcap or pcapng file\n");
    assert!(daemon.complains(&["get", "bananas"], 2).contains("invalid value 'bananas'"));
    assert!(daemon.complains(&["attach", "no such port"], 2).contains("is not a port name"));
}

#[test]
fn an_absent_daemon_has_its_own_exit_code() {
    let mut daemon = Daemon::start();
    let served = daemon.served.take().unwrap();
    daemon.runtime.block_on(served.shutdown());
    let complaint = daemon.complains(&["get", "ports"], 3);
    assert!(complaint.starts_with("llcli: no daemon at DIR/run/control.sock"), "{complaint}");
    // These need none.
    for args in [&["schema"][..], &["reasons"], &["version"], &["completions", "bash"]] {
        assert!(!daemon.prints(args).is_empty());
    }
    assert_eq!(json(&daemon.prints(&["schema"]))["title"], "PipelineText");
}

#[test]
fn events_are_followed() {
    let daemon = Daemon::start();
    let mut events = Command::new(env!("CARGO_BIN_EXE_llcli"));
    events.arg("--socket").arg(daemon.folder.path().join("run")).args(["events", "-n", "2", "-o", "json"]);
    let events = events.stdout(Stdio::piped()).spawn().unwrap();
    // The stream says nothing when it begins: changes go on until it has two of them.
    let watcher = std::thread::spawn(move || events.wait_with_output().unwrap());
    while !watcher.is_finished() {
        daemon.prints(&["detach", "hs2"]);
        daemon.prints(&["attach", "hs2"]);
    }
    let output = String::from_utf8(watcher.join().unwrap().stdout).unwrap();
    let kinds: Vec<_> = output.lines().map(|line| json(line)["kind"].clone()).collect();
    assert_eq!(kinds.len(), 2, "{output}");
    assert!(kinds.iter().any(|kind| kind["port_attached"] == "hs2"), "{output}");
}

#[test]
fn state_goes_out_and_in() {
    let daemon = Daemon::start();
    daemon.prints(&["inject", "--port", "hs1", "--hex", ARP, "--commit"]);
    for form in ["json", "yaml"] {
        let state = daemon.prints(&["state", "export", "-o", form]);
        let file = daemon.write("state", &state);
        assert_eq!(daemon.prints(&["state", "import", "-f", &file]), "0 flows offered\n");
        assert_eq!(daemon.prints(&["state", "export", "-o", form]), state);
    }
    let bad = daemon.write("bad-state", "flows: [{}]\n");
    assert!(daemon.complains(&["state", "import", "-f", &bad], 2).starts_with("llcli: DIR/bad-state:1:"));
}

#[test]
fn watching_ends_after_its_rounds() {
    let daemon = Daemon::start();
    let args = ["drops", "--watch", "--interval", "0.05", "--rounds", "3", "-o", "json"];
    assert_eq!(daemon.prints(&args).lines().filter(|line| *line == "[]").count(), 3);
    let flows = ["flows", "--watch", "--interval", "0.05", "--rounds", "2"];
    assert_eq!(daemon.prints(&flows).lines().count(), 2);
}
