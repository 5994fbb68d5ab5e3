//! Namespaces, places, links and settings on the real kernel.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use fixture::{json, privileged, run, unique};
use loxi_linux::netns::{self, NetNs};
use loxi_linux::offload::{self, Offload};
use loxi_linux::place::{MountNs, MountSetup, Place};
use loxi_linux::rtnetlink::{AddrFlags, FilterAt, LinkChange, OperState, Route, Rtnl, VethEnd};
use loxi_linux::{MacAddr, Prefix, nftables, sysctl};

#[test]
fn a_guard_goes_back_also_from_a_panic() {
    if !privileged("a_guard_goes_back_also_from_a_panic") {
        return;
    }
    let home = NetNs::current().unwrap().id().unwrap();
    let here = || NetNs::current().unwrap().id().unwrap();
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let (id_a, id_b) = (a.id().unwrap(), b.id().unwrap());
    assert!(home != id_a && id_a != id_b);
    {
        let _outer = netns::enter(&a).unwrap();
        assert_eq!(here(), id_a);
        {
            let _inner = netns::enter(&b).unwrap();
            assert_eq!(here(), id_b);
        }
        assert_eq!(here(), id_a);
        assert_eq!(b.run(here).unwrap(), id_b);
        assert_eq!(here(), id_a, "run moves its own thread");
    }
    assert_eq!(here(), home);
    let panicked = std::panic::catch_unwind(|| {
        let _guard = netns::enter(&a).unwrap();
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(here(), home);
}

#[test]
fn a_named_namespace_is_that_of_ip_netns() {
    if !privileged("a_named_namespace_is_that_of_ip_netns") {
        return;
    }
    struct Named(String);
    impl Drop for Named {
        fn drop(&mut self) {
            let _ = NetNs::delete(&self.0);
        }
    }
    let named = Named(unique("ns"));
    let ns = NetNs::create(&named.0).unwrap();
    assert!(NetNs::create(&named.0).is_err(), "a name is made once");
    assert_eq!(NetNs::open_name(&named.0).unwrap().id().unwrap(), ns.id().unwrap());
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains(&named.0));
    NetNs::delete(&named.0).unwrap();
    assert!(NetNs::open_name(&named.0).is_err());
    assert!(NetNs::delete(&named.0).is_err());
}

#[test]
fn a_place_has_its_own_network_and_run_folder() {
    if !privileged("a_place_has_its_own_network_and_run_folder") {
        return;
    }
    let ns = NetNs::anonymous().unwrap();
    let mounts = MountNs::create(&[MountSetup::Tmpfs { at: PathBuf::from("/run") }]).unwrap();
    let place = Place { net: Some(&ns), mounts: Some(&mounts) };
    let name = unique("file");
    let file = format!("/run/{name}");
    let script = format!("ls /run | wc -l; echo x > {file}; ip -o link | wc -l");
    let output = place.output(Command::new("sh").args(["-c", &script])).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).split_whitespace().last(), Some("1"));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with('0'), "{output:?}");
    assert!(!std::path::Path::new(&file).exists(), "the caller's /run is another");
    let seen = mounts.run(|| std::path::Path::new(&file).exists()).unwrap();
    assert!(seen, "the next in the same place sees it");
    let missing = place.spawn(&mut Command::new("/no/such/program")).unwrap_err();
    assert!(missing.to_string().contains("/no/such/program"));
}

