//! What a node's layout is made from.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::LayoutError;
use crate::nftables::LocalPort;
use crate::sys::Ns;
use crate::{MacAddr, Prefix};

/// The label of everything a layout makes, and where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The instance's name: 1 to 32 small letters, digits and `-`, a letter first.
    pub name: String,
    /// The node's `/run`. A lab gives each node's folder, as seen from the lab.
    pub run: PathBuf,
    /// The node's root network namespace.
    pub root: Ns,
}

impl Instance {
    /// An instance of this machine itself: `/run` and the caller's namespace.
    #[must_use]
    pub fn of_this_machine(name: &str) -> Self {
        Self { name: name.into(), run: "/run".into(), root: Ns::current() }
    }

    /// The instance's run folder: `RUN/loxi/NAME`.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.run.join("loxi").join(&self.name)
    }

    pub(super) fn netns_folder(&self) -> PathBuf {
        self.folder().join("netns")
    }

    /// The instance's namespace of a name.
    #[must_use]
    pub fn netns(&self, name: &str) -> Ns {
        Ns::at(self.netns_folder().join(name))
    }

    /// Where `ip netns` looks for a name: a link to the instance's own file.
    pub(super) fn netns_link(&self, name: &str) -> PathBuf {
        self.run.join("netns").join(name)
    }

    /// Relative, so that it holds wherever the run folder is mounted.
    pub(super) fn netns_link_target(&self, name: &str) -> PathBuf {
        Path::new("../loxi").join(&self.name).join("netns").join(name)
    }

    pub(super) fn saved_sysctls(&self) -> PathBuf {
        self.folder().join("sysctls.saved")
    }

    /// The label of a link of ours.
    #[must_use]
    pub fn label(&self, what: &str) -> String {
        format!("loxi:{}:{what}", self.name)
    }

    pub(super) fn owns_link(&self, alias: Option<&str>) -> bool {
        alias.is_some_and(|alias| alias.starts_with(&self.label("")))
    }

    /// The name of a table of ours. Names have no `_`, so no instance's
    /// tables start like another's.
    pub(super) fn table(&self, what: &str) -> String {
        format!("loxi_{}_{what}", self.name)
    }

    pub(super) fn owns_table(&self, name: &str) -> bool {
        name.starts_with(&self.table(""))
    }

    pub(super) fn check(&self) -> Result<(), LayoutError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts = self.name.starts_with(|c: char| c.is_ascii_lowercase());
        if starts && self.name.len() <= 32 && self.name.chars().all(plain) {
            Ok(())
        } else {
            Err(LayoutError::Spec { field: "instance", value: self.name.clone() })
        }
    }
}

/// The overlay as far as the kernel has to leave it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port that tunnels arrive at.
    pub port: u16,
}

impl Default for Overlay {
    fn default() -> Self {
        Self { vni: 100, port: 4789 }
    }
}

/// Offloads of the links that the dataplane has its ports on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offloads {
    /// As the kernel makes links: a stack hands over aggregates, and checksums that a device is to complete. For a
    /// dataplane in the kernel, which passes them on as they are.
    On,
    /// None: frames are as on a wire. For a dataplane that has each in its hands, and would take aggregates apart.
    Off,
    /// None but that received segments are merged: only then a veth takes frames from programs at XDP.
    Merge,
}

