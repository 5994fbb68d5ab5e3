//! The world: the namespaces of a lab, the wire, and each node's view of the file system. What is in them besides, the nodes'
//! own programs make.
//!
//! A [`World`] is all of one instance. Nothing of it is outside of its own namespaces and its folder,
//! `/run/loxi-lab/INSTANCE`; dropping it removes both, and [`remove`] does the same from the names alone, for what a
//! killed lab has left. Only one process at a time has a world of an instance ([`Claim`]).

mod claim;
mod node;
mod removal;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loxi_linux::netns::{NetNs, NetNsError};
use loxi_linux::offload::{self, Offload, OffloadError};
use loxi_linux::place::{MountNs, PlaceError};
use loxi_linux::rtnetlink::{OperState, Rtnl, RtnlError};
use loxi_linux::sys::{Ns, RealSys, Sys, SysError};
use loxi_linux::sysctl::SysctlError;

pub use claim::Claim;
pub use removal::{Removed, remove};

use crate::plan::{NODES, Plan, Spot, WIDE_POD};

/// Where every instance has its folder.
pub const FOLDER: &str = "/run/loxi-lab";
/// The folder of the cluster's manifests, in the instance's folder and in each node's `/run`.
pub const CLUSTER: &str = "cluster";
/// The folder of the pods' namespaces in each node's `/run`.
pub const PODS_NETNS: &str = "pods";

/// Why a world could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// Someone else has it.
    #[error("lab {instance} is in use by process {holder}")]
    Taken {
        /// The instance.
        instance: String,
        /// Who has it, as it wrote itself down.
        holder: String,
    },
    /// The caller may not.
    #[error("{}: permission denied: a lab makes network namespaces, which takes root", path.display())]
    NotRoot {
        /// The first file that was refused.
        path: PathBuf,
    },
    /// A file or folder of the instance.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Links, addresses, settings.
    #[error("{spot}: {source}")]
    Sys {
        /// The namespace.
        spot: String,
        /// What went wrong.
        source: SysError,
    },
    /// A namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A node's view of the file system.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A link that stays down.
    #[error("{spot}: {link} does not come up")]
    Down {
        /// The namespace.
        spot: String,
        /// The link.
        link: String,
    },
    /// A process of the instance could not be ended.
    #[error("end process {pid}: {source}")]
    Process {
        /// Its number.
        pid: u32,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// All namespaces of an instance; they go when this value goes.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    spots: Arc<BTreeMap<Spot, NetNs>>,
    dataplanes: BTreeMap<u8, NetNs>,
    mounts: BTreeMap<u8, MountNs>,
    // Last: nobody may take the instance before it is gone.
    claim: Claim,
}

impl World {
    /// Makes the world of a plan, after removing what a killed predecessor has left.
    ///
    /// # Errors
    /// If the instance is in use or the system refuses; then nothing is left.
    pub fn create(plan: &Plan) -> Result<Self, WorldError> {
        let claim = Claim::take(plan)?;
        removal::remove_claimed(plan, &claim)?;
        let mut world = Self {
            plan: plan.clone(),
            spots: Arc::default(),
            dataplanes: BTreeMap::new(),
            mounts: BTreeMap::new(),
            claim,
        };
        // From here on dropping removes whatever has been made.
        let mut spots = BTreeMap::new();
        for spot in Spot::all() {
            spots.insert(spot, NetNs::create_at(netns_file(plan, spot))?);
        }
        world.spots = Arc::new(spots);
        wire::make(plan)?;
        for node in NODES {
            world.mounts.insert(node, node::view(plan, node)?);
        }
        Ok(world)
    }

    /// Takes over what the nodes' programs have made by now: the namespaces of the dataplanes, and the pods' links, of which
    /// one on each node is to take packets as large as the wire's. Waits until every link carries.
    ///
    /// # Errors
    /// If something isn't there, or the system refuses.
    pub fn adopt(&mut self) -> Result<(), WorldError> {
        for node in NODES {
            let Some(view) = self.mounts.get(&node) else { continue };
            let dataplane = node::dataplane(&self.plan, node, view)?;
            node::unlimit(&self.plan, node)?;
            let wide = Spot::Pod(node, WIDE_POD);
            node::widen(&dataplane, wide, &format!("hs{WIDE_POD}"))?;
            if let Some(pod) = self.spot(wide) {
                node::widen(pod, wide, "eth0")?;
            }
            self.dataplanes.insert(node, dataplane);
        }
        self.await_links()
    }