#[test]
fn what_is_made_is_what_ip_shows() {
    if !privileged("what_is_made_is_what_ip_shows") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let guard = netns::enter(&a).unwrap();
    let mut rtnl = Rtnl::open().unwrap();
    let mac: MacAddr = "02:00:00:00:00:0a".parse().unwrap();
    let near = VethEnd { mac: Some(mac), mtu: Some(1450), ..VethEnd::new("va") };
    rtnl.veth_add(&near, &VethEnd { netns: Some(b.as_fd()), ..VethEnd::new("vb") }).unwrap();
    let again = rtnl.veth_add(&near, &VethEnd::new("vc")).unwrap_err();
    assert!(again.is_existing() && again.to_string().contains("va"), "{again}");
    assert!(rtnl.link("vc").unwrap().is_none());

    let up = LinkChange { up: Some(true), alias: Some("label"), ..LinkChange::default() };
    rtnl.link_set("va", &up).unwrap();
    let link = rtnl.link("va").unwrap().unwrap();
    assert_eq!((link.mac, link.mtu, link.kind.as_deref()), (Some(mac), 1450, Some("veth")));
    assert_eq!((link.alias.as_deref(), link.is_up()), (Some("label"), true));
    assert!(link.peer_netnsid.is_some() && link.peer.is_some());
    b.run(|| Rtnl::open().unwrap().link_set("vb", &up).unwrap()).unwrap();
    // The kernel tells the state by a worker of its own.
    let mut states = (0..300).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        rtnl.link("va").unwrap().unwrap().oper_state
    });
    assert!(states.any(|state| state == OperState::Up));

    let v4: Prefix = "10.1.0.1/24".parse().unwrap();
    let v6: Prefix = "fd01::1/64".parse().unwrap();
    let no_dad = AddrFlags { no_dad: true, ..AddrFlags::default() };
    for addr in [v4, v6] {
        rtnl.addr_add("va", addr, no_dad).unwrap();
        assert!(rtnl.addr_add("va", addr, no_dad).unwrap_err().is_existing());
        assert!(rtnl.addrs().unwrap().iter().any(|a| a.prefix == addr && a.index == link.index));
    }
    let (gw4, gw6) = ("192.0.2.1".parse().unwrap(), "fd02::1".parse().unwrap());
    let far4 = Route { mtu: Some(1400), ..Route::via("10.9.0.0/16".parse().unwrap(), gw4, "va") }
        .with_onlink()
        .with_src(v4.addr);
    let far6 = Route::via("fd09::/48".parse().unwrap(), gw6, "va").with_onlink();
    for route in [&far4, &far6] {
        rtnl.route_add(route).unwrap();
        assert!(rtnl.route_add(route).unwrap_err().is_existing());
        rtnl.route_replace(route).unwrap();
    }
    let listed = rtnl.routes().unwrap();
    assert!(listed.contains(&far4), "{listed:?}");
    assert!(listed.iter().any(|r| r.dst == far6.dst && r.via == far6.via), "{listed:?}");
    rtnl.neigh_add("va", gw4, mac).unwrap();
    assert!(rtnl.neighbors().unwrap().iter().any(|n| n.addr == gw4 && n.mac == Some(mac)));

    let shown = json(&a, "ip", &["-j", "-d", "link", "show", "va"]);
    assert_eq!(shown[0]["address"], "02:00:00:00:00:0a");
    assert_eq!((&shown[0]["mtu"], &shown[0]["ifalias"]), (&1450.into(), &"label".into()));
    let shown = run(&a, "ip", &["-j", "addr", "show", "va"]);
    assert!(shown.contains("10.1.0.1") && shown.contains("fd01::1"), "{shown}");
    let shown = json(&a, "ip", &["-j", "route", "show", "10.9.0.0/16"]);
    assert_eq!((&shown[0]["gateway"], &shown[0]["prefsrc"]), (&"192.0.2.1".into(), &"10.1.0.1".into()));
    assert_eq!(shown[0]["metrics"][0]["mtu"], 1400);
    assert!(run(&a, "ip", &["-6", "route"]).contains("fd09::/48 via fd02::1 dev va"));

    for route in [&far4, &far6] {
        rtnl.route_del(route).unwrap();
        assert!(rtnl.route_del(route).unwrap_err().is_missing());
    }
    rtnl.addr_del("va", v4).unwrap();
    assert!(rtnl.addr_del("va", v4).unwrap_err().is_missing());
    rtnl.bridge_add("br").unwrap();
    let br = rtnl.link_index("br").unwrap();
    rtnl.link_set("va", &LinkChange { master: Some(br), ..LinkChange::default() }).unwrap();
    assert_eq!(rtnl.link("va").unwrap().unwrap().master, Some(br));
    rtnl.link_del("va").unwrap();
    assert!(rtnl.link_del("va").unwrap_err().is_missing());
    assert!(b.run(|| Rtnl::open().unwrap().link("vb").unwrap().is_none()).unwrap());
    drop(guard);
}

