//! Pods' interfaces on the real kernel, with addresses of the real `host-local`.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

mod fixture;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use fixture::World;
use loxi_agent::engine::RequestError;
use loxi_agent::pods::PodError;
use loxi_cni_proto::{Failure, code};
use loxi_linux::Prefix;
use loxi_linux::rtnetlink::Route;
use loxi_linux::sys::{LinkConfig, LinkState, Ns, RealSys, Sys};
use serde_json::json;

fn link(ns: &Ns, name: &str) -> Option<LinkState> {
    RealSys.links(ns).unwrap().into_iter().find(|link| link.name == name)
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn default_route(via: &str) -> (Prefix, Option<std::net::IpAddr>) {
    let via = via.parse().unwrap();
    (Prefix::any(via), Some(via))
}

#[tokio::test]
async fn a_pod_gets_what_it_is_told_to_have() {
    let Some(world) = World::real("a_pod_gets_what_it_is_told_to_have") else { return };
    let pod = world.pod("a");
    let (pods, _) = world.start().await;
    let more = json!({ "mtu": 1400, "runtimeConfig": { "mac": "02:00:00:00:00:77" } });
    let call = world.call("a", more);
    let added = pods.add(&call).await.unwrap();
    let eth0 = link(&pod, "eth0").unwrap();
    assert_eq!((eth0.mtu, eth0.up), (1400, true));
    assert_eq!(eth0.mac.unwrap().to_string(), "02:00:00:00:00:77");
    let mut there = RealSys.addrs(&pod, "eth0").unwrap();
    there.retain(|prefix| !prefix.to_string().starts_with("fe80"));
    assert_eq!(there, prefixes(&["10.244.1.10/32", "fd00:10:244:1::a/128"]));
    let routes: Vec<Route> = RealSys.routes(&pod).unwrap();
    let routes: BTreeSet<_> = routes.into_iter().map(|route| (route.dst, route.via)).collect();
    for gateway in ["10.244.1.1", "fd00:10:244:1::1"] {
        assert!(routes.contains(&default_route(gateway)), "{gateway}: {routes:?}");
    }
    let port = link(&world.layout.dataplane(), "hs1").unwrap();
    assert_eq!((port.up, port.alias.as_deref()), (true, Some("loxi:t1:hs1")));
    assert_eq!(port.mac, Some(added.port_mac));
    assert_eq!(world.leases(), ["a 10.244.1.10", "a fd00:10:244:1::a"]);
    assert_eq!(world.node.calls(), ["attached hs1"]);
    let path = world.files_folder().join("a:eth0.json");
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);

    pods.del(&call).await.unwrap();
    pods.del(&call).await.unwrap();
    assert_eq!(link(&pod, "eth0"), None);
    world.assert_empty();
    assert_eq!(world.node.calls(), ["detached hs1"]);
}

#[tokio::test]
async fn an_interface_that_is_there_is_left_alone() {
    let Some(world) = World::real("an_interface_that_is_there_is_left_alone") else { return };
    let pod = world.pod("a");
    RealSys.tap_create(&pod, "eth0").unwrap();
    let before = RealSys.links(&pod).unwrap();
    let (pods, _) = world.start().await;
    let error = pods.add(&world.call("a", json!({}))).await.unwrap_err();
    assert!(matches!(error, PodError::Exists { .. }), "{error}");
    assert_eq!(Failure::from(error).code, code::EXISTS);
    assert_eq!(RealSys.links(&pod).unwrap(), before);
    world.assert_empty();
    // The file of a namespace may outlive it.
    std::fs::write(world.netns_path("gone"), "").unwrap();
    for container in ["nowhere", "gone"] {
        let error = pods.add(&world.call(container, json!({}))).await.unwrap_err();
        assert_eq!(Failure::from(error).code, code::UNKNOWN_CONTAINER, "{container}");
    }
    world.assert_empty();
}

#[tokio::test]
async fn a_refused_port_leaves_nothing() {
    let Some(world) = World::real("a_refused_port_leaves_nothing") else { return };
    let pod = world.pod("a");
    let (pods, _) = world.start().await;
    world.node.fail("attached", RequestError::Refused("refused".into()));
    pods.add(&world.call("a", json!({}))).await.unwrap_err();
    assert_eq!(link(&pod, "eth0"), None);
    world.assert_empty();
}

#[tokio::test]
async fn a_pod_whose_namespace_is_gone_is_taken_away() {
    let Some(world) = World::real("a_pod_whose_namespace_is_gone_is_taken_away") else { return };
    world.pod("a");
    let (pods, _) = world.start().await;
    let mut call = world.call("a", json!({}));
    pods.add(&call).await.unwrap();
    world.end_pod("a");
    call.netns = "".into();
    pods.del(&call).await.unwrap();
    world.assert_empty();
    assert_eq!(world.node.calls(), ["attached hs1", "detached hs1"]);
}

