//! The daemons: one per node, started in its root namespace and with its own `/run`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loxi_channel::client::Options;
use loxi_channel::endpoint::EndpointError;
use loxi_channel::message::{Peer, Welcome};
use loxi_channel::{Endpoint, RemoteDataplane};
use loxi_core::dataplane::{Dataplane, DataplaneError};
use loxi_core::net::NetError;
use loxi_core::packet::Counters;
use loxi_core::text;
use loxi_linux::place::{Place, PlaceError};
use loxi_linux::process::{Process, Stop};

use crate::pipeline::pipeline;
use crate::plan::{Plan, Spot};
use crate::world::{World, node_run};

/// What a daemon that serves says so by, in its run directory.
const READY: &str = "ready";

/// How long a daemon may take to serve.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end when asked.
const END: Duration = Duration::from_secs(5);

/// What runs in the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Programs in the kernel.
    Ebpf,
    /// The reference interpreter.
    Reference,
    /// Passes nothing: the control that shows that rows can fail.
    None,
}

impl Backend {
    /// As the daemon's command line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Reference => "reference",
            Self::None => "none",
        }
    }
}

/// Where the programs of [`Backend::Ebpf`] meet packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hooks {
    /// TC at every port.
    #[default]
    Tc,
    /// XDP at uplinks, TC at all other ports.
    Xdp,
    /// Both at uplinks.
    Both,
}

impl Hooks {
    /// As the daemon's command line names them.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::Both => "both",
        }
    }

    /// Whether a backend has programs at XDP then.
    #[must_use]
    pub fn by_xdp(self, backend: Backend) -> bool {
        backend == Backend::Ebpf && self != Self::Tc
    }
}

/// Why a daemon does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The world has no such node.
    #[error("there is no node {0}")]
    NoNode(u8),
    /// The pipeline can't be described.
    #[error("pipeline of node {node}: {source}")]
    Pipeline {
        /// The node.
        node: u8,
        /// Why not.
        source: NetError,
    },
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program can't be started.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It has ended by itself.
    #[error("loxilightd of node {node} has ended ({status}):\n{log}")]
    Ended {
        /// The node.
        node: u8,
        /// How.
        status: String,
        /// Its last lines.
        log: String,
    },
    /// It does not say that it serves.
    #[error("loxilightd of node {node} is not ready after {START:?}:\n{log}")]
    NotReady {
        /// The node.
        node: u8,
        /// Its last lines.
        log: String,
    },
    /// Its sockets can't have a path.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// It does not answer.
    #[error("loxilightd of node {node}: {reason}")]
    Channel {
        /// The node.
        node: u8,
        /// Why not.
        reason: String,
    },
}

/// A running daemon; it ends with this value.
#[derive(Debug)]
pub struct Daemon {
    node: u8,
    backend: Backend,
    hooks: Hooks,
    child: Child,
    dataplane: RemoteDataplane,
}

/// The folder of a node's daemon, as the machine sees it: what llcli's `--socket` takes.
#[must_use]
pub fn run_dir(plan: &Plan, node: u8) -> PathBuf {
    node_run(plan, node).join("loxi").join(plan.node_instance(node))
}

/// Where a node's daemon logs to.
#[must_use]
pub fn log_file(plan: &Plan, node: u8) -> PathBuf {
    crate::world::folder(plan).join(format!("n{node}")).join("loxilightd.log")
}

/// Where a node's pipeline is.
#[must_use]
pub fn pipeline_file(plan: &Plan, node: u8) -> PathBuf {
    node_run(plan, node).join("lab").join("pipeline.yaml")
}

