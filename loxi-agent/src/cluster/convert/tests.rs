//! From manifests, as they are written.

use std::net::IpAddr;

use crate::cluster::model::*;
use crate::source::manifest::parse;

fn one(text: &str) -> Object {
    let mut objects = parse(text).unwrap();
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.remove(0)
}

fn service(spec: &str) -> Option<Service> {
    service_with("", spec)
}

fn service_with(metadata: &str, spec: &str) -> Option<Service> {
    let text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web{metadata}}}, spec: {{{spec}}},
          status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.1}}, {{ip: 192.0.2.2, ipMode: Proxy}}, {{hostname: a}}]}}}}}}"
    );
    match parse(&text).unwrap().pop() {
        Some(Object::Service(service)) => Some(service),
        other => {
            assert_eq!(other, None);
            None
        }
    }
}

fn policy(spec: &str) -> Result<NetworkPolicy, String> {
    let text = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
    );
    match parse(&text).map_err(|error| error.to_string())?.pop() {
        Some(Object::NetworkPolicy(policy)) => Ok(policy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_has_its_addresses_in_order_and_the_older_field_too() {
    let node = |spec: &str| {
        one(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1, labels: {{topology.kubernetes.io/zone: z1}}}}, spec: {{{spec}}},
              status: {{addresses: [{{type: Hostname, address: n1}}, {{type: InternalIP, address: 10.0.0.2}},
                {{type: ExternalIP, address: 192.0.2.9}}, {{type: InternalIP, address: 10.0.0.1}}]}}}}"
        ))
    };
    let Object::Node(found) = node("podCIDRs: [10.244.1.0/24, 'fd00::/64'], podCIDR: 10.244.1.0/24") else {
        panic!()
    };
    assert_eq!(found.internal_ip(true), Some("10.0.0.2".parse().unwrap()));
    assert_eq!(found.internal_ip(false), None);
    assert_eq!((found.pod_cidrs.len(), found.zone.as_deref(), found.external_ips.len()), (2, Some("z1"), 1));
    let Object::Node(found) = node("podCIDR: 10.244.7.0/24") else { panic!() };
    assert_eq!(found.pod_cidrs, ["10.244.7.0/24".parse().unwrap()]);
}

#[test]
fn a_pod_has_the_named_ports_of_all_containers_that_last() {
    let pod = one(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a, uid: u, labels: {x: y}},
          spec: {nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 80}, {containerPort: 81}]}],
            initContainers: [{name: once, ports: [{name: no, containerPort: 1}]},
              {name: sidecar, restartPolicy: Always, ports: [{name: dns, protocol: UDP, containerPort: 53}]}]},
          status: {phase: Running, podIP: 10.244.1.10, podIPs: [{ip: 10.244.1.10}, {ip: 'fd00::a'}]}}",
    );
    let Object::Pod(pod) = pod else { panic!() };
    assert_eq!(pod.name.to_string(), "a/p");
    assert_eq!(pod.ips, ["10.244.1.10".parse::<IpAddr>().unwrap(), "fd00::a".parse().unwrap()]);
    assert_eq!(pod.port("web", Protocol::Tcp), Some(80));
    assert_eq!((pod.port("web", Protocol::Udp), pod.port("dns", Protocol::Udp)), (None, Some(53)));
    assert_eq!(pod.ports.len(), 2);
    assert!(pod.is_on_the_pod_network());
    for (given, network) in
        [("phase: Failed, podIP: 10.0.0.1", false), ("phase: Pending", false), ("podIP: 10.0.0.1", true)]
    {
        let text = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, status: {{{given}}}}}");
        let Object::Pod(pod) = one(&text) else { panic!() };
        assert_eq!(pod.is_on_the_pod_network(), network, "{given}");
    }
}

#[test]
fn services_of_others_and_headless_ones_are_not_kept() {
    let ours = "clusterIPs: [10.96.0.1], ports: [{port: 80}]";
    assert!(service(ours).is_some());
    assert_eq!(service_with(", labels: {service.kubernetes.io/service-proxy-name: other}", ours), None);
    assert_eq!(service_with(", labels: {service.kubernetes.io/headless: ''}", ours), None);
    for spec in
        ["clusterIP: None, ports: [{port: 80}]", "type: ExternalName, externalName: a", "ports: [{port: 80}]"]
    {
        assert_eq!(service(spec), None, "{spec}");
    }
}

#[test]
fn a_service_has_what_its_type_gives_it() {
    let base = "clusterIPs: [10.96.0.1], ports: [{name: web, port: 80, nodePort: 30080}]";
    let of = |kind: &str| {
        service(&format!("{base}, type: {kind}, sessionAffinity: ClientIP, trafficDistribution: PreferClose"))
            .unwrap()
    };
    let cluster_ip = of("ClusterIP");
    assert_eq!((cluster_ip.ports[0].node_port, cluster_ip.load_balancer_ips.len()), (None, 0));
    assert_eq!(cluster_ip.affinity, Some(ClientAffinity { timeout_s: 10_800 }));
    assert_eq!(cluster_ip.traffic_distribution, TrafficDistribution::SameZone);
    assert_eq!(of("NodePort").ports[0].node_port, Some(30080));
    let balanced = of("LoadBalancer");
    assert_eq!(balanced.load_balancer_ips, ["192.0.2.1".parse().unwrap()].into());
}

