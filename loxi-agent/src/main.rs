//! `loxi-agent`: see the crate's documentation and `docs/agent.md`.

use std::process::ExitCode;

use clap::Parser;
use loxi_agent::options::{Command, Options};
use loxi_agent::preflight::{self, Check};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loxi-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        Some(Command::Preflight) => return Ok(told(&preflight::checks(&options))),
        Some(Command::Cleanup) => {
            preflight::cleanup(&options)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let filter = EnvFilter::try_new(&options.log).map_err(|error| anyhow::anyhow!("--log: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(loxi_agent::run::run(options))?;
    Ok(ExitCode::SUCCESS)
}

fn told(checks: &[Check]) -> ExitCode {
    for Check { name, result } in checks {
        match result {
            Ok(how) => println!("  ok   {name}: {how}"),
            Err(wrong) => println!("  FAIL {name}: {wrong}"),
        }
    }
    if checks.iter().all(|check| check.result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
