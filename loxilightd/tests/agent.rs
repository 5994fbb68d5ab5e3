//! The agent's engine on a real daemon with the eBPF backend: a node in namespaces, its cluster in a folder.

#![allow(clippy::unwrap_used)] // also what tests share panics on failure

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loxi_agent::cluster::model::{Name, Node};
use loxi_agent::engine::{self, Handle, Parts, Prepare};
use loxi_agent::host::{Host, HostOptions};
use loxi_agent::intent::{Attachment, PodIdentity};
use loxi_agent::reach::Reaching;
use loxi_agent::source::{Directory, Source};
use loxi_channel::Endpoint;
use loxi_core::ir::Owner;
use loxi_core::net::{MacAddr, Mtu, PortName};
use loxi_linux::layout::{Instance, Layout, Offloads, PodSpec, mac_for};
use loxi_linux::netns::NetNs;
use loxi_linux::place::{MountNs, MountSetup, Place};
use loxi_linux::rtnetlink::{AddrFlags, Route};
use loxi_linux::sys::{End, LinkConfig, Ns, RealSys, Sys};
use loxi_linux::{Prefix, layout};

/// The node and an outside host on one wire, pods, the daemon. It goes with this value.
struct World {
    daemon: Option<Child>,
    node: NetNs,
    mounts: MountNs,
    outside: NetNs,
    pods: Vec<NetNs>,
    instance: Instance,
    folder: tempfile::TempDir,
}

const NODE: &str = "172.18.0.1";
const OUTSIDE: &str = "172.18.0.100";

