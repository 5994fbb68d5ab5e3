//! The command line.

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use loxi_core::ir::{EntityKind, Owner};
use loxi_core::net::{IpPrefix, IpProtocol, PortName, ZoneName};
use std::path::PathBuf;
use std::time::Duration;

/// Asks and tells a running loxilightd.
#[derive(Debug, Parser)]
#[command(name = "llcli", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The daemon's instance.
    #[arg(long, global = true, value_name = "NAME", default_value = "default", env = "LOXI_INSTANCE")]
    pub(crate) instance: String,

    /// The daemon's run folder, instead of its instance.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) socket: Option<PathBuf>,

    /// How results are shown.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,

    /// Seconds to wait for an answer.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs; streams are one object per line.
    Json,
    /// For both.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows what is configured and learned.
    #[command(after_help = "Examples:\n  llcli get ports\n  llcli get fdb -o json\n  \
        llcli get all --owner cli --as-file -o yaml > mine.yaml   # what `apply -f` reads")]
    Get(Get),
    /// Makes an owner's whole set what a file says, as one transaction.
    #[command(
        after_help = "Examples:\n  llcli apply -f node.yaml\n  llcli apply -f - --owner me --dry-run < node.yaml"
    )]
    Apply(Apply),
    /// Shows what `apply` would change. Exit code 0: nothing, 1: something.
    #[command(after_help = "Example:\n  llcli diff -f node.yaml || echo differs")]
    Diff(Diff),
    /// Deletes one entity.
    #[command(
        after_help = "The key is as messages and `get` write it.\n\nExamples:\n  llcli delete port hs3\n  \
        llcli delete route 'pods 10.244.2.0/24'"
    )]
    Delete(Delete),
    /// Shows connections.
    #[command(
        after_help = "Examples:\n  llcli flows --address 10.244.1.10 --protocol tcp\n  llcli flows --watch"
    )]
    Flows(Flows),
    /// Shows what ports and zones have counted.
    Counters(Counters),
    /// Shows what was dropped, where and why.
    #[command(after_help = "Example:\n  llcli drops --watch      # what is dropped just now")]
    Drops(Drops),
    /// Shows what happens, from now on.
    #[command(after_help = "Examples:\n  llcli events\n  llcli events -n 10 -o json")]
    Events(Events),
    /// Runs packets through the pipeline: on a copy of its state, or with --commit for real.
    #[command(
        after_help = "Examples:\n  llcli inject --port hs1 --hex 'ffffffffffff 020000000001 0806 …'\n  \
        llcli inject --port hs1 --pcap in.pcap -o json | jq -r .fate\n  \
        llcli inject --packets sequence.yaml --at +60s"
    )]
    Inject(Inject),
    /// Shows stage by stage why a packet goes where it goes. Changes nothing.
    #[command(after_help = "Example:\n  llcli explain --port hs1 --pcap one.pcap")]
    Explain(Explain),
    /// Opens a port for packets.
    Attach {
        /// The port.
        port: PortName,
    },
    /// Closes a port until it is attached again.
    Detach {
        /// The port.
        port: PortName,
    },
    /// Takes what was learned out of a dataplane, or puts it in.
    #[command(subcommand)]
    State(StateCommand),
    /// Shows what the backend can do.
    Capabilities,
    /// Lists every reason for which a packet is dropped, punted or consumed.
    Reasons,
    /// Prints the JSON Schema of pipeline files.
    Schema,
    /// Prints a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Prints the versions of this program and of the description that it speaks.
    Version,
}

/// What `get` can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kinds {
    All,
    Zones,
    Vrfs,
    Bridges,
    Ports,
    Interfaces,
    Neighbors,
    Tunnels,
    Terminations,
    Fdb,
    NextHops,
    #[value(alias = "next-hop-groups")]
    Groups,
    Routes,
    Vips,
    Backends,
    Services,
    #[value(alias = "nat-rules")]
    Nat,
    AddrSets,
    PortSets,
    #[value(alias = "policy-rules")]
    Policies,
    #[value(alias = "policy-isolations")]
    Isolations,
}

impl Kinds {
    /// The kinds meant.
    pub(crate) fn kinds(self) -> Vec<EntityKind> {
        use EntityKind as K;
        match self {
            Self::All => K::ALL.to_vec(),
            Self::Zones => vec![K::Zone],
            Self::Vrfs => vec![K::Vrf],
            Self::Bridges => vec![K::Bridge],
            Self::Ports => vec![K::Port],
            Self::Interfaces => vec![K::Interface],
            Self::Neighbors => vec![K::Neighbor],
            Self::Tunnels => vec![K::Tunnel],
            Self::Terminations => vec![K::Termination],
            Self::Fdb => vec![K::Fdb],
            Self::NextHops => vec![K::NextHop],
            Self::Groups => vec![K::NextHopGroup],
            Self::Routes => vec![K::Route],
            Self::Vips => vec![K::Vip],
            Self::Backends => vec![K::Backend],
            Self::Services => vec![K::Service],
            Self::Nat => vec![K::NatRule],
            Self::AddrSets => vec![K::AddrSet],
            Self::PortSets => vec![K::PortSet],
            Self::Policies => vec![K::PolicyRule],
            Self::Isolations => vec![K::PolicyIsolation],
        }
    }
}