#[test]
fn endpoints_without_conditions_are_ready_and_names_are_no_addresses() {
    let slice = |kind: &str, endpoints: &str| {
        parse(&format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {kind}, endpoints: [{endpoints}], ports: [{{port: 8080}}, {{name: x}}],
              metadata: {{name: s, labels: {{kubernetes.io/service-name: web}}}}}}"
        ))
    };
    let Some(Object::EndpointSlice(found)) = slice("IPv4", "{addresses: [10.0.0.1, 10.0.0.9]}, {addresses: [10.0.0.2],
        conditions: {ready: false, serving: true, terminating: true}, nodeName: n1, hints: {forZones: [{name: z1}], forNodes: [{name: n1}]}}")
        .unwrap().pop() else { panic!() };
    let of = |endpoint: &Endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating);
    assert_eq!(
        found.endpoints.iter().map(of).collect::<Vec<_>>(),
        [(true, true, false), (false, true, true)]
    );
    assert_eq!((found.service().to_string(), found.ports.len()), ("default/web".into(), 1));
    assert_eq!((found.endpoints[1].zones.len(), found.endpoints[1].nodes.len()), (1, 1));
    assert_eq!(slice("FQDN", "{addresses: [a.example]}").unwrap(), []);
    let error = slice("IPv6", "{addresses: [10.0.0.1]}").unwrap_err().to_string();
    assert!(error.contains("endpoints.addresses: 10.0.0.1 is not IPv6"), "{error}");
}

#[test]
fn the_directions_of_a_policy_follow_its_types_and_rules() {
    for (spec, ingress, egress) in [
        ("podSelector: {}", Some(0), None),
        ("podSelector: {}, egress: [{}]", Some(0), Some(1)),
        ("podSelector: {}, egress: []", Some(0), None),
        ("podSelector: {}, policyTypes: [Egress]", None, Some(0)),
        ("podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}, {}]", Some(2), Some(0)),
        ("podSelector: {}, policyTypes: [Ingress], egress: [{}]", Some(0), None),
    ] {
        let found = policy(spec).unwrap();
        let count = |rules: &Option<Vec<PolicyRule>>| rules.as_ref().map(Vec::len);
        assert_eq!((count(&found.ingress), count(&found.egress)), (ingress, egress), "{spec}");
    }
}

#[test]
fn peers_and_ports_are_what_they_say() {
    let found = policy(
        "podSelector: {matchLabels: {a: b}}, ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}},
            {ipBlock: {cidr: 10.0.0.5/8, except: [10.1.0.0/16]}}],
          ports: [{}, {protocol: UDP, port: 53}, {port: 8000, endPort: 8010}, {port: web}]}]",
    )
    .unwrap();
    let rule = &found.ingress.unwrap()[0];
    let any = Selector::default();
    let block =
        IpBlock { prefix: "10.0.0.0/8".parse().unwrap(), except: ["10.1.0.0/16".parse().unwrap()].into() };
    assert_eq!(
        rule.peers,
        [
            PolicyPeer::Pods { namespaces: None, pods: any.clone() },
            PolicyPeer::Pods { namespaces: Some(any.clone()), pods: any },
            PolicyPeer::Block(block),
        ]
    );
    let port = |protocol, port| PolicyPort { protocol, port };
    let expected = vec![
        port(Protocol::Tcp, None),
        port(Protocol::Udp, Some(PortRef::Range(53, 53))),
        port(Protocol::Tcp, Some(PortRef::Range(8000, 8010))),
        port(Protocol::Tcp, Some(PortRef::Named("web".into()))),
    ];
    assert_eq!(rule.ports, PeerPorts::These(expected));
}

#[test]
fn what_a_policy_can_not_mean_is_refused_by_its_field() {
    for (spec, said) in [
        ("ingress: [{from: [{}]}]", "spec.ingress: a peer has neither"),
        (
            "ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]",
            "spec.ingress: a peer has an ipBlock beside",
        ),
        (
            "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]",
            "spec.egress.ipBlock.except: 11.0.0.0/16 is not",
        ),
        ("egress: [{ports: [{port: 9, endPort: 8}]}]", "spec.egress.ports.endPort: 8 is below 9"),
        ("egress: [{ports: [{port: web, endPort: 8}]}]", "spec.egress.ports.endPort: needs a port"),
        ("egress: [{ports: [{port: 0}]}]", "spec.egress.ports: 0 is not"),
        ("podSelector: {matchExpressions: [{key: a, operator: Gt}]}", "matchExpressions.operator: `Gt`"),
        ("policyTypes: [Both]", "spec.policyTypes: `Both`"),
    ] {
        let error = policy(spec).unwrap_err();
        assert!(error.contains("NetworkPolicy default/p") && error.contains(said), "{error}");
    }
}
