//! How the backend is opened.

use crate::hook::Namespaces;
use crate::load::{Kinds, Sizes};
use loxi_core::dataplane::SlowPath;
use std::path::PathBuf;

/// Hooks at which packets are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// TC at every port.
    #[default]
    Tc,
    /// XDP at uplinks, TC at all other ports.
    Xdp,
    /// Both at uplinks: XDP takes what it can send on by an uplink, TC the rest.
    Both,
}

impl Mode {
    pub(crate) fn kinds(self) -> Kinds {
        Kinds { tc: true, xdp: self != Self::Tc }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::Both => "both",
        })
    }
}

/// Where the devices of ports are.
#[derive(Debug, Default)]
pub enum Devices {
    /// In the namespace of whoever opens the backend.
    #[default]
    Here,
    /// Uplinks in one namespace, all others in another.
    In(Namespaces),
    /// Nowhere: every port can be attached, and packets come by `inject` alone.
    None,
}

/// Options of [`Ebpf::open`](super::Ebpf::open).
#[derive(Default)]
pub struct Options {
    /// Hooks.
    pub mode: Mode,
    /// Room for connections.
    pub sizes: Sizes,
    /// Where the devices of ports are.
    pub devices: Devices,
    /// Folder on a bpf file system that keeps programs, tables and links over the end of this process,
    /// made if it is missing. None: everything goes with the backend.
    pub pins: Option<PathBuf>,
    /// Takes away what that folder has.
    pub discard_state: bool,
    /// What finishes the work that the programs leave. None: such packets are dropped (`unsupported`).
    pub slow_path: Option<Box<dyn SlowPath>>,
    /// The TAP in the dataplane's namespace by which packets go to the slow path and come back,
    /// for whoever calls [`Ebpf::finish_punted`](super::Ebpf::finish_punted).
    pub slow_path_device: Option<String>,
    /// Binds at TC by filters also where the kernel has links, which tests do to have what older kernels have.
    #[doc(hidden)]
    pub filters_at_tc: bool,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("sizes", &self.sizes)
            .field("devices", &self.devices)
            .field("pins", &self.pins)
            .field("discard_state", &self.discard_state)
            .field("slow_path_device", &self.slow_path_device)
            .field("filters_at_tc", &self.filters_at_tc)
            .finish_non_exhaustive()
    }
}
