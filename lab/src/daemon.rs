//! The daemons: one per node.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use loxi_channel::client::Options;
use loxi_channel::endpoint::EndpointError;
use loxi_channel::message::{Peer, Welcome};
use loxi_channel::{Endpoint, RemoteDataplane};
use loxi_core::dataplane::{Dataplane, DataplaneError};
use loxi_core::packet::Counters;

use crate::plan::Plan;
use crate::program::{Program, ProgramError, forget};
use crate::world::{World, node_run};

/// What a daemon that serves says so by, in its run directory.
const READY: &str = "ready";

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
    /// Its program.
    #[error(transparent)]
    Program(#[from] ProgramError),
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
    program: Program,
    dataplane: RemoteDataplane,
}

/// The folder of a node's daemon, as the machine sees it: what llcli's `--socket` takes.
#[must_use]
pub fn run_dir(plan: &Plan, node: u8) -> PathBuf {
    node_run(plan, node).join("loxi").join(plan.node_instance(node))
}

impl Daemon {
    /// Starts a node's daemon and waits until it serves, which takes the namespace that the node's agent makes.
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
        let ready = run_dir(plan, node).join(READY);
        forget(&ready)?;
        let instance = plan.node_instance(node);
        let mut command = Command::new(program);
        command
            .args(["--backend", backend.name(), "--hooks", hooks.name()])
            .args(["--instance", &instance, "--run-dir", &format!("/run/loxi/{instance}")])
            .args(["--wait-for-netns", "--dataplane-netns", "/run/netns/loxilight"])
            .args(["--metrics", &format!("unix:/run/loxi/{instance}/metrics.sock")]);
        let mut program = Program::start(world, node, "loxilightd", &mut command)?;
        program.ready(&ready).await?;
        let endpoint = Endpoint::in_folder(run_dir(plan, node))?;
        let client = Peer { name: "lab".into(), version: env!("CARGO_PKG_VERSION").into() };
        let options = Options { timeout: Duration::from_secs(10), ..Options::default() };
        let dataplane = RemoteDataplane::connect(&endpoint, client, options)
            .await
            .map_err(|error| DaemonError::Channel { node, reason: error.to_string() })?;
        Ok(Self { node, backend, hooks, program, dataplane })
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
        self.program.pid()
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
    pub fn kill(self) -> io::Result<()> {
        self.program.kill()
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
