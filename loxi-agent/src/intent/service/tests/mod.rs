mod laws;
mod packets;

use super::*;
use crate::cluster::Event;
use crate::cluster::model::{
    ClientAffinity, EndpointPort, EndpointSlice, Protocol, Reference, TrafficDistribution,
};
use crate::intent::fixture::{entities, settings, valid};
use crate::intent::{Intent, local_endpoints};
use loxi_core::ir::BackendState;

const LOCAL: model::TrafficPolicy = model::TrafficPolicy::Local;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `default/web`: port `http`, TCP 80, to endpoints at 8080, at 10.96.0.1 and fd00:10:96::1.
fn web() -> Service {
    Service {
        name: Name::new("default", "web"),
        cluster_ips: vec![address("10.96.0.1"), address("fd00:10:96::1")],
        ports: vec![port("http", 80, None)],
        ..Service::default()
    }
}

/// `web` at one address of the cluster.
fn web_v4() -> Service {
    Service { cluster_ips: vec![address("10.96.0.1")], ..web() }
}

fn port(name: &str, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: name.into(), protocol: Protocol::Tcp, port, node_port }
}

/// A ready endpoint on a node.
fn on(node: &str, at: &str) -> model::Endpoint {
    model::Endpoint {
        address: address(at),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.into()),
        zones: BTreeSet::new(),
        nodes: BTreeSet::new(),
    }
}

fn draining(node: &str, at: &str) -> model::Endpoint {
    model::Endpoint { ready: false, terminating: true, ..on(node, at) }
}

fn hinted(node: &str, at: &str, zones: &[&str], nodes: &[&str]) -> model::Endpoint {
    let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    model::Endpoint { zones: set(zones), nodes: set(nodes), ..on(node, at) }
}

fn slice(name: &str, of: &str, endpoints: Vec<model::Endpoint>) -> EndpointSlice {
    EndpointSlice {
        name: Name::new("default", name),
        service: of.into(),
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints,
    }
}

fn told(service: Service, endpoints: Vec<model::Endpoint>) -> Intent {
    let mut intent = Intent::new(settings());
    intent.apply(Event::Put(service.into()));
    intent.apply(Event::Put(slice("web-1", "web", endpoints).into()));
    intent
}

fn backends(intent: &mut Intent) -> BTreeMap<BackendName, LbBackend> {
    let backend = |entity: Entity| match entity {
        Entity::Backend(backend) => Some((backend.name.clone(), backend)),
        _ => None,
    };
    entities(intent).into_iter().filter_map(backend).collect()
}

fn services(intent: &mut Intent) -> Vec<LbService> {
    let service = |entity: Entity| match entity {
        Entity::Service(service) => Some(service),
        _ => None,
    };
    entities(intent).into_iter().filter_map(service).collect()
}

/// Every service in a line: key, mode, policy, and the endpoints (`local`, `draining`).
fn lines(intent: &mut Intent) -> Vec<String> {
    let backends = backends(intent);
    let line = |service: LbService| {
        let mut line = format!("{} {:?} {:?}", service.key(), service.mode, service.traffic_policy);
        for backend in service.backends.iter().map(|name| &backends[name]) {
            let local = if backend.locality == Locality::Local { " local" } else { "" };
            let draining = if backend.state == BackendState::Draining { " draining" } else { "" };
            line += &format!(", {}/{}{local}{draining}", backend.address, backend.port);
        }
        line
    };
    services(intent).into_iter().map(line).collect()
}

/// The endpoints of the first service, by address.
fn chosen(service: Service, endpoints: Vec<model::Endpoint>) -> Vec<String> {
    let mut intent = told(service, endpoints);
    let backends = backends(&mut intent);
    services(&mut intent)[0].backends.iter().map(|name| backends[name].address.to_string()).collect()
}

fn vips(intent: &mut Intent) -> Vec<(String, VipMode)> {
    let vip = |entity: Entity| match entity {
        Entity::Vip(vip) => Some((vip.key().to_string(), vip.mode)),
        _ => None,
    };
    entities(intent).into_iter().filter_map(vip).collect()
}

