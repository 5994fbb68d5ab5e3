//! The command line.

use clap::{Parser, ValueEnum};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What runs the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// Programs in the kernel.
    Ebpf,
    /// The reference interpreter, packet by packet in user space.
    Reference,
    /// Takes every pipeline and passes no packet (negative control of tests).
    None,
}

/// At which hooks programs meet packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// TC at every port.
    Tc,
    /// XDP at uplinks, TC at all other ports.
    Xdp,
    /// Both at uplinks.
    Both,
}

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAt {
    /// A unix socket.
    Unix(PathBuf),
    /// A loopback address.
    Tcp(SocketAddr),
}

/// Why a text names no place for metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsAtError {
    /// Neither form.
    #[error("`{0}` is neither unix:/ABSOLUTE/PATH nor ADDRESS:PORT")]
    Form(String),
    /// Reachable from elsewhere, without authentication.
    #[error("{0} is not a loopback address; put a proxy in front to serve others")]
    NotLoopback(SocketAddr),
}

impl FromStr for MetricsAt {
    type Err = MetricsAtError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(MetricsAtError::Form(text.to_owned()))
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| MetricsAtError::Form(text.to_owned()))?;
        if address.ip().is_loopback() {
            Ok(Self::Tcp(address))
        } else {
            Err(MetricsAtError::NotLoopback(address))
        }
    }
}

impl fmt::Display for MetricsAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// The loxi light daemon: holds one dataplane, moves its packets, serves llcli and the agent.
#[derive(Debug, Clone, Parser)]
#[command(name = "loxilightd", version, after_help = AFTER_HELP)]
pub struct Options {
    /// What runs the pipeline.
    #[arg(long, value_enum, default_value_t = BackendChoice::Ebpf)]
    pub backend: BackendChoice,

    /// At which hooks the programs of the backend ebpf meet packets.
    #[arg(long, value_enum, default_value_t = Hooks::Tc)]
    pub hooks: Hooks,

    /// IPv4 connections for which the backend ebpf reserves room.
    #[arg(long, value_name = "NUMBER", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub flows_v4: u32,

    /// IPv6 connections, likewise.
    #[arg(long, value_name = "NUMBER", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub flows_v6: u32,

    /// The bpf file system that keeps the programs while the daemon is away; it is mounted if it is not.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,

    /// The TAP by which the programs hand packets to the daemon, in the namespace of `--dataplane-netns`;
    /// it is made if it is missing.
    #[arg(long, value_name = "NAME", default_value = "tun0")]
    pub slow_path: String,

    /// Pipeline of the owner `file` (YAML, or JSON where the name ends in .json). Read at start and on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,

    /// Name of this instance: 1 to 32 of a-z, 0-9 and -.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub instance: String,

    /// Folder of sockets, lock and state [default: /run/loxi/INSTANCE].
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Network namespace of every port but uplinks: a path, or a name of `ip netns` [default: the daemon's own].
    #[arg(long, value_name = "PATH|NAME")]
    pub dataplane_netns: Option<String>,

    /// Network namespace of uplinks, likewise [default: the daemon's own].
    #[arg(long, value_name = "PATH|NAME")]
    pub root_netns: Option<String>,

    /// Waits for these namespaces where they aren't there yet, as an agent makes them that starts later.
    #[arg(long)]
    pub wait_for_netns: bool,

    /// Opens no device: every port is attached, packets come by `llcli inject` alone, and go nowhere.
    #[arg(long, conflicts_with_all = ["dataplane_netns", "root_netns", "wait_for_netns"])]
    pub no_devices: bool,

    /// Where Prometheus metrics are served: unix:PATH or a loopback ADDRESS:PORT.
    #[arg(long, value_name = "WHERE")]
    pub metrics: Option<MetricsAt>,

    /// Starts with nothing where the state file, or what the kernel has kept, can't be taken over; also
    /// connections are lost.
    #[arg(long)]
    pub discard_state: bool,

    /// What is logged on stderr, as tracing-subscriber's filters say it.
    #[arg(long, value_name = "FILTER", env = "LOXI_LOG", default_value = "info")]
    pub log: String,
}

const AFTER_HELP: &str = "\
Signals: SIGTERM stops the daemon and, with the backend ebpf, leaves the node forwarding; SIGINT takes
the programs away too; SIGHUP reads the pipeline file again.

Examples:
  loxilightd --instance node-1 --pipeline node-1.yaml --dataplane-netns loxilight
  loxilightd --run-dir /tmp/try --pipeline try.yaml --metrics 127.0.0.1:9464 --log debug
  loxilightd --backend reference --run-dir /tmp/try --pipeline try.yaml --no-devices    # without root
  systemd: Type=notify, ExecStart=loxilightd …, ExecReload=kill -HUP $MAINPID";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_for_this_machine_alone() {
        assert!(matches!("unix:/run/m.sock".parse(), Ok(MetricsAt::Unix(_))));
        assert!(matches!("127.0.0.1:9464".parse(), Ok(MetricsAt::Tcp(_))));
        assert!(matches!("[::1]:9464".parse(), Ok(MetricsAt::Tcp(_))));
        let open = "0.0.0.0:9464".parse::<MetricsAt>();
        assert!(matches!(open, Err(MetricsAtError::NotLoopback(_))));
        for bad in ["", "unix:", "unix:relative", "localhost:1", "127.0.0.1"] {
            assert!(matches!(bad.parse::<MetricsAt>(), Err(MetricsAtError::Form(_))), "{bad}");
        }
    }
}