#[test]
fn settings_and_offloads_are_those_of_the_namespace() {
    if !privileged("settings_and_offloads_are_those_of_the_namespace") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let key = "net.ipv4.ip_forward";
    a.run(|| sysctl::write(key, "1").unwrap()).unwrap();
    b.run(|| sysctl::write(key, "0").unwrap()).unwrap();
    {
        let _guard = netns::enter(&a).unwrap();
        assert_eq!(sysctl::read(key).unwrap(), "1");
        let _inner = netns::enter(&b).unwrap();
        assert_eq!(sysctl::read(key).unwrap(), "0");
    }
    fixture::veth(&a, "va", &b, "vb");
    let _guard = netns::enter(&a).unwrap();
    for offload in [Offload::TxChecksum, Offload::Tso, Offload::Gso] {
        assert!(offload::get("va", offload).unwrap(), "{offload:?}");
    }
    offload::disable_all("va").unwrap();
    for offload in Offload::ALL {
        assert!(!offload::get("va", offload).unwrap(), "{offload:?}");
    }
    let shown = run(&a, "ethtool", &["-k", "va"]);
    for name in ["tx-checksumming", "tx-tcp-segmentation", "tx-tcp6-segmentation", "generic-receive-offload"]
    {
        assert!(shown.contains(&format!("{name}: off")), "{shown}");
    }
    offload::set("va", Offload::Gro, true).unwrap();
    assert!(offload::get("va", Offload::Gro).unwrap());
    let error = offload::disable_all("nope").unwrap_err();
    assert!(error.to_string().contains("nope"));
}

