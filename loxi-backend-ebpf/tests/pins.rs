//! What stays on a bpf file system: taken over, refused, begun anew, or taken away.
#![allow(clippy::unwrap_used)]

mod bpffs;
mod fixture;

use bpffs::{Mounted, dump, ids, tables, update};
use fixture::{AtTc, Lan, Way, json, mac, privileged, run};
use loxi_backend_ebpf::load::LoadError;
use loxi_backend_ebpf::{Devices, Ebpf, Mode, OpenError, Options, Sizes, clock};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, Local};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::text::from_yaml;
use loxi_linux::netns::NetNs;
use loxi_linux::place::Place;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where META has the words that are checked, and what the programs were.
const MAGIC: usize = 0;
const VERSION: usize = 8;
const DIGEST: std::ops::Range<usize> = 16..48;

fn options(pins: &Path) -> Options {
    Options {
        mode: Mode::Tc,
        sizes: Sizes { flows_v4: 1000, flows_v6: 1000 },
        devices: Devices::None,
        pins: Some(pins.to_owned()),
        ..Options::default()
    }
}

fn opened(pins: &Path) -> Local<Ebpf> {
    Local::new(Ebpf::open(options(pins)).unwrap(), clock())
}

/// One that was told something, so that there is something to lose.
fn configured(pins: &Path) -> Local<Ebpf> {
    let local = opened(pins);
    configure(&local);
    local
}

fn configure(local: &Local<Ebpf>) {
    let text = format!(
        "version: 1
zones: [{{name: lb}}]
vrfs: [{{name: lb, zone: lb}}]
ports: [{{name: eth0, kind: uplink, mac: '{}', attachment: {{vrf: lb}}}}]",
        mac(1)
    );
    let entities = from_yaml(&text).unwrap();
    local.apply(&Transaction::replace("lb", Owner::new("lb").unwrap(), entities)).unwrap();
}

fn meta(pins: &Path) -> Vec<u8> {
    dump(&pins.join("META")).remove(0).1
}

fn change_meta(pins: &Path, change: impl FnOnce(&mut [u8])) {
    let mut meta = meta(pins);
    change(&mut meta);
    update(&pins.join("META"), &[0; 4], &meta);
}

/// Opening is refused, and nothing that is kept has changed. Returns why.
fn refused(pins: &Path) -> LoadError {
    let before = (ids(pins), tables(pins));
    let error = match Ebpf::open(options(pins)) {
        Err(OpenError::Load(error)) => error,
        other => panic!("not refused: {other:?}", other = other.map(drop)),
    };
    assert_eq!(ids(pins), before.0, "something was replaced");
    assert!(tables(pins) == before.1, "a table has other contents");
    error
}

/// Those of the tables. Stages and the asked program are the programs' own.
fn of_tables(ids: &BTreeMap<PathBuf, Option<u64>>) -> BTreeMap<PathBuf, u64> {
    let programs = ["stages-tc", "ask-tc"].map(PathBuf::from);
    let tables = ids.iter().filter(|(name, _)| !programs.contains(name));
    tables.filter_map(|(name, id)| Some((name.clone(), (*id)?))).collect()
}

/// Whatever is there now has no number that it had before.
fn nothing_stayed(before: &BTreeMap<PathBuf, u64>, after: &BTreeMap<PathBuf, u64>) {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, id) in after {
        assert_ne!(before[name], *id, "{} has stayed", name.display());
    }
}

#[test]
fn tables_of_another_layout_are_refused() {
    if !privileged("tables_of_another_layout_are_refused") {
        return;
    }
    let mounted = Mounted::new();
    let pins = mounted.pins();
    drop(configured(&pins));
    let good = meta(&pins);
    let version = u64::from_le_bytes(good[VERSION..VERSION + 8].try_into().unwrap());
    assert_eq!(version, u64::from(loxi_ebpf_layout::VERSION));

    change_meta(&pins, |meta| meta[VERSION..VERSION + 8].copy_from_slice(&(version + 1).to_le_bytes()));
    let error = refused(&pins);
    let LoadError::Layout { folder, found, ours } = &error else { panic!("{error}") };
    assert_eq!((folder, *found, *ours), (&pins, version + 1, version));
    let text = error.to_string();
    let named = format!("{}: tables of layout {}, this program knows {version}", pins.display(), version + 1);
    assert!(text.starts_with(&named), "{text}");

    // Not ours at all: no version is believed.
    change_meta(&pins, |meta| meta[MAGIC] ^= 1);
    assert!(matches!(refused(&pins), LoadError::Layout { found: 0, .. }));

    // As it was, it is taken over; in the meantime nothing was lost.
    update(&pins.join("META"), &[0; 4], &good);
    let before = ids(&pins);
    let local = opened(&pins);
    assert_eq!(ids(&pins), before);
    let known = local.with_backend(|ebpf| ebpf.read_back()).unwrap();
    assert!(known.rows().next().is_some(), "what was configured is gone");
}

