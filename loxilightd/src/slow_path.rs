//! The thread that finishes what the programs leave.
//!
//! Programs send unfinished packets to a TAP; here they are read, given to the
//! backend under one taking of its lock per batch, and what comes of them is written to the same TAP,
//! where a program sends it on. Between batches others get the lock.

use crate::Engine;
use crate::node::Node;
use crate::packets::{BATCH, TICK, now, unforeseeable};
use loxi_core::packet::ChoiceSource;
use loxi_linux::netns::{NetNs, NetNsError};
use loxi_linux::packet::{FrameError, FrameIo, RxCounters, Tap, TapOptions};
use loxi_linux::poller::{Interest, PollError, Poller, Waker};
use loxi_linux::rtnetlink::{LinkChange, Rtnl, RtnlError};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Why the slow path's device can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlowPathError {
    /// The namespace can't be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The device can't be opened.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It can't be brought up.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// It can't be waited for.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// The system has no thread left.
    #[error("slow path thread: {0}")]
    Thread(#[source] io::Error),
}

/// The device by which packets come and go.
#[derive(Debug)]
pub struct SlowDevice {
    name: String,
    tap: Mutex<Tap>,
    poller: Poller,
}

impl SlowDevice {
    /// Opens the TAP in the dataplane's namespace, or makes it there.
    ///
    /// # Errors
    /// [`SlowPathError`].
    pub fn open(dataplane: &NetNs, name: &str) -> Result<Self, SlowPathError> {
        let tap = dataplane.run(|| -> Result<Tap, SlowPathError> {
            // The kernel finishes checksums and segments: the backend takes whole frames.
            let tap = Tap::open(name, TapOptions::default())?;
            Rtnl::open()?.link_set(name, &LinkChange { up: Some(true), ..LinkChange::default() })?;
            Ok(tap)
        })??;
        let poller = Poller::new()?;
        if let Some(fd) = tap.poll_fd() {
            poller.add(fd, 0, Interest::Read)?;
        }
        Ok(Self { name: name.to_owned(), tap: Mutex::new(tap), poller })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has received and lost.
    #[must_use]
    pub fn counters(&self) -> RxCounters {
        self.tap().counters()
    }

    fn tap(&self) -> std::sync::MutexGuard<'_, Tap> {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up to [`BATCH`] frames; whether there may be more.
    fn fill(&self, frames: &mut Vec<Vec<u8>>) -> bool {
        frames.clear();
        let mut tap = self.tap();
        while frames.len() < BATCH {
            let mut frame = Vec::new();
            match tap.recv(&mut frame) {
                Ok(Some(_)) => frames.push(frame),
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(device = self.name, %error, "receiving");
                    return false;
                }
            }
        }
        true
    }

    fn send(&self, frames: &[Vec<u8>]) {
        let mut tap = self.tap();
        for frame in frames {
            if let Err(error) = tap.send(frame) {
                tracing::debug!(device = self.name, %error, "sending");
            }
        }
    }
}

/// A running slow path.
#[derive(Debug)]
pub struct SlowPathThread {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl SlowPathThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`SlowPathError::Thread`].
    pub fn start(engine: Arc<Engine>, device: Option<Arc<SlowDevice>>) -> Result<Self, SlowPathError> {
        let stop = Arc::new(AtomicBool::new(false));
        let idle = Poller::new()?;
        let waker = device.as_ref().map_or_else(|| idle.waker(), |device| device.poller.waker());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("slow path".to_owned())
            .spawn(move || run(&engine, device.as_deref(), &idle, &stopped))
            .map_err(SlowPathError::Thread)?;
        Ok(Self { stop, waker, thread: Some(thread) })
    }

    /// Lets it finish its batch and waits for its end.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "waking the slow path");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the slow path has panicked");
        }
    }
}

fn run(engine: &Engine, device: Option<&SlowDevice>, idle: &Poller, stop: &AtomicBool) {
    let mut choices = unforeseeable();
    let (mut frames, mut ready) = (Vec::new(), Vec::new());
    let mut again = false;
    let mut ticked = Instant::now();
    engine.with_backend(|node| node.tick(now()));
    while !stop.load(Ordering::Acquire) {
        let wait = if again { std::time::Duration::ZERO } else { TICK };
        let poller = device.map_or(idle, |device| &device.poller);
        if let Err(error) = poller.wait(&mut ready, Some(wait)) {
            tracing::error!(%error, "waiting for packets");
            std::thread::sleep(TICK);
        }
        if let Some(device) = device {
            again = device.fill(&mut frames);
            if !frames.is_empty() {
                device.send(&finish(engine, &frames, &mut choices));
            }
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            engine.with_backend(|node| node.tick(now()));
            engine.pump_events();
        }
    }
}

/// What a batch of frames comes to.
fn finish(engine: &Engine, frames: &[Vec<u8>], choices: &mut dyn ChoiceSource) -> Vec<Vec<u8>> {
    let now = now();
    engine.with_backend(|node| match node {
        Node::Ebpf(backend) => {
            frames.iter().flat_map(|frame| backend.finish_punted(frame, now, choices)).collect()
        }
        Node::Reference(_) => Vec::new(),
    })
}
