//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use loxi_core::net::IpPrefix;
use loxi_linux::layout::Offloads;

/// The loxi agent of a Kubernetes node: turns the cluster into what the node's dataplane does, and gives pods their network.
#[derive(Debug, Clone, Parser)]
#[command(name = "loxi-agent", version, after_help = AFTER_HELP)]
#[command(group(ArgGroup::new("source").required(true)))]
#[command(subcommand_negates_reqs = true)]
pub struct Options {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// This node's name in the cluster.
    #[arg(
        long,
        value_name = "NAME",
        env = "NODE_NAME",
        required = true,
        default_value = "",
        hide_default_value = true
    )]
    pub node_name: String,

    /// A folder of manifests that the cluster is read from, and watched.
    #[arg(long, value_name = "DIR", group = "source")]
    pub manifests: Option<PathBuf>,

    /// The cluster is asked of the API server of the cluster that this process is a pod of.
    #[arg(long, group = "source")]
    pub kubernetes: bool,

    /// The cluster is asked of the API server of a kubeconfig's current context.
    #[arg(long, value_name = "FILE", group = "source")]
    pub kubeconfig: Option<PathBuf>,

    /// Where the API server is, reachable without services: the agent makes them.
    #[arg(long, value_name = "URL", conflicts_with = "manifests")]
    pub api_server: Option<String>,

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

    /// Offloads of pods' links: `on` for programs at TC; `off` for a dataplane that has each frame in its hands; `merge`
    /// for programs at XDP, from which links take frames only if they merge segments.
    #[arg(long, value_name = "WHICH", value_enum, default_value = "on")]
    pub offloads: OffloadsName,

    /// Ports of the node at which its kernel keeps silent, such as those of services, for a dataplane that gets copies of
    /// what arrives. Programs take frames away before the kernel has them, and need none.
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range)]
    pub silent_ports: Option<(u16, u16)>,

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

/// What an agent does but run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Looks whether this machine has what an agent and its daemon need. Changes nothing; exit code 1 if something is missing.
    Preflight,
    /// Removes what an instance has made of this machine, once its agent and daemon have ended.
    Cleanup,
}

/// Offloads by their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OffloadsName {
    /// As the kernel makes links.
    On,
    /// None.
    Off,
    /// None but merging.
    Merge,
}

impl From<OffloadsName> for Offloads {
    fn from(name: OffloadsName) -> Self {
        match name {
            OffloadsName::On => Self::On,
            OffloadsName::Off => Self::Off,
            OffloadsName::Merge => Self::Merge,
        }
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parse = |text: &str| text.parse::<u16>().map_err(|error| format!("{text:?}: {error}"));
    let (first, last) = text.split_once('-').ok_or("no range: FIRST-LAST is")?;
    match (parse(first)?, parse(last)?) {
        (first, last) if first <= last => Ok((first, last)),
        _ => Err(format!("{first} is after {last}")),
    }
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
  loxi-agent --cni-conf-dir /etc/cni/net.d preflight
  loxi-agent --node-name n1 --manifests /etc/loxi/cluster
  loxi-agent --node-name n1 --kubernetes --api-server https://10.0.0.1:6443 --cni-conf-dir /etc/cni/net.d
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
        assert_eq!(
            options.socket(),
            PathBuf::from(loxi_cni_proto::SOCKET),
            "where the plugin asks by itself"
        );
        assert_eq!(options.cluster_cidr.len(), 1);
        let two =
            ["loxi-agent", "--node-name", "n1", "--manifests", "m", "--cluster-cidr", "10.0.0.0/8,fd00::/8"];
        assert_eq!(Options::parse_from(two).cluster_cidr.len(), 2);
        assert!(Options::try_parse_from(["loxi-agent", "--manifests", "m", "--cluster-cidr", "x"]).is_err());
        let of = |source: &[&str]| {
            Options::try_parse_from(["loxi-agent", "--node-name", "n1"].iter().chain(source))
        };
        assert!(of(&["--kubernetes", "--api-server", "https://a:6443"]).unwrap().kubernetes);
        of(&["--kubeconfig", "f"]).unwrap();
        for bad in
            [&[][..], &["--kubernetes", "--manifests", "m"], &["--manifests", "m", "--api-server", "u"]]
        {
            of(bad).unwrap_err();
        }
        assert_eq!(port_range("30000-32767"), Ok((30000, 32767)));
        for bad in ["", "1", "2-1", "1-65536", "a-b"] {
            port_range(bad).unwrap_err();
        }
    }
}
