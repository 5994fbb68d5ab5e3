use super::*;
use crate::nftables::LocalPort;
use crate::sys::FakeSys;

fn spec() -> LayoutSpec {
    let ip = |text: &str| text.parse().unwrap();
    let net = |text: &str| text.parse().unwrap();
    let instance = Instance { name: "n1".into(), run: "/t/run".into(), root: Ns::at("/t/root") };
    LayoutSpec {
        underlay: vec![ip("172.18.0.1")],
        switch: vec![ip("10.244.1.1"), ip("fd00:10:244:1::1")],
        host: vec![ip("10.244.1.2"), ip("fd00:10:244:1::2")],
        pod_cidrs: vec![net("10.244.1.0/24"), net("fd00:10:244:1::/64")],
        cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/48")],
        service_cidrs: vec![net("10.96.0.0/16"), net("fd00:10:96::/112")],
        masquerade: true,
        ..LayoutSpec::new(instance, "eth0")
    }
}

fn pod() -> PodSpec {
    PodSpec {
        port: "hs1".into(),
        netns: Ns::at("/t/pod"),
        ifname: "eth0".into(),
        addresses: vec!["10.244.1.10/32".parse().unwrap(), "fd00:10:244:1::a/64".parse().unwrap()],
        gateways: vec!["10.244.1.1".parse().unwrap(), "fd00:10:244:1::1".parse().unwrap()],
        mac: mac_for("n1", "pod1"),
        local_ports: Vec::new(),
    }
}

fn node() -> FakeSys {
    let sys = FakeSys::with_node(&Ns::at("/t/root"), "eth0");
    sys.add_ns(&Ns::at("/t/pod"));
    // A node has settings of its own, which have to come back.
    sys.change(|state| {
        let root = state.namespaces.get_mut(&Ns::at("/t/root")).unwrap();
        root.sysctls.insert("net.ipv4.icmp_ratelimit".into(), "1000".into());
        root.sysctls.insert("net.ipv6.conf.eth0.accept_ra".into(), "1".into());
    });
    sys
}

/// The pod's loopback is up, as a runtime leaves it: a connection does not take it down again.
fn pod_is_up(sys: &FakeSys) {
    sys.change(|state| {
        let pod = state.namespaces.get_mut(&Ns::at("/t/pod")).unwrap();
        pod.links.get_mut("lo").unwrap().up = true;
    });
}

fn make(sys: &FakeSys) -> Result<Layout, LayoutError> {
    let layout = Layout::ensure(sys, &spec())?;
    layout.add_pod(sys, &pod())?;
    Ok(layout)
}

#[test]
fn offloads_are_as_the_dataplane_wants_them() {
    for (offloads, off, merges) in
        [(Offloads::On, false, false), (Offloads::Off, true, false), (Offloads::Merge, true, true)]
    {
        let sys = node();
        let spec = LayoutSpec { offloads, ..spec() };
        Layout::ensure(&sys, &spec).unwrap().add_pod(&sys, &pod()).unwrap();
        let state = sys.state();
        for (ns, name) in [("/t/root", HOST), ("/t/pod", "eth0")] {
            let link = &state.namespaces[&Ns::at(ns)].links[name];
            assert_eq!((link.offloads_off, link.merges), (off, merges), "{offloads:?} {name}");
        }
    }
}

