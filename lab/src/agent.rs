//! The agents: one per node. Each makes its node's network from the manifests that all nodes share.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Backend, Hooks};
use crate::plan::{self, Family, Plan};
use crate::program::{Program, ProgramError, forget};
use crate::services::NODE_PORT;
use crate::world::{CLUSTER, World, node_run};

/// Where runtimes would look for the network, below a node's `/run`.
const NET_D: &str = "lab/net.d";

/// A running agent; it ends with this value.
#[derive(Debug)]
pub struct Agent {
    program: Program,
    configuration: PathBuf,
}

/// The network configuration that a node's agent publishes, as the machine sees it.
#[must_use]
pub fn configuration(plan: &Plan, node: u8) -> PathBuf {
    node_run(plan, node).join(NET_D).join("05-loxi.conflist")
}

impl Agent {
    /// Starts a node's agent. It is ready when pods can be attached, which takes the node's daemon.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(
        world: &World,
        node: u8,
        program: &Path,
        host_local: &Path,
        backend: Backend,
        hooks: Hooks,
    ) -> Result<Self, ProgramError> {
        let plan = world.plan();
        let configuration = configuration(plan, node);
        forget(&configuration)?;
        let list = |network: fn(Family) -> loxi_linux::Prefix| {
            Family::ALL.map(|family| network(family).to_string()).join(",")
        };
        let offloads = match backend {
            Backend::Ebpf if hooks.by_xdp(backend) => "merge",
            Backend::Ebpf => "on",
            Backend::Reference | Backend::None => "off",
        };
        let mut command = Command::new(program);
        command
            .args(["--node-name", &format!("n{node}"), "--manifests", &format!("/run/{CLUSTER}")])
            .args(["--instance", &plan.node_instance(node), "--state-dir", "/run/lab/state"])
            .args(["--cni-conf-dir", &format!("/run/{NET_D}"), "--cni-bin-dir"])
            .arg(host_local)
            .args(["--cluster-cidr", &list(plan::cluster_cidr), "--service-cidr", &list(plan::service_cidr)])
            .args(["--vni", &plan::VNI.to_string(), "--max-flows", "65536"])
            .args(["--offloads", offloads]);
        if backend != Backend::Ebpf {
            // The kernel has what the daemon gets copies of.
            command.args(["--silent-ports", &format!("{NODE_PORT}-{NODE_PORT}")]);
        }
        Ok(Self { program: Program::start(world, node, "loxi-agent", &mut command)?, configuration })
    }

    /// Waits until pods can be attached.
    ///
    /// # Errors
    /// If it has ended, or takes too long.
    pub async fn ready(&mut self) -> Result<(), ProgramError> {
        self.program.ready(&self.configuration).await
    }
}
