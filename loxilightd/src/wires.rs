//! The devices behind the ports.
//!
//! Uplinks are devices of the root namespace, all other ports of the dataplane's;
//! a tunnel port has no device. TAPs are opened as such, everything else by a
//! packet socket. [`WireIo`] is the backend's view (open, close, send); the
//! packet thread receives through [`Wires`].
//!
//! A device is locked by itself: sending by one doesn't wait for receiving from
//! another.

use loxi_core::ir::{Port, PortKind};
use loxi_core::net::PortName;
use loxi_core::reason::DropReason;
use loxi_linux::netns::{NetNs, NetNsError};
use loxi_linux::packet::{FrameError, FrameIo, PacketSocket, RxCounters, Tap, TapOptions};
use loxi_linux::poller::{Interest, PollError, Poller};
use loxi_linux::rtnetlink::{Rtnl, RtnlError};
use loxi_reference::PortIo;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Why a device can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none of that name in the namespace where the port belongs.
    #[error("there is no device {device} in the {place} namespace")]
    NoDevice {
        /// Its name.
        device: String,
        /// `root` or `dataplane`.
        place: &'static str,
    },
    /// The namespace can't be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The kernel does not say what devices there are.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// The device refuses.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It can't be waited for.
    #[error(transparent)]
    Poll(#[from] PollError),
}

/// Where devices are.
#[derive(Debug)]
pub struct Namespaces {
    root: NetNs,
    dataplane: NetNs,
}

impl Namespaces {
    /// Opens both; none given is the caller's own.
    ///
    /// # Errors
    /// If one can't be opened.
    pub fn open(root: Option<&str>, dataplane: Option<&str>) -> Result<Self, NetNsError> {
        let open = |given: Option<&str>| match given {
            None => NetNs::current(),
            Some(path) if path.contains('/') => NetNs::open(path),
            Some(name) => NetNs::open_name(name),
        };
        Ok(Self { root: open(root)?, dataplane: open(dataplane)? })
    }

    /// That of uplinks.
    #[must_use]
    pub fn root(&self) -> &NetNs {
        &self.root
    }

    /// That of all other ports.
    #[must_use]
    pub fn dataplane(&self) -> &NetNs {
        &self.dataplane
    }

    fn of(&self, kind: PortKind) -> (&NetNs, &'static str) {
        match kind {
            PortKind::Uplink => (&self.root, "root"),
            _ => (&self.dataplane, "dataplane"),
        }
    }

    /// The index of a port's device now; `None` where there is none.
    ///
    /// # Errors
    /// If the namespace or the kernel can't be asked.
    pub fn index(&self, port: &Port) -> Result<Option<u32>, OpenError> {
        let name = port.name.as_str();
        let found = self.of(port.kind).0.run(|| Rtnl::open()?.link(name))??;
        Ok(found.map(|link| link.index))
    }
}

/// Whether a port has a device at all.
#[must_use]
pub fn has_device(kind: PortKind) -> bool {
    kind != PortKind::Tunnel
}

/// The device behind one port.
pub struct Wire {
    port: PortName,
    token: u64,
    index: u32,
    /// It was taken away under us.
    gone: AtomicBool,
    device: Mutex<Box<dyn FrameIo>>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("port", &self.port).field("index", &self.index).finish_non_exhaustive()
    }
}

impl Wire {
    /// The port.
    #[must_use]
    pub fn port(&self) -> &PortName {
        &self.port
    }

    /// Its token at the poller.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The index of the device when it was opened.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the device was taken away.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The device itself.
    pub fn device(&self) -> MutexGuard<'_, Box<dyn FrameIo>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every open device, and a way to wait for all of them.
#[derive(Debug)]
pub struct Wires {
    namespaces: Namespaces,
    poller: Poller,
    next_token: AtomicU64,
    open: RwLock<BTreeMap<PortName, Arc<Wire>>>,
}

impl Wires {
    /// No device yet.
    ///
    /// # Errors
    /// If descriptors have run out.
    pub fn new(namespaces: Namespaces) -> Result<Self, PollError> {
        let open = RwLock::default();
        Ok(Self { namespaces, poller: Poller::new()?, next_token: AtomicU64::new(0), open })
    }