    /// Writes a manifest of the cluster, as a whole.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_manifest(&self, name: &str, text: &str) -> Result<(), WorldError> {
        let path = folder(&self.plan).join(CLUSTER).join(name);
        // Readers pass over what begins with a dot.
        let new = path.with_file_name(format!(".{name}"));
        std::fs::write(&new, text).map_err(file("write", &new))?;
        std::fs::rename(&new, &path).map_err(file("rename", &new))
    }

    /// The plan it was made from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A namespace of the lab.
    #[must_use]
    pub fn spot(&self, spot: Spot) -> Option<&NetNs> {
        self.spots.get(&spot)
    }

    /// All of them, for threads that ask from them. Whoever holds them when the world goes holds
    /// namespaces without a name.
    #[must_use]
    pub fn spots(&self) -> Arc<BTreeMap<Spot, NetNs>> {
        Arc::clone(&self.spots)
    }

    /// The namespace of a node's dataplane, once it was [adopted](Self::adopt).
    #[must_use]
    pub fn dataplane(&self, node: u8) -> Option<&NetNs> {
        self.dataplanes.get(&node)
    }

    /// A node's view of the file system.
    #[must_use]
    pub fn mounts(&self, node: u8) -> Option<&MountNs> {
        self.mounts.get(&node)
    }

    /// Has both ends of the nodes' uplinks merge the segments that they receive: only then a veth has the queues into which
    /// programs at XDP send.
    ///
    /// # Errors
    /// If a device has no such switch.
    pub fn merge_on_the_wire(&self) -> Result<(), WorldError> {
        NODES.iter().try_for_each(|node| {
            let spot = Spot::Node(*node);
            merge(self.spot(spot), &spot, "eth0")?;
            merge(self.spot(Spot::Wire), &Spot::Wire, &spot.to_string())
        })
    }

    /// Removes it all and says what could not be removed, which dropping only prints.
    ///
    /// # Errors
    /// If something is left; everything else is gone.
    pub fn remove(mut self) -> Result<(), WorldError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), WorldError> {
        self.spots = Arc::default();
        self.dataplanes.clear();
        self.mounts.clear();
        removal::remove_claimed(&self.plan, &self.claim).map(drop)
    }

    /// Waits for every link to carry: until a worker of the kernel has seen to it, frames are lost.
    fn await_links(&self) -> Result<(), WorldError> {
        let end = Instant::now() + Duration::from_secs(5);
        let named = self.spots.iter().map(|(spot, ns)| (spot.to_string(), ns));
        let inside = self.dataplanes.iter().map(|(node, ns)| (format!("dataplane of n{node}"), ns));
        for (spot, ns) in named.chain(inside) {
            ns.run(|| await_links_of(&spot, end))??;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("lab {}: {error}", self.plan.instance());
        }
    }
}

/// The folder of an instance.
#[must_use]
pub fn folder(plan: &Plan) -> PathBuf {
    Path::new(FOLDER).join(plan.instance())
}

/// The file of a namespace, for nsenter(1).
#[must_use]
pub fn netns_file(plan: &Plan, spot: Spot) -> PathBuf {
    folder(plan).join("netns").join(spot.to_string())
}

/// A node's `/run`, as the machine sees it.
#[must_use]
pub fn node_run(plan: &Plan, node: u8) -> PathBuf {
    folder(plan).join(Spot::Node(node).to_string()).join("run")
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WorldError {
    let path = path.to_owned();
    move |source| WorldError::File { operation, path, source }
}

fn ns(plan: &Plan, spot: Spot) -> Ns {
    Ns::at(netns_file(plan, spot))
}

fn merge(at: Option<&NetNs>, name: &dyn std::fmt::Display, device: &str) -> Result<(), WorldError> {
    let Some(at) = at else { return Ok(()) };
    let failed = |source: OffloadError| WorldError::Sys { spot: name.to_string(), source: source.into() };
    at.run(|| offload::set(device, Offload::Gro, true))?.map_err(failed)
}

fn await_links_of(spot: &str, end: Instant) -> Result<(), WorldError> {
    let failed = |source: RtnlError| WorldError::Sys { spot: spot.into(), source: source.into() };
    loop {
        let links = Rtnl::open().and_then(|mut rtnl| rtnl.links()).map_err(failed)?;
        // TAPs have no carrier before somebody holds them.
        let waiting = |link: &&loxi_linux::rtnetlink::Link| {
            link.kind.as_deref() == Some("veth") && link.oper_state != OperState::Up
        };
        match links.iter().find(waiting) {
            None => return Ok(()),
            Some(link) if Instant::now() > end => {
                return Err(WorldError::Down { spot: spot.into(), link: link.name.clone() });
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Settings of a namespace; one that this kernel does not have is left out.
fn settings(at: &Ns, name: &str, list: &[(&str, &str)]) -> Result<(), WorldError> {
    for (key, value) in list {
        match RealSys.sysctl_write(at, key, value) {
            Err(SysError::Sysctl(error)) if SysctlError::is_missing(&error) => {}
            other => other.map_err(|source| WorldError::Sys { spot: name.into(), source })?,
        }
    }
    Ok(())
}
