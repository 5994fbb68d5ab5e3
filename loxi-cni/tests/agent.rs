//! The plugin's binary and the agent's server, with a socket between them.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

#[path = "../../loxi-agent/tests/fixture/mod.rs"]
mod fixture;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fixture::World;
use loxi_agent::cni::{CniError, Socket};
use loxi_agent::engine::RequestError;
use loxi_linux::sys::{RealSys, Sys};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A world whose agent listens.
struct Agent {
    world: World,
    socket: PathBuf,
}

impl Agent {
    async fn of(world: World) -> Self {
        let socket = world.folder.path().join("agent/cni.sock");
        let agent = Self { world, socket };
        agent.listen().await;
        agent
    }

    async fn listen(&self) {
        let (pods, _) = self.world.start().await;
        let socket = Socket::bind(&self.socket).await.unwrap();
        tokio::spawn(socket.serve(pods, std::future::pending()));
    }

    /// Starts the plugin.
    async fn plugin(&self, command: &str, container: &str, version: &str, more: Value) -> Child {
        let mut config = self.world.config(more);
        config["cniVersion"] = version.into();
        config["socket"] = self.socket.to_str().unwrap().into();
        let mut child = Command::new(env!("CARGO_BIN_EXE_loxi-cni"))
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", self.world.netns_path(container))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME={container}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).await.unwrap();
        child
    }

    /// Runs the plugin; an error is its number, and all of what it printed.
    async fn run(
        &self,
        command: &str,
        container: &str,
        version: &str,
        more: Value,
    ) -> Result<Option<Value>, (u64, Value)> {
        let output = self.plugin(command, container, version, more).await.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let printed: Option<Value> =
            (!output.stdout.is_empty()).then(|| serde_json::from_slice(&output.stdout).unwrap());
        if output.status.success() {
            return Ok(printed);
        }
        let printed = printed.unwrap();
        Err((printed["code"].as_u64().unwrap(), printed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_in_every_version() {
    let Some(world) = World::real("a_pod_lives_in_every_version") else { return };
    let pod = world.pod("a");
    let agent = Agent::of(world).await;
    for (version, family, mtu) in [
        ("0.4.0", json!("4"), json!(null)),
        ("1.0.0", json!(null), json!(null)),
        ("1.1.0", json!(null), json!(1450)),
    ] {
        // Not the first again: host-local goes on from what it gave last.
        let added = agent.run("ADD", "a", version, json!({})).await.unwrap().unwrap();
        assert_eq!(added["cniVersion"], version);
        assert_eq!(added["ips"][0]["version"], family);
        assert_eq!(added["ips"][1]["gateway"], "fd00:10:244:1::1");
        assert_eq!(added["interfaces"][1]["name"], "eth0");
        assert_eq!(added["interfaces"][1]["mtu"], mtu);
        assert_eq!(added["interfaces"][1]["sandbox"], pod.path().to_str().unwrap());
        let links = RealSys.links(&pod).unwrap();
        let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
        assert_eq!(added["interfaces"][1]["mac"], eth0.mac.unwrap().to_string());
        let address = added["ips"][0]["address"].as_str().unwrap().parse().unwrap();
        assert!(RealSys.addrs(&pod, "eth0").unwrap().contains(&address));

        let result = json!({ "prevResult": added });
        assert_eq!(agent.run("CHECK", "a", version, result.clone()).await, Ok(None));
        let (code, _) = agent.run("ADD", "a", version, json!({})).await.unwrap_err();
        assert_eq!(code, 100);
        assert_eq!(agent.run("DEL", "a", version, result).await, Ok(None));
        assert_eq!(agent.run("DEL", "a", version, json!({})).await, Ok(None));
        agent.world.assert_empty();
    }
    agent.run("ADD", "a", "1.1.0", json!({})).await.unwrap();
    assert_eq!(agent.run("GC", "a", "1.1.0", json!({ "cni.dev/valid-attachments": [] })).await, Ok(None));
    agent.world.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_s_errors_come_through() {
    let (world, _) = World::fake();
    let agent = Agent::of(world).await;
    assert_eq!(agent.run("STATUS", "pod", "1.1.0", json!({})).await, Ok(None));
    agent.world.node.fail("attached", RequestError::NotYet("the daemon is starting".into()));
    let (code, printed) = agent.run("ADD", "pod", "1.0.0", json!({})).await.unwrap_err();
    assert_eq!((code, printed["cniVersion"].as_str()), (11, Some("1.0.0")));
    assert!(printed["msg"].as_str().unwrap().contains("the daemon is starting"), "{printed}");
    *agent.world.node.unready.lock().unwrap() = Some("no first sync".into());
    let (code, printed) = agent.run("STATUS", "pod", "1.1.0", json!({})).await.unwrap_err();
    assert_eq!((code, printed["msg"].as_str()), (50, Some("no first sync")));
    let limits = json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 5 } } });
    let (code, printed) = agent.run("ADD", "pod", "1.1.0", limits).await.unwrap_err();
    assert_eq!(code, 2, "{printed}");
    agent.world.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_is_finished_though_its_plugin_is_killed() {
    let (world, _) = World::fake();
    let agent = Agent::of(world).await;
    *agent.world.node.delay.lock().unwrap() = Duration::from_millis(300);
    let mut plugin = agent.plugin("ADD", "pod", "1.1.0", json!({})).await;
    let end = Instant::now() + Duration::from_secs(10);
    while agent.world.ports().is_empty() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    plugin.kill().await.unwrap();
    assert_eq!(agent.world.node.calls(), [""; 0], "it was killed before the dataplane had the port");
    // The same container's next call waits for it.
    let (code, _) = agent.run("ADD", "pod", "1.1.0", json!({})).await.unwrap_err();
    assert_eq!(code, 100);
    assert_eq!(agent.world.node.calls(), ["attached hs1"]);
    assert_eq!(agent.run("DEL", "pod", "1.1.0", json!({})).await, Ok(None));
    agent.world.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_the_agent_s_alone() {
    let (world, _) = World::fake();
    let path = world.folder.path().join("agent/cni.sock");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // One whose listener is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let agent = Agent::of(world).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(agent.run("STATUS", "pod", "1.1.0", json!({})).await, Ok(None));
    assert!(matches!(Socket::bind(&path).await, Err(CniError::InUse(_))));
    assert_eq!(agent.run("STATUS", "pod", "1.1.0", json!({})).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_answers_who_has_asked() {
    let (world, _) = World::fake();
    let socket = world.folder.path().join("agent/cni.sock");
    let agent = Agent { world, socket };
    let (pods, _) = agent.world.start().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let end = async move {
        let _ = stopped.await;
    };
    let bound = Socket::bind(&agent.socket).await.unwrap();
    let server = tokio::spawn(bound.serve(Arc::clone(&pods), end));
    *agent.world.node.delay.lock().unwrap() = Duration::from_millis(300);
    let plugin = agent.plugin("ADD", "pod", "1.1.0", json!({})).await;
    while agent.world.ports().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send(()).unwrap();
    assert!(plugin.wait_with_output().await.unwrap().status.success());
    server.await.unwrap().unwrap();
    let (code, _) = agent.run("DEL", "pod", "1.1.0", json!({})).await.unwrap_err();
    assert_eq!(code, 11);
}
