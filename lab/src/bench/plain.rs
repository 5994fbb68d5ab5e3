//! The peer: two nodes of plain Linux, set up as the reference `bridge` plugin with routes and a vxlan device
//! for the other node would be: a bridge per node with its pods' veths on it, the gateway's address on the bridge, the
//! other node's pods behind a kernel vxlan.
//!
//! Namespaces have no names, so that they go with this value, however the process ends.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use loxi_linux::netns::NetNs;
use loxi_linux::offload;
use loxi_linux::rtnetlink::{Rtnl, VethEnd};

use super::MTU;
use crate::plan::{self, Family, NODES, Spot, WIRE_MTU};

const PODS: [u8; 2] = [1, 2];

/// Two nodes of plain Linux.
#[derive(Debug)]
pub struct Plain {
    pods: BTreeMap<Spot, NetNs>,
    _nodes: Vec<NetNs>,
    _wire: NetNs,
}

impl Plain {
    /// Makes them.
    ///
    /// # Errors
    /// If the kernel refuses; then nothing is left.
    pub fn create() -> anyhow::Result<Self> {
        let wire = NetNs::anonymous()?;
        shell(&wire, "ip link add wire type bridge\nip link set wire up")?;
        let (mut pods, mut nodes) = (BTreeMap::new(), Vec::new());
        for node in NODES {
            let at = NetNs::anonymous()?;
            let port = format!("n{node}");
            veth(&wire, &port, &at, "eth0", WIRE_MTU)?;
            // As on the lab's wire: complete checksums, no super-frames.
            wire.run(|| offload::disable_all(&port))??;
            at.run(|| offload::disable_all("eth0"))??;
            shell(&wire, &format!("ip link set {port} master wire up"))?;
            let own = |spot: Spot| -> anyhow::Result<_> { spot.address(Family::V4).context("no address") };
            let (gateway, on_wire) = (plan::switch(node, Family::V4), own(Spot::Node(node))?);
            shell(
                &at,
                &format!(
                    "ip link set lo up\nip link set eth0 up\nip addr add {on_wire}/24 dev eth0\n\
                     echo 1 >/proc/sys/net/ipv4/ip_forward\n\
                     ip link add br0 type bridge\nip link set br0 mtu {MTU} up\nip addr add {gateway}/24 dev br0"
                ),
            )?;
            for pod in PODS {
                let inside = NetNs::anonymous()?;
                let port = format!("v{pod}");
                veth(&at, &port, &inside, "eth0", MTU)?;
                shell(&at, &format!("ip link set {port} master br0 up"))?;
                let address = plan::pod(node, pod, Family::V4);
                shell(
                    &inside,
                    &format!(
                        "ip link set lo up\nip link set eth0 up\nip addr add {address}/24 dev eth0\n\
                         ip route add default via {gateway}"
                    ),
                )?;
                pods.insert(Spot::Pod(node, pod), inside);
            }
            nodes.push(at);
        }
        for (at, (node, other)) in nodes.iter().zip([(NODES[0], NODES[1]), (NODES[1], NODES[0])]) {
            let [local, remote] = [node, other].map(|node| plan::on_wire(node, Family::V4));
            let (cidr, via) = (plan::pod_cidr(other, Family::V4), plan::switch(other, Family::V4));
            shell(
                at,
                &format!(
                    "ip link add vx0 address 02:00:00:00:0f:{node:02x} type vxlan id 100 local {local} remote {remote} \
                     dstport 4789 dev eth0\nip link set vx0 mtu {MTU} up\n\
                     ip neigh add {via} lladdr 02:00:00:00:0f:{other:02x} dev vx0 nud permanent\n\
                     ip route add {cidr} via {via} dev vx0 onlink"
                ),
            )?;
        }
        Ok(Self { pods, _nodes: nodes, _wire: wire })
    }

    /// The namespace of a pod.
    #[must_use]
    pub fn pod(&self, spot: Spot) -> Option<&NetNs> {
        self.pods.get(&spot)
    }
}

fn veth(here: &NetNs, name: &str, there: &NetNs, far: &str, mtu: u16) -> anyhow::Result<()> {
    let mtu = Some(u32::from(mtu));
    here.run(|| -> anyhow::Result<()> {
        let end = VethEnd { mtu, ..VethEnd::new(name) };
        Ok(Rtnl::open()?.veth_add(&end, &VethEnd { mtu, netns: Some(there.as_fd()), ..VethEnd::new(far) })?)
    })?
}

fn shell(at: &NetNs, script: &str) -> anyhow::Result<()> {
    let output = at.run(|| {
        Command::new("sh").args(["-ec", &format!("PATH=$PATH:/usr/sbin:/sbin\n{script}")]).output()
    })??;
    ensure!(output.status.success(), "{}: {script}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
