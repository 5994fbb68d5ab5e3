//! Hooks of a device that others use too: their programs stay, and ours leave nothing.
#![allow(clippy::unwrap_used)]

mod fixture;

use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use fixture::{Asked, Lan, address, mac, privileged, run, serve};
use loxi_backend_ebpf::{Ebpf, Mode, Options, Sizes, clock};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, DataplaneError, Local};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::text::from_yaml;
use loxi_linux::netns::NetNs;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

const ONE_MEGABYTE: usize = 1 << 20;

/// A program of nobody's that returns a number and does nothing else, as an object that a loader takes.
fn object(section: &str, returns: i32) -> Vec<u8> {
    let [a, b, c, d] = returns.to_le_bytes();
    // r0 = returns; exit
    let code = [0xb7, 0, 0, 0, a, b, c, d, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let text = object.add_section(Vec::new(), section.into(), SectionKind::Text);
    let value = object.append_section_data(text, &code, 8);
    object.add_symbol(Symbol {
        name: b"stranger".to_vec(),
        value,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    object.write().unwrap()
}

/// Somebody else's program at a device; it goes with this value.
struct Stranger {
    loaded: aya::Ebpf,
    id: u32,
}

impl Stranger {
    fn at_xdp(host: &NetNs) -> Self {
        const XDP_PASS: i32 = 2;
        let mut loaded = aya::Ebpf::load(&object("xdp", XDP_PASS)).unwrap();
        let program: &mut Xdp = loaded.program_mut("stranger").unwrap().try_into().unwrap();
        program.load().unwrap();
        host.run(|| program.attach("eth0", XdpMode::default()).map(drop).unwrap()).unwrap();
        let id = program.info().unwrap().id();
        Self { loaded, id }
    }

    fn at_tcx(host: &NetNs) -> Self {
        const TCX_NEXT: i32 = -1;
        let mut loaded = aya::Ebpf::load(&object("classifier", TCX_NEXT)).unwrap();
        let program: &mut SchedClassifier = loaded.program_mut("stranger").unwrap().try_into().unwrap();
        program.load().unwrap();
        host.run(|| program.attach("eth0", TcAttachType::Ingress).map(drop).unwrap()).unwrap();
        let id = program.info().unwrap().id();
        Self { loaded, id }
    }

    /// How often it has run, while somebody has the kernel count that.
    fn runs(&self) -> u64 {
        let program: &SchedClassifier = self.loaded.program("stranger").unwrap().try_into().unwrap();
        program.info().unwrap().run_count()
    }
}

/// The kernel's numbers of the programs at a host's device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    xdp: Option<u64>,
    tcx: Vec<u32>,
}

fn listed(host: &NetNs) -> Listed {
    let links: serde_json::Value = serde_json::from_str(&run(host, "ip -j link show dev eth0")).unwrap();
    let tcx = host.run(|| SchedClassifier::query_tcx("eth0", TcAttachType::Ingress).unwrap().1).unwrap();
    Listed {
        xdp: links[0]["xdp"]["prog"]["id"].as_u64(),
        tcx: tcx.iter().map(|program| program.id()).collect(),
    }
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
fn balancer(host: &NetNs, mode: Mode) -> Local<Ebpf> {
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
    let options = Options { mode, sizes, ..Options::default() };
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
    let lan = service();
    let host = &lan.hosts[1];
    let stranger = Stranger::at_xdp(host);
    let before = listed(host);
    assert_eq!(before, Listed { xdp: Some(stranger.id.into()), tcx: vec![] });
    for mode in [Mode::Xdp, Mode::Both] {
        let local = balancer(host, mode);
        assert_eq!(conflict(local.attach(&eth0())), format!("stranger ({})", stranger.id), "{mode}");
        assert_eq!(listed(host), before, "{mode}: something of ours is left");
        assert_eq!(local.with_backend(|ebpf| ebpf.attached()), []);
        // The host goes on without us.
        assert_eq!(Asked::open(&lan.hosts[0], "192.0.2.2:22").unwrap().name, "shell");
        drop(local);
        assert_eq!(listed(host), before, "{mode}");
    }

    // It has a hook to itself where we are at TC only.
    let local = balancer(host, Mode::Tc);
    local.attach(&eth0()).unwrap();
    works(&lan);
    let beside = listed(host);
    assert_eq!((beside.xdp, beside.tcx.len()), (before.xdp, 1));
    drop(local);
    assert_eq!(listed(host), before);
}

#[test]
fn another_instance_goes_on_undisturbed() {
    if !privileged("another_instance_goes_on_undisturbed") {
        return;
    }
    // At both hooks the second meets TC first, at XDP that alone.
    let pairs = [(Mode::Tc, Mode::Tc), (Mode::Both, Mode::Both), (Mode::Both, Mode::Xdp)];
    for (of_first, of_second) in pairs {
        let lan = service();
        let host = &lan.hosts[1];
        let first = balancer(host, of_first);
        first.attach(&eth0()).unwrap();
        works(&lan);
        let before = listed(host);
        assert_eq!((before.xdp.is_some(), before.tcx.len()), (of_first == Mode::Both, 1), "{of_first}");

        let second = balancer(host, of_second);
        let program = conflict(second.attach(&eth0()));
        let known = before.tcx.iter().copied().map(u64::from).chain(before.xdp);
        let mut names = known.map(|id| format!("loxi_eth0 ({id})"));
        assert!(names.any(|name| name == program), "{of_first}, {of_second}: {program}");
        assert_eq!(listed(host), before, "{of_first}, {of_second}");
        works(&lan);
        drop(second);
        assert_eq!(listed(host), before, "{of_first}, {of_second}");
        let counted = first.counters().ports[&eth0()].tx_packets;
        works(&lan);
        assert!(
            first.counters().ports[&eth0()].tx_packets > counted,
            "{of_first}: the first forwards no more"
        );
    }
}

#[test]
fn only_what_a_failed_attachment_has_bound_is_let_go() {
    if !privileged("only_what_a_failed_attachment_has_bound_is_let_go") {
        return;
    }
    // At XDP alone the first leaves TC free, where the second binds before it finds XDP taken.
    let lan = service();
    let host = &lan.hosts[1];
    let first = balancer(host, Mode::Xdp);
    first.attach(&eth0()).unwrap();
    let before = listed(host);
    assert_eq!((before.xdp.is_some(), before.tcx.len()), (true, 0));
    let second = balancer(host, Mode::Both);
    conflict(second.attach(&eth0()));
    assert_eq!(listed(host), before);
    drop(first);
    second.attach(&eth0()).unwrap();
    works(&lan);
}

#[test]
fn a_program_of_others_at_tc_stays_beside_ours() {
    if !privileged("a_program_of_others_at_tc_stays_beside_ours") {
        return;
    }
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    let lan = service();
    let host = &lan.hosts[1];
    for first in [true, false] {
        let before = first.then(|| Stranger::at_tcx(host));
        let local = balancer(host, Mode::Tc);
        local.attach(&eth0()).unwrap();
        let stranger = before.unwrap_or_else(|| Stranger::at_tcx(host));
        let both = listed(host);
        assert_eq!(both.tcx.len(), 2, "{both:?}");
        assert_eq!(both.tcx[usize::from(!first)], stranger.id, "{both:?}");
        let (seen, counted) = (stranger.runs(), local.counters().ports[&eth0()].tx_packets);
        works(&lan);
        // Ours has sent the service's packets on; the shell's are everybody's.
        assert!(stranger.runs() > seen, "it has seen no packet");
        assert!(local.counters().ports[&eth0()].tx_packets > counted, "ours has sent no packet");
        local.detach(&eth0()).unwrap();
        assert_eq!(listed(host).tcx, [stranger.id]);
        local.attach(&eth0()).unwrap();
        drop(local);
        assert_eq!(listed(host).tcx, [stranger.id]);
    }
}

#[test]
fn a_device_is_left_as_it_was() {
    if !privileged("a_device_is_left_as_it_was") {
        return;
    }
    let lan = service();
    let host = &lan.hosts[1];
    let nothing = Listed { xdp: None, tcx: vec![] };
    assert_eq!(listed(host), nothing);
    for (mode, xdp, tcx) in [(Mode::Tc, false, 1), (Mode::Xdp, true, 0), (Mode::Both, true, 1)] {
        let local = balancer(host, mode);
        assert_eq!(listed(host), nothing, "{mode}: nothing is bound before a port is");
        for _ in 0..2 {
            local.attach(&eth0()).unwrap();
            let bound = listed(host);
            assert_eq!((bound.xdp.is_some(), bound.tcx.len()), (xdp, tcx), "{mode}");
            local.attach(&eth0()).unwrap();
            assert_eq!(listed(host), bound, "{mode}: attached already");
            local.detach(&eth0()).unwrap();
            assert_eq!(listed(host), nothing, "{mode}");
            assert_eq!(Asked::open(&lan.hosts[0], "192.0.2.2:22").unwrap().name, "shell");
        }
        local.attach(&eth0()).unwrap();
        drop(local);
        assert_eq!(listed(host), nothing, "{mode}");
    }
}

#[test]
fn a_device_that_was_made_anew_is_bound_anew() {
    if !privileged("a_device_that_was_made_anew_is_bound_anew") {
        return;
    }
    let lan = service();
    let host = &lan.hosts[1];
    let local = balancer(host, Mode::Both);
    local.attach(&eth0()).unwrap();
    works(&lan);
    let before = listed(host);
    lan.replug(2);
    assert_eq!(listed(host), Listed { xdp: None, tcx: vec![] });
    local.attach(&eth0()).unwrap();
    let after = listed(host);
    assert_eq!((after.xdp.is_some(), after.tcx.len()), (true, 1));
    assert_ne!(after, before);
    works(&lan);

    // Where it can't be bound, nothing stays of what the one before had.
    lan.replug(2);
    let stranger = Stranger::at_xdp(host);
    let before = listed(host);
    assert_eq!(conflict(local.attach(&eth0())), format!("stranger ({})", stranger.id));
    assert_eq!(listed(host), before);
}
