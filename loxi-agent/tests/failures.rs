//! Whatever fails while an interface is made, nothing is left over. The system is a model, so that each of its calls can fail.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

mod fixture;

use std::sync::Arc;

use fixture::World;
use loxi_agent::engine::RequestError;
use loxi_agent::pods::PodError;
use loxi_cni_proto::{Failure, code};
use serde_json::json;

#[tokio::test]
async fn an_interface_comes_and_goes() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    let added = pods.add(&call).await.unwrap();
    assert_eq!(added.attachment.port.as_str(), "hs1");
    assert_eq!(added.attachment.pod.unwrap().name.to_string(), "ns/pod");
    assert_eq!(world.files(), ["pod:eth0.json"]);
    assert_ne!(sys.state(), before);
    pods.del(&call).await.unwrap();
    assert_eq!(sys.state(), before);
    world.assert_empty();
    assert_eq!(world.node.calls(), ["attached hs1", "detached hs1"]);
}

#[tokio::test]
async fn every_call_of_the_system_may_fail() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    let mut failed = 0;
    loop {
        sys.fail_at(failed);
        match pods.add(&call).await {
            Ok(_) => break,
            Err(error) => assert!(error.to_string().contains("told to fail"), "{failed}: {error}"),
        }
        assert_eq!(sys.state(), before, "call {failed}");
        world.assert_empty();
        failed += 1;
    }
    assert!(failed > 20, "only {failed} calls");
}

#[tokio::test]
async fn the_dataplane_may_fail() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    for (error, number) in [
        (RequestError::NotYet("no daemon".into()), code::TRY_AGAIN),
        (RequestError::Refused("refused".into()), code::GENERIC),
    ] {
        world.node.fail("attached", error);
        let error = Failure::from(pods.add(&call).await.unwrap_err());
        assert_eq!(error.code, number, "{error:?}");
        assert_eq!(sys.state(), before);
        world.assert_empty();
        assert_eq!(world.node.calls(), ["attached hs1", "detached hs1"]);
    }
}

#[tokio::test]
async fn the_plugin_may_fail() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let error = pods.add(&world.call("full", json!({}))).await.unwrap_err();
    assert!(error.to_string().contains("none left"), "{error}");
    assert_eq!(Failure::from(error).code, code::IPAM);
    assert_eq!(sys.state(), before);
    world.assert_empty();
}

#[tokio::test]
async fn an_address_is_not_free_while_the_dataplane_has_the_port() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    pods.add(&call).await.unwrap();
    world.node.fail("detached", RequestError::NotYet("no daemon".into()));
    let error = Failure::from(pods.del(&call).await.unwrap_err());
    assert_eq!(error.code, code::TRY_AGAIN);
    assert_eq!(world.leases(), ["pod 10.244.1.10"]);
    assert_eq!(world.ports(), ["hs1"]);
    // Half gone: it isn't said to be there after a start, and the next call ends what was begun.
    let (pods, recovered) = world.start().await;
    assert_eq!(recovered.attachments, []);
    assert_eq!(recovered.left.len(), 1);
    world.node.mend();
    pods.del(&call).await.unwrap();
    assert_eq!(sys.state(), before);
    world.assert_empty();
}

#[tokio::test]
async fn what_was_interrupted_is_undone_at_the_start() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    pods.add(&call).await.unwrap();
    // As if the agent had ended before it wrote that all is there.
    let path = world.files_folder().join("pod:eth0.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    file["entry"]["state"] = json!("Pending");
    std::fs::write(&path, file.to_string()).unwrap();
    drop(pods);
    world.node.calls();
    let (_, recovered) = world.start().await;
    assert_eq!((recovered.attachments.len(), recovered.left.len()), (0, 0));
    assert_eq!(world.node.calls(), ["detached hs1"]);
    assert_eq!(sys.state(), before);
    world.assert_empty();
}

#[tokio::test]
async fn complete_interfaces_are_said_at_the_start() {
    let (world, _) = World::fake();
    let (pods, _) = world.start().await;
    let added = pods.add(&world.call("pod", json!({}))).await.unwrap();
    let (_, recovered) = world.start().await;
    assert_eq!(recovered.attachments, [added.attachment]);
}

