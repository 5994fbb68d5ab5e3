//! Starts everything that an agent is, and ends it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loxi_channel::Endpoint;
use loxi_channel::endpoint::EndpointError;
use loxi_core::ir::Owner;
use loxi_core::net::NetError;
use loxi_linux::layout::Instance;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::engine::{self, Handle, Parts};
use crate::host::{Host, HostOptions};
use crate::http::{self, ListenError};
use crate::keep;
use crate::options::Options;
use crate::reach::Reaching;
use crate::source::{Directory, Source};

/// How many updates of the source may wait.
const UPDATES: usize = 1024;
/// How often the cluster is written down, if it has changed.
const KEEP: Duration = Duration::from_secs(30);

/// Why an agent can't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its folder.
    #[error("{}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon's sockets.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A name.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Probes.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Signals.
    #[error("signals: {0}")]
    Signal(io::Error),
}

/// Runs until it is told to end.
///
/// # Errors
/// [`RunError`] at the start; what fails later is tried again.
pub async fn run(options: Options) -> Result<(), RunError> {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let folder = options.run_dir();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|source| RunError::Folder { folder: folder.clone(), source })?;
    let kept = folder.join("cluster");
    let known = keep::load(&kept).unwrap_or_else(|error| {
        tracing::error!(%error, "going on without it");
        None
    });
    let (to, updates) = mpsc::channel(UPDATES);
    let source: Box<dyn Source> = Box::new(Directory::new(&options.manifests));
    tokio::spawn(source.run(to));
    let host = Arc::new(Host::new(HostOptions {
        instance: Instance::of_this_machine(&options.instance),
        node: options.node_name.clone(),
        cluster_cidrs: options.cluster_cidr.clone(),
        service_cidrs: options.service_cidr.clone(),
        overlay: (options.vni, options.vxlan_port),
        mtu: options.mtu,
        masquerade: !options.no_masquerade,
        offloads: !options.no_offloads,
        max_flows: options.max_flows,
    }));
    let (handle, engine) = engine::start(Parts {
        node: options.node_name.clone(),
        updates,
        kept: known,
        attachments: Vec::new(),
        dataplane: Arc::new(Reaching::new(Endpoint::in_folder(options.daemon())?)),
        owner: Owner::new("agent")?,
        prepare: host,
    });
    if let Some(at) = options.listen {
        http::serve(at, handle.status()).await?;
    }
    let keeping = tokio::spawn(keep_up(handle.clone(), kept.clone()));
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        _ = engine => tracing::error!("the engine has ended"),
    }
    keeping.abort();
    write_down(&handle, &kept).await;
    Ok(())
}

/// Writes the cluster down whenever it has changed, but not all the time.
async fn keep_up(handle: Handle, path: PathBuf) {
    let status = handle.status();
    let mut written = 0;
    loop {
        tokio::time::sleep(KEEP).await;
        let events = status.borrow().events;
        if events != written {
            written = events;
            write_down(&handle, &path).await;
        }
    }
}

async fn write_down(handle: &Handle, path: &Path) {
    // What is known from disk only is there already.
    if !handle.status().borrow().synced {
        return;
    }
    let Some(cluster) = handle.cluster().await else { return };
    let path = path.to_owned();
    match tokio::task::spawn_blocking(move || keep::save(&path, &cluster)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the cluster could not be written down"),
        Err(error) => tracing::error!(%error, "writing the cluster down"),
    }
}