fn pod_address(number: u8) -> String {
    format!("10.244.1.{}", number + 9)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Ns::at(folder.path().join(name));
        let node = NetNs::create_at(folder.path().join("node")).unwrap();
        let outside = NetNs::create_at(folder.path().join("outside")).unwrap();
        let pods =
            (1..=3).map(|n| NetNs::create_at(folder.path().join(format!("pod{n}"))).unwrap()).collect();
        let run = folder.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let ends = [("node", NODE), ("outside", OUTSIDE)];
        let [near, far] = ends.map(|(name, _)| (at(name), mac_for(name, "eth0")));
        let end = |(ns, mac)| End { ns, name: "eth0", mac };
        RealSys.veth_create(end((&near.0, near.1)), end((&far.0, far.1)), 1500).unwrap();
        for (name, address) in ends {
            for link in ["lo", "eth0"] {
                let up = LinkConfig { mac: None, mtu: None, alias: None, up: Some(true) };
                RealSys.link_configure(&at(name), link, up).unwrap();
            }
            let address = Prefix { addr: address.parse().unwrap(), len: 24 };
            RealSys.addr_add(&at(name), "eth0", address, AddrFlags::default()).unwrap();
        }
        let default =
            Route::via(Prefix { addr: "0.0.0.0".parse().unwrap(), len: 0 }, OUTSIDE.parse().unwrap(), "eth0");
        RealSys.route_replace(&at("node"), &default).unwrap();
        let instance = Instance { name: "agent-test".into(), run: run.clone(), root: at("node") };
        // The daemon's view of the file system has what is mounted by now: the agent will find its layout made.
        let known = Node {
            internal_ips: vec![NODE.parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            ..Node::default()
        };
        Self::host_of(&instance).prepare(&known).unwrap();
        let mounts = MountNs::create(&[
            MountSetup::Bind { from: run, at: "/run".into() },
            MountSetup::Bpffs { at: "/sys/fs/bpf".into() },
        ])
        .unwrap();
        Self { daemon: None, node, mounts, outside, pods, instance, folder }
    }

    fn host(&self) -> Host {
        Self::host_of(&self.instance)
    }

    fn host_of(instance: &Instance) -> Host {
        Host::new(HostOptions {
            instance: instance.clone(),
            node: "n1".into(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            overlay: (100, 4789),
            mtu: None,
            masquerade: true,
            offloads: Offloads::On,
            silent_ports: None,
            max_flows: 1 << 16,
        })
    }

    fn manifests(&self) -> std::path::PathBuf {
        let folder = self.folder.path().join("cluster");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Writes a manifest as a whole.
    fn write(&self, name: &str, text: &str) {
        let new = self.manifests().join(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.manifests().join(name)).unwrap();
    }

    fn start_daemon(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("daemon.log")).unwrap();
        let run_dir = format!("/run/loxi/{}", self.instance.name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_loxilightd"));
        command
            .args(["--backend", "ebpf", "--wait-for-netns", "--dataplane-netns", "/run/netns/loxilight"])
            .args(["--instance", &self.instance.name, "--run-dir", &run_dir])
            .args(["--flows-v4", "4096", "--flows-v6", "4096"])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let place = Place { net: Some(&self.node), mounts: Some(&self.mounts) };
        self.daemon = Some(place.spawn(&mut command).unwrap());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }

    /// Starts an engine with interfaces that there are already, and waits until the dataplane has everything.
    async fn start_agent(&self, attachments: Vec<Attachment>) -> (Handle, tokio::task::JoinHandle<()>) {
        let (to, updates) = tokio::sync::mpsc::channel(64);
        let source: Box<dyn Source> = Box::new(Directory::new(self.manifests()));
        tokio::spawn(source.run(to));
        let endpoint = Endpoint::in_folder(self.instance.folder()).unwrap();
        let (handle, task) = engine::start(Parts {
            node: "n1".into(),
            updates,
            kept: None,
            attachments,
            dataplane: Arc::new(Reaching::new(endpoint)),
            owner: Owner::new("agent").unwrap(),
            prepare: Arc::new(self.host()) as Arc<dyn Prepare>,
        });
        let mut status = handle.status();
        let ready = status.wait_for(|status| status.unready().is_none() && status.problems.is_empty());
        if tokio::time::timeout(Duration::from_secs(60), ready).await.is_err() {
            panic!("{:?}\n{}", handle.status().borrow(), self.log());
        }
        (handle, task)
    }

    /// A pod's interface as the plugin will make it: its link, and what the agent is told.
    fn connect(&self, handle: &Handle, number: u8) -> Attachment {
        let settings = handle.status().borrow().settings.clone().expect("the node has its network");
        let layout = Layout::ensure(&RealSys, &self.host().spec(&settings)).unwrap();
        let mac = mac_for("pods", &format!("pod-{number}"));
        let address = pod_address(number).parse().unwrap();
        let pod = PodSpec {
            port: format!("hs{number}"),
            netns: Ns::at(self.folder.path().join(format!("pod{number}"))),
            ifname: "eth0".into(),
            addresses: vec![Prefix::host(address)],
            gateways: settings.switch(true).into_iter().collect(),
            mac,
            local_ports: Vec::new(),
        };
        layout.add_pod(&RealSys, &pod).unwrap();
        Attachment {
            container: format!("container-{number}"),
            ifname: "eth0".into(),
            pod: Some(PodIdentity { name: Name::new("default", format!("pod-{number}")), uid: None }),
            port: PortName::new(pod.port).unwrap(),
            mac: MacAddr::new(mac.0),
            addresses: vec![address],
            mtu: Mtu::new(1450).unwrap(),
            host_ports: Vec::new(),
        }
    }

    fn pod(&self, number: u8) -> &NetNs {
        &self.pods[usize::from(number) - 1]
    }

    /// Waits until somebody gets a word from an address, or does not any more.
    fn until(&self, from: &NetNs, to: &str, word: Option<&str>) {
        let begun = Instant::now();
        loop {
            let got = ask(from, to);
            if got.as_deref() == word {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{to}: {got:?}, not {word:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&daemon);
            // On this signal the programs go, too.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            let _ = daemon.wait();
        }
        let names = ["node", "outside", "pod1", "pod2", "pod3"];
        if let Err(error) = layout::cleanup(&RealSys, &self.instance) {
            eprintln!("cleaning up: {error}");
        }
        for name in names {
            let _ = NetNs::delete_at(self.folder.path().join(name));
        }
    }
}

/// Answers with a word at port 8080 of a namespace, as long as the test lasts.
fn serve(at: &NetNs, word: &'static str) {
    let listener = at.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.write_all(word.as_bytes());
                // Until the client has had enough.
                let _ = stream.read(&mut [0; 1]);
            });
        }
    });
}

fn connected(from: &NetNs, to: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300))).unwrap()?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// What an address answers, if it does.
fn ask(from: &NetNs, to: &str) -> Option<String> {
    let mut stream = connected(from, to).ok()?;
    let mut word = [0; 5];
    stream.read_exact(&mut word).ok()?;
    Some(String::from_utf8_lossy(&word).into_owned())
}

