//! Opening the backend that the options ask for, and taking it away.

use crate::Engine;
use crate::node::Node;
use crate::options::{BackendChoice, Hooks, Options};
use crate::slow_path::{SlowDevice, SlowPathError};
use crate::traffic::{Programs, Traffic};
use crate::wires::{Namespaces, WireIo, Wires};
use loxi_backend_ebpf::{Devices, Ebpf, Mode, OpenError, Sizes, capabilities};
use loxi_linux::netns::NetNsError;
use loxi_linux::poller::PollError;
use loxi_reference::{Reference, ReferencePath};
use rustix::mount::{MountFlags, mount};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A network namespace.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// Waiting for packets.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// The slow path's device.
    #[error(transparent)]
    SlowPath(#[from] SlowPathError),
    /// The bpf file system.
    #[error("bpf file system at {}: {source}", path.display())]
    Bpffs {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The programs.
    #[error(transparent)]
    Ebpf(#[from] OpenError),
}

/// The devices of ports, as the backend that is asked for has them.
///
/// # Errors
/// [`BackendError`].
pub fn traffic(options: &Options) -> Result<Traffic, BackendError> {
    let open = || Namespaces::open(options.root_netns.as_deref(), options.dataplane_netns.as_deref());
    if options.backend != BackendChoice::Ebpf {
        return Ok(Traffic::Wires(Arc::new(Wires::new(open()?)?)));
    }
    if options.no_devices {
        return Ok(Traffic::Programs(Arc::new(Programs { namespaces: None, slow_path: None })));
    }
    let namespaces = open()?;
    let slow_path = SlowDevice::open(namespaces.dataplane(), &options.slow_path)?;
    let programs = Programs { namespaces: Some(namespaces), slow_path: Some(Arc::new(slow_path)) };
    Ok(Traffic::Programs(Arc::new(programs)))
}

/// Opens the backend.
///
/// # Errors
/// [`BackendError`].
pub fn open(options: &Options, traffic: &Traffic) -> Result<Node, BackendError> {
    match traffic {
        Traffic::Wires(wires) => {
            let backend = if options.no_devices {
                Reference::new()
            } else {
                Reference::with_io(Box::new(WireIo(Arc::clone(wires))))
            };
            let passes_nothing = options.backend == BackendChoice::None;
            Ok(Node::Reference(Box::new(if passes_nothing { backend.passing_nothing() } else { backend })))
        }
        Traffic::Programs(programs) => {
            Ok(Node::Ebpf(Box::new(Ebpf::open(ebpf_options(options, programs)?)?)))
        }
    }
}

fn ebpf_options(options: &Options, programs: &Programs) -> Result<loxi_backend_ebpf::Options, BackendError> {
    let devices = match &programs.namespaces {
        None => Devices::None,
        Some(namespaces) => {
            let (root, dataplane) = (namespaces.root().try_clone()?, namespaces.dataplane().try_clone()?);
            Devices::In(loxi_backend_ebpf::Namespaces::new(root, dataplane)?)
        }
    };
    let pins = match devices {
        // Without devices nothing needs to go on by itself.
        Devices::None => None,
        _ => {
            mounted(&options.bpffs)?;
            Some(options.bpffs.join("loxi").join(&options.instance))
        }
    };
    Ok(loxi_backend_ebpf::Options {
        mode: match options.hooks {
            Hooks::Tc => Mode::Tc,
            Hooks::Xdp => Mode::Xdp,
            Hooks::Both => Mode::Both,
        },
        sizes: Sizes { flows_v4: options.flows_v4, flows_v6: options.flows_v6 },
        devices,
        pins,
        discard_state: options.discard_state,
        slow_path: Some(Box::new(ReferencePath::assuming(&capabilities()))),
        slow_path_device: programs.slow_path.as_ref().map(|device| device.name().to_owned()),
        ..loxi_backend_ebpf::Options::default()
    })
}

/// Mounts a bpf file system where there is none yet.
fn mounted(path: &Path) -> Result<(), BackendError> {
    let failed = |source: io::Error| BackendError::Bpffs { path: path.to_owned(), source };
    if is_bpffs(path).map_err(failed)? {
        return Ok(());
    }
    tracing::info!(path = %path.display(), "mounting a bpf file system");
    mount(
        "bpf",
        path,
        "bpf",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None::<&std::ffi::CStr>,
    )
    .map_err(|error| failed(error.into()))
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    /// `BPF_FS_MAGIC` of linux/magic.h.
    const MAGIC: u64 = 0xcafe_4a11;
    Ok(rustix::fs::statfs(path)?.f_type as u64 == MAGIC)
}

/// Takes everything of the backend out of the kernel.
///
/// # Errors
/// If something of it stays.
pub fn remove(engine: &Engine) -> io::Result<()> {
    engine.with_backend(|node| match node {
        Node::Ebpf(backend) => backend.remove(),
        Node::Reference(_) => Ok(()),
    })
}
