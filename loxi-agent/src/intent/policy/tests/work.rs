//! A change costs what it touches.

use super::alone::Alone;
use super::*;

const NAMESPACES: u8 = 20;
const PODS: usize = 10;

/// Many namespaces. In each one pod is here, at `hsN`; its policy admits the pods `app=client` of the namespace, that of
/// the first also those of the namespaces `team=x`.
fn crowd() -> Alone {
    let mut alone = Alone::default();
    for number in 0..NAMESPACES {
        let own = format!("ns-{number}");
        alone.put(namespace(&own, "team=y"));
        for of in 0..PODS {
            let app = if of == 0 { "app=web" } else { "app=client" };
            alone.put(pod(&format!("{own}/pod-{of}"), app, &[&format!("10.244.{number}.{of}")]));
        }
        let mut peers = vec![pods("app=client")];
        if number == 0 {
            peers.push(pods_of("team=x", "app=client"));
        }
        let policy = guard(Some(vec![rule(peers, vec![])]), None);
        alone.put(NetworkPolicy { name: Name::new(&*own, "guard"), ..policy });
        alone.attach(interface(number, &format!("{own}/pod-0")));
    }
    alone.cost();
    alone
}

/// What a change cost: pods held against selectors, policies derived, entities that the dataplane is told.
fn cost(alone: &mut Alone, object: impl Into<Object>) -> (usize, usize, usize) {
    alone.put(object);
    alone.cost()
}

#[test]
fn a_pod_is_looked_at_by_the_sets_that_may_have_it() {
    let mut alone = crowd();
    let one = |labels: &str, ip: &str| pod("ns-7/pod-5", labels, &[ip]);
    // Its namespace's set, and the one that selects namespaces: changed is the first.
    assert_eq!(cost(&mut alone, one("app=client", "10.244.7.99")), (2, 0, 1));
    assert_eq!(cost(&mut alone, one("app=client,more=labels", "10.244.7.99")), (2, 0, 0));
    assert_eq!(cost(&mut alone, one("app=none", "10.244.7.99")), (2, 0, 1));
    assert_eq!(cost(&mut alone, pod("nowhere/pod", "app=client", &["10.244.99.1"])), (1, 0, 0));
}

#[test]
fn a_pod_here_touches_the_policies_that_select_it() {
    let mut alone = crowd();
    // It leaves its policy, which had an isolation, a rule and a set.
    assert_eq!(cost(&mut alone, pod("ns-7/pod-0", "app=other", &["10.244.7.0"])), (2, 1, 3));
    // Another address says nothing about whom policies select.
    assert_eq!(cost(&mut alone, pod("ns-7/pod-0", "app=other", &["10.244.7.98"])), (1, 0, 0));
    assert_eq!(cost(&mut alone, pod("ns-7/pod-0", "app=web", &["10.244.7.98"])), (1 + PODS, 1, 3));
}

#[test]
fn a_namespaces_labels_touch_the_sets_that_select_namespaces() {
    let mut alone = crowd();
    assert_eq!(cost(&mut alone, namespace("ns-7", "team=z")), (0, 0, 0));
    assert_eq!(cost(&mut alone, namespace("ns-7", "team=x")), (PODS, 0, 1));
    assert_eq!(cost(&mut alone, namespace("ns-7", "team=y")), (PODS, 0, 1));
}

#[test]
fn an_interface_touches_the_policies_of_its_pods_namespace() {
    let mut alone = crowd();
    alone.attach(interface(100, "ns-7/pod-1"));
    // The interface of a pod that no policy selects.
    assert_eq!(alone.cost(), (0, 0, 0));
    alone.detach(100);
    assert_eq!(alone.cost(), (0, 0, 0));
    alone.detach(7);
    assert_eq!(alone.cost(), (0, 1, 3));
}

#[test]
fn a_policy_that_selects_nobody_here_needs_no_pods() {
    let mut alone = crowd();
    let policy = guard(Some(vec![rule(vec![pods_of("", "")], vec![])]), None);
    let idle = NetworkPolicy { name: name("ns-3/idle"), pods: selector("app=client"), ..policy };
    assert_eq!(cost(&mut alone, idle), (0, 1, 0));
}
