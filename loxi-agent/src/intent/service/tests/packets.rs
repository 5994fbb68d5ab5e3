//! Services as packets meet them, by the reference.

use super::*;
use crate::intent::Attachment;
use crate::intent::fixture::{attachment, fate};
use loxi_core::packet::Fate;
use loxi_core::reason::DropReason;

/// `web` at a node port and a load balancer's address, for clients of 203.0.113.0/24; its endpoints are as told. `hs1` is
/// at 10.244.1.10, `hs2` at 10.244.1.11.
fn reached(policy: model::TrafficPolicy, endpoints: Vec<model::Endpoint>) -> Intent {
    let service = Service {
        kind: ServiceKind::LoadBalancer,
        load_balancer_ips: [address("192.0.2.1")].into(),
        source_ranges: ["203.0.113.0/24".parse().unwrap()].into(),
        ports: vec![port("http", 80, Some(30080))],
        external_traffic_policy: policy,
        ..web_v4()
    };
    let mut intent = told(service, endpoints);
    for number in [1, 2] {
        intent.attach(Attachment { pod: None, ..attachment(number) });
    }
    intent
}

fn from_pod(intent: &mut Intent, to: &str) -> Fate {
    fate(intent, "hs2", &format!("eth 02:00:00:00:01:02>02:00:00:00:00:02 / ipv4 10.244.1.11>{to} S"))
}

fn from_outside(intent: &mut Intent, from: &str, to: &str) -> Fate {
    fate(intent, "eth0", &format!("eth 02:00:00:00:00:99>02:00:00:00:00:01 / ipv4 {from}>{to} S"))
}

#[test]
fn clients_reach_endpoints_or_are_refused() {
    use model::TrafficPolicy::{Cluster, Local};
    let dropped = Fate::Dropped;
    let (here, client) = (|| vec![on("n1", "10.244.1.10")], "203.0.113.1");
    for policy in [Cluster, Local] {
        let intent = &mut reached(policy, here());
        for to in ["10.96.0.1 / tcp 1000>80", "172.18.0.1 / tcp 1000>30080"] {
            assert_eq!(from_pod(intent, to), Fate::Forwarded, "{policy:?} {to}");
        }
        for to in ["172.18.0.1 / tcp 1000>30080", "192.0.2.1 / tcp 1000>80"] {
            assert_eq!(from_outside(intent, client, to), Fate::Forwarded, "{policy:?} {to}");
        }
        // Clients that aren't admitted, and ports that no service has.
        let at_balancer = "192.0.2.1 / tcp 1000>80";
        assert_eq!(from_outside(intent, "198.51.100.9", at_balancer), dropped(DropReason::SourceRange));
        assert_eq!(from_pod(intent, at_balancer), dropped(DropReason::SourceRange));
        assert_eq!(from_pod(intent, "10.96.0.1 / tcp 1000>81"), dropped(DropReason::NoService));
        let other = from_outside(intent, client, "172.18.0.1 / tcp 1000>22");
        assert!(matches!(other, Fate::Punted(_)), "{other:?}");
    }
}

#[test]
fn without_an_endpoint_nobody_is_served_and_without_a_local_one_nobody_from_outside() {
    let to = "172.18.0.1 / tcp 1000>30080";
    let none = &mut reached(LOCAL, Vec::new());
    assert_eq!(from_outside(none, "203.0.113.1", to), Fate::Dropped(DropReason::NoBackend));
    let mut elsewhere = reached(LOCAL, vec![on("n2", "10.244.2.10")]);
    elsewhere.apply(Event::Put(
        model::Node {
            name: Name::of_cluster("n2"),
            internal_ips: vec![address("172.18.0.2")],
            pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
            ..model::Node::default()
        }
        .into(),
    ));
    assert_eq!(from_outside(&mut elsewhere, "203.0.113.1", to), Fate::Dropped(DropReason::NoLocalBackend));
    let inside = from_pod(&mut elsewhere, to);
    assert!(
        !matches!(inside, Fate::Dropped(DropReason::NoLocalBackend | DropReason::NoBackend)),
        "{inside:?}"
    );
}