#[test]
fn everything_is_there_then_nothing() {
    let sys = node();
    pod_is_up(&sys);
    let before = sys.state();
    let layout = make(&sys).unwrap();
    let state = sys.state();
    let inside = &state.namespaces[&layout.netns()];
    let names: Vec<_> = inside.links.keys().map(String::as_str).collect();
    assert_eq!(names, ["hs1", "hsvlan110", "hsvxlan100", "lo", "loxi_host", "tun0"]);
    let switch = &inside.links[SWITCH];
    assert_eq!(switch.addrs.len(), 2);
    assert!(switch.addrs.iter().all(|a| a.len == 32 || a.len == 128));
    assert!(inside.links[VTEP].addrs.is_empty());
    assert!(inside.routes.is_empty(), "no routes for pods: {:?}", inside.routes);
    for port in [HOST, "hs1"] {
        let link = &inside.links[port];
        assert!(link.up && link.offloads_off && link.addrs.is_empty(), "{port}: {link:?}");
        assert_eq!(inside.sysctls[&format!("net.ipv6.conf.{port}.disable_ipv6")], "1");
    }
    let root = &state.namespaces[&Ns::at("/t/root")];
    assert_eq!(root.routes.len(), 6, "{:?}", root.routes);
    assert!(root.links[HOST].up);
    assert_eq!(root.tables.len(), 2);
    let eth0 = &state.namespaces[&Ns::at("/t/pod")].links["eth0"];
    assert_eq!((eth0.mtu, eth0.addrs.len(), eth0.mac), (1450, 2, pod().mac));
    assert_eq!(state.namespaces[&Ns::at("/t/pod")].routes.len(), 3);

    layout.remove_pod(&sys, "hs1").unwrap();
    layout.remove_pod(&sys, "hs1").unwrap();
    layout.remove(&sys).unwrap();
    assert_eq!(sys.state(), before);
}

#[test]
fn a_second_time_changes_nothing() {
    let sys = node();
    make(&sys).unwrap();
    let (state, calls) = (sys.state(), sys.calls().len());
    make(&sys).unwrap();
    assert_eq!(sys.state(), state);
    let again = sys.calls()[calls..].to_vec();
    let changes = ["_create", "_write", "_delete", "link_configure", "addr_add", "route_replace"];
    for call in again {
        assert!(!changes.iter().any(|change| call.contains(change)), "{call}");
    }
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let sys = node();
    Layout::ensure(&sys, &spec()).unwrap();
    let steps = sys.calls().len();
    assert!(steps > 60, "{steps} steps are too few for a layout");
    for n in 0..steps {
        let sys = node();
        let before = sys.state();
        sys.fail_at(n);
        let result = Layout::ensure(&sys, &spec());
        if let Err(error) = result {
            assert!(error.to_string().contains("told to fail"), "step {n}: {error}");
            assert_eq!(sys.state(), before, "step {n}: {}", sys.calls()[n]);
        } else {
            // Only a look at an optional setting may fail unseen.
            assert!(sys.calls()[n].contains("accept_ra"), "step {n}: {}", sys.calls()[n]);
        }
    }
}

#[test]
fn a_failure_with_a_pod_leaves_the_node() {
    let sys = node();
    let layout = Layout::ensure(&sys, &spec()).unwrap();
    pod_is_up(&sys);
    let before = sys.calls().len();
    layout.add_pod(&sys, &pod()).unwrap();
    let steps = sys.calls().len() - before;
    assert!(steps > 20);
    for n in 0..steps {
        let sys = node();
        let layout = Layout::ensure(&sys, &spec()).unwrap();
        pod_is_up(&sys);
        let before = sys.state();
        sys.fail_at(n);
        layout.add_pod(&sys, &pod()).unwrap_err();
        assert_eq!(sys.state(), before, "step {n}: {}", sys.calls()[n]);
    }
}

#[test]
fn a_failure_of_a_second_time_leaves_the_first() {
    let sys = node();
    make(&sys).unwrap();
    let made = sys.calls().len();
    make(&sys).unwrap();
    let steps = sys.calls().len() - made;
    for n in 0..steps {
        let sys = node();
        make(&sys).unwrap();
        let before = sys.state();
        sys.fail_at(n);
        let _ = make(&sys);
        assert_eq!(sys.state(), before, "step {n}");
    }
}