#[tokio::test]
async fn a_check_names_the_difference() {
    let Some(world) = World::real("a_check_names_the_difference") else { return };
    let pod = world.pod("a");
    let (pods, _) = world.start().await;
    let call = world.call("a", json!({}));
    assert_eq!(Failure::from(pods.check(&call).await.unwrap_err()).code, code::UNKNOWN_CONTAINER);
    pods.add(&call).await.unwrap();
    pods.check(&call).await.unwrap();
    let remembered = |address: &str| json!({ "prevResult": { "ips": [{ "address": address }] } });
    let other = world.call("a", remembered("10.244.1.99/24"));
    assert!(pods.check(&other).await.unwrap_err().to_string().contains("10.244.1.10"));

    let differs = async |what: &str| {
        let error = pods.check(&call).await.unwrap_err();
        assert!(matches!(error, PodError::Differs(_)), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let to = LinkConfig { mac: None, mtu: Some(1300), alias: None, up: None };
    RealSys.link_configure(&pod, "eth0", to).unwrap();
    differs("MTU").await;
    RealSys.link_configure(&pod, "eth0", LinkConfig { mtu: Some(1450), ..to }).unwrap();
    let route = Route::via(prefixes(&["0.0.0.0/0"])[0], "10.244.1.1".parse().unwrap(), "eth0");
    RealSys.route_delete(&pod, &route).unwrap();
    differs("route").await;
    RealSys.route_replace(&pod, &route).unwrap();
    pods.check(&call).await.unwrap();
    RealSys.addr_delete(&pod, "eth0", prefixes(&["fd00:10:244:1::a/128"])[0]).unwrap();
    differs("address fd00:10:244:1::a/128").await;
    RealSys.link_delete(&world.layout.dataplane(), "hs1").unwrap();
    differs("hs1").await;
    pods.del(&call).await.unwrap();
    world.assert_empty();
}

#[tokio::test]
async fn a_lost_address_is_noticed() {
    let Some(world) = World::real("a_lost_address_is_noticed") else { return };
    world.pod("a");
    let (pods, _) = world.start().await;
    let call = world.call("a", json!({}));
    pods.add(&call).await.unwrap();
    std::fs::remove_file(world.data_dir().join("loxi/10.244.1.10")).unwrap();
    std::fs::remove_file(world.data_dir().join("loxi/fd00:10:244:1::a")).unwrap();
    let error = pods.check(&call).await.unwrap_err();
    assert!(matches!(error, PodError::Ipam(_)), "{error}");
}

#[tokio::test]
async fn garbage_is_what_nobody_lists() {
    let Some(world) = World::real("garbage_is_what_nobody_lists") else { return };
    for pod in ["a", "b"] {
        world.pod(pod);
    }
    let (pods, _) = world.start().await;
    for pod in ["a", "b"] {
        pods.add(&world.call(pod, json!({}))).await.unwrap();
    }
    // An address that another agent has given, whose files are lost; and one that is in use all the same.
    for (address, container) in [("10.244.1.200", "lost"), ("10.244.1.201", "kept")] {
        let path = world.data_dir().join("loxi").join(address);
        std::fs::write(path, format!("{container}\r\neth0")).unwrap();
    }
    let valid = |names: &[&str]| {
        let list: Vec<_> =
            names.iter().map(|name| json!({ "containerID": name, "ifname": "eth0" })).collect();
        world.call("gc", json!({ "cni.dev/valid-attachments": list })).config
    };
    pods.gc(&valid(&["a", "kept"])).await.unwrap();
    assert_eq!(world.ports(), ["hs1"]);
    assert_eq!(world.leases(), ["a 10.244.1.10", "a fd00:10:244:1::a", "kept 10.244.1.201"]);
    assert_eq!(world.files(), ["a:eth0.json"]);
    // Without a list nothing is garbage.
    pods.gc(&world.call("gc", json!({})).config).await.unwrap_err();
    assert_eq!(world.ports(), ["hs1"]);
    pods.gc(&valid(&[])).await.unwrap();
    world.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_one_each() {
    let Some(world) = World::real("many_at_once_get_one_each") else { return };
    let (pods, _) = world.start().await;
    let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    let mut tasks = Vec::new();
    for name in &names {
        world.pod(name);
        let (pods, call) = (Arc::clone(&pods), world.call(name, json!({})));
        tasks.push(tokio::spawn(async move { pods.add(&call).await }));
    }
    let (mut ports, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for task in tasks {
        let added = task.await.unwrap().unwrap();
        ports.insert(added.attachment.port.to_string());
        addresses.extend(added.attachment.addresses);
    }
    assert_eq!(ports, (1..=20).map(|number| format!("hs{number}")).collect());
    assert_eq!(addresses.len(), 40);
    assert_eq!(world.leases().len(), 40);
    for name in &names {
        pods.del(&world.call(name, json!({}))).await.unwrap();
    }
    world.assert_empty();
}

#[tokio::test]
async fn a_start_takes_away_what_is_half_made() {
    let Some(world) = World::real("a_start_takes_away_what_is_half_made") else { return };
    let pod = world.pod("a");
    world.pod("b");
    let (pods, _) = world.start().await;
    pods.add(&world.call("a", json!({}))).await.unwrap();
    let complete = pods.add(&world.call("b", json!({}))).await.unwrap();
    drop(pods);
    // As if the agent had been killed before it wrote that all is there.
    let path = world.files_folder().join("a:eth0.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    file["entry"]["state"] = json!("Pending");
    std::fs::write(&path, file.to_string()).unwrap();
    let (pods, recovered) = world.start().await;
    assert_eq!(recovered.attachments, [complete.attachment]);
    assert_eq!(link(&pod, "eth0"), None);
    assert_eq!(world.ports(), ["hs2"]);
    assert_eq!(world.files(), ["b:eth0.json"]);
    // The container may have its interface now, by the port that is free again.
    let again = pods.add(&world.call("a", json!({}))).await.unwrap();
    assert_eq!(again.attachment.port.as_str(), "hs1");
}
