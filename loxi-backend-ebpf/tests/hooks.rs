//! Hooks of a device that others use too: their programs stay, and ours leave nothing.
#![allow(clippy::unwrap_used)]

mod fixture;

use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use fixture::program::object;
use fixture::{Asked, AtTc, Lan, Way, address, json, mac, privileged, run, serve};
use loxi_backend_ebpf::{Ebpf, Mode, Options, Sizes, clock};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, DataplaneError, Local};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::text::from_yaml;
use loxi_linux::netns::NetNs;
use loxi_linux::place::Place;
use loxi_linux::rtnetlink::{BpfFilter, FilterAt, Rtnl};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

const ONE_MEGABYTE: usize = 1 << 20;

/// A program of nobody's that returns a number and does nothing else.
fn stranger(section: &str, returns: i32) -> aya::Ebpf {
    let [a, b, c, d] = returns.to_le_bytes();
    // r0 = returns; exit
    let code = [0xb7, 0, 0, 0, a, b, c, d, 0x95, 0, 0, 0, 0, 0, 0, 0];
    aya::Ebpf::load(&object(section, "stranger", &code)).unwrap()
}

/// Somebody else's program at a device; it goes with this value.
struct Stranger {
    loaded: aya::Ebpf,
    id: u64,
}

impl Stranger {
    fn at_xdp(host: &NetNs) -> Self {
        const XDP_PASS: i32 = 2;
        let mut loaded = stranger("xdp", XDP_PASS);
        let program: &mut Xdp = loaded.program_mut("stranger").unwrap().try_into().unwrap();
        program.load().unwrap();
        host.run(|| program.attach("eth0", XdpMode::default()).map(drop).unwrap()).unwrap();
        let id = program.info().unwrap().id().into();
        Self { loaded, id }
    }

    /// A filter goes with the device.
    fn at_tc(host: &NetNs, way: Way) -> Self {
        match way {
            Way::Links => Self::at_tcx(host),
            Way::Filters => Self::as_filter(host, FilterAt::Ingress, 0xc000, 1),
        }
    }

    fn as_filter(host: &NetNs, at: FilterAt, priority: u16, handle: u32) -> Self {
        const TC_ACT_UNSPEC: i32 = -1;
        let mut loaded = stranger("classifier", TC_ACT_UNSPEC);
        let program: &mut SchedClassifier = loaded.program_mut("stranger").unwrap().try_into().unwrap();
        program.load().unwrap();
        let (id, fd) = (program.info().unwrap().id().into(), program.fd().unwrap().as_fd());
        let filter = BpfFilter { priority, handle, name: "stranger's", program: fd };
        let add = || {
            let mut rtnl = Rtnl::open().unwrap();
            let device = rtnl.link_index("eth0").unwrap();
            rtnl.clsact_add(device).unwrap();
            rtnl.bpf_filter_add(device, at, &filter).unwrap();
        };
        host.run(add).unwrap();
        Self { loaded, id }
    }

    fn at_tcx(host: &NetNs) -> Self {
        const TCX_NEXT: i32 = -1;
        let mut loaded = stranger("classifier", TCX_NEXT);
        let program: &mut SchedClassifier = loaded.program_mut("stranger").unwrap().try_into().unwrap();
        program.load().unwrap();
        host.run(|| program.attach("eth0", TcAttachType::Ingress).map(drop).unwrap()).unwrap();
        let id = program.info().unwrap().id().into();
        Self { loaded, id }
    }

    /// How often it has run, while somebody has the kernel count that.
    fn runs(&self) -> u64 {
        let program: &SchedClassifier = self.loaded.program("stranger").unwrap().try_into().unwrap();
        program.info().unwrap().run_count()
    }
}

/// The kernel's numbers of the programs at a host's device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Listed {
    xdp: Option<u64>,
    tc: AtTc,
}

fn listed(host: &NetNs) -> Listed {
    let links = json(host, "ip -j link show dev eth0");
    Listed { xdp: links[0]["xdp"]["prog"]["id"].as_u64(), tc: AtTc::eth0(host) }
}