fn pod(number: u8, label: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: pod-{number}, labels: {{app: {label}}}}}, \
         spec: {{nodeName: n1}}, status: {{phase: Running, podIPs: [{{ip: {}}}]}}}}\n",
        pod_address(number)
    )
}

fn slice(addresses: &[u8]) -> String {
    let endpoint = |number: &u8| format!("{{addresses: [{}], nodeName: n1}}", pod_address(*number));
    let endpoints: Vec<String> = addresses.iter().map(endpoint).collect();
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: 8080}}], \
         metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}, endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, \
    clusterIPs: [10.96.0.10], ports: [{port: 80, nodePort: 30080}]}}\n";

/// Lets only pods with the label `app: client` in, at port 8080.
const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: guard}, \
    spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], \
    ports: [{port: 8080}]}]}}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_what_its_cluster_says() {
    if let Some(reason) = NetNs::unavailable() {
        eprintln!("SKIPPED a_node_does_what_its_cluster_says: {reason}");
        return;
    }
    let mut world = World::new();
    world.write(
        "cluster.yaml",
        &format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, spec: {{podCIDRs: [10.244.1.0/24]}}, \
             status: {{addresses: [{{type: InternalIP, address: {NODE}}}]}}}}\n\
             ---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: default}}}}\n{}{}{}",
            pod(1, "web"),
            pod(2, "client"),
            pod(3, "stranger")
        ),
    );
    world.start_daemon();
    let (handle, task) = world.start_agent(Vec::new()).await;
    let mut attachments = Vec::new();
    for number in 1..=3 {
        let attachment = world.connect(&handle, number);
        handle.attach(attachment.clone()).await.unwrap_or_else(|error| panic!("{error}\n{}", world.log()));
        attachments.push(attachment);
    }
    serve(world.pod(1), "first");
    serve(world.pod(3), "third");
    let (client, stranger) = (world.pod(2), world.pod(3));
    let direct = format!("{}:8080", pod_address(1));
    world.until(client, &direct, Some("first"));

    // A service, from a pod, from the host and from outside.
    world.write("web.yaml", SERVICE);
    world.write("slice.yaml", &slice(&[1]));
    for (from, to) in [
        (client, "10.96.0.10:80"),
        (&world.node, "10.96.0.10:80"),
        (&world.outside, "172.18.0.1:30080"),
        (client, "172.18.0.1:30080"),
    ] {
        world.until(from, to, Some("first"));
    }

    // A policy: the stranger and the outside are refused, the client and the node are not.
    let established = connected(stranger, &direct).unwrap();
    world.write("guard.yaml", POLICY);
    world.until(stranger, &direct, None);
    assert_eq!(ask(stranger, "10.96.0.10:80"), None);
    assert_eq!(ask(&world.outside, "172.18.0.1:30080"), None);
    assert_eq!(ask(client, &direct).as_deref(), Some("first"));
    assert_eq!(ask(&world.node, &direct).as_deref(), Some("first"));
    drop(established);
    // By its label the stranger becomes a client.
    let known = format!("{}{}{}", pod(1, "web"), pod(2, "client"), pod(3, "client"));
    world.write("a-pods.yaml", &known);
    world.until(stranger, &direct, Some("first"));

    // An agent that is killed leaves a node that forwards; one that starts again catches up.
    task.abort();
    let _ = task.await;
    assert_eq!(ask(client, "10.96.0.10:80").as_deref(), Some("first"));
    world.write("slice.yaml", &slice(&[3]));
    std::fs::remove_file(world.manifests().join("guard.yaml")).unwrap();
    assert_eq!(ask(client, "10.96.0.10:80").as_deref(), Some("first"));
    let (handle, _task) = world.start_agent(attachments.clone()).await;
    world.until(client, "10.96.0.10:80", Some("third"));
    world.until(&world.outside, &format!("{NODE}:30080"), Some("third"));

    // A pod that is gone answers nobody, and its service refuses.
    handle.detach(attachments[2].port.clone()).await.unwrap();
    world.write("slice.yaml", &slice(&[]));
    world.until(client, "10.96.0.10:80", None);
    assert_eq!(ask(client, &format!("{}:8080", pod_address(3))), None);
    assert_eq!(ask(client, &direct).as_deref(), Some("first"));
    assert!(Path::new(&world.instance.folder()).exists());
}
