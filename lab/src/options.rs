//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Two nodes in network namespaces of this machine, and the table of rows that proves their network.
#[derive(Debug, Parser)]
#[command(name = "lab", version, after_help = AFTER_HELP)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a lab, runs the table, and stays up until Ctrl-C.
    Run(Run),
    /// Measures TCP between pods on a lab, in turns with the same pods on plain Linux.
    Bench(Bench),
    /// Removes what a killed lab has left. Other instances and a lab that runs are left alone.
    Clean {
        /// Which lab.
        #[arg(long, default_value = "lab")]
        instance: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Ends after the table: exit code 0 if every row passed, 1 if not.
    #[arg(long)]
    pub(crate) once: bool,

    /// What the daemons hold.
    #[arg(long, value_enum, default_value = "ebpf")]
    pub(crate) backend: BackendName,

    /// At which hooks of uplinks the programs of the backend ebpf meet packets.
    #[arg(long, value_enum, default_value = "tc")]
    pub(crate) hooks: HooksName,

    /// Name of this lab; several can run beside each other.
    #[arg(long, default_value = "lab")]
    pub(crate) instance: String,

    /// Where rows and timings are written.
    #[arg(long, value_name = "FILE", default_value = "run.json")]
    pub(crate) json: PathBuf,

    /// Only rows with all of these words in their name or family, such as `v6 service tcp`.
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    pub(crate) only: String,

    /// Where loxilightd, loxi-agent, loxi-cni and llcli are [default: beside this program].
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,

    /// Where the CNI plugin host-local is, which gives pods their addresses.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/cni")]
    pub(crate) cni_bin_dir: PathBuf,

    /// Turns the exit code round: 0 only if every row failed.
    #[arg(long)]
    pub(crate) expect_all_fail: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// What the daemons hold.
    #[arg(long, value_enum, default_value = "ebpf")]
    pub(crate) backend: BackendName,

    /// Name of this lab; several can run beside each other.
    #[arg(long, default_value = "lab")]
    pub(crate) instance: String,

    /// How the figures are written.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,

    /// Milliseconds of each load.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub(crate) each: u64,

    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,

    /// Where loxilightd, loxi-agent and loxi-cni are [default: beside this program].
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,

    /// Where the CNI plugin host-local is, which gives pods their addresses.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/cni")]
    pub(crate) cni_bin_dir: PathBuf,
}

/// How figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// A backend by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// Programs in the kernel.
    Ebpf,
    /// The reference interpreter.
    Reference,
    /// Passes nothing: every row must fail.
    None,
}

impl From<BackendName> for lab::daemon::Backend {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Ebpf => Self::Ebpf,
            BackendName::Reference => Self::Reference,
            BackendName::None => Self::None,
        }
    }
}

/// Hooks by their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HooksName {
    /// TC.
    Tc,
    /// XDP.
    Xdp,
    /// XDP for what goes on by an uplink, TC for the rest.
    Both,
}

impl From<HooksName> for lab::daemon::Hooks {
    fn from(name: HooksName) -> Self {
        match name {
            HooksName::Tc => Self::Tc,
            HooksName::Xdp => Self::Xdp,
            HooksName::Both => Self::Both,
        }
    }
}

const AFTER_HELP: &str = "\
Exit codes: 0 as expected; 1 a row or a check was not, or the lab could not be made; 130 interrupted.

Examples:
  lab run                                          the table, then commands to try
  lab run --once --only 'v6 service'
  lab run --once --backend none --expect-all-fail  shows that rows can fail
  lab clean --instance lab";
