//! What holds for any sequence of events.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::cluster::model::{Kind, Object};

fn any_service() -> impl Strategy<Value = Service> {
    let port =
        (0..2_u8, 0..2_u8, proptest::option::of(30000..30003_u16)).prop_map(|(name, protocol, node_port)| {
            let protocol = if protocol == 0 { Protocol::Tcp } else { Protocol::Udp };
            ServicePort { name: format!("p{name}"), protocol, port: 80 + u16::from(name), node_port }
        });
    let outside = ["192.0.2.1", "2001:db8::1", "172.18.0.1", "10.96.0.1"];
    let ips = move || btree_set(proptest::sample::select(outside.map(address).to_vec()), 0..3);
    let ranges = ["203.0.113.0/24", "2001:db8::/32"].map(|range| range.parse::<IpPrefix>().unwrap()).to_vec();
    let policy = || prop_oneof![Just(model::TrafficPolicy::Cluster), Just(LOCAL)];
    let kind = prop_oneof![
        Just(ServiceKind::ClusterIp),
        Just(ServiceKind::NodePort),
        Just(ServiceKind::LoadBalancer)
    ];
    let distribution = prop_oneof![
        Just(TrafficDistribution::Any),
        Just(TrafficDistribution::SameZone),
        Just(TrafficDistribution::SameNode)
    ];
    let parts = (
        (0..3_u8, vec(port, 0..3), kind),
        (ips(), ips(), btree_set(proptest::sample::select(ranges), 0..3)),
        (policy(), policy(), distribution),
    );
    parts.prop_map(|((number, ports, kind), (external_ips, load_balancer_ips, source_ranges), policies)| {
        Service {
            name: Name::new("default", format!("s{number}")),
            kind,
            cluster_ips: vec![
                address(&format!("10.96.0.{number}")),
                address(&format!("fd00:10:96::{number}")),
            ],
            external_ips,
            load_balancer_ips,
            source_ranges,
            ports,
            internal_traffic_policy: policies.0,
            external_traffic_policy: policies.1,
            traffic_distribution: policies.2,
            ..Service::default()
        }
    })
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = (any::<bool>(), any::<bool>(), any::<bool>());
    let hints = (btree_set("z[12]", 0..2), btree_set("n[12]", 0..2));
    let endpoint = (0..4_u8, 1..3_u8, any::<bool>(), conditions, hints).prop_map(
        |(number, node, v4, (ready, serving, terminating), (zones, nodes))| {
            let at =
                if v4 { format!("10.244.2.{}", number + 10) } else { format!("fd00:10:244:2::{number}") };
            model::Endpoint { ready, serving, terminating, zones, nodes, ..on(&format!("n{node}"), &at) }
        },
    );
    let port = (0..2_u8, 0..2_u8).prop_map(|(name, protocol)| EndpointPort {
        name: format!("p{name}"),
        protocol: if protocol == 0 { Protocol::Tcp } else { Protocol::Udp },
        port: 8080,
    });
    (0..4_u8, 0..3_u8, vec(port, 0..3), vec(endpoint, 0..5)).prop_map(|(number, of, ports, endpoints)| {
        let name = Name::new("default", format!("slice-{number}"));
        EndpointSlice { name, service: format!("s{of}"), ports, endpoints }
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let named = |kind, name: String| Event::Gone(Reference { kind, name: Name::new("default", name) });
    prop_oneof![
        4 => any_service().prop_map(|service| Event::Put(service.into())),
        6 => any_slice().prop_map(|slice| Event::Put(slice.into())),
        1 => (0..3_u8).prop_map(move |number| named(Kind::Service, format!("s{number}"))),
        2 => (1..4_u8, btree_set(proptest::sample::select(vec!["192.0.2.1", "172.18.0.1", "2001:db8::1"]), 0..2))
            .prop_map(|(number, ips)| {
                let name = Name::of_cluster(format!("n{number}"));
                let internal_ips = ips.into_iter().map(address).collect();
                Event::Put(model::Node { name, internal_ips, ..model::Node::default() }.into())
            }),
        1 => (1..4_u8).prop_map(|number| {
            Event::Gone(Reference { kind: Kind::Node, name: Name::of_cluster(format!("n{number}")) })
        }),
        1 => (0..4_u8).prop_map(move |number| named(Kind::EndpointSlice, format!("slice-{number}"))),
        1 => vec(any_slice(), 0..3).prop_map(|slices| {
            Event::All(Kind::EndpointSlice, slices.into_iter().map(Object::from).collect())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn however_it_came_about_the_same_cluster_makes_the_same_valid_entities(events in vec(any_event(), 0..16)) {
        let mut step_by_step = Intent::new(settings());
        for event in events {
            step_by_step.apply(event);
        }
        let mut at_once = Intent::new(settings());
        let objects: Vec<Object> = step_by_step.cluster().clone().into_objects().collect();
        for kind in Kind::ALL {
            at_once.apply(Event::All(*kind, objects.clone()));
        }
        prop_assert_eq!(entities(&mut step_by_step), entities(&mut at_once));
        valid(&mut at_once);
    }
}
