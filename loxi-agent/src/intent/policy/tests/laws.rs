//! What holds for any sequence of events and interfaces.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::alone::Alone;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Event(Event),
    Attach(Attachment),
    Detach(u8),
}

fn any_name(of: &'static str, most: u8) -> impl Strategy<Value = Name> {
    (select(vec!["default", "other"]), 0..most)
        .prop_map(move |(namespace, number)| Name::new(namespace, format!("{of}-{number}")))
}

fn any_labels() -> impl Strategy<Value = &'static str> {
    select(vec!["", "app=a", "app=a", "app=b", "app=a,tier=x"])
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let ports = vec((select(vec!["http", "dns"]), select(vec![80, 8080])), 0..2);
    let parts = (any_name("pod", 4), any_labels(), vec(0..4_u8, 0..2), ports);
    (parts, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)).prop_map(
        |((name, of, ips, ports), host_network, finished)| {
            let ips: Vec<String> = ips.iter().map(|ip| format!("10.244.2.{ip}")).collect();
            let ips: Vec<&str> = ips.iter().map(|ip| &**ip).collect();
            let pod = Pod { host_network, finished, ..pod(&name.to_string(), of, &ips) };
            ports.into_iter().fold(pod, |pod, (name, number)| with_port(pod, name, number))
        },
    )
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let peer = prop_oneof![
        3 => any_labels().prop_map(pods),
        3 => (select(vec!["", "team=a", "team=b"]), any_labels()).prop_map(|(of, pods)| pods_of(of, pods)),
        1 => Just(block("10.0.0.0/8", &[])),
        1 => Just(block("10.0.0.0/8", &["10.1.0.0/16"])),
    ];
    let port = select(vec![
        tcp(80),
        tcp(443),
        range(Protocol::Udp, 1, 9),
        all_of(Protocol::Tcp),
        named("http"),
        named("dns"),
    ]);
    (vec(peer, 0..3), vec(port, 0..3)).prop_map(|(peers, ports)| rule(peers, ports))
}

fn any_policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || proptest::option::weighted(0.8, vec(any_rule(), 0..3));
    (any_name("policy", 3), select(vec!["", "app=a", "app=b"]), rules(), rules()).prop_map(
        |(name, pods, ingress, egress)| NetworkPolicy { name, pods: selector(pods), ingress, egress },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let put = |object: Object| Step::Event(Event::Put(object));
    let gone = |kind| move |name| Step::Event(Event::Gone(Reference { kind, name }));
    let namespaces = || select(vec!["default", "other"]);
    prop_oneof![
        5 => any_pod().prop_map(move |pod| put(pod.into())),
        1 => any_name("pod", 4).prop_map(gone(Kind::Pod)),
        5 => any_policy().prop_map(move |policy| put(policy.into())),
        1 => any_name("policy", 3).prop_map(gone(Kind::NetworkPolicy)),
        3 => (namespaces(), select(vec!["", "team=a", "team=b"]))
            .prop_map(move |(name, of)| put(namespace(name, of).into())),
        1 => namespaces().prop_map(Name::of_cluster).prop_map(gone(Kind::Namespace)),
        1 => vec(any_pod(), 4..9).prop_map(|pods| {
            Step::Event(Event::All(Kind::Pod, pods.into_iter().map(Object::from).collect()))
        }),
        4 => (1..5_u8, any_name("pod", 4)).prop_map(|(number, of)| {
            Step::Attach(interface(number, &of.to_string()))
        }),
        1 => (1..5_u8).prop_map(|number| Step::Attach(Attachment { pod: None, ..attachment(number) })),
        1 => (1..5_u8).prop_map(Step::Detach),
    ]
}

/// Both namespaces, and an interface for each of four pods.
fn start() -> Vec<Step> {
    let put = |object: Object| Step::Event(Event::Put(object));
    let mut steps =
        vec![put(namespace("default", "team=a").into()), put(namespace("other", "team=b").into())];
    for (number, of) in (1..).zip(["default/pod-0", "default/pod-1", "other/pod-0", "other/pod-1"]) {
        steps.push(put(pod(of, "app=a", &[&format!("10.244.2.{number}")]).into()));
        steps.push(Step::Attach(interface(number, of)));
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn however_it_came_about_the_same_cluster_makes_the_same_valid_entities(steps in vec(any_step(), 0..40)) {
        let (mut intent, mut alone, mut crowded) = (Intent::new(settings()), Alone::default(), Alone::crowded());
        for step in start().into_iter().chain(steps) {
            match step {
                Step::Event(event) => {
                    intent.apply(event.clone());
                    alone.apply(event.clone());
                    crowded.apply(event);
                }
                Step::Attach(new) => {
                    intent.attach(new.clone());
                    alone.attach(new.clone());
                    crowded.attach(new);
                }
                Step::Detach(number) => {
                    intent.detach(&attachment(number).port);
                    alone.detach(number);
                    crowded.detach(number);
                }
            }
        }
        let objects: Vec<Object> = intent.cluster().clone().into_objects().collect();
        let mut at_once = [Alone::default(), Alone::crowded()];
        for at_once in &mut at_once {
            for kind in Kind::ALL.iter().rev() {
                at_once.apply(Event::All(*kind, objects.clone()));
            }
            for attachment in intent.attachments().iter() {
                at_once.attach(attachment.clone());
            }
        }
        let [plain, close] = at_once;
        prop_assert_eq!(alone.entities(), plain.entities());
        prop_assert_eq!(crowded.entities(), close.entities());
        // No rule has taken another one's place.
        for alone in [&alone, &crowded] {
            let rules = alone.entities().into_keys().filter(|key| matches!(key, ir::EntityKey::PolicyRule(_)));
            prop_assert_eq!(rules.count(), alone.rules());
        }
        let all = valid(&mut intent);
        for (key, entity) in alone.entities() {
            prop_assert_eq!(all.entity(&key).map(|owned| owned.entity), Some(entity));
        }
    }
}