#[derive(Debug, Group)]
pub(crate) struct Get {
    /// What to show.
    #[arg(value_enum)]
    pub(crate) kind: Kinds,
    /// Only this owner's.
    #[arg(long)]
    pub(crate) owner: Option<Owner>,
    /// Only what `apply -f` reads: no owners, nothing learned (YAML, or JSON with -o json).
    #[arg(long)]
    pub(crate) as_file: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Apply {
    /// YAML, or JSON where the name ends in .json; - is stdin.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Whose set it is.
    #[arg(long, default_value = "cli")]
    pub(crate) owner: Owner,
    /// Makes entities of other owners that are in the file this owner's.
    #[arg(long)]
    pub(crate) take_ownership: bool,
    /// Refuses unless the dataplane is at this generation.
    #[arg(long, value_name = "GENERATION")]
    pub(crate) base: Option<u64>,
    /// Name of the transaction; sent twice, it is applied once [default: a new one].
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only says what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Diff {
    /// YAML, or JSON where the name ends in .json; - is stdin.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Whose set it is.
    #[arg(long, default_value = "cli")]
    pub(crate) owner: Owner,
    /// As for `apply`.
    #[arg(long)]
    pub(crate) take_ownership: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Delete {
    /// Kind, in the singular: port, route, fdb, …
    pub(crate) kind: String,
    /// Key of the entity.
    pub(crate) key: String,
    /// Whose it is.
    #[arg(long, default_value = "cli")]
    pub(crate) owner: Owner,
}

#[derive(Debug, Group)]
pub(crate) struct Watch {
    /// Shows it again and again.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// Ends after this many looks.
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u64>,
}

#[derive(Debug, Group)]
pub(crate) struct Flows {
    /// Of this zone.
    #[arg(long)]
    pub(crate) zone: Option<ZoneName>,
    /// With an address inside this prefix, before or after translation.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) address: Option<IpPrefix>,
    /// Of this protocol (name or number).
    #[arg(long)]
    pub(crate) protocol: Option<IpProtocol>,
    /// With this source or destination port, before or after translation.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) l4_port: Option<u16>,
    /// First seen at this port.
    #[arg(long, value_name = "PORT")]
    pub(crate) ingress: Option<PortName>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, Group)]
pub(crate) struct Counters {
    /// Only of this port.
    #[arg(long)]
    pub(crate) port: Option<PortName>,
}

#[derive(Debug, Group)]
pub(crate) struct Drops {
    /// Only at this port.
    #[arg(long)]
    pub(crate) port: Option<PortName>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, Group)]
pub(crate) struct Events {
    /// Goes on until it is interrupted, as it does without -n.
    #[arg(short, long, conflicts_with = "number")]
    pub(crate) follow: bool,
    /// Ends after this many events.
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<u64>,
}

#[derive(Debug, Group)]
#[group(skip)]
pub(crate) struct Packets {
    /// Where the packets enter.
    #[arg(long, value_name = "PORT", required_unless_present = "packets", conflicts_with = "packets")]
    pub(crate) port: Option<PortName>,
    /// A frame from its destination MAC on, in hexadecimal; may be given again. - reads one per line from stdin.
    #[arg(long, value_name = "BYTES", group = "source")]
    pub(crate) hex: Vec<String>,
    /// Frames of a capture (pcap or pcapng, Ethernet); the distances of their times count.
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) pcap: Option<PathBuf>,
    /// A list of {port, bytes, at} in YAML or JSON: packets at several ports. - is stdin.
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) packets: Option<PathBuf>,
    /// When the first one comes: seconds since boot (12.5 or 12.5s), nanoseconds (12500000000ns), or either after + from now on [default: now].
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

#[derive(Debug, Group)]
pub(crate) struct Inject {
    #[command(flatten)]
    pub(crate) packets: Packets,
    /// Keeps the state and sends what comes out.
    #[arg(long)]
    pub(crate) commit: bool,
    /// Makes free choices at random from this seed; otherwise the first admissible one is taken.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Group)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) packets: Packets,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Prints everything learned (JSON, or YAML with -o yaml).
    Export,
    /// Takes over what another dataplane has learned.
    Import {
        /// What `export` printed; - is stdin.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("`{text}` is no time to wait")),
    }
}

const AFTER_HELP: &str = "\
Exit codes:
  0   done
  1   `diff` found a difference
  2   bad usage or bad input; nothing was sent
  3   the daemon can't be reached
  4   the dataplane refused; nothing has changed
  5   the outcome is unknown: send it again with the same --id
  70  something that should not happen

Examples:
  llcli get ports
  llcli apply -f node.yaml && llcli get all
  llcli --instance node-1 drops --watch
  llcli inject --port hs1 --pcap ping.pcap -o json";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