#[test]
fn a_cluster_address_has_the_endpoints_of_its_family() {
    let mut intent = told(web(), vec![on("n1", "10.244.1.10"), on("n2", "fd00:10:244:2::a")]);
    assert_eq!(
        lines(&mut intent),
        [
            "pods 10.96.0.1:80 tcp Nat Cluster, 10.244.1.10/8080 local",
            "pods [fd00:10:96::1]:80 tcp Nat Cluster, fd00:10:244:2::a/8080",
        ]
    );
    let exclusive = VipMode::Exclusive { other: OtherPorts::Reject, echo: true };
    assert_eq!(
        vips(&mut intent),
        [("pods 10.96.0.1".into(), exclusive), ("pods fd00:10:96::1".into(), exclusive)]
    );
    let service = &services(&mut intent)[0];
    assert_eq!(service.origin.0, "Service default/web:http");
    assert_eq!((service.affinity, service.algorithm), (None, LbAlgorithm::Random));
    valid(&mut intent);
}

#[test]
fn a_service_without_endpoints_rejects_and_without_local_ones_drops() {
    let mut intent = Intent::new(settings());
    intent.apply(Event::Put(Service { internal_traffic_policy: LOCAL, ..web_v4() }.into()));
    assert_eq!(lines(&mut intent), ["pods 10.96.0.1:80 tcp Nat Local"]);
    let service = &services(&mut intent)[0];
    assert_eq!(service.on_no_backend, OnNoBackend::Reject);
    assert_eq!(service.on_no_local_backend, OnNoBackend::Drop);
}

#[test]
fn local_policy_of_the_cluster_keeps_all_endpoints_and_ignores_hints() {
    let service = Service {
        internal_traffic_policy: LOCAL,
        traffic_distribution: TrafficDistribution::SameZone,
        ..web_v4()
    };
    let endpoints =
        vec![hinted("n1", "10.244.1.10", &["z2"], &[]), hinted("n2", "10.244.2.10", &["z1"], &[])];
    assert_eq!(chosen(service, endpoints), ["10.244.1.10", "10.244.2.10"]);
}

#[test]
fn affinity_is_passed_on() {
    let service = Service { affinity: Some(ClientAffinity { timeout_s: 10_800 }), ..web_v4() };
    let mut intent = told(service, Vec::new());
    assert_eq!(services(&mut intent)[0].affinity, Some(Affinity { timeout_s: 10_800 }));
}

#[test]
fn node_ports_are_in_both_domains() {
    let service =
        Service { kind: ServiceKind::NodePort, ports: vec![port("http", 80, Some(30080))], ..web_v4() };
    let endpoints = || vec![on("n1", "10.244.1.10"), on("n2", "10.244.2.10")];
    let both = "10.244.1.10/8080 local, 10.244.2.10/8080";
    let cluster = format!("pods 10.96.0.1:80 tcp Nat Cluster, {both}");
    let inside = [
        format!("pods 172.18.0.1:30080 tcp Nat Cluster, {both}"),
        "pods [fd00:172:18::1]:30080 tcp Nat Cluster".into(),
    ];
    let expect = |v4: String, v6: &str| {
        let mut lines = vec![cluster.clone()];
        lines.extend(inside.clone());
        lines.extend([v4, v6.to_owned()]);
        lines
    };
    let mut intent = told(service.clone(), endpoints());
    assert_eq!(
        lines(&mut intent),
        expect(
            format!("underlay 172.18.0.1:30080 tcp FullNat Cluster, {both}"),
            "underlay [fd00:172:18::1]:30080 tcp FullNat Cluster"
        )
    );
    let shared = vips(&mut intent).into_iter().filter(|(_, mode)| *mode == VipMode::Shared);
    assert_eq!(shared.count(), 4);
    valid(&mut intent);
    let mut intent = told(Service { external_traffic_policy: LOCAL, ..service.clone() }, endpoints());
    assert_eq!(
        lines(&mut intent),
        expect(
            format!("underlay 172.18.0.1:30080 tcp Nat Local, {both}"),
            "underlay [fd00:172:18::1]:30080 tcp Nat Local"
        )
    );
    let mut intent = told(Service { kind: ServiceKind::ClusterIp, ..service }, endpoints());
    assert_eq!(lines(&mut intent), [cluster]);
}

