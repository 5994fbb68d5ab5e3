//! The files of interfaces: what is written is found again, and what can't be read is neither lost nor in the way.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use loxi_agent::intent::{Attachment, HostPort, PodIdentity};
use loxi_agent::ipam::Tenant;
use loxi_agent::pods::{Address, Complete, Entry, Key, State, Store};
use loxi_core::net::{MacAddr, Mtu, PortName};
use proptest::prelude::*;

fn key(container: &str) -> Key {
    Key::new(container, "eth0").unwrap()
}

fn tenant(key: &Key) -> Tenant {
    Tenant {
        network: "loxi".into(),
        data_dir: "/data".into(),
        container: key.container().into(),
        ifname: key.ifname().into(),
    }
}

/// What the second state of an interface is: complete, with a bit of everything.
fn complete(key: &Key, entry: Entry) -> Entry {
    let attachment = Attachment {
        container: key.container().into(),
        ifname: key.ifname().into(),
        pod: Some(PodIdentity { name: loxi_agent::cluster::model::Name::new("ns", "a"), uid: None }),
        port: entry.port.clone(),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        addresses: vec!["10.244.1.10".parse().unwrap(), "fd00::a".parse().unwrap()],
        mtu: Mtu::new(1450).unwrap(),
        host_ports: vec![HostPort {
            address: None,
            protocol: loxi_agent::cluster::model::Protocol::Udp,
            host_port: 53,
            container_port: 5353,
        }],
    };
    let gateway = "10.244.1.1".parse().unwrap();
    let addresses = vec![Address { address: attachment.addresses[0], len: 24, gateway }];
    Entry { state: State::Complete(Box::new(Complete { attachment, addresses })), ..entry }
}

fn no_links() -> BTreeSet<String> {
    BTreeSet::new()
}

#[test]
fn ports_are_the_lowest_that_are_free() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path().join("x/y")).unwrap();
    let links = BTreeSet::from(["hs2".to_owned()]);
    let reserve =
        |name: &str| store.reserve(&key(name), tenant(&key(name)), &links).unwrap().port.to_string();
    assert_eq!([reserve("a"), reserve("b"), reserve("c")], ["hs1", "hs3", "hs4"]);
    store.remove(&key("b")).unwrap();
    assert_eq!(reserve("d"), "hs3");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("x/y")), 0o700);
    assert_eq!(mode(&folder.path().join("x/y/a:eth0.json")), 0o600);
}

#[test]
fn what_can_t_be_read_is_set_aside_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path().into()).unwrap();
    for name in ["a", "b", "c"] {
        store.reserve(&key(name), tenant(&key(name)), &no_links()).unwrap();
    }
    let path = |name: &str| folder.path().join(name);
    let text = std::fs::read_to_string(path("b:eth0.json")).unwrap();
    std::fs::write(path("a:eth0.json"), &text[..text.len() / 2]).unwrap();
    std::fs::write(path("c:eth0.json"), text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    std::fs::write(path("d:eth0.json"), &text).unwrap();
    std::fs::write(path("e:eth0.json.new"), &text).unwrap();
    std::fs::write(path("notes"), "x").unwrap();

    let (store, broken) = Store::open(folder.path().into()).unwrap();
    assert_eq!(store.keys(), [key("b")]);
    let names: Vec<_> = broken.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a:eth0.json.broken", "c:eth0.json.broken", "d:eth0.json.broken"]);
    assert!(broken[1].reason.contains("version 2"), "{}", broken[1].reason);
    assert!(broken[2].reason.contains("b:eth0"), "{}", broken[2].reason);
    assert!(broken.iter().all(|file| file.path.exists()));
    assert!(path("notes").exists() && !path("e:eth0.json.new").exists());
    // Said once: the next start isn't told of them again.
    assert_eq!(Store::open(folder.path().into()).unwrap().1, []);
}

#[test]
fn names_that_could_leave_the_folder_are_no_keys() {
    for (container, ifname) in
        [("../a", "eth0"), ("a/b", "eth0"), ("", "eth0"), ("a", ""), ("a", ".."), ("a", "b/c"), ("a", "b:c")]
    {
        assert!(Key::new(container, ifname).is_err(), "{container} {ifname}");
    }
    assert!(Key::new(&"a".repeat(201), "eth0").is_err());
    assert!(serde_json::from_str::<Key>(r#"{"container":"../a","ifname":"eth0"}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any changes, the next start finds what this one knows; and no two interfaces have a port.
    #[test]
    fn a_start_finds_what_was_known(steps in prop::collection::vec((0..4u8, 0..3u8), 0..20)) {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path().into()).unwrap();
        for (name, step) in steps {
            let key = key(&format!("c{name}"));
            match (step, store.get(&key)) {
                (0, None) => drop(store.reserve(&key, tenant(&key), &no_links()).unwrap()),
                (1, Some(entry)) => store.put(&key, complete(&key, entry)).unwrap(),
                (2, _) => store.remove(&key).unwrap(),
                _ => {}
            }
        }
        let all = |store: &Store| -> BTreeMap<Key, Entry> {
            store.keys().into_iter().map(|key| (key.clone(), store.get(&key).unwrap())).collect()
        };
        let known = all(&store);
        let ports: BTreeSet<PortName> = known.values().map(|entry| entry.port.clone()).collect();
        prop_assert_eq!(ports.len(), known.len());
        let (again, broken) = Store::open(folder.path().into()).unwrap();
        prop_assert_eq!(broken, []);
        prop_assert_eq!(all(&again), known);
    }
}