#[tokio::test]
async fn a_container_has_an_interface_once() {
    let (world, sys) = World::fake();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    pods.add(&call).await.unwrap();
    let before = sys.state();
    let error = pods.add(&call).await.unwrap_err();
    assert!(matches!(error, PodError::Exists { .. }), "{error}");
    assert_eq!(sys.state(), before);
    assert_eq!(world.leases(), ["pod 10.244.1.10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_container_is_served_one_call_at_a_time() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = Arc::new(world.call("pod", json!({})));
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let (pods, call) = (Arc::clone(&pods), Arc::clone(&call));
            tokio::spawn(async move {
                match number % 3 {
                    0 => pods.del(&call).await.map(|()| false),
                    _ => pods.add(&call).await.map(|_| true),
                }
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(added) => made += usize::from(added),
            Err(error) => assert!(matches!(error, PodError::Exists { .. }), "{error}"),
        }
    }
    assert!(made >= 1);
    let calls = world.node.calls();
    for (number, call) in calls.iter().enumerate() {
        assert_eq!(call, ["attached hs1", "detached hs1"][number % 2], "{calls:?}");
    }
    pods.del(&call).await.unwrap();
    assert_eq!(sys.state(), before);
    world.assert_empty();
}

#[tokio::test]
async fn a_node_that_started_anew_has_nothing_to_take_away() {
    let (world, sys) = World::fake();
    let (pods, _) = world.start().await;
    let call = world.call("pod", json!({}));
    pods.add(&call).await.unwrap();
    // Its namespaces are gone, its files are not.
    sys.change(|state| state.namespaces.clear());
    pods.del(&call).await.unwrap();
    assert_eq!((world.files(), world.leases()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn without_a_network_nothing_is_made() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    pods.status().unwrap();
    *world.node.unready.lock().unwrap() = Some("no daemon".into());
    assert_eq!(Failure::from(pods.status().unwrap_err()), Failure::new(code::NOT_AVAILABLE, "no daemon"));
    *world.node.network.lock().unwrap() = None;
    let call = world.call("pod", json!({}));
    assert_eq!(Failure::from(pods.add(&call).await.unwrap_err()).code, code::TRY_AGAIN);
    assert_eq!(Failure::from(pods.status().unwrap_err()).code, code::NOT_AVAILABLE);
    // A container that never had an interface may be taken away all the same.
    pods.del(&call).await.unwrap();
    assert_eq!(sys.state(), before);
    world.assert_empty();
}

#[tokio::test]
async fn a_larger_mtu_than_the_network_s_is_refused() {
    let (world, _) = World::fake();
    let (pods, _) = world.start().await;
    let error = pods.add(&world.call("pod", json!({ "mtu": 9000 }))).await.unwrap_err();
    assert_eq!(Failure::from(error).code, code::CONFIG);
    world.assert_empty();
    let added = pods.add(&world.call("pod", json!({ "mtu": 1400 }))).await.unwrap();
    assert_eq!(added.attachment.mtu.get(), 1400);
}

#[tokio::test]
async fn a_wanted_address_is_given_or_refused() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let ips = |ip: &str| json!({ "runtimeConfig": { "ips": [ip] } });
    pods.add(&world.call("pod", ips("10.244.1.77/24"))).await.unwrap_err();
    assert_eq!(sys.state(), before);
    world.assert_empty();
    pods.add(&world.call("pod", ips("10.244.1.10"))).await.unwrap();
}

#[tokio::test]
async fn an_operation_that_nobody_waits_for_leaves_a_trace_to_undo() {
    let (world, sys) = World::fake();
    let before = sys.state();
    let (pods, _) = world.start().await;
    let call = Arc::new(world.call("pod", json!({})));
    let (one, other) = (Arc::clone(&pods), Arc::clone(&call));
    let task = tokio::spawn(async move { one.add(&other).await });
    while world.files().is_empty() {
        tokio::task::yield_now().await;
    }
    task.abort();
    let _ = task.await;
    pods.del(&call).await.unwrap();
    assert_eq!(sys.state(), before);
    world.assert_empty();
}
