//! Interfaces whose pod isn't known.

use super::*;

const ISOLATED: [&str; 2] = ["isolate hs3 egress", "isolate hs3 ingress"];

#[test]
fn an_interface_is_isolated_until_its_pod_and_namespace_are_known() {
    let mut intent = cluster();
    let open = NetworkPolicy {
        name: name("new/open"),
        pods: selector(""),
        ..guard(Some(vec![rule(vec![], vec![])]), None)
    };
    put(&mut intent, open);
    intent.attach(interface(3, "new/pod"));
    assert_eq!(lines(&mut intent), ISOLATED);
    valid(&mut intent);
    // Selected by a policy, which must not open it before the namespace is known.
    put(&mut intent, pod("new/pod", "", &["10.244.1.12"]));
    assert_eq!(lines(&mut intent), ISOLATED);
    put(&mut intent, namespace("new", ""));
    let known = ["hs3 ingress any any any", "isolate hs3 ingress"];
    assert_eq!(lines(&mut intent), known);
    gone(&mut intent, pod("new/pod", "", &[]));
    assert_eq!(lines(&mut intent), ISOLATED);
    put(&mut intent, pod("new/pod", "", &["10.244.1.12"]));
    assert_eq!(lines(&mut intent), known);
    gone(&mut intent, namespace("new", ""));
    assert_eq!(lines(&mut intent), ISOLATED);
    intent.detach(&interface(3, "new/pod").port);
    assert_eq!(lines(&mut intent), [""; 0]);
}

#[test]
fn an_interface_of_nobody_is_not_isolated() {
    let mut intent = cluster();
    put(&mut intent, NetworkPolicy { pods: selector(""), ..guard(Some(Vec::new()), None) });
    intent.attach(Attachment { pod: None, ..attachment(3) });
    assert_eq!(lines(&mut intent), ["isolate hs1,hs2 ingress"]);
    // It becomes one of somebody, and of nobody again.
    intent.attach(interface(3, "default/unheard-of"));
    assert_eq!(lines(&mut intent)[..2], ["isolate hs1,hs2 ingress", ISOLATED[0]]);
    intent.attach(Attachment { pod: None, ..attachment(3) });
    assert_eq!(lines(&mut intent), ["isolate hs1,hs2 ingress"]);
}

#[test]
fn another_pod_of_the_same_name_is_not_the_pod() {
    let of = |uid: Option<&str>| {
        let identity = PodIdentity { name: name("default/far"), uid: uid.map(str::to_owned) };
        Attachment { pod: Some(identity), ..attachment(3) }
    };
    let with = |uid: &str| Pod { uid: uid.into(), ..pod("default/far", "app=far", &[]) };
    for (told, known, isolated) in [
        (Some("1-a"), "1-a", false),
        (Some("1-a"), "2-b", true),
        (None, "2-b", false),
        (Some("1-a"), "", false),
        // A static pod: the kubelet's uid isn't its mirror's.
        (Some("0123456789abcdef"), "2-b", false),
    ] {
        let mut intent = cluster();
        intent.attach(of(told));
        put(&mut intent, with(known));
        assert_eq!(lines(&mut intent).len(), if isolated { 2 } else { 0 }, "{told:?} {known:?}");
    }
}

#[test]
fn a_namespace_called_unknown_isolates_by_itself() {
    let mut intent = cluster();
    put(&mut intent, namespace("unknown", ""));
    put(&mut intent, pod("unknown/pod", "", &[]));
    put(&mut intent, NetworkPolicy { name: name("unknown/hs3"), ..guard(Some(Vec::new()), None) });
    put(&mut intent, pod("unknown/pod", "app=web", &[]));
    intent.attach(interface(4, "unknown/pod"));
    intent.attach(interface(3, "default/unheard-of"));
    assert_eq!(lines(&mut intent), [ISOLATED[0], ISOLATED[1], "isolate hs4 ingress"]);
}