/// Everything a layout is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutSpec {
    /// The label.
    pub instance: Instance,
    /// The name of the dataplane's namespace.
    pub netns: String,
    /// The node's uplink, in the root namespace; it stays there.
    pub uplink: String,
    /// The uplink's own addresses: tunnels to them are the dataplane's. None means: to any.
    pub underlay: Vec<IpAddr>,
    /// The switch's addresses, the pods' gateways; one per family at most.
    pub switch: Vec<IpAddr>,
    /// The host's addresses in the pod network; one per family at most.
    pub host: Vec<IpAddr>,
    /// This node's pods.
    pub pod_cidrs: Vec<Prefix>,
    /// All nodes' pods.
    pub cluster_cidrs: Vec<Prefix>,
    /// The services.
    pub service_cidrs: Vec<Prefix>,
    /// The pods' MTU.
    pub mtu: u32,
    /// The overlay.
    pub overlay: Overlay,
    /// Give pods' traffic to the outside the node's address.
    pub masquerade: bool,
    /// The offloads of pods' and the host's links.
    pub offloads: Offloads,
    /// TCP and UDP ports of the underlay's addresses, first and last, at which the kernel is to keep silent: those of a
    /// dataplane that gets copies of what arrives. None for one that takes frames away before the kernel has them.
    pub silent_ports: Option<(u16, u16)>,
    /// The switch's Ethernet address.
    pub switch_mac: MacAddr,
    /// The host's, on the root side of `loxi_host`.
    pub host_mac: MacAddr,
    /// The VTEP's.
    pub vtep_mac: MacAddr,
}

impl LayoutSpec {
    /// A layout without addresses, its Ethernet addresses from the instance's name.
    #[must_use]
    pub fn new(instance: Instance, uplink: &str) -> Self {
        let mac = |port| mac_for(&instance.name, port);
        Self {
            netns: "loxilight".into(),
            uplink: uplink.into(),
            underlay: Vec::new(),
            switch: Vec::new(),
            host: Vec::new(),
            pod_cidrs: Vec::new(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            mtu: 1450,
            overlay: Overlay::default(),
            masquerade: false,
            offloads: Offloads::Off,
            silent_ports: None,
            switch_mac: mac(super::SWITCH),
            host_mac: mac(super::HOST),
            vtep_mac: mac(super::VTEP),
            instance,
        }
    }

    /// The dataplane's namespace.
    #[must_use]
    pub fn dataplane(&self) -> Ns {
        self.instance.netns(&self.netns)
    }

    /// The addresses of both lists that go together: the host's beside the switch's of its family.
    pub(super) fn families(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.switch.iter().filter_map(|switch| {
            let same = |host: &&IpAddr| host.is_ipv4() == switch.is_ipv4();
            Some((*switch, *self.host.iter().find(same)?))
        })
    }

    pub(super) fn check(&self) -> Result<(), LayoutError> {
        self.instance.check()?;
        let bad = |field, value: String| Err(LayoutError::Spec { field, value });
        if self.netns.is_empty() || self.netns.contains('/') || self.netns.starts_with('.') {
            return bad("netns", self.netns.clone());
        }
        if !(1280..=65_535).contains(&self.mtu) {
            return bad("mtu", self.mtu.to_string());
        }
        for (field, list) in [("switch", &self.switch), ("host", &self.host)] {
            let v4 = list.iter().filter(|addr| addr.is_ipv4()).count();
            if v4 > 1 || list.len() - v4 > 1 {
                return bad(field, format!("{list:?}"));
            }
        }
        if self.families().count() != self.switch.len() || self.switch.len() != self.host.len() {
            return bad("host", format!("{:?}", self.host));
        }
        Ok(())
    }
}

/// A pod's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// The port's name in the dataplane: `hs1`, `hs2`, …
    pub port: String,
    /// The pod's namespace.
    pub netns: Ns,
    /// The interface's name in the pod.
    pub ifname: String,
    /// The pod's addresses; with a shorter prefix the network is on the link.
    pub addresses: Vec<Prefix>,
    /// The gateways, one per family at most.
    pub gateways: Vec<IpAddr>,
    /// The pod's Ethernet address.
    pub mac: MacAddr,
    /// Ports of the node that lead its own processes to the pod.
    pub local_ports: Vec<LocalPort>,
}

/// An Ethernet address that is the same each time: locally administered, from a seed
/// (the node's name) and the name of a port.
#[must_use]
pub fn mac_for(seed: &str, port: &str) -> MacAddr {
    // FNV-1a with a zero between the names, so that "a"+"bc" and "ab"+"c" differ.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.bytes().chain([0]).chain(port.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [a, b, c, d, e, ..] = (hash ^ (hash >> 40)).to_le_bytes();
    MacAddr([0x02, a, b, c, d, e])
}
