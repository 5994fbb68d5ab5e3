//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use loxi_core::net::IpPrefix;

/// The loxi agent of a Kubernetes node: turns the cluster into what the node's dataplane does, and gives pods their network.
#[derive(Debug, Clone, Parser)]
#[command(name = "loxi-agent", version, after_help = AFTER_HELP)]
pub struct Options {
    /// This node's name in the cluster.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: String,

    /// A folder of manifests that the cluster is read from, and watched.
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,

    /// Name of this instance: 1 to 32 of a-z, 0-9 and -. It labels everything that is made on the node.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub instance: String,

    /// Folder of the daemon's sockets [default: /run/loxi/INSTANCE].
    #[arg(long, value_name = "DIR")]
    pub daemon: Option<PathBuf>,

    /// Folder of the agent's socket and files [default: /run/loxi/INSTANCE/agent].
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Folder of what the agent remembers across reboots [default: /var/lib/loxi/INSTANCE].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Folder of the plugin host-local, which gives pods their addresses.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,

    /// Folder in which container runtimes look for network configurations. The agent's is put there once it can serve;
    /// without this option none is.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,

    /// Networks of all pods of the cluster.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.244.0.0/16")]
    pub cluster_cidr: Vec<IpPrefix>,

    /// Networks of the services.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.96.0.0/16")]
    pub service_cidr: Vec<IpPrefix>,

    /// VXLAN network identifier of the overlay.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..1 << 24))]
    pub vni: u32,

    /// UDP port of the overlay.
    #[arg(long, value_name = "PORT", default_value_t = 4789, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,

    /// MTU of pods [default: the uplink's, less what the overlay adds].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..))]
    pub mtu: Option<u16>,

    /// Leave the source address of what pods send to the outside as it is.
    #[arg(long)]
    pub no_masquerade: bool,

    /// Turn the offloads of pods' links off: for a dataplane that has each frame in its hands.
    #[arg(long)]
    pub no_offloads: bool,

    /// Connections that the pods of this node may have.
    #[arg(long, value_name = "NUMBER", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_flows: u32,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// What is logged on stderr, as tracing-subscriber's filters say it.
    #[arg(long, value_name = "FILTER", env = "LOXI_LOG", default_value = "info")]
    pub log: String,
}

impl Options {
    /// The folder of the daemon's sockets.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.daemon.clone().unwrap_or_else(|| PathBuf::from("/run/loxi").join(&self.instance))
    }

    /// Where the plugin asks.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("cni.sock")
    }

    /// The folder of what the agent remembers across reboots.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/loxi").join(&self.instance))
    }

    /// The folder of the agent's own files.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| PathBuf::from("/run/loxi").join(&self.instance).join("agent"))
    }
}

const AFTER_HELP: &str = "\
Signals: SIGTERM and SIGINT end the agent. The node goes on forwarding; what changes in the cluster meanwhile is
caught up with at the next start.

Examples:
  loxi-agent --node-name n1 --manifests /etc/loxi/cluster
  loxi-agent --node-name n1 --manifests cluster --instance try --listen 127.0.0.1:9465 --log debug";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_says_where_files_are() {
        Options::command().debug_assert();
        let options = Options::parse_from(["loxi-agent", "--node-name", "n1", "--manifests", "m"]);
        assert_eq!(options.run_dir(), PathBuf::from("/run/loxi/default/agent"));
        assert_eq!(options.cluster_cidr.len(), 1);
        let two =
            ["loxi-agent", "--node-name", "n1", "--manifests", "m", "--cluster-cidr", "10.0.0.0/8,fd00::/8"];
        assert_eq!(Options::parse_from(two).cluster_cidr.len(), 2);
        assert!(Options::try_parse_from(["loxi-agent", "--manifests", "m", "--cluster-cidr", "x"]).is_err());
    }
}
