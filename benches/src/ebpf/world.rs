//! Where the programs are bound: a network namespace with a veth per port, and a bpf file system,
//! both without a name, so that they go with this process however it ends.

use anyhow::{Context as _, Result};
use loxi_linux::netns::{self, NetNs, NetNsGuard};
use loxi_linux::offload::{self, Offload};
use loxi_linux::rtnetlink::{LinkChange, Rtnl, VethEnd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

/// Ports of all pipelines together; tunnels have no device.
const DEVICES: [&str; 9] = ["hs1", "hs2", "hs3", "loxi_host", "eth0", "p1", "p2", "l1", "l2"];

/// More ports of the pipelines, which nothing is sent to.
const MORE: [&str; 4] = ["p3", "t1", "l3", "eth1"];

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
        let mut rtnl = Rtnl::open()?;
        for name in DEVICES.into_iter().chain(MORE) {
            let end = VethEnd::new(name);
            rtnl.veth_add(&end, &VethEnd { netns: Some(std::os::fd::AsFd::as_fd(&far)), ..end })?;
            rtnl.link_set(name, &LinkChange { up: Some(true), ..LinkChange::default() })?;
            // With it a veth has the queues that XDP sends by.
            offload::set(name, Offload::Gro, true)?;
        }
        let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC).context("a bpf file system")?;
        fsconfig_create(&context)?;
        let bpf = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self { _inside: inside, _far: far, bpf })
    }

    /// The folder that keeps tables and programs.
    pub(super) fn pins(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/node", self.bpf.as_raw_fd()))
    }
}