#[test]
fn addresses_from_outside_are_in_both_domains_and_silent_otherwise() {
    let service = Service {
        kind: ServiceKind::LoadBalancer,
        load_balancer_ips: [address("192.0.2.1")].into(),
        external_ips: [address("2001:db8::1")].into(),
        cluster_ips: Vec::new(),
        ..web()
    };
    let mut intent = told(service.clone(), vec![on("n2", "10.244.2.10"), on("n2", "fd00:10:244:2::a")]);
    assert_eq!(
        lines(&mut intent),
        [
            "pods 192.0.2.1:80 tcp Nat Cluster, 10.244.2.10/8080",
            "pods [2001:db8::1]:80 tcp Nat Cluster, fd00:10:244:2::a/8080",
            "underlay 192.0.2.1:80 tcp FullNat Cluster, 10.244.2.10/8080",
            "underlay [2001:db8::1]:80 tcp FullNat Cluster, fd00:10:244:2::a/8080",
        ]
    );
    let silent = VipMode::Exclusive { other: OtherPorts::Drop, echo: false };
    assert!(vips(&mut intent).iter().all(|(_, mode)| *mode == silent));
    valid(&mut intent);
    let mut intent = told(Service { kind: ServiceKind::NodePort, ..service }, Vec::new());
    assert_eq!(lines(&mut intent).len(), 2);
}

#[test]
fn source_ranges_hold_for_load_balancers_alone() {
    let ranges = |ranges: &[&str], ip: &str| {
        let service = Service {
            kind: ServiceKind::LoadBalancer,
            load_balancer_ips: [address(ip)].into(),
            external_ips: [address("198.51.100.1")].into(),
            source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ports: vec![port("http", 80, Some(30080))],
            ..web()
        };
        let mut intent = told(service, Vec::new());
        valid(&mut intent);
        let (of, others): (Vec<_>, Vec<_>) =
            services(&mut intent).into_iter().partition(|service| service.vip == address(ip));
        assert!(others.iter().all(|service| service.source_ranges.is_empty()));
        assert_eq!((of.len(), others.len()), (2, 8));
        assert_eq!(of[0].source_ranges, of[1].source_ranges);
        of[0].source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&[], "192.0.2.1"), [""; 0]);
    assert_eq!(ranges(&["203.0.113.0/24", "2001:db8::/32"], "192.0.2.1"), ["203.0.113.0/24"]);
    assert_eq!(ranges(&["203.0.113.0/24", "2001:db8::/32"], "2001:db8:1::1"), ["2001:db8::/32"]);
    // Nobody, which isn't what no ranges would say.
    assert_eq!(ranges(&["2001:db8::/32"], "192.0.2.1"), ["0.0.0.0/32"]);
    assert_eq!(ranges(&["203.0.113.0/24"], "2001:db8:1::1"), ["::/128"]);
}

#[test]
fn a_nodes_address_is_shared_even_as_an_external_one() {
    let external = Service {
        name: Name::new("default", "a"),
        external_ips: [address("172.18.0.1")].into(),
        cluster_ips: Vec::new(),
        ..web()
    };
    let node_port =
        Service { kind: ServiceKind::NodePort, ports: vec![port("http", 80, Some(30080))], ..web_v4() };
    let mut intent = told(node_port, Vec::new());
    intent.apply(Event::Put(external.into()));
    let at_node: Vec<_> =
        vips(&mut intent).into_iter().filter(|(key, _)| key.contains("172.18.0.1")).collect();
    assert_eq!(
        at_node,
        [("pods 172.18.0.1".into(), VipMode::Shared), ("underlay 172.18.0.1".into(), VipMode::Shared)]
    );
    assert!(lines(&mut intent).iter().any(|line| line.starts_with("underlay 172.18.0.1:80 ")));
}

#[test]
fn so_is_another_nodes_as_long_as_it_has_it() {
    let service = Service { external_ips: [address("172.18.0.2")].into(), cluster_ips: Vec::new(), ..web() };
    let node = |ip: &str| model::Node {
        name: Name::of_cluster("n2"),
        internal_ips: vec![address(ip)],
        ..model::Node::default()
    };
    let mut intent = told(service, Vec::new());
    let mut is_shared = |event: Option<Event>| {
        event.into_iter().for_each(|event| intent.apply(event));
        let modes: Vec<_> = vips(&mut intent).into_iter().map(|(_, mode)| mode == VipMode::Shared).collect();
        assert_eq!((modes.len(), modes[0]), (2, modes[1]));
        modes[0]
    };
    assert!(!is_shared(None));
    assert!(is_shared(Some(Event::Put(node("172.18.0.2").into()))));
    assert!(!is_shared(Some(Event::Put(node("172.18.0.3").into()))));
    assert!(is_shared(Some(Event::Put(node("172.18.0.2").into()))));
    assert!(!is_shared(Some(Event::Gone(Object::from(node("172.18.0.2")).reference()))));
}

