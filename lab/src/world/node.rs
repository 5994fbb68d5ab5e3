//! A node before its programs run: its own view of `/run`, with the cluster's manifests and the pods' namespaces in it.
//! Everything else of its network its agent makes.

use std::path::Path;

use loxi_linux::netns::NetNs;
use loxi_linux::place::{MountNs, MountSetup};
use loxi_linux::rtnetlink::{LinkChange, Rtnl};
use loxi_linux::sys::SysError;

use super::{CLUSTER, PODS_NETNS, WorldError, file, folder, node_run, ns, settings};
use crate::plan::{PODS, Plan, Spot, WIRE_MTU};

/// The node's view: `/run` and the bpf file system are its own. What is mounted in it later is seen inside alone.
pub(super) fn view(plan: &Plan, node: u8) -> Result<MountNs, WorldError> {
    let run = node_run(plan, node);
    let shown = [(folder(plan).join(CLUSTER), CLUSTER), (folder(plan).join("netns"), PODS_NETNS)];
    let mut mounts = Vec::new();
    for (from, name) in shown {
        let at = run.join(name);
        for folder in [&from, &at] {
            std::fs::create_dir_all(folder).map_err(file("make folder", folder))?;
        }
        // Before `/run` is the node's, since what is shown is below the machine's.
        mounts.push(MountSetup::Bind { from, at });
    }
    mounts.push(MountSetup::Bind { from: run, at: "/run".into() });
    // What a node's programs are kept in goes with the node.
    mounts.push(MountSetup::Bpffs { at: "/sys/fs/bpf".into() });
    Ok(MountNs::create(&mounts)?)
}

/// Opens the namespace that a node's agent has made for its dataplane.
pub(super) fn dataplane(plan: &Plan, node: u8, view: &MountNs) -> Result<NetNs, WorldError> {
    let path = dataplane_file(Path::new("/run"), plan, node);
    Ok(view.run(|| NetNs::open(path))??)
}

/// Where it is, below a node's `/run`.
pub(super) fn dataplane_file(run: &Path, plan: &Plan, node: u8) -> std::path::PathBuf {
    run.join("loxi").join(plan.node_instance(node)).join("netns/loxilight")
}

/// Settings of the pods' namespaces that traceroute and path MTU need.
pub(super) fn unlimit(plan: &Plan, node: u8) -> Result<(), WorldError> {
    PODS.into_iter().try_for_each(|pod| {
        let spot = Spot::Pod(node, pod);
        let unlimited = [("net.ipv4.icmp_ratelimit", "0"), ("net.ipv6.icmp.ratelimit", "0")];
        settings(&ns(plan, spot), &spot.to_string(), &unlimited)
    })
}

/// Lets a link take packets as large as the wire's.
pub(super) fn widen(at: &NetNs, spot: Spot, link: &str) -> Result<(), WorldError> {
    let change = LinkChange { mtu: Some(WIRE_MTU.into()), ..LinkChange::default() };
    let failed = |source: SysError| WorldError::Sys { spot: spot.to_string(), source };
    at.run(|| Rtnl::open()?.link_set(link, &change))?.map_err(|error| failed(error.into()))
}