    /// Where devices are.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Waits for all devices; tokens are those of the wires.
    #[must_use]
    pub fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Every open device.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Wire>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The device of a port.
    #[must_use]
    pub fn of(&self, port: &PortName) -> Option<Arc<Wire>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(port).cloned()
    }

    /// What each device has received and lost.
    #[must_use]
    pub fn counters(&self) -> Vec<(PortName, RxCounters)> {
        self.all().iter().map(|wire| (wire.port.clone(), wire.device().counters())).collect()
    }

    /// Notes that a device was taken away, and waits for it no longer.
    pub fn lost(&self, wire: &Wire) {
        if !wire.gone.swap(true, Ordering::AcqRel) {
            self.forget(wire);
        }
    }

    fn forget(&self, wire: &Wire) {
        let device = wire.device();
        if let Some(fd) = device.poll_fd()
            && let Err(error) = self.poller.remove(fd)
        {
            tracing::debug!(port = %wire.port, %error, "waiting for a device that is not there");
        }
    }

    fn open(&self, port: &Port) -> Result<(), OpenError> {
        let name = port.name.as_str();
        let (namespace, place) = self.namespaces.of(port.kind);
        let (device, index) = namespace.run(|| -> Result<(Box<dyn FrameIo>, u32), OpenError> {
            let link = Rtnl::open()?.link(name)?;
            let link = link.ok_or_else(|| OpenError::NoDevice { device: name.to_owned(), place })?;
            let device: Box<dyn FrameIo> = if link.kind.as_deref() == Some("tun") {
                Box::new(Tap::open(name, TapOptions { offloads: true, ..TapOptions::default() })?)
            } else {
                Box::new(PacketSocket::open(name)?)
            };
            Ok((device, link.index))
        })??;
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let wire = Arc::new(Wire {
            port: port.name.clone(),
            token,
            index,
            gone: AtomicBool::new(false),
            device: Mutex::new(device),
        });
        if let Some(fd) = wire.device().poll_fd() {
            self.poller.add(fd, token, Interest::Read)?;
        }
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = open.insert(port.name.clone(), wire) {
            self.lost(&before);
        }
        Ok(())
    }

    fn close(&self, port: &PortName) {
        let wire = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(port);
        if let Some(wire) = wire {
            // The packet thread may still hold it; nothing more is received from it.
            self.lost(&wire);
        }
    }

    fn send(&self, port: &PortName, bytes: &[u8]) -> Result<(), DropReason> {
        let wire = self.of(port).filter(|wire| !wire.is_gone()).ok_or(DropReason::EgressDown)?;
        let sent = wire.device().send(bytes);
        sent.map_err(|error| match error {
            FrameError::BadLength { .. } => DropReason::Mtu,
            FrameError::Busy { .. } => DropReason::QueueFull,
            FrameError::Gone { .. } => {
                self.lost(&wire);
                DropReason::EgressDown
            }
            FrameError::Down { .. } => DropReason::EgressDown,
            other => {
                tracing::debug!(%port, error = %other, "sending");
                DropReason::EgressDown
            }
        })
    }
}

/// The backend's view of the devices.
#[derive(Debug, Clone)]
pub struct WireIo(pub Arc<Wires>);

impl PortIo for WireIo {
    fn open(&mut self, port: &Port) -> Result<(), String> {
        if !has_device(port.kind) {
            return Ok(());
        }
        self.0.open(port).map_err(|error| error.to_string())
    }

    fn close(&mut self, port: &PortName) {
        self.0.close(port);
    }

    fn send(&mut self, port: &PortName, bytes: &[u8]) -> Result<(), DropReason> {
        self.0.send(port, bytes)
    }
}
