//! How packets reach the backend: by sockets that the daemon holds, or by programs in the kernel.

use crate::Engine;
use crate::node::Node;
use crate::packets::PacketThread;
use crate::slow_path::{SlowDevice, SlowPathError, SlowPathThread};
use crate::wires::{Namespaces, OpenError, Wires, has_device};
use loxi_core::ir::Port;
use loxi_linux::packet::RxCounters;
use std::sync::Arc;

/// The devices of ports.
#[derive(Debug, Clone)]
pub enum Traffic {
    /// Each has a socket of the daemon's.
    Wires(Arc<Wires>),
    /// Each has a program.
    Programs(Arc<Programs>),
}

/// What the daemon has of the programs' devices.
#[derive(Debug)]
pub struct Programs {
    /// Where devices are; none: nothing has one.
    pub namespaces: Option<Namespaces>,
    /// The slow path's.
    pub slow_path: Option<Arc<SlowDevice>>,
}

/// The thread that moves packets.
#[derive(Debug)]
pub enum TrafficThread {
    /// All of them.
    Packets(PacketThread),
    /// What programs leave.
    SlowPath(SlowPathThread),
}

impl Traffic {
    /// Begins.
    ///
    /// # Errors
    /// [`SlowPathError::Thread`] if the system has no thread left.
    pub fn start(&self, engine: &Arc<Engine>) -> Result<TrafficThread, SlowPathError> {
        Ok(match self {
            Self::Wires(wires) => TrafficThread::Packets(
                PacketThread::start(Arc::clone(engine), Arc::clone(wires)).map_err(SlowPathError::Thread)?,
            ),
            Self::Programs(programs) => TrafficThread::SlowPath(SlowPathThread::start(
                Arc::clone(engine),
                programs.slow_path.clone(),
            )?),
        })
    }

    /// Whether the device to which a port is attached was taken away, or made anew.
    ///
    /// # Errors
    /// If it can't be looked for.
    pub fn is_lost(&self, engine: &Engine, port: &Port) -> Result<bool, OpenError> {
        if !has_device(port.kind) {
            return Ok(false);
        }
        match self {
            Self::Wires(wires) => {
                let Some(wire) = wires.of(&port.name) else { return Ok(false) };
                Ok(wire.is_gone() || wires.namespaces().index(port)? != Some(wire.index()))
            }
            Self::Programs(programs) => {
                let Some(namespaces) = &programs.namespaces else { return Ok(false) };
                let (attached, off) = engine.with_backend(|node| match node {
                    Node::Ebpf(backend) => (backend.device(&port.name), backend.has_lost(&port.name)),
                    Node::Reference(_) => (None, false),
                });
                Ok(attached.is_some() && (off || attached != namespaces.index(port)?))
            }
        }
    }

    /// What each device has received and lost, by its name.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, RxCounters)> {
        match self {
            Self::Wires(wires) => {
                wires.counters().into_iter().map(|(port, rx)| (port.to_string(), rx)).collect()
            }
            Self::Programs(programs) => programs
                .slow_path
                .iter()
                .map(|device| (device.name().to_owned(), device.counters()))
                .collect(),
        }
    }
}

impl TrafficThread {
    /// Lets it finish its batch and waits for its end.
    pub fn stop(self) {
        match self {
            Self::Packets(thread) => thread.stop(),
            Self::SlowPath(thread) => thread.stop(),
        }
    }
}