#[test]
fn a_folder_of_others_is_refused() {
    if !privileged("a_folder_of_others_is_refused") {
        return;
    }
    let mounted = Mounted::new();
    let pins = mounted.pins();
    std::fs::create_dir(&pins).unwrap();
    let theirs = pins.join("theirs");
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["map", "create"]).arg(&theirs);
    bpftool.args("type array key 4 value 8 entries 1 name theirs".split(' '));
    assert!(bpftool.status().unwrap().success());

    let before = ids(&pins);
    let error = Ebpf::open(options(&pins)).map(drop).unwrap_err();
    let OpenError::Load(LoadError::Foreign { name }) = &error else { panic!("{error}") };
    assert_eq!(*name, theirs);
    assert_eq!(ids(&pins), before, "something was made or taken away");

    // A folder is theirs too.
    std::fs::remove_file(&theirs).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    let error = Ebpf::open(options(&pins)).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Load(LoadError::Foreign { .. })), "{error}");
    assert_eq!(ids(&pins), BTreeMap::from([(PathBuf::from("theirs"), None)]));
    std::fs::remove_dir(&theirs).unwrap();
    opened(&pins);
}

#[test]
fn what_a_killed_loader_left_is_begun_anew() {
    if !privileged("what_a_killed_loader_left_is_begun_anew") {
        return;
    }
    let mounted = Mounted::new();
    let pins = mounted.pins();
    drop(opened(&pins));
    let before = of_tables(&ids(&pins));
    for missing in ["META", "NAMES", "PORTS", "ask-tc"] {
        std::fs::remove_file(pins.join(missing)).unwrap();
    }
    std::fs::rename(pins.join("stages-tc"), pins.join("stages-new-tc")).unwrap();
    drop(opened(&pins));
    nothing_stayed(&before, &of_tables(&ids(&pins)));
    assert!(!pins.join("stages-new-tc").exists());
}

#[test]
fn discarding_begins_anew() {
    if !privileged("discarding_begins_anew") {
        return;
    }
    let mounted = Mounted::new();
    let pins = mounted.pins();
    drop(configured(&pins));
    change_meta(&pins, |meta| meta[VERSION] += 1);
    let before = of_tables(&ids(&pins));
    let local = Local::new(Ebpf::open(Options { discard_state: true, ..options(&pins) }).unwrap(), clock());
    nothing_stayed(&before, &of_tables(&ids(&pins)));
    let known = local.with_backend(|ebpf| ebpf.read_back()).unwrap();
    assert_eq!(known.rows().count(), 0);
}

#[test]
fn programs_of_another_build_are_replaced_and_tables_stay() {
    if !privileged("programs_of_another_build_are_replaced_and_tables_stay") {
        return;
    }
    let mounted = Mounted::new();
    let pins = mounted.pins();
    drop(configured(&pins));
    let digest = meta(&pins)[DIGEST].to_vec();
    let before = ids(&pins);

    // Of the same build they are taken over.
    drop(opened(&pins));
    assert_eq!(ids(&pins), before);

    change_meta(&pins, |meta| meta[DIGEST].fill(7));
    let local = opened(&pins);
    let after = ids(&pins);
    assert_eq!(of_tables(&after), of_tables(&before));
    for programs in ["ask-tc", "stages-tc"].map(Path::new) {
        assert_ne!(after[programs], before[programs], "{} has stayed", programs.display());
    }
    assert_eq!(after.len(), before.len(), "something of the load is left");
    assert_eq!(meta(&pins)[DIGEST], digest);
    let known = local.with_backend(|ebpf| ebpf.read_back()).unwrap();
    assert!(known.rows().next().is_some(), "what was configured is gone");
}

/// Frames that the programs have seen at eth0.
fn seen(local: &Local<Ebpf>) -> u64 {
    local.counters().ports.values().map(|port| port.rx_packets).sum()
}

#[test]
fn a_node_goes_on_until_it_is_removed() {
    if !privileged("a_node_goes_on_until_it_is_removed") {
        return;
    }
    for way in Way::all() {
        goes_on_until_removed(*way);
    }
}

