//! `llcli`: asks and tells a running daemon. `docs/cli.md` is its manual.
//!
//! One module per group of commands. A command is a question to a
//! [`Dataplane`](loxi_core::dataplane::Dataplane), which it doesn't know to be
//! remote, and a way to show the answer. Results go to stdout, everything else to
//! stderr; the exit code says what kind of failure it was.

mod args;
mod change;
mod columns;
mod counters;
mod events;
mod failure;
mod flows;
mod get;
mod input;
mod packets;
mod pcap;
mod show;
mod state;
mod time;
mod trial;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use failure::Failure;
use loxi_channel::client::Options;
use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, RemoteDataplane};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("llcli: {error}");
            return ExitCode::from(Failure::INTERNAL);
        }
    };
    match runtime.block_on(run(args)) {
        Ok(code) => code,
        // Whoever read the output has had enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("llcli: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    let output = args.output;
    let done = |()| ExitCode::SUCCESS;
    match &args.command {
        // These need no daemon.
        Command::Reasons => state::reasons(output).map(done),
        Command::Schema => show::text(&loxi_core::text::json_schema()).map(done),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "llcli", &mut script);
            show::text(&String::from_utf8_lossy(&script)).map(done)
        }
        Command::Version => state::version(output).map(done),

        Command::Get(get) => get::run(&connect(&args).await?, get, output).await.map(done),
        Command::Apply(apply) => {
            // Before the daemon is bothered.
            let wish = change::read(apply)?;
            change::apply(&connect(&args).await?, apply, wish, output).await.map(done)
        }
        Command::Diff(diff) => {
            let wish = change::read_diff(diff)?;
            change::diff(&connect(&args).await?, wish, output).await
        }
        Command::Delete(delete) => change::delete(&connect(&args).await?, delete, output).await.map(done),
        Command::Flows(flows) => flows::run(&connect(&args).await?, flows, output).await.map(done),
        Command::Counters(counters) => {
            counters::counters(&connect(&args).await?, counters, output).await.map(done)
        }
        Command::Drops(drops) => counters::drops(&connect(&args).await?, drops, output).await.map(done),
        Command::Events(events) => events::run(&connect(&args).await?, events, output).await.map(done),
        Command::Inject(inject) => {
            let request = trial::request(inject)?;
            trial::inject(&connect(&args).await?, request, output).await.map(done)
        }
        Command::Explain(explain) => {
            let packets = packets::read(&explain.packets)?;
            trial::explain(&connect(&args).await?, packets, output).await.map(done)
        }
        Command::Attach { port } => state::attach(&connect(&args).await?, port).await.map(done),
        Command::Detach { port } => state::detach(&connect(&args).await?, port).await.map(done),
        Command::State(command) => state::run(|| connect(&args), command, output).await.map(done),
        Command::Capabilities => state::capabilities(&connect(&args).await?, output).await.map(done),
    }
}

async fn connect(args: &Args) -> Result<RemoteDataplane, Failure> {
    let endpoint = match &args.socket {
        Some(folder) => {
            let folder = std::path::absolute(folder).map_err(|error| Failure::Input(error.to_string()))?;
            Endpoint::in_folder(folder)
        }
        None => Endpoint::instance(&args.instance),
    };
    let endpoint = endpoint.map_err(|error| Failure::Input(error.to_string()))?;
    let client = Peer { name: "llcli".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let options = Options { timeout: args.timeout, ..Options::default() };
    RemoteDataplane::connect(&endpoint, client, options)
        .await
        .map_err(|error| Failure::NoDaemon(error.to_string()))
}
