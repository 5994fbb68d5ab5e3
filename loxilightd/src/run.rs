//! Start, life and end of the daemon.
//!
//! Start: hold the instance, take the kept state over, apply the pipeline file,
//! open what ports have devices, serve, say ready. Whatever fails on the way ends
//! the daemon with the reason, and the state file is as it was. End: take no more
//! requests, stop the packets, save.

use crate::attach::{Attacher, INTERVAL};
use crate::backend::{self, BackendError};
use crate::held::Held;
use crate::keep::{self, KeepError, Keeper};
use crate::metrics::{Metrics, MetricsServer, ServeMetricsError};
use crate::options::Options;
use crate::pipeline_file::{self, FileError};
use crate::run_dir::{HoldError, RunDir};
use crate::slow_path::SlowPathError;
use crate::traffic::Traffic;
use crate::wires::Namespaces;
use crate::{Engine, notify};
use loxi_channel::endpoint::EndpointError;
use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, Identity, Limits, ServeError, serve};
use loxi_core::dataplane::{Clock, DataplaneError};
use loxi_core::packet::Timestamp;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the state is saved while it changes.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Requests worked on at a time.
const CONCURRENCY: usize = 8;

/// Why the daemon did not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No instance of that name.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The instance is somebody else's.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The state file.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The state was read, and the backend does not take it.
    #[error(
        "state file {}: {source}; nothing was changed. Start with --discard-state to go on without it",
        path.display()
    )]
    Restore {
        /// The file.
        path: PathBuf,
        /// What the backend said.
        source: Box<DataplaneError>,
    },
    /// The pipeline file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The slow path's thread.
    #[error(transparent)]
    SlowPath(#[from] SlowPathError),
    /// The channel.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] ServeMetricsError),
    /// Threads or signals.
    #[error("{operation}: {source}")]
    Os {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Waits until the namespaces of the ports are there.
async fn namespaces(options: &Options) {
    let mut said = None;
    while let Err(error) = Namespaces::open(options.root_netns.as_deref(), options.dataplane_netns.as_deref())
    {
        let why = error.to_string();
        if said.as_ref() != Some(&why) {
            tracing::info!(%why, "waiting for the network namespaces");
            said = Some(why);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`RunError`].
pub async fn run(options: Options) -> Result<(), RunError> {
    let os = |operation| move |source| RunError::Os { operation, source };
    // Before anything else, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(os("signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os("signals"))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(os("signals"))?;

    // The name is checked even where the folder is given: it labels metrics and messages.
    let named = Endpoint::instance(&options.instance)?;
    let endpoint = match &options.run_dir {
        Some(folder) => Endpoint::in_folder(std::path::absolute(folder).map_err(os("--run-dir"))?)?,
        None => named,
    };
    let run_dir = RunDir::hold(endpoint)?;

    if options.wait_for_netns {
        tokio::select! {
            () = namespaces(&options) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
    let traffic = backend::traffic(&options)?;
    let (engine, detached) = take_over(&options, &run_dir, &traffic)?;
    if let Some(path) = &options.pipeline {
        pipeline_file::apply(&engine, path)?;
    }
    let keeper = Arc::new(Keeper::new(run_dir.state(), detached));
    keeper.save(&engine);

    let mut attacher = Attacher::new(Arc::clone(&engine), traffic.clone(), Arc::clone(&keeper));
    aside(|| attacher.look());
    let packets = traffic.start(&engine)?;
    let served = {
        let server = Peer { name: "loxilightd".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let identity =
            Identity { server, instance: options.instance.clone(), boot: loxi_linux::clock::now() };
        let held = Arc::new(Held::new(Arc::clone(&engine), Arc::clone(&keeper)));
        serve(run_dir.endpoint(), Limits::default(), CONCURRENCY, identity, held).await?
    };
    let metrics = Metrics::new(Arc::clone(&engine), traffic, Arc::clone(&keeper), &options.instance);
    let _metrics = match &options.metrics {
        Some(at) => Some(MetricsServer::start(at, Arc::new(metrics)).await?),
        None => None,
    };
    run_dir.ready()?;
    println!("ready instance={} run-dir={}", options.instance, run_dir.endpoint().folder().display());
    notify::tell("READY=1");
    tracing::info!(generation = engine.generation().0, "ready");

    let mut look = tokio::time::interval(INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut save = tokio::time::interval(SAVE_EVERY);
    save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stays = loop {
        tokio::select! {
            _ = terminate.recv() => break true,
            _ = interrupt.recv() => break false,
            _ = hang_up.recv() => aside(|| reload(&engine, &keeper, options.pipeline.as_deref())),
            _ = look.tick() => {
                aside(|| attacher.look());
            }
            _ = save.tick() => aside(|| keeper.save(&engine)),
        }
    };

    tracing::info!("stopping");
    notify::tell("STOPPING=1");
    run_dir.not_ready();
    served.shutdown().await;
    aside(|| packets.stop());
    aside(|| keeper.save(&engine));
    if !stays {
        aside(|| backend::remove(&engine)).map_err(os("take the programs away"))?;
    }
    Ok(())
}

/// Does work that may take a while on this thread, without holding up requests.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// The engine as it was left, and the ports that are to stay detached.
fn take_over(
    options: &Options,
    run_dir: &RunDir,
    traffic: &Traffic,
) -> Result<(Arc<Engine>, BTreeSet<loxi_core::net::PortName>), RunError> {
    let clock: Clock = Arc::new(|| Timestamp(loxi_linux::clock::now()));
    let path = run_dir.state();
    let restored = keep::load(&path).map_err(RunError::from).and_then(|kept| {
        let Some(kept) = kept else { return Ok(None) };
        let backend = backend::open(options, traffic)?;
        let engine = Engine::restore(backend, Arc::clone(&clock), kept.snapshot)
            .map_err(|source| RunError::Restore { path, source: Box::new(source) })?;
        tracing::info!(generation = engine.generation().0, "state taken over");
        Ok(Some((Arc::new(engine), kept.detached)))
    });
    let restored = match restored {
        Err(error) if options.discard_state => {
            tracing::warn!(%error, "state discarded");
            None
        }
        other => other?,
    };
    match restored {
        Some(restored) => Ok(restored),
        None => Ok((Arc::new(Engine::new(backend::open(options, traffic)?, clock)), BTreeSet::new())),
    }
}

/// Reads the pipeline file again.
fn reload(engine: &Engine, keeper: &Keeper, path: Option<&std::path::Path>) {
    let Some(path) = path else {
        tracing::warn!("SIGHUP, and no pipeline file was given");
        return;
    };
    notify::tell("RELOADING=1");
    match pipeline_file::apply(engine, path) {
        Ok(_) => keeper.save(engine),
        Err(error) => tracing::error!(%error, "pipeline file not applied; nothing has changed"),
    }
    notify::tell("READY=1");
}
