//! Pods' interfaces: making them, taking them away, and knowing which there are.
//!
//! [`Pods`] does what the container runtime asks for. Each interface has a file ([`Store`]) that is written before anything
//! is made, and removed after everything is gone; so whatever interrupts an operation, the next start or the next operation
//! knows what there may be, and undoes it. Operations on one interface are done one after the other, those on
//! different ones beside each other.
//!
//! Taking an interface away has one order, whoever asks: the dataplane forgets its port, then the link goes, then the addresses are
//! free, then the file goes. A step that fails ends it, and everything after it is still there for the next try. So an
//! address is never given to another pod while flows of the last one live.

mod add;
mod check;
mod error;
mod gc;
mod invocation;
mod key;
mod locks;
mod remove;
mod store;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use loxi_core::net::PortName;
use loxi_linux::layout::{Layout, LayoutSpec};
use loxi_linux::netns::NetNsError;
use loxi_linux::sys::{Ns, Sys, SysError};

pub use add::Added;
pub use error::PodError;
pub use invocation::{Invocation, NetworkConfig};
pub use key::{Key, KeyError};
pub use store::{Address, Broken, Complete, Entry, State, Store, StoreError};

use crate::engine::RequestError;
use crate::intent::Attachment;
use crate::ipam::{HostLocal, Range, RangeError};

/// The rest of the agent, as far as pods' interfaces depend on it.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// Where pods go; none until this node's podCIDR is known.
    fn network(&self) -> Option<Arc<PodNetwork>>;

    /// When this returns, the dataplane has the interface's port and its policies are in force.
    async fn attached(&self, attachment: Attachment) -> Result<(), RequestError>;

    /// When this returns, the dataplane has forgotten the port: its flows are gone and its addresses are free. A port that
    /// it doesn't have is no error.
    async fn detached(&self, port: &PortName) -> Result<(), RequestError>;

    /// Whether an interface could be made now; if not, why.
    ///
    /// # Errors
    /// The reason.
    fn readiness(&self) -> Result<(), String>;
}

/// Where this node's pods go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// The node's layout: its podCIDRs, its switch's addresses, which are the gateways, and the pods' MTU.
    pub layout: LayoutSpec,
}

impl PodNetwork {
    /// The podCIDRs with their gateways.
    ///
    /// # Errors
    /// If the switch has no address in a podCIDR, or that has no room for pods.
    pub fn ranges(&self) -> Result<Vec<Range>, RangeError> {
        let of = |subnet: &loxi_linux::Prefix| {
            let gateway: Option<&IpAddr> =
                self.layout.switch.iter().find(|switch| switch.is_ipv4() == subnet.is_ipv4());
            let gateway = gateway.copied().ok_or(RangeError {
                subnet: *subnet,
                gateway: loxi_linux::Prefix::any(subnet.addr).addr,
                reason: "the switch has no address of this family",
            })?;
            Range::new(*subnet, gateway)
        };
        self.layout.pod_cidrs.iter().map(of).collect()
    }
}

/// What the operations need to know before there is a network.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's layout, as far as it says where the dataplane's namespace is and how the instance is called.
    pub layout: LayoutSpec,
    /// Where addresses come from.
    pub ipam: HostLocal,
}

/// The interfaces of this node's pods.
///
/// Whoever begins an operation is to await its end: given up in the middle, a step that has begun goes on without the
/// interface's lock.
pub struct Pods {
    layout: Layout,
    ipam: HostLocal,
    store: Arc<Store>,
    locks: locks::Locks,
    node: Arc<dyn Node>,
    sys: Arc<dyn Sys>,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").field("store", &self.store).field("ipam", &self.ipam).finish_non_exhaustive()
    }
}

impl Pods {
    /// The interfaces of a store.
    #[must_use]
    pub fn new(settings: Settings, store: Store, node: Arc<dyn Node>, sys: Arc<dyn Sys>) -> Self {
        Self {
            layout: Layout::existing(settings.layout),
            ipam: settings.ipam,
            store: Arc::new(store),
            locks: locks::Locks::default(),
            node,
            sys,
        }
    }

    /// Takes away what an interrupted operation has left half made or half gone.
    ///
    /// # Errors
    /// What couldn't be taken away. The next operation on each tries again, and so do GC and another call.
    pub async fn recover(&self) -> Result<(), PodError> {
        let mut left = Vec::new();
        for key in self.store.keys() {
            let _lock = self.locks.lock(&key).await;
            let Some(entry) = self.store.get(&key).filter(|entry| entry.state == State::Pending) else {
                continue;
            };
            if let Err(error) = self.remove(&key, &entry).await {
                left.push((key.to_string(), error));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(PodError::Left(left)) }
    }

    /// Whether an interface could be made now.
    ///
    /// # Errors
    /// What is missing.
    pub fn status(&self) -> Result<(), PodError> {
        let not = |reason: String| Err(PodError::NotReady(reason));
        let Some(network) = self.node.network() else {
            return not("the node has no podCIDR yet".into());
        };
        if let Err(error) = network.ranges() {
            return not(error.to_string());
        }
        if !self.ipam.binary().is_file() {
            return not(format!("there is no {}", self.ipam.binary().display()));
        }
        self.node.readiness().or_else(not)
    }

    /// Runs what blocks on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Sys) -> Result<T, PodError> + Send + 'static,
    ) -> Result<T, PodError> {
        let sys = Arc::clone(&self.sys);
        let done = tokio::task::spawn_blocking(move || work(&*sys)).await;
        done.unwrap_or_else(|error| Err(PodError::Stopped(error.to_string())))
    }
}

/// Whether a namespace is there. Its file may have outlived it.
fn is_there(sys: &dyn Sys, ns: &Ns) -> Result<bool, PodError> {
    match sys.ns_exists(ns) {
        Err(SysError::NetNs(NetNsError::NotANamespace { .. })) => Ok(false),
        other => other.map_err(|source| PodError::Sys { step: "look for a namespace", source }),
    }
}