impl Daemon {
    /// Starts a node's daemon and waits until it serves.
    ///
    /// # Errors
    /// If it does not; then it has ended.
    pub async fn start(
        world: &World,
        node: u8,
        program: &Path,
        backend: Backend,
        hooks: Hooks,
    ) -> Result<Self, DaemonError> {
        let plan = world.plan();
        let described = pipeline(plan, node).map_err(|source| DaemonError::Pipeline { node, source })?;
        write(&pipeline_file(plan, node), &text::to_yaml(&described))?;
        // One that was killed has left its word.
        match std::fs::remove_file(run_dir(plan, node).join(READY)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(DaemonError::File { path: run_dir(plan, node).join(READY), source });
            }
            _ => {}
        }
        let log = log_file(plan, node);
        let output = File::create(&log).map_err(|source| DaemonError::File { path: log.clone(), source })?;
        let errors = output.try_clone().map_err(|source| DaemonError::File { path: log, source })?;
        let instance = plan.node_instance(node);
        let mut command = Command::new(program);
        command
            .args(["--backend", backend.name(), "--hooks", hooks.name()])
            .args(["--pipeline", "/run/lab/pipeline.yaml"])
            .args(["--instance", &instance, "--run-dir", &format!("/run/loxi/{instance}")])
            .args(["--dataplane-netns", "/run/netns/loxilight"])
            .args(["--metrics", &format!("unix:/run/loxi/{instance}/metrics.sock")])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        // Ctrl-C is for the lab, which ends its daemons itself.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let place = Place { net: world.spot(Spot::Node(node)), mounts: world.mounts(node) };
        let mut child = Reaped(Some(place.spawn(&mut command)?));
        await_ready(plan, node, &mut child).await?;
        let endpoint = Endpoint::in_folder(run_dir(plan, node))?;
        let client = Peer { name: "lab".into(), version: env!("CARGO_PKG_VERSION").into() };
        let options = Options { timeout: Duration::from_secs(10), ..Options::default() };
        let dataplane = RemoteDataplane::connect(&endpoint, client, options)
            .await
            .map_err(|error| DaemonError::Channel { node, reason: error.to_string() })?;
        let child = child.0.take().ok_or(DaemonError::NoNode(node))?;
        Ok(Self { node, backend, hooks, child, dataplane })
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> u8 {
        self.node
    }

    /// What runs in it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether it has programs at XDP.
    #[must_use]
    pub fn is_by_xdp(&self) -> bool {
        self.hooks.by_xdp(self.backend)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its dataplane.
    #[must_use]
    pub fn dataplane(&self) -> &RemoteDataplane {
        &self.dataplane
    }

    /// Ends it by SIGKILL: it gets no chance to do anything.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// What it says about itself.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.dataplane.welcome()
    }

    /// What it has counted.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn counters(&self) -> Result<Counters, DataplaneError> {
        self.dataplane.counters().await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A child that ends unless it is taken out.
struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

/// Asks a child to end, and ends it if it doesn't.
fn end(child: &mut Child) {
    let asked = Process::open(child.id()).and_then(|process| process.stop(Stop::Ask));
    let until = Instant::now() + END;
    while asked.is_ok() && Instant::now() < until {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
    // It may have ended just now; there is nobody to tell of another failure.
    let _ = child.kill();
    let _ = child.wait();
}

async fn await_ready(plan: &Plan, node: u8, child: &mut Reaped) -> Result<(), DaemonError> {
    let ready = run_dir(plan, node).join(READY);
    let until = Instant::now() + START;
    loop {
        if ready.exists() {
            return Ok(());
        }
        let ended = child.0.as_mut().and_then(|child| child.try_wait().transpose());
        let log = || last_lines(&log_file(plan, node));
        match ended {
            Some(Ok(status)) => {
                return Err(DaemonError::Ended { node, status: status.to_string(), log: log() });
            }
            Some(Err(error)) => {
                return Err(DaemonError::Ended { node, status: error.to_string(), log: log() });
            }
            None if Instant::now() > until => return Err(DaemonError::NotReady { node, log: log() }),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn write(path: &Path, text: &str) -> Result<(), DaemonError> {
    let failed = |source| DaemonError::File { path: path.into(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
