//! The example on a device that is used for other things too.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use fixture::{Asked, Lan, address, mac, privileged, run, serve};
use loxi_linux::place::Place;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Connections: with two endpoints, all to one of them happens in 1 of 2⁶³ runs.
const CONNECTIONS: usize = 64;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_load_balancer_harms_nobody_else_on_its_device() {
    if !privileged("a_load_balancer_harms_nobody_else_on_its_device") {
        return;
    }
    let lan = Lan::new(4);
    let [client, balancer, one, two] = lan.hosts.as_slice() else { unreachable!("four hosts") };
    for (backend, name) in [(one, "one"), (two, "two")] {
        // Answers for the VIP, without telling anybody that it has it.
        run(backend, "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
        run(backend, "ip address add 198.51.100.1/32 dev lo");
        serve(backend, "198.51.100.1:80", name);
    }
    serve(balancer, "192.0.2.2:22", "shell");
    run(client, "ip route add 198.51.100.0/24 via 192.0.2.2");
    let mut shell = Asked::open(client, "192.0.2.2:22").unwrap();
    shell.echo(1000);
    Asked::open(client, "198.51.100.1:80").map(|asked| asked.name).unwrap_err();

    // With all tests the examples are built too, beside their folder; with this one alone they are not.
    let program = std::env::current_exe().unwrap();
    let program = program.parent().unwrap().parent().unwrap().join("examples/l4lb");
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "l4lb"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success());
    }
    let mut command = Command::new(program);
    command
        .args(["eth0", &mac(2), &address(2), "192.0.2.0/24", "198.51.100.1:80"])
        .args([3, 4].map(|n| format!("{}@{}", address(n), mac(n))))
        .stdout(Stdio::piped());
    let place = Place { net: Some(balancer), mounts: None };
    let mut example = Ended(place.spawn(&mut command).unwrap());
    let mut lines = BufReader::new(example.0.stdout.take().unwrap()).lines();
    // It prints once it runs.
    lines.next().expect("it prints").unwrap();

    let names: BTreeSet<String> =
        (0..CONNECTIONS).map(|_| Asked::open(client, "198.51.100.1:80").unwrap().name).collect();
    assert_eq!(names, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    Asked::open(client, "198.51.100.1:80").unwrap().echo(1 << 20);
    shell.echo(1 << 20);
    assert_eq!(Asked::open(client, "192.0.2.2:22").unwrap().name, "shell");
    run(client, "ping -c 1 -W 2 192.0.2.2");
    let printed = lines.next().unwrap().unwrap();
    assert!(printed.contains("tx_packets"), "{printed}");

    drop(example);
    shell.echo(1000);
    Asked::open(client, "198.51.100.1:80").map(|asked| asked.name).unwrap_err();
}