#[test]
fn an_address_of_two_kinds_is_of_the_first() {
    let service = Service {
        external_ips: [address("10.96.0.1"), address("127.0.0.1"), address("224.0.0.1")].into(),
        ..web_v4()
    };
    let mut intent = told(service, Vec::new());
    let exclusive = VipMode::Exclusive { other: OtherPorts::Reject, echo: true };
    assert_eq!(vips(&mut intent)[0], ("pods 10.96.0.1".into(), exclusive));
    // Addresses that nothing is reached at aren't there.
    assert_eq!(vips(&mut intent).len(), 2);
    valid(&mut intent);
}

#[test]
fn endpoints_are_what_their_conditions_say() {
    let conditions = |ready, serving, terminating| {
        let endpoint = model::Endpoint { ready, serving, terminating, ..on("n2", "10.244.2.10") };
        let mut intent = told(web_v4(), vec![endpoint]);
        backends(&mut intent).into_values().next().map(|backend| backend.state)
    };
    for (ready, serving, terminating, expected) in [
        (true, true, false, Some(BackendState::Active)),
        // publishNotReadyAddresses
        (true, true, true, Some(BackendState::Active)),
        (false, true, true, Some(BackendState::Draining)),
        (false, true, false, None),
        (false, false, true, None),
        (false, false, false, None),
    ] {
        assert_eq!(conditions(ready, serving, terminating), expected, "{ready} {serving} {terminating}");
    }
}

#[test]
fn endpoints_are_found_by_port_name_and_protocol() {
    let service = Service { ports: vec![port("http", 80, None), port("dns", 53, None)], ..web_v4() };
    let mut intent = told(service, vec![on("n2", "10.244.2.10")]);
    let mut other = slice("web-2", "web", vec![on("n2", "10.244.2.11")]);
    let of = |name: &str, protocol, port| EndpointPort { name: name.into(), protocol, port };
    other.ports = vec![of("dns", Protocol::Udp, 53), of("http", Protocol::Tcp, 9090)];
    intent.apply(Event::Put(other.into()));
    assert_eq!(
        lines(&mut intent),
        [
            "pods 10.96.0.1:53 tcp Nat Cluster",
            "pods 10.96.0.1:80 tcp Nat Cluster, 10.244.2.10/8080, 10.244.2.11/9090",
        ]
    );
}

#[test]
fn an_endpoint_in_two_slices_is_one() {
    let mut intent = told(web_v4(), vec![draining("n1", "10.244.1.10")]);
    intent.apply(Event::Put(slice("web-0", "web", vec![on("n1", "10.244.1.10")]).into()));
    intent.apply(Event::Put(slice("web-2", "web", vec![on("n2", "10.244.1.10")]).into()));
    assert_eq!(lines(&mut intent), ["pods 10.96.0.1:80 tcp Nat Cluster, 10.244.1.10/8080 local"]);
}

#[test]
fn hints_count_when_all_have_them_and_one_is_for_us() {
    use TrafficDistribution::{Any, SameNode, SameZone};
    let here = || hinted("n1", "10.244.1.10", &["z1"], &["n1"]);
    let near = || hinted("n2", "10.244.2.10", &["z1"], &["n2"]);
    let far = || hinted("n3", "10.244.3.10", &["z2"], &["n3"]);
    let (h, n, f, d) = ("10.244.1.10", "10.244.2.10", "10.244.3.10", "10.244.3.11");
    let leaving = || draining("n3", d);
    for (distribution, endpoints, expected) in [
        (Any, vec![here(), near(), far()], vec![h, n, f]),
        (SameZone, vec![here(), near(), far()], vec![h, n]),
        (SameZone, vec![far()], vec![f]),
        (SameZone, vec![here(), on("n3", f)], vec![h, f]),
        (SameNode, vec![here(), near(), far()], vec![h]),
        // Nobody is meant for the node: by zone.
        (SameNode, vec![near(), far()], vec![n]),
        (SameNode, vec![far()], vec![f]),
        (SameNode, vec![here(), hinted("n3", f, &["z1"], &[])], vec![h, f]),
        (SameNode, vec![here(), on("n3", f)], vec![h, f]),
        // Only ready endpoints need hints; those that drain stay.
        (SameZone, vec![here(), far(), leaving()], vec![h, d]),
    ] {
        let service = Service { traffic_distribution: distribution, ..web_v4() };
        assert_eq!(chosen(service, endpoints.clone()), expected, "{distribution:?} {endpoints:?}");
    }
}

