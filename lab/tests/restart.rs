//! The daemon is killed while it changes its dataplane, and nobody notices: the node forwards on, connections go on and
//! open, and the next daemon goes on where this one stopped.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fixture::{plan, privileged, setup, state};
use lab::daemon::Backend;
use lab::plan::{self as lab_plan, Family, SERVER_PORT, SERVICE_PORT, Spot};
use lab::session::Session;
use lab::traffic::ask;
use lab::traffic::bulk::{Crc, Pattern};
use lab::world::World;
use loxi_core::change::Transaction;
use loxi_core::dataplane::Dataplane;
use loxi_core::ir::{Entity, Owner};
use loxi_core::text::from_yaml;
use loxi_linux::netns::NetNs;
use loxi_linux::place::Place;

/// Points at which the daemon is killed.
const KILLS: u64 = 20;

/// Bytes per ms of the transfer that goes on all the while.
const PACE: usize = 16 << 10;

/// Endpoints of the service that changes: node and pod.
const ENDPOINTS: [(u8, u8); 2] = [(1, 2), (2, 2)];

/// A service of which one endpoint is used, with rules and routes beside it, so that a change takes its time.
fn entities(turn: usize) -> Vec<Entity> {
    let (node, pod) = ENDPOINTS[turn % 2];
    let address = lab_plan::pod(node, pod, Family::V4);
    let mut text = format!(
        "version: 1
vips: [{{vrf: pods, address: {vip}, mode: {{exclusive: {{other: reject, echo: true}}}}}}]
backends: [{{name: moving, address: {address}, port: {SERVER_PORT}}}]
services: [{{vrf: pods, vip: {vip}, protocol: tcp, ports: {SERVICE_PORT}, backends: [moving]}}]
next_hops: [{{name: nowhere, action: blackhole}}]
routes:
",
        vip = moving()
    );
    for n in 0..100 {
        text.push_str(&format!(
            "- {{vrf: pods, prefix: 198.51.{n}.{}/32, target: {{next_hop: nowhere}}}}\n",
            turn % 200
        ));
    }
    from_yaml(&text).unwrap()
}

fn moving() -> IpAddr {
    lab_plan::vip(9, Family::V4)
}