/// A client, a balancer, and an endpoint that has the address of the service.
fn service() -> Lan {
    let lan = Lan::new(3);
    run(&lan.hosts[2], "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
    run(&lan.hosts[2], "ip address add 198.51.100.1/32 dev lo");
    serve(&lan.hosts[2], "198.51.100.1:80", "endpoint");
    serve(&lan.hosts[1], "192.0.2.2:22", "shell");
    run(&lan.hosts[0], "ip route add 198.51.100.0/24 via 192.0.2.2");
    lan
}

/// The balancer, which is not attached yet.
fn balancer(host: &NetNs, mode: Mode, way: Way) -> Local<Ebpf> {
    let (own, mac, endpoint) = (address(2), mac(2), address(3));
    let text = format!(
        "version: 1
zones: [{{name: lb}}]
vrfs: [{{name: lb, zone: lb}}]
ports: [{{name: eth0, kind: uplink, mac: '{mac}', attachment: {{vrf: lb}}}}]
interfaces: [{{name: lan, on: {{port: eth0}}, vrf: lb, mac: '{mac}', local: punt, addresses: [{own}]}}]
neighbors: [{{interface: lan, address: {endpoint}, mac: '{}'}}]
next_hops: [{{name: lan, action: {{direct: {{interface: lan}}}}}}]
routes: [{{vrf: lb, prefix: 192.0.2.0/24, target: {{next_hop: lan}}}}]
vips: [{{vrf: lb, address: 198.51.100.1, mode: {{exclusive: {{}}}}}}]
backends: [{{name: one, address: {endpoint}, port: 80}}]
services: [{{vrf: lb, vip: 198.51.100.1, protocol: tcp, ports: 80, mode: dsr_l2, backends: [one]}}]",
        fixture::mac(3)
    );
    let sizes = Sizes { flows_v4: 1000, flows_v6: 1000 };
    let options = Options { mode, sizes, filters_at_tc: way.is_forced(), ..Options::default() };
    let local = Local::new(host.run(|| Ebpf::open(options).unwrap()).unwrap(), clock());
    let entities = from_yaml(&text).unwrap();
    local.apply(&Transaction::replace("lb", Owner::new("lb").unwrap(), entities)).unwrap();
    local
}

fn eth0() -> PortName {
    PortName::new("eth0").unwrap()
}

/// Asks the service and the balancer's own shell, and has both answer.
fn works(lan: &Lan) {
    let mut asked = Asked::open(&lan.hosts[0], "198.51.100.1:80").unwrap();
    assert_eq!(asked.name, "endpoint");
    asked.echo(ONE_MEGABYTE);
    assert_eq!(Asked::open(&lan.hosts[0], "192.0.2.2:22").unwrap().name, "shell");
}

/// The program that a conflict names.
#[track_caller]
fn conflict(attached: Result<(), DataplaneError>) -> String {
    match attached {
        Err(DataplaneError::AttachConflict { port, device, program }) => {
            assert_eq!((port, device.as_str()), (eth0(), "eth0"));
            program
        }
        other => panic!("no conflict but {other:?}"),
    }
}

#[test]
fn a_program_of_others_at_xdp_is_left_alone() {
    if !privileged("a_program_of_others_at_xdp_is_left_alone") {
        return;
    }
    for way in Way::all() {
        let lan = service();
        let host = &lan.hosts[1];
        let stranger = Stranger::at_xdp(host);
        let before = listed(host);
        assert_eq!(before, Listed { xdp: Some(stranger.id), tc: AtTc::default() });
        // At XDP alone it is the same way.
        let modes = if *way == Way::Links { &[Mode::Xdp, Mode::Both][..] } else { &[Mode::Both] };
        for mode in modes {
            let local = balancer(host, *mode, *way);
            assert_eq!(conflict(local.attach(&eth0())), format!("stranger ({})", stranger.id), "{mode}");
            assert_eq!(listed(host), before, "{mode}, {way:?}: something of ours is left");
            assert_eq!(local.with_backend(|ebpf| ebpf.attached()), []);
            // The host goes on without us.
            assert_eq!(Asked::open(&lan.hosts[0], "192.0.2.2:22").unwrap().name, "shell");
            drop(local);
            assert_eq!(listed(host), before, "{mode}, {way:?}");
        }

        // It has a hook to itself where we are at TC only.
        let local = balancer(host, Mode::Tc, *way);
        local.attach(&eth0()).unwrap();
        works(&lan);
        let beside = listed(host);
        assert_eq!((beside.xdp, beside.tc.programs.len()), (before.xdp, 1));
        drop(local);
        assert_eq!(listed(host), before, "{way:?}");
    }
}

#[test]
fn another_instance_goes_on_undisturbed() {
    if !privileged("another_instance_goes_on_undisturbed") {
        return;
    }
    let ways = Way::all();
    for way in ways {
        another_instance(Mode::Tc, *way, Mode::Tc, *way);
    }
    // What is at XDP does not depend on the way at TC, and loading takes minutes where a kernel is emulated.
    if let [one, other] = ways {
        // At both hooks the second meets TC first, at XDP that alone.
        another_instance(Mode::Both, *one, Mode::Both, *one);
        another_instance(Mode::Both, *one, Mode::Xdp, *one);
        another_instance(Mode::Tc, *one, Mode::Tc, *other);
        another_instance(Mode::Tc, *other, Mode::Tc, *one);
    }
}

fn another_instance(of_first: Mode, its_way: Way, of_second: Mode, way: Way) {
    let what = format!("{of_first} {its_way:?}, {of_second} {way:?}");
    let lan = service();
    let host = &lan.hosts[1];
    let first = balancer(host, of_first, its_way);
    first.attach(&eth0()).unwrap();
    works(&lan);
    let before = listed(host);
    assert_eq!((before.xdp.is_some(), before.tc.programs.len()), (of_first == Mode::Both, 1), "{what}");

    let second = balancer(host, of_second, way);
    let program = conflict(second.attach(&eth0()));
    let mut names = before.tc.programs.iter().chain(&before.xdp).map(|id| format!("loxi_eth0 ({id})"));
    assert!(names.any(|name| name == program), "{what}: {program}");
    assert_eq!(listed(host), before, "{what}");
    works(&lan);
    drop(second);
    assert_eq!(listed(host), before, "{what}");
    let counted = first.counters().ports[&eth0()].tx_packets;
    works(&lan);
    assert!(first.counters().ports[&eth0()].tx_packets > counted, "{what}: the first forwards no more");
}

#[test]
fn only_what_a_failed_attachment_has_bound_is_let_go() {
    if !privileged("only_what_a_failed_attachment_has_bound_is_let_go") {
        return;
    }
    for way in Way::all() {
        // At XDP alone the first leaves TC free, where the second binds before it finds XDP taken.
        let lan = service();
        let host = &lan.hosts[1];
        let first = balancer(host, Mode::Xdp, *way);
        first.attach(&eth0()).unwrap();
        let before = listed(host);
        assert!(before.xdp.is_some() && before.tc == AtTc::default());
        let second = balancer(host, Mode::Both, *way);
        conflict(second.attach(&eth0()));
        assert_eq!(listed(host), before, "{way:?}");
        drop(first);
        second.attach(&eth0()).unwrap();
        works(&lan);
    }
}

#[test]
fn a_program_of_others_at_tc_stays_beside_ours() {
    if !privileged("a_program_of_others_at_tc_stays_beside_ours") {
        return;
    }
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    for (way, first) in Way::all().iter().flat_map(|way| [(*way, true), (*way, false)]) {
        let lan = service();
        let host = &lan.hosts[1];
        let before = first.then(|| Stranger::at_tc(host, way));
        let local = balancer(host, Mode::Tc, way);
        local.attach(&eth0()).unwrap();
        let stranger = before.unwrap_or_else(|| Stranger::at_tc(host, way));
        let both = listed(host).tc;
        assert_eq!(both.programs.len(), 2, "{both:?}");
        // A filter's place is its priority's, whoever comes first.
        let place = usize::from(!first || way == Way::Filters);
        assert_eq!(both.programs[place], stranger.id, "{way:?} {both:?}");
        let (seen, counted) = (stranger.runs(), local.counters().ports[&eth0()].tx_packets);
        works(&lan);
        // Ours has sent the service's packets on; the shell's are everybody's.
        assert!(stranger.runs() > seen, "it has seen no packet");
        assert!(local.counters().ports[&eth0()].tx_packets > counted, "ours has sent no packet");
        local.detach(&eth0()).unwrap();
        let alone = AtTc { programs: vec![stranger.id], clsact: way == Way::Filters };
        assert_eq!(listed(host).tc, alone);
        local.attach(&eth0()).unwrap();
        drop(local);
        assert_eq!(listed(host).tc, alone);
    }
}

#[test]
fn a_device_is_left_as_it_was() {
    if !privileged("a_device_is_left_as_it_was") {
        return;
    }
    let lan = service();
    let host = &lan.hosts[1];
    let nothing = Listed::default();
    assert_eq!(listed(host), nothing);
    let hooks = [(Mode::Tc, false, 1), (Mode::Both, true, 1), (Mode::Xdp, true, 0)];
    let of_way = |way: &Way| if *way == Way::Links { &hooks[..] } else { &hooks[..2] };
    for (way, (mode, xdp, tc)) in
        Way::all().iter().flat_map(|way| of_way(way).iter().map(|hooks| (*way, *hooks)))
    {
        let local = balancer(host, mode, way);
        assert_eq!(listed(host), nothing, "{mode}: nothing is bound before a port is");
        for _ in 0..2 {
            local.attach(&eth0()).unwrap();
            let bound = listed(host);
            assert_eq!((bound.xdp.is_some(), bound.tc.programs.len()), (xdp, tc), "{mode}, {way:?}");
            assert_eq!(bound.tc.clsact, way == Way::Filters && tc == 1, "{mode}, {way:?}");
            local.attach(&eth0()).unwrap();
            assert_eq!(listed(host), bound, "{mode}, {way:?}: attached already");
            local.detach(&eth0()).unwrap();
            assert_eq!(listed(host), nothing, "{mode}, {way:?}");
            assert_eq!(Asked::open(&lan.hosts[0], "192.0.2.2:22").unwrap().name, "shell");
        }
        local.attach(&eth0()).unwrap();
        drop(local);
        assert_eq!(listed(host), nothing, "{mode}, {way:?}");
    }
}

#[test]
fn a_device_that_was_made_anew_is_bound_anew() {
    if !privileged("a_device_that_was_made_anew_is_bound_anew") {
        return;
    }
    for way in Way::all() {
        let lan = service();
        let host = &lan.hosts[1];
        let local = balancer(host, Mode::Both, *way);
        local.attach(&eth0()).unwrap();
        works(&lan);
        let before = listed(host);
        lan.replug(2);
        assert_eq!(listed(host), Listed::default());
        local.attach(&eth0()).unwrap();
        let after = listed(host);
        assert_eq!((after.xdp.is_some(), after.tc.programs.len()), (true, 1));
        assert_ne!(after, before);
        works(&lan);

        // Where it can't be bound, nothing stays of what the one before had.
        lan.replug(2);
        let stranger = Stranger::at_xdp(host);
        let before = listed(host);
        assert_eq!(conflict(local.attach(&eth0())), format!("stranger ({})", stranger.id));
        assert_eq!(listed(host), before, "{way:?}");
    }
}

/// Where our filter is to be.
const PRIORITY: u16 = 10;
const HANDLE: u32 = 0x6c6f_7869;

#[test]
fn a_filter_of_others_in_our_place_is_not_replaced() {
    if !privileged("a_filter_of_others_in_our_place_is_not_replaced") {
        return;
    }
    let lan = service();
    let host = &lan.hosts[1];
    let stranger = Stranger::as_filter(host, FilterAt::Ingress, PRIORITY, HANDLE);
    let before = listed(host);
    assert_eq!(before.tc, AtTc { programs: vec![stranger.id], clsact: true });
    let local = balancer(host, Mode::Tc, Way::Filters);
    assert_eq!(conflict(local.attach(&eth0())), format!("stranger's ({})", stranger.id));
    assert_eq!(listed(host), before);

    // Another number of the same priority is not our place.
    let lan = service();
    let host = &lan.hosts[1];
    let stranger = Stranger::as_filter(host, FilterAt::Ingress, PRIORITY, HANDLE + 1);
    let local = balancer(host, Mode::Tc, Way::Filters);
    local.attach(&eth0()).unwrap();
    works(&lan);
    local.detach(&eth0()).unwrap();
    assert_eq!(listed(host).tc.programs, [stranger.id]);

    // A priority is of one kind.
    let lan = service();
    let host = &lan.hosts[1];
    let bytecode = ["bytecode", "1,6 0 0 0,"];
    run(host, "tc qdisc add dev eth0 clsact");
    let mut tc = Command::new("tc");
    tc.args("filter add dev eth0 ingress prio 10 protocol ip bpf da".split(' ')).args(bytecode);
    assert!(Place { net: Some(host), mounts: None }.output(&mut tc).unwrap().status.success());
    let local = balancer(host, Mode::Tc, Way::Filters);
    assert_eq!(conflict(local.attach(&eth0())), "filter of kind bpf at priority 10");
}

#[test]
fn a_qdisc_stays_while_others_use_it() {
    if !privileged("a_qdisc_stays_while_others_use_it") {
        return;
    }
    let lan = service();
    let host = &lan.hosts[1];
    let local = balancer(host, Mode::Tc, Way::Filters);
    local.attach(&eth0()).unwrap();
    // We have made it, and their filter is at its other side.
    let _stranger = Stranger::as_filter(host, FilterAt::Egress, 1, 1);
    drop(local);
    assert_eq!(listed(host).tc, AtTc { programs: vec![], clsact: true });
    assert_eq!(json(host, "tc -j filter show dev eth0 egress").as_array().unwrap().len(), 2);

    // One that we haven't made stays in any case.
    let lan = service();
    let host = &lan.hosts[1];
    run(host, "tc qdisc add dev eth0 clsact");
    let local = balancer(host, Mode::Tc, Way::Filters);
    local.attach(&eth0()).unwrap();
    works(&lan);
    local.detach(&eth0()).unwrap();
    assert_eq!(listed(host).tc, AtTc { programs: vec![], clsact: true });
}

#[test]
fn a_filter_that_somebody_took_away_is_missed() {
    if !privileged("a_filter_that_somebody_took_away_is_missed") {
        return;
    }
    let lan = service();
    let host = &lan.hosts[1];
    let local = balancer(host, Mode::Tc, Way::Filters);
    local.attach(&eth0()).unwrap();
    let has_lost = || local.with_backend(|ebpf| ebpf.has_lost(&eth0()));
    assert!(!has_lost());
    run(host, "tc qdisc del dev eth0 clsact");
    assert!(has_lost());
    local.attach(&eth0()).unwrap();
    assert!(!has_lost());
    works(&lan);
}

/// What [`killed`] starts: a balancer that waits to be killed. By itself it does nothing.
#[test]
fn held_until_killed() {
    if std::env::var_os("LOXI_TEST_HOLD").is_none() {
        return;
    }
    let host = NetNs::current().unwrap();
    let local = balancer(&host, Mode::Tc, Way::Filters);
    local.attach(&eth0()).unwrap();
    println!("\nattached");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// Has a process attach and kills it.
fn killed(host: &NetNs) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "held_until_killed", "--nocapture"]).env("LOXI_TEST_HOLD", "1");
    command.stdout(Stdio::piped());
    let mut holder = Place { net: Some(host), mounts: None }.spawn(&mut command).unwrap();
    let mut output = BufReader::new(holder.stdout.take().unwrap()).lines();
    let attached = output.any(|line| line.unwrap() == "attached");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(attached);
}

#[test]
fn a_stub_of_a_killed_process_gives_way() {
    if !privileged("a_stub_of_a_killed_process_gives_way") {
        return;
    }
    for way in Way::all() {
        let lan = service();
        let host = &lan.hosts[1];
        killed(host);
        let left = listed(host).tc;
        assert_eq!((left.programs.len(), left.clsact), (1, true), "what nobody holds is the kernel's");
        assert_eq!(Asked::open(&lan.hosts[0], "192.0.2.2:22").unwrap().name, "shell");
        let local = balancer(host, Mode::Tc, *way);
        local.attach(&eth0()).unwrap();
        let ours = listed(host).tc;
        assert_eq!((ours.programs.len(), ours.clsact), (1, *way == Way::Filters));
        assert_ne!(ours, left);
        works(&lan);
        drop(local);
        assert_eq!(listed(host), Listed::default());
    }
}