#[test]
fn what_is_not_ours_stays() {
    let sys = node();
    sys.change(|state| {
        let root = state.namespaces.get_mut(&Ns::at("/t/root")).unwrap();
        root.links.insert(HOST.into(), crate::sys::FakeLink::default());
    });
    let before = sys.state();
    let error = Layout::ensure(&sys, &spec()).unwrap_err();
    assert!(matches!(error, LayoutError::Foreign { .. }), "{error}");
    assert_eq!(sys.state(), before);
    cleanup(&sys, &spec().instance).unwrap();
    assert_eq!(sys.state(), before);
}

#[test]
fn what_an_interrupted_call_has_left_is_taken_up() {
    let sys = node();
    Layout::ensure(&sys, &spec()).unwrap();
    let whole = sys.state();
    sys.change(|state| {
        let root = state.namespaces.get_mut(&Ns::at("/t/root")).unwrap();
        root.links.get_mut(HOST).unwrap().alias = None;
        let inside = state.namespaces.get_mut(&spec().dataplane()).unwrap();
        for link in inside.links.values_mut() {
            link.alias = None;
        }
    });
    Layout::ensure(&sys, &spec()).unwrap();
    assert_eq!(sys.state(), whole);
}

#[test]
fn instances_do_not_touch_each_other() {
    let sys = node();
    Layout::ensure(&sys, &spec()).unwrap();
    let before = sys.state();
    for name in ["n", "n1-a", "n12"] {
        cleanup(&sys, &Instance { name: name.into(), ..spec().instance }).unwrap();
        assert_eq!(sys.state(), before, "{name}");
    }
    let bad = Instance { name: "n1_a".into(), ..spec().instance };
    assert!(matches!(cleanup(&sys, &bad), Err(LayoutError::Spec { .. })));
}

#[test]
fn nonsense_is_refused_before_anything_is_touched() {
    let sys = node();
    let one_family = LayoutSpec { host: vec!["10.244.1.2".parse().unwrap()], ..spec() };
    let tiny = LayoutSpec { mtu: 1000, ..spec() };
    let away = LayoutSpec { netns: "../x".into(), ..spec() };
    for bad in [one_family, tiny, away] {
        assert!(matches!(Layout::ensure(&sys, &bad), Err(LayoutError::Spec { .. })));
    }
    let none = LayoutSpec { uplink: "eth9".into(), ..spec() };
    assert!(matches!(Layout::ensure(&sys, &none), Err(LayoutError::NoUplink { .. })));
    let layout = Layout::ensure(&sys, &spec()).unwrap();
    let bad = PodSpec { port: "eth0".into(), ..pod() };
    assert!(matches!(layout.add_pod(&sys, &bad), Err(LayoutError::Spec { .. })));
}

#[test]
fn ethernet_addresses_are_local_stable_and_differ() {
    let a = mac_for("n1", "hs1");
    assert_eq!(a, mac_for("n1", "hs1"));
    assert_eq!(a.0[0] & 3, 2, "locally administered, unicast");
    let all: std::collections::BTreeSet<_> =
        (0..20).flat_map(|n| (0..50).map(move |p| mac_for(&n.to_string(), &p.to_string()))).collect();
    assert_eq!(all.len(), 1000);
}

#[test]
fn ports_of_the_node_lead_to_a_pod_as_long_as_it_is_there() {
    let sys = node();
    let layout = Layout::ensure(&sys, &spec()).unwrap();
    let port = LocalPort {
        address: None,
        protocol: "tcp",
        port: 80,
        target: ("10.244.1.10".parse().unwrap(), 8080),
    };
    let before = sys.state().namespaces[&Ns::at("/t/root")].tables.clone();
    layout.add_pod(&sys, &PodSpec { local_ports: vec![port], ..pod() }).unwrap();
    let tables = sys.state().namespaces[&Ns::at("/t/root")].tables.clone();
    let new: Vec<&String> =
        tables.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, text)| text).collect();
    assert!(new.len() == 1 && new[0].contains("dnat ip to 10.244.1.10:8080"), "{new:?}");
    layout.remove_pod(&sys, &pod().port).unwrap();
    assert_eq!(sys.state().namespaces[&Ns::at("/t/root")].tables, before);
}
