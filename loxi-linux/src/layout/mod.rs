//! The layout of a node: namespace, interfaces, addresses, routes, settings and filter
//! rules around the dataplane. The names are part of the product.
//!
//! [`Layout::ensure`] makes what is missing and corrects what differs, so calling it again changes nothing. It
//! takes nothing away: for a spec with other addresses or without masquerading, remove the layout first.
//! If a step fails, what *this call* has made is undone; corrections of what was there before stay.
//! Everything carries the instance's label (a link's alias, a table's name, the folder of a namespace's file),
//! and [`cleanup`] goes by the label alone: it needs no memory of who made what. Settings of the root namespace
//! are written down before they are changed, and restored from there.
//!
//! The kernel in the dataplane's namespace neither forwards nor answers: what comes in
//! by a port is dropped behind the taps. Nothing here panics.

mod cleanup;
mod node;
mod pod;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use cleanup::cleanup;
pub use spec::{Instance, LayoutSpec, Offloads, Overlay, PodSpec, mac_for};

use crate::nftables::NftError;
use crate::sys::{Ns, Sys, SysError};

/// The host's interface into the pod network; both ends of the veth have this name.
pub const HOST: &str = "loxi_host";
/// The interface that shows the switch.
pub const SWITCH: &str = "hsvlan110";
/// The interface that shows the VTEP.
pub const VTEP: &str = "hsvxlan100";
/// The device by which the daemon gives packets back to the kernel.
pub const REINJECT: &str = "tun0";

/// Why a layout could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A field makes no sense; nothing was touched.
    #[error("layout: {field} can't be {value}")]
    Spec {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Something of a name we need is there and has not our label; it is left alone.
    #[error("{what} is there already and is not of instance {instance}")]
    Foreign {
        /// The link or file.
        what: String,
        /// The instance that wanted it.
        instance: String,
    },
    /// There is no uplink of this name.
    #[error("no uplink {name}")]
    NoUplink {
        /// The name.
        name: String,
    },
    /// A step failed; the steps before it were undone.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        source: SysError,
    },
    /// A rule can't be written.
    #[error(transparent)]
    Rule(#[from] NftError),
}

/// A layout that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    spec: LayoutSpec,
}

/// A pod's port in the dataplane's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// The port's name.
    pub name: String,
    /// The namespace it is in.
    pub netns: Ns,
    /// The Ethernet address of the port's own end; the pod's is in its spec.
    pub mac: crate::MacAddr,
}

impl Layout {
    /// Makes the layout, or what of it is missing.
    ///
    /// # Errors
    /// If the spec makes no sense, a name is taken by someone else, or the system refuses; then what this
    /// call has made is gone again.
    pub fn ensure(sys: &dyn Sys, spec: &LayoutSpec) -> Result<Self, LayoutError> {
        spec.check()?;
        node::ensure(sys, spec)?;
        Ok(Self { spec: spec.clone() })
    }

    /// A layout that somebody has made already: nothing is looked at. For pods it matters where the dataplane's namespace
    /// is, how the instance is called, and the MTU.
    #[must_use]
    pub fn existing(spec: LayoutSpec) -> Self {
        Self { spec }
    }

    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &LayoutSpec {
        &self.spec
    }

    /// The dataplane's namespace.
    #[must_use]
    pub fn netns(&self) -> Ns {
        self.spec.dataplane()
    }

    /// Connects a pod, or makes what is missing of its connection.
    ///
    /// # Errors
    /// As [`Layout::ensure`].
    pub fn add_pod(&self, sys: &dyn Sys, pod: &PodSpec) -> Result<PodPort, LayoutError> {
        pod::add(sys, &self.spec, pod)
    }

    /// Disconnects a pod: both ends of its veth and its rules go. A port that is not there is no error.
    ///
    /// # Errors
    /// If the port's name is someone else's or the system refuses.
    pub fn remove_pod(&self, sys: &dyn Sys, port: &str) -> Result<(), LayoutError> {
        pod::remove(sys, &self.spec, port)
    }

    /// Removes everything of the instance: the same as [`cleanup`].
    ///
    /// # Errors
    /// As [`cleanup`].
    pub fn remove(self, sys: &dyn Sys) -> Result<(), LayoutError> {
        cleanup(sys, &self.spec.instance)
    }
}