/// Numbers that the kernel gave to the tables of a node.
fn tables_of(world: &World, node: u8) -> BTreeMap<String, u64> {
    let folder = format!("/sys/fs/bpf/loxi/{}", world.plan().node_instance(node));
    let names = || loxi_backend_ebpf::sys::Table::ALL.iter().map(|table| table.name());
    let lines: String = names().map(|name| format!("map show pinned {folder}/{name}\n")).collect();
    let file = std::env::temp_dir().join(format!("{}.batch", world.plan().node_instance(node)));
    std::fs::write(&file, lines).unwrap();
    let place = Place { net: None, mounts: world.mounts(node) };
    let output = place.output(Command::new("bpftool").args(["-j", "batch", "file"]).arg(&file)).unwrap();
    std::fs::remove_file(&file).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids = found.as_array().unwrap().iter().map(|answer| {
        let map = &answer["output"];
        map["id"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    });
    names().map(str::to_owned).zip(ids).collect()
}

/// Numbers of all maps in the kernel.
fn maps() -> BTreeSet<u64> {
    let output = Command::new("bpftool").args(["-j", "map", "show"]).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    found.as_array().unwrap().iter().map(|map| map["id"].as_u64().unwrap()).collect()
}

/// A transfer that goes on until it is told to stop; then the server's check value must be ours.
fn transfer(from: &NetNs, to: SocketAddr, stop: &AtomicBool) -> u64 {
    let sent = from.run(|| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        // Far more than is ever sent: the server answers when the sender has ended.
        stream.write_all(format!("take {}\n", u64::MAX).as_bytes()).unwrap();
        let (mut pattern, mut crc, mut sent) = (Pattern::new(u64::MAX), Crc::default(), 0);
        while !stop.load(Ordering::Relaxed) {
            let chunk = pattern.next_chunk().unwrap();
            stream.write_all(chunk).unwrap();
            crc.add(chunk);
            sent += chunk.len() as u64;
            std::thread::sleep(Duration::from_micros(1000 * chunk.len() as u64 / PACE as u64));
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.take(64).read_to_string(&mut text).unwrap();
        assert_eq!(text.trim_end().parse::<u32>().unwrap(), crc.value(), "after {sent} bytes");
        sent
    });
    sent.unwrap()
}

/// Ends the transfers.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn opens(from: &NetNs, to: SocketAddr) -> String {
    ask::tcp(from, to, Duration::from_millis(1500)).unwrap_or_else(|miss| panic!("{to}: {miss}")).server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_is_not_missed() {
    if !privileged("a_killed_daemon_is_not_missed") {
        return;
    }
    let plan = plan("kill");
    let before = state(&plan);
    let mut session = Session::start(&setup(&plan, Backend::Ebpf)).await.unwrap();
    let spots = session.world().spots();
    let client = &spots[&Spot::Pod(1, 1)];
    let server = |node, pod| SocketAddr::new(lab_plan::pod(node, pod, Family::V4), SERVER_PORT);
    let vip = SocketAddr::new(moving(), SERVICE_PORT);
    let owner = Owner::new("test").unwrap();
    let tables = tables_of(session.world(), 1);
    assert!(tables.len() > 40, "{tables:?}");

    // What has never been heard of is asked for by the daemon: the nodes know each other from here on.
    for (node, pod) in [(1, 2), (2, 1)] {
        opens(client, server(node, pod));
    }
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let transfers: Vec<_> = [server(1, 2), server(2, 1)]
            .into_iter()
            .map(|to| {
                scope.spawn({
                    let stop = &stop;
                    move || transfer(client, to, stop)
                })
            })
            .collect();
        // Also after a failure, which the scope would wait for else.
        let stopped = Stop(&stop);
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                let (mut halved, mut slowest) = (0, Duration::ZERO);
                for turn in 0..KILLS as usize {
                    let transaction =
                        Transaction::replace(format!("turn {turn}"), owner.clone(), entities(turn));
                    // Somewhere in the change: points that differ from each other, and from run to run.
                    let after =
                        Duration::from_micros(200 + turn as u64 * 700 + u64::from(std::process::id()) % 300);
                    let applied = tokio::time::timeout(
                        after,
                        session.daemon(1).unwrap().dataplane().apply(transaction.clone()),
                    )
                    .await;
                    session.kill_daemon(1).unwrap();
                    let done = applied.is_ok_and(|applied| applied.is_ok());
                    assert_eq!(opens(client, server(1, 2)), "n1-pod2");
                    assert_eq!(opens(client, server(2, 1)), "n2-pod1");
                    halved += usize::from(!done);
                    session.start_daemon(1).await.unwrap();
                    let returned = Instant::now();
                    assert_eq!(tables_of(session.world(), 1), tables, "turn {turn}");
                    // Sent again under the same name it is applied once, whatever became of it before.
                    session.daemon(1).unwrap().dataplane().apply(transaction).await.unwrap();
                    let (node, pod) = ENDPOINTS[turn % 2];
                    assert_eq!(
                        opens(client, vip),
                        format!("n{node}-pod{pod}"),
                        "turn {turn}, applied before: {done}"
                    );
                    slowest = slowest.max(returned.elapsed());
                }
                println!(
                    "{halved} of {KILLS} changes were cut short; programmed {slowest:?} after its return"
                );
                assert!(halved >= 5, "the daemon was killed after its changes: {halved}");
            });
        });
        drop(stopped);
        for transfer in transfers {
            let sent = transfer.join().unwrap();
            assert!(sent > 1 << 20, "only {sent} bytes were sent");
        }
    });
    drop(spots);
    session.end().unwrap();
    assert_eq!(state(&plan), before);
    let left = maps();
    assert!(tables.values().all(|id| !left.contains(id)), "tables are left");
}
