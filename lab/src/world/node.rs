//! A node: the product's layout around its dataplane, its pods, and its own view of `/run`.

use loxi_linux::layout::{Instance, Layout, LayoutSpec, PodSpec};
use loxi_linux::netns::NetNs;
use loxi_linux::place::{MountNs, MountSetup};
use loxi_linux::sys::{LinkConfig, RealSys, Sys, SysError};
use loxi_linux::{Prefix, layout};

use super::{WorldError, node_run, ns, settings};
use crate::plan::{self, Family, POD_MTU, PODS, Plan, Spot, WIDE_POD, WIRE_MTU};

/// The instance of a node's layout.
pub(super) fn instance(plan: &Plan, node: u8) -> Instance {
    Instance { name: plan.node_instance(node), run: node_run(plan, node), root: ns(plan, Spot::Node(node)) }
}

/// Makes a node around its root namespace, which has its uplink already. Gives the dataplane's namespace.
pub(super) fn make(plan: &Plan, node: u8, offloads: bool) -> Result<NetNs, WorldError> {
    let failed = |source| WorldError::Layout { node, source };
    let run = node_run(plan, node);
    std::fs::create_dir_all(&run).map_err(|source| WorldError::File {
        operation: "make folder",
        path: run,
        source,
    })?;
    let layout = Layout::ensure(&RealSys, &spec(plan, node, offloads)).map_err(failed)?;
    for pod in PODS {
        let port = format!("hs{pod}");
        let at = ns(plan, Spot::Pod(node, pod));
        let addresses = Family::ALL.map(|family| Prefix {
            addr: plan::pod(node, pod, family),
            len: plan::pod_cidr(node, family).len,
        });
        let spec = PodSpec {
            port: port.clone(),
            netns: at.clone(),
            ifname: "eth0".into(),
            addresses: addresses.into(),
            gateways: Family::ALL.map(|family| plan::switch(node, family)).into(),
            mac: plan.pod_mac(node, pod),
        };
        layout.add_pod(&RealSys, &spec).map_err(failed)?;
        let name = Spot::Pod(node, pod).to_string();
        if pod == WIDE_POD {
            for (ns, link) in [(layout.netns(), port.as_str()), (at.clone(), "eth0")] {
                widen(&ns, link).map_err(|source| WorldError::Sys { spot: name.clone(), source })?;
            }
        }
        settings(&at, &name, &[("net.ipv4.icmp_ratelimit", "0"), ("net.ipv6.icmp.ratelimit", "0")])?;
    }
    Ok(NetNs::open(layout.netns().path())?)
}

/// The node's view: `/run` and the bpf file system are its own. What is mounted there later is not seen inside, so the layout comes first.
pub(super) fn view(plan: &Plan, node: u8) -> Result<MountNs, WorldError> {
    let run = MountSetup::Bind { from: node_run(plan, node), at: "/run".into() };
    // What a node's programs are kept in goes with the node.
    let programs = MountSetup::Bpffs { at: "/sys/fs/bpf".into() };
    Ok(MountNs::create(&[run, programs])?)
}

fn widen(at: &loxi_linux::sys::Ns, link: &str) -> Result<(), SysError> {
    let mtu = Some(u32::from(WIRE_MTU));
    RealSys.link_configure(at, link, LinkConfig { mac: None, mtu, alias: None, up: None })
}

fn spec(plan: &Plan, node: u8, offloads: bool) -> LayoutSpec {
    let both = |address: &dyn Fn(Family) -> std::net::IpAddr| Family::ALL.map(address).to_vec();
    LayoutSpec {
        underlay: both(&|family| plan::on_wire(node, family)),
        switch: both(&|family| plan::switch(node, family)),
        host: both(&|family| plan::host(node, family)),
        pod_cidrs: Family::ALL.map(|family| plan::pod_cidr(node, family)).to_vec(),
        cluster_cidrs: Family::ALL.map(plan::cluster_cidr).to_vec(),
        service_cidrs: Family::ALL.map(plan::service_cidr).to_vec(),
        mtu: POD_MTU.into(),
        overlay: layout::Overlay { vni: plan::VNI, port: 4789 },
        masquerade: true,
        offloads,
        unlimited_icmp: true,
        ..LayoutSpec::new(instance(plan, node), "eth0")
    }
}