fn goes_on_until_removed(way: Way) {
    let mounted = Mounted::new();
    let (pins, lan) = (mounted.pins(), Lan::new(2));
    let host = &lan.hosts[0];
    let eth0 = PortName::new("eth0").unwrap();
    let open = |mode| on_devices(host, &pins, way, mode);
    let first = open(Mode::Both);
    configure(&first);
    first.attach(&eth0).unwrap();
    let (before, bound, counted) = (ids(&pins), AtTc::eth0(host), seen(&first));
    let links = before.keys().filter(|name| name.parent() == Some(Path::new("links"))).count();
    assert_eq!(links, if way == Way::Links { 2 } else { 1 }, "{before:?}");
    assert_eq!((bound.programs.len(), bound.clsact), (1, way == Way::Filters));

    drop(first);
    assert_eq!((ids(&pins), AtTc::eth0(host)), (before.clone(), bound));
    run(&lan.hosts[1], "ping -c 3 -i 0.2 -W 2 192.0.2.1");

    let second = open(Mode::Both);
    assert_eq!(second.with_backend(|ebpf| ebpf.attached()), std::slice::from_ref(&eth0));
    configure(&second);
    assert!(seen(&second) >= counted + 3, "the programs have seen no frames in the meantime");
    second.attach(&eth0).unwrap();
    assert_eq!(ids(&pins), before);
    second.with_backend(Ebpf::remove).unwrap();
    assert!(!pins.exists());
    let links = json(host, "ip -j link show dev eth0");
    assert!(links[0]["xdp"].is_null(), "{links}");
    assert_eq!(AtTc::eth0(host), AtTc::default());
    run(&lan.hosts[1], "ping -c 1 -W 2 192.0.2.1");

    // Nor where nobody has attached after it was taken over.
    let first = open(Mode::Tc);
    configure(&first);
    first.attach(&eth0).unwrap();
    drop(first);
    open(Mode::Tc).with_backend(Ebpf::remove).unwrap();
    assert!(!pins.exists());
    assert_eq!(AtTc::eth0(host), AtTc::default());
}

fn on_devices(host: &NetNs, pins: &Path, way: Way, mode: Mode) -> Local<Ebpf> {
    let options = Options { mode, devices: Devices::Here, filters_at_tc: way.is_forced(), ..options(pins) };
    Local::new(host.run(|| Ebpf::open(options).unwrap()).unwrap(), clock())
}

#[test]
fn no_frame_passes_by_while_a_stub_is_replaced() {
    if !privileged("no_frame_passes_by_while_a_stub_is_replaced") {
        return;
    }
    const FRAMES: u64 = 1500;
    for way in Way::all() {
        let mounted = Mounted::new();
        let (pins, lan) = (mounted.pins(), Lan::new(2));
        let host = &lan.hosts[0];
        let eth0 = PortName::new("eth0").unwrap();
        let first = on_devices(host, &pins, *way, Mode::Tc);
        configure(&first);
        first.attach(&eth0).unwrap();
        let (bound, counted) = (AtTc::eth0(host), seen(&first));
        drop(first);
        let mut ping = Command::new("ping");
        ping.args(["-q", "-c", &FRAMES.to_string(), "-i", "0.002", "-W", "2", "192.0.2.1"]);
        ping.stdout(std::process::Stdio::piped());
        let mut ping = Place { net: Some(&lan.hosts[1]), mounts: None }.spawn(&mut ping).unwrap();
        let mut stubs = vec![bound];
        // A slow machine may not come to so many while frames come.
        while ping.try_wait().unwrap().is_none() || stubs.len() < 4 {
            let next = on_devices(host, &pins, *way, Mode::Tc);
            configure(&next);
            next.attach(&eth0).unwrap();
            stubs.push(AtTc::eth0(host));
        }
        let all = on_devices(host, &pins, *way, Mode::Tc);
        configure(&all);
        assert!(stubs.iter().all(|bound| bound.programs.len() == 1), "{stubs:?}");
        assert!(stubs.windows(2).all(|pair| pair[0] != pair[1]), "{way:?}: not replaced: {stubs:?}");
        assert!(seen(&all) >= counted + FRAMES, "{way:?}: {} of {FRAMES}", seen(&all) - counted);
        all.with_backend(Ebpf::remove).unwrap();
    }
}

#[test]
fn discarding_lets_devices_go() {
    if !privileged("discarding_lets_devices_go") {
        return;
    }
    for way in Way::all() {
        let mounted = Mounted::new();
        let (pins, lan) = (mounted.pins(), Lan::new(2));
        let host = &lan.hosts[0];
        let first = on_devices(host, &pins, *way, Mode::Tc);
        configure(&first);
        first.attach(&PortName::new("eth0").unwrap()).unwrap();
        drop(first);
        assert_eq!(AtTc::eth0(host).programs.len(), 1);
        let options = Options { devices: Devices::Here, discard_state: true, ..options(&pins) };
        let anew = host.run(|| Ebpf::open(options).unwrap()).unwrap();
        assert_eq!(AtTc::eth0(host), AtTc::default(), "{way:?}");
        drop(anew);
    }
}