#[test]
fn hints_reach_clients_from_outside_unless_the_policy_is_local() {
    let service = Service {
        cluster_ips: Vec::new(),
        external_ips: [address("192.0.2.1")].into(),
        traffic_distribution: TrafficDistribution::SameZone,
        ..web()
    };
    let endpoints =
        || vec![hinted("n1", "10.244.1.10", &["z2"], &[]), hinted("n2", "10.244.2.10", &["z1"], &[])];
    let mut intent = told(service.clone(), endpoints());
    assert_eq!(
        lines(&mut intent),
        [
            "pods 192.0.2.1:80 tcp Nat Cluster, 10.244.2.10/8080",
            "underlay 192.0.2.1:80 tcp FullNat Cluster, 10.244.2.10/8080",
        ]
    );
    // An endpoint that no service refers to is not there.
    assert_eq!(backends(&mut intent).len(), 1);
    let mut intent = told(Service { external_traffic_policy: LOCAL, ..service }, endpoints());
    assert_eq!(
        lines(&mut intent),
        [
            "pods 192.0.2.1:80 tcp Nat Cluster, 10.244.2.10/8080",
            "underlay 192.0.2.1:80 tcp Nat Local, 10.244.1.10/8080 local, 10.244.2.10/8080",
        ]
    );
}

#[test]
fn a_backend_is_of_one_port_and_its_name_fits() {
    let long = "fd00:1111:2222:3333:4444:5555:6666:7777";
    let service = Service { ports: vec![port("http", 80, None), port("other", 81, None)], ..web() };
    let mut intent = told(service, Vec::new());
    let mut both = slice("web-1", "web", vec![on("n2", long)]);
    both.ports.push(EndpointPort { name: "other".into(), protocol: Protocol::Tcp, port: 8080 });
    intent.apply(Event::Put(both.into()));
    let backends = backends(&mut intent);
    assert_eq!(backends.len(), 2);
    for name in backends.keys() {
        assert!(name.as_str().ends_with(&format!(":{long}/8080")) && name.as_str().len() <= 63, "{name}");
    }
}

#[test]
fn a_slice_that_moves_is_of_the_other_service() {
    let other =
        Service { name: Name::new("default", "db"), cluster_ips: vec![address("10.96.0.2")], ..web() };
    let mut intent = told(web_v4(), vec![on("n2", "10.244.2.10")]);
    intent.apply(Event::Put(other.into()));
    intent.apply(Event::Put(slice("web-1", "db", vec![on("n2", "10.244.2.10")]).into()));
    assert_eq!(
        lines(&mut intent),
        ["pods 10.96.0.1:80 tcp Nat Cluster", "pods 10.96.0.2:80 tcp Nat Cluster, 10.244.2.10/8080"]
    );
    let gone = |kind, name: &str| Event::Gone(Reference { kind, name: Name::new("default", name) });
    intent.apply(gone(model::Kind::EndpointSlice, "web-1"));
    assert!(backends(&mut intent).is_empty());
    intent.apply(gone(model::Kind::Service, "web"));
    assert_eq!(lines(&mut intent), ["pods 10.96.0.2:80 tcp Nat Cluster"]);
}

#[test]
fn another_services_change_leaves_a_service_alone() {
    let mut intent = told(web_v4(), vec![on("n2", "10.244.2.10")]);
    let _ = intent.ledger().take();
    let other =
        Service { name: Name::new("default", "db"), cluster_ips: vec![address("10.96.0.2")], ..web() };
    intent.apply(Event::Put(other.into()));
    let pending = intent.ledger().take();
    // Its address and its port.
    assert_eq!(intent.ledger().operations(&pending).len(), 2);
}

#[test]
fn the_ready_endpoints_here_are_counted_by_address() {
    let not_ready = model::Endpoint { ready: false, ..on("n1", "10.244.1.12") };
    let mut intent = told(
        web(),
        vec![on("n1", "10.244.1.10"), on("n2", "10.244.2.10"), draining("n1", "10.244.1.11"), not_ready],
    );
    intent.apply(Event::Put(
        slice("web-2", "web", vec![on("n1", "10.244.1.10"), on("n1", "fd00:10:244:1::a")]).into(),
    ));
    let count =
        |name: &str| local_endpoints(intent.cluster(), intent.settings(), &Name::new("default", name));
    assert_eq!((count("web"), count("db")), (2, 0));
}