#[test]
fn rulesets_are_applied_whole_or_not_at_all() {
    if !privileged("rulesets_are_applied_whole_or_not_at_all") {
        return;
    }
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    fixture::veth(&a, "va", &b, "vb");
    let _guard = netns::enter(&a).unwrap();
    let to = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let udp = nftables::Drop::Udp { port: 4789, to };
    let table =
        nftables::ingress_drops("t_in", &[("va", vec![udp]), ("lo", vec![nftables::Drop::All])]).unwrap();
    nftables::apply(&table).unwrap();
    nftables::apply(&table).unwrap();
    let pods = ["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()];
    let cluster = ["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/48".parse().unwrap()];
    let nat = nftables::masquerade("t_nat-1.x", "va", &pods, &cluster).unwrap();
    nftables::apply(&nat).unwrap();
    assert_eq!(nftables::tables().unwrap().len(), 2);
    let json = nftables::list_json().unwrap();
    assert_eq!(json.matches("\"drop\"").count(), 3, "once each: {json}");
    assert_eq!(json.matches("\"masquerade\"").count(), 2, "{json}");

    let bad = format!("{}table inet t_bad {{ nonsense }}\n", "delete table inet t_nat-1.x\n");
    let error = nftables::apply_text(&bad).unwrap_err();
    assert!(matches!(error, nftables::NftError::Refused { .. }), "{error}");
    assert_eq!(nftables::list_json().unwrap(), json, "nothing of it was done");
    for id in nftables::tables().unwrap() {
        nftables::delete(&id).unwrap();
        nftables::delete(&id).unwrap();
    }
    assert!(nftables::tables().unwrap().is_empty());
}

#[test]
fn processes_are_found_by_their_namespace_and_end() {
    if !privileged("processes_are_found_by_their_namespace_and_end") {
        return;
    }
    use loxi_linux::process::{self, Stop};
    let (ours, other) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let start = |ns: &NetNs| {
        let place = Place { net: Some(ns), mounts: None };
        place.spawn(Command::new("sleep").arg("60")).unwrap()
    };
    let (mut child, mut bystander) = (start(&ours), start(&other));
    let found = process::inside(&[&ours]).unwrap();
    assert_eq!(found.iter().map(process::Process::id).collect::<Vec<_>>(), [child.id()]);
    found[0].stop(Stop::Ask).unwrap();
    assert!(!child.wait().unwrap().success());
    found[0].stop(Stop::Force).unwrap();
    assert!(process::inside(&[&ours]).unwrap().is_empty());
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn filters_are_what_tc_made() {
    if !privileged("filters_are_what_tc_made") {
        return;
    }
    let ns = NetNs::anonymous().unwrap();
    // A program that drops everything; by a shell it might be the shell's own tc that is run.
    let tc = |line: &str| {
        let words = line.split(' ').chain(line.ends_with("bytecode").then_some("1,6 0 0 0,"));
        run(&ns, "tc", &words.collect::<Vec<_>>())
    };
    let kinds = || {
        let qdiscs = json(&ns, "tc", &["-j", "qdisc", "show", "dev", "va"]);
        let kind = |qdisc: &serde_json::Value| qdisc["kind"].as_str().unwrap().to_owned();
        qdiscs.as_array().unwrap().iter().map(kind).filter(|kind| kind != "noqueue").collect::<Vec<_>>()
    };
    let _guard = netns::enter(&ns).unwrap();
    let mut rtnl = Rtnl::open().unwrap();
    rtnl.veth_add(&VethEnd::new("va"), &VethEnd::new("vb")).unwrap();
    let device = rtnl.link_index("va").unwrap();
    assert_eq!(rtnl.filters(device, FilterAt::Ingress).unwrap(), []);
    assert_eq!(rtnl.filters(999, FilterAt::Ingress).unwrap(), [], "a device that isn't there has none");
    assert!(rtnl.clsacts().unwrap().is_empty());

    assert!(rtnl.clsact_add(device).unwrap());
    assert!(!rtnl.clsact_add(device).unwrap(), "it is made once");
    assert_eq!((kinds(), rtnl.clsacts().unwrap()), (vec!["clsact".to_owned()], vec![device]));
    assert!(rtnl.clsact_add(999).unwrap_err().is_missing());

    tc("filter add dev va ingress prio 7 handle 0x12345678 protocol ip bpf da bytecode");
    let found = rtnl.filters(device, FilterAt::Ingress).unwrap();
    assert!(
        found.iter().all(|f| (f.priority, f.protocol, f.kind.as_str()) == (7, 0x0800, "bpf")),
        "{found:?}"
    );
    let handles: Vec<u32> = found.iter().map(|f| f.handle).collect();
    assert_eq!(handles, [0, 0x1234_5678], "the priority, and the filter");
    assert_eq!(rtnl.filters(device, FilterAt::Egress).unwrap(), []);

    // Ours are for every protocol, so that one is not meant.
    rtnl.bpf_filter_del(device, FilterAt::Ingress, 7, 0x1234_5678).unwrap_err();
    tc("filter add dev va egress prio 8 handle 1 bpf da bytecode");
    assert!(rtnl.bpf_filter_del(device, FilterAt::Egress, 8, 2).unwrap_err().is_missing());
    rtnl.bpf_filter_del(device, FilterAt::Egress, 8, 1).unwrap();
    assert_eq!(rtnl.filters(device, FilterAt::Egress).unwrap(), []);

    rtnl.clsact_del(device).unwrap();
    assert!(kinds().is_empty() && rtnl.clsacts().unwrap().is_empty());
    rtnl.clsact_del(device).unwrap_err();
    tc("qdisc add dev va ingress");
    assert!(!rtnl.clsact_add(device).unwrap(), "that has filters at ingress too");
    assert_eq!(kinds(), ["ingress"]);
}
