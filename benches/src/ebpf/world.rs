//! Where the programs are bound: a network namespace with a veth per port, and a bpf file system,
//! both without a name, so that they go with this process however it ends.

use anyhow::{Context as _, Result};
use loxi_linux::MacAddr;
use loxi_linux::netns::{self, NetNs, NetNsGuard};
use loxi_linux::nftables;
use loxi_linux::offload::{self, Offload};
use loxi_linux::rtnetlink::{LinkChange, Rtnl, VethEnd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

/// Ports of all pipelines together; tunnels have no device.
const DEVICES: [&str; 9] = ["hs1", "hs2", "hs3", "loxi_host", "eth0", "p1", "p2", "l1", "l2"];

/// More ports of the pipelines, which nothing is sent to.
const MORE: [&str; 3] = ["p3", "t1", "l3"];

/// A device whose frames are dropped before anything looks at them: what live frames cost by themselves.
pub(super) const NULL: &str = "null0";

/// The calling thread is in it as long as this lives.
#[derive(Debug)]
pub struct World {
    _inside: NetNsGuard,
    _far: NetNs,
    bpf: OwnedFd,
}

impl World {
    /// Makes it and enters it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new() -> Result<Self> {
        let near = NetNs::anonymous()?;
        let far = NetNs::anonymous()?;
        let inside = netns::enter(&near)?;
        for name in DEVICES.into_iter().chain(MORE).chain([NULL]) {
            wire(name, None, &far)?;
        }
        drop_at(&[NULL])?;
        let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC).context("a bpf file system")?;
        fsconfig_create(&context)?;
        let bpf = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self { _inside: inside, _far: far, bpf })
    }

    /// A namespace with these devices, each with its MAC; what leaves by one is dropped at its other end.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn beside(&self, devices: &[(&str, MacAddr)]) -> Result<(NetNs, NetNs)> {
        let (near, far) = (NetNs::anonymous()?, NetNs::anonymous()?);
        near.run(|| -> Result<()> {
            devices.iter().try_for_each(|(name, mac)| wire(name, Some(*mac), &far))
        })??;
        Ok((near, far))
    }

    /// The folder that keeps tables and programs.
    pub(super) fn pins(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/node", self.bpf.as_raw_fd()))
    }
}

/// A veth to another namespace, at whose end everything is dropped.
fn wire(name: &str, mac: Option<MacAddr>, far: &NetNs) -> Result<()> {
    let end = VethEnd { mac, ..VethEnd::new(name) };
    let mut rtnl = Rtnl::open()?;
    rtnl.veth_add(&end, &VethEnd { netns: Some(far.as_fd()), ..VethEnd::new(name) })?;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    rtnl.link_set(name, &up)?;
    // With it a veth has the queues by which XDP sends, and at which live frames come in.
    offload::set(name, Offload::Gro, true)?;
    far.run(|| -> Result<()> {
        Rtnl::open()?.link_set(name, &up)?;
        offload::set(name, Offload::Gro, true)?;
        drop_at(&[name])
    })?
}

/// Drops what comes in by devices before anything else looks at it.
fn drop_at(devices: &[&str]) -> Result<()> {
    for device in devices {
        nftables::apply_text(&format!(
            "table netdev bench {{\n chain {device} {{\n  type filter hook ingress device {device} priority 0; policy drop;\n }}\n}}\n"
        ))?;
    }
    Ok(())
}
