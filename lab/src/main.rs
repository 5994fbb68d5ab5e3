//! The lab's command line; see the library.

mod options;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use lab::bench;
use lab::daemon::{Backend, Hooks};
use lab::invitation::invitation;
use lab::plan::Plan;
use lab::report::{Report, Table, Totals, Versions};
use lab::rows::{self, Row};
use lab::session::{Mode, Programs, Session, Setup};
use lab::world;

use options::{Command, Options, Run};

/// Threads that still wait for an answer when the lab ends get so long.
const LAST_ANSWERS: Duration = Duration::from_secs(8);
/// What a shell says of a program that was interrupted.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    command(Options::parse().command).unwrap_or_else(|error| {
        eprintln!("lab: {}", said_once(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes, without those that its own words contain.
fn said_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.contains(&cause) => text,
        said => format!("{said}: {cause}"),
    })
}

fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(run) => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let result = runtime.block_on(until_interrupted(&run));
            runtime.shutdown_timeout(LAST_ANSWERS);
            result
        }
        Command::Bench(bench) => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(measure(&bench))
        }
        Command::Clean { instance } => {
            let plan = Plan::new(&instance)?;
            let removed = world::remove(&plan)?;
            println!(
                "lab {instance}: {} processes ended, {} namespaces removed",
                removed.processes, removed.namespaces
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Measures; on a signal everything that was made is dropped.
async fn measure(options: &options::Bench) -> anyhow::Result<ExitCode> {
    let mut interrupted = Interrupts::listen()?;
    let setup = Setup {
        plan: Plan::new(&options.instance)?,
        backend: options.backend.into(),
        hooks: Hooks::Tc,
        programs: programs(options.bin_dir.as_deref(), &options.cni_bin_dir)?,
    };
    let effort = bench::Effort { each: Duration::from_millis(options.each), rounds: options.rounds };
    let measured = async {
        let session = Session::start(&setup).await?;
        let measuring = tokio::task::spawn_blocking(move || {
            let figures = bench::Plain::create().and_then(|plain| bench::run(&session, &plain, effort));
            (session, figures)
        });
        let (session, figures) = measuring.await?;
        session.end()?;
        figures
    };
    let figures = tokio::select! {
        biased;
        () = interrupted.next() => return Ok(ExitCode::from(INTERRUPTED)),
        figures = measured => figures?,
    };
    match options.output {
        options::Output::Table => print!("{}", bench::table(&figures)),
        options::Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the lab; on a signal everything that was made is dropped, wherever it has come to.
async fn until_interrupted(run: &Run) -> anyhow::Result<ExitCode> {
    let mut interrupted = Interrupts::listen()?;
    let mut table = Table::new();
    let (session, good) = tokio::select! {
        biased;
        () = interrupted.next() => {
            table.line(&format!("\nlab {}: interrupted", run.instance));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        result = execute(run, &mut table) => result?,
    };
    if !run.once {
        let llcli = program(run.bin_dir.as_deref(), "llcli")?;
        println!("\nThe lab stays up until Ctrl-C. To try:\n{}", invitation(&session, &llcli));
        interrupted.next().await;
        println!("\ntaking it down");
    }
    session.end()?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the lab, runs the table and says whether it went as it should.
async fn execute(run: &Run, table: &mut Table) -> anyhow::Result<(Session, bool)> {
    let setup = Setup {
        plan: Plan::new(&run.instance)?,
        backend: run.backend.into(),
        hooks: run.hooks.into(),
        programs: programs(run.bin_dir.as_deref(), &run.cni_bin_dir)?,
    };
    let rows: Vec<Row> = rows::table().into_iter().filter(|row| row.is_meant(&run.only)).collect();
    ensure!(!rows.is_empty(), "no row is meant by {:?}", run.only);
    table.status("two nodes, three pods each: namespaces, agents, daemons, pods, servers …");
    let session = Session::start(&setup).await?;
    let report = examine(&session, &setup, &rows, run, table).await?;
    let path = &run.json;
    report.write(path).with_context(|| format!("writing {}", path.display()))?;
    let Totals { rows, passed, failed, ms } = report.totals;
    table.line(&format!("\n{rows} rows: {passed} passed, {failed} failed, {ms} ms; {}", path.display()));
    let good = if run.expect_all_fail { report.all_failed() } else { report.all_passed() };
    if run.expect_all_fail {
        table.line(if good { "every row failed, as it should" } else { "not every row failed" });
    }
    Ok((session, good))
}

async fn examine(
    session: &Session,
    setup: &Setup,
    rows: &[Row],
    run: &Run,
    table: &mut Table,
) -> anyhow::Result<Report> {
    let mode = if setup.backend == Backend::None { Mode::Control } else { Mode::Proven };
    let mut checks = session.checks("before");
    for check in &checks {
        table.check(check);
    }
    table.begin(rows.len());
    let begun = Instant::now();
    let results = session.run(rows, mode, &mut |progress| table.tell(progress)).await?;
    let totals = Totals::of(&results, begun.elapsed());
    let after = session.checks("after");
    for check in &after {
        table.check(check);
    }
    checks.extend(after);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let daemon = session.daemons().first().map(|daemon| daemon.welcome().server.version);
    Ok(Report {
        instance: run.instance.clone(),
        backend: setup.backend,
        hooks: setup.hooks,
        versions: Versions {
            lab: env!("CARGO_PKG_VERSION").into(),
            daemon: daemon.unwrap_or_default(),
            kernel: kernel.trim().into(),
        },
        totals,
        checks,
        rows: results,
    })
}

/// The nodes' programs.
fn programs(folder: Option<&Path>, host_local: &Path) -> anyhow::Result<Programs> {
    let there = host_local.join("host-local").exists();
    ensure!(
        there,
        "{} has no host-local: apt-get install containernetworking-plugins, or --cni-bin-dir",
        host_local.display()
    );
    Ok(Programs {
        loxilightd: program(folder, "loxilightd")?,
        loxi_agent: program(folder, "loxi-agent")?,
        loxi_cni: program(folder, "loxi-cni")?,
        host_local: host_local.to_owned(),
    })
}

/// A program beside this one, or in the folder given.
fn program(folder: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let folder = folder.or(own.parent()).context("this program is in no folder")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not there: cargo build --release --bin {name}", path.display());
    path.canonicalize().with_context(|| path.display().to_string())
}

/// What asks a program to end.
struct Interrupts([tokio::signal::unix::Signal; 3]);

impl Interrupts {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
