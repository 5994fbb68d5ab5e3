//! The thread that moves packets.
//!
//! It waits for all devices, takes up to [`BATCH`] frames from each that is
//! ready, and hands them to the backend under one taking of its lock; what comes
//! out is sent by the backend itself. Between batches others get the lock. A
//! device that gave a whole batch is asked again before the thread waits, since
//! it may hold frames that the kernel no longer knows of.

use crate::Engine;
use crate::node::Node;
use crate::wires::{Wire, Wires};
use loxi_core::packet::{ChoiceSource, SeededChoices, Timestamp};
use loxi_linux::packet::FrameError;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames taken from one device at a time.
pub const BATCH: usize = 64;

/// How often time passes in the backend.
pub(crate) const TICK: Duration = Duration::from_millis(200);

/// A running packet thread.
#[derive(Debug)]
pub struct PacketThread {
    stop: Arc<AtomicBool>,
    wires: Arc<Wires>,
    thread: Option<JoinHandle<()>>,
}

impl PacketThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(engine: Arc<Engine>, wires: Arc<Wires>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, waiting) = (Arc::clone(&stop), Arc::clone(&wires));
        let thread = std::thread::Builder::new()
            .name("packets".to_owned())
            .spawn(move || run(&engine, &waiting, &stopped))?;
        Ok(Self { stop, wires, thread: Some(thread) })
    }

    /// Lets it finish its batch and waits for its end.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.wires.poller().waker().wake() {
            tracing::warn!(%error, "waking the packet thread");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the packet thread has panicked");
        }
    }
}

/// Frames of one device, in buffers that are used again and again.
#[derive(Default)]
struct Batch {
    frames: Vec<Vec<u8>>,
    len: usize,
}

impl Batch {
    /// Takes what a device has, up to [`BATCH`] frames; whether there may be more.
    fn fill(&mut self, wire: &Wire, wires: &Wires) -> bool {
        self.len = 0;
        let mut lost = false;
        {
            let mut device = wire.device();
            while self.len < BATCH {
                if self.frames.len() == self.len {
                    self.frames.push(Vec::new());
                }
                match device.recv(&mut self.frames[self.len]) {
                    Ok(Some(_)) => self.len += 1,
                    Ok(None) => return false,
                    // Told once when the device goes down; it may come up again.
                    Err(FrameError::Down { .. }) => return false,
                    Err(FrameError::Gone { .. }) => {
                        lost = true;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(port = %wire.port(), %error, "receiving");
                        return false;
                    }
                }
            }
        }
        if lost {
            wires.lost(wire);
        }
        !lost
    }

    fn run(&self, wire: &Wire, engine: &Engine, choices: &mut dyn ChoiceSource) {
        if self.len == 0 {
            return;
        }
        let now = now();
        engine.with_backend(|node| {
            // Programs receive by themselves.
            let Node::Reference(backend) = node else { return };
            for frame in &self.frames[..self.len] {
                backend.receive(wire.port(), frame, now, choices);
            }
        });
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp(loxi_linux::clock::now())
}

/// Choices that nobody outside can foresee: the standard library seeds its
/// hashers from the system's randomness.
pub(crate) fn unforeseeable() -> SeededChoices {
    SeededChoices::new(std::collections::hash_map::RandomState::new().build_hasher().finish())
}

fn run(engine: &Engine, wires: &Wires, stop: &AtomicBool) {
    let mut choices = unforeseeable();
    let mut ready = Vec::new();
    let mut again: Vec<u64> = Vec::new();
    let mut batch = Batch::default();
    let mut ticked = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let wait = if again.is_empty() { TICK } else { Duration::ZERO };
        if let Err(error) = wires.poller().wait(&mut ready, Some(wait)) {
            tracing::error!(%error, "waiting for packets");
            std::thread::sleep(TICK);
        }
        let mut tokens: Vec<u64> = ready.iter().map(|ready| ready.token).collect();
        tokens.append(&mut again);
        tokens.sort_unstable();
        tokens.dedup();
        if !tokens.is_empty() {
            for wire in wires.all() {
                if tokens.binary_search(&wire.token()).is_ok() && !wire.is_gone() {
                    if batch.fill(&wire, wires) {
                        again.push(wire.token());
                    }
                    batch.run(&wire, engine, &mut choices);
                }
            }
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            engine.with_backend(|backend| backend.tick(now()));
            engine.pump_events();
        }
    }
}
