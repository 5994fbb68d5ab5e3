//! Start, life and end of the daemon.
//!
//! Start: hold the instance, take the kept state over, apply the pipeline file,
//! open what ports have devices, serve, say ready. Whatever fails on the way ends
//! the daemon with the reason, and the state file is as it was. End: take no more
//! requests, stop the packets, save.

use crate::attach::{Attacher, INTERVAL};
use crate::held::Held;
use crate::keep::{self, KeepError, Keeper};
use crate::metrics::{Metrics, MetricsServer, ServeMetricsError};
use crate::options::{BackendChoice, Options};
use crate::packets::PacketThread;
use crate::pipeline_file::{self, FileError};
use crate::run_dir::{HoldError, RunDir};
use crate::wires::{Namespaces, WireIo, Wires};
use crate::{Engine, notify};
use loxi_channel::endpoint::EndpointError;
use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, Identity, Limits, ServeError, serve};
use loxi_core::dataplane::{Clock, DataplaneError};
use loxi_core::packet::Timestamp;
use loxi_linux::netns::NetNsError;
use loxi_linux::poller::PollError;
use loxi_reference::Reference;
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
    /// A network namespace.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// Waiting for packets.
    #[error(transparent)]
    Poll(#[from] PollError),
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

    let namespaces = Namespaces::open(options.root_netns.as_deref(), options.dataplane_netns.as_deref())?;
    let wires = Arc::new(Wires::new(namespaces)?);
    let (engine, detached) = take_over(&options, &run_dir, &wires)?;
    if let Some(path) = &options.pipeline {
        pipeline_file::apply(&engine, path)?;
    }
    let keeper = Arc::new(Keeper::new(run_dir.state(), detached));
    keeper.save(&engine);

    let mut attacher = Attacher::new(Arc::clone(&engine), Arc::clone(&wires), Arc::clone(&keeper));
    aside(|| attacher.look());
    let packets =
        PacketThread::start(Arc::clone(&engine), Arc::clone(&wires)).map_err(os("packet thread"))?;
    let served = {
        let server = Peer { name: "loxilightd".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let identity =
            Identity { server, instance: options.instance.clone(), boot: loxi_linux::clock::now() };
        let held = Arc::new(Held::new(Arc::clone(&engine), Arc::clone(&keeper)));
        serve(run_dir.endpoint(), Limits::default(), CONCURRENCY, identity, held).await?
    };
    let metrics = Metrics::new(Arc::clone(&engine), wires, Arc::clone(&keeper), &options.instance);
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
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => aside(|| reload(&engine, &keeper, options.pipeline.as_deref())),
            _ = look.tick() => {
                aside(|| attacher.look());
            }
            _ = save.tick() => aside(|| keeper.save(&engine)),
        }
    }

    tracing::info!("stopping");
    notify::tell("STOPPING=1");
    run_dir.not_ready();
    served.shutdown().await;
    aside(|| packets.stop());
    aside(|| keeper.save(&engine));
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
    wires: &Arc<Wires>,
) -> Result<(Arc<Engine>, BTreeSet<loxi_core::net::PortName>), RunError> {
    let clock: Clock = Arc::new(|| Timestamp(loxi_linux::clock::now()));
    let backend = || {
        let backend = if options.no_devices {
            Reference::new()
        } else {
            Reference::with_io(Box::new(WireIo(Arc::clone(wires))))
        };
        match options.backend {
            BackendChoice::Reference => backend,
            BackendChoice::None => backend.passing_nothing(),
        }
    };
    let path = run_dir.state();
    let restored = keep::load(&path).map_err(RunError::from).and_then(|kept| {
        let Some(kept) = kept else { return Ok(None) };
        let engine = Engine::restore(backend(), Arc::clone(&clock), kept.snapshot)
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
    Ok(restored.unwrap_or_else(|| (Arc::new(Engine::new(backend(), clock)), BTreeSet::new())))
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
