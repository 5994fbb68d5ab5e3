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
use loxi_linux::layout::{Instance, LayoutSpec};
use loxi_linux::sys::RealSys;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::cni::conflist::{self, ConflistError};
use crate::cni::{CniError, Socket};
use crate::engine::{self, Handle, Parts};
use crate::host::{Host, HostOptions};
use crate::http::{self, ListenError};
use crate::ipam::HostLocal;
use crate::keep;
use crate::node::ThisNode;
use crate::options::Options;
use crate::pods::{self, Pods, Store, StoreError};
use crate::reach::Reaching;
use crate::source::{ConnectError, Directory, Kubernetes, Server, Source};

/// How many updates of the source may wait.
const UPDATES: usize = 1024;
/// How often the cluster is written down, if it has changed.
const KEEP: Duration = Duration::from_secs(30);
/// How long one operation of host-local may take.
const IPAM: Duration = Duration::from_secs(20);
/// How long operations that have begun are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

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
    /// The API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The plugin's socket.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The runtime's configurations.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// The interfaces' files.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    if let Some(folder) = &options.cni_conf_dir {
        conflist::is_alone(folder)?;
    }
    for folder in [options.run_dir(), options.state_dir()] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| RunError::Folder { folder, source })?;
    }
    let socket = Socket::bind(&options.socket()).await?;
    let (store, broken) = Store::open(options.run_dir().join("attachments"))?;
    for file in &broken {
        tracing::error!(file = %file.path.display(), reason = file.reason, "set an attachment's file aside");
    }
    let kept = options.state_dir().join("cluster");
    let known = keep::load(&kept).unwrap_or_else(|error| {
        tracing::error!(%error, "going on without it");
        None
    });
    let (to, updates) = mpsc::channel(UPDATES);
    tokio::spawn(source(&options).await?.run(to));
    let host = Arc::new(host(&options));
    let (handle, engine) = engine::start(Parts {
        node: options.node_name.clone(),
        updates,
        kept: known,
        attachments: store.attachments(),
        dataplane: Arc::new(Reaching::new(Endpoint::in_folder(options.daemon())?)),
        owner: Owner::new("agent")?,
        prepare: Arc::<Host>::clone(&host),
    });
    if let Some(at) = options.listen {
        http::serve(at, handle.status()).await?;
    }
    let node = Arc::new(ThisNode::new(handle.clone(), host));
    let pods = Arc::new(Pods::new(pods_settings(&options), store, node, Arc::new(RealSys)));
    let (end, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(socket.serve(Arc::clone(&pods), async move { drop(ended.await) }));
    let beside = [
        tokio::spawn(recover(pods)),
        tokio::spawn(keep_up(handle.clone(), kept.clone())),
        tokio::spawn(publish(handle.clone(), options)),
    ];
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        _ = engine => tracing::error!("the engine has ended"),
    }
    for task in &beside {
        task.abort();
    }
    // What the runtime has asked for is done, or undone, before the end.
    drop(end);
    match tokio::time::timeout(LAST_ANSWERS, serving).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, "serving the plugin"),
        Ok(Err(error)) => tracing::error!(%error, "serving the plugin"),
        Err(_) => tracing::warn!("operations on pods are left half done, for the next start to undo"),
    }
    write_down(&handle, &kept).await;
    Ok(())
}

/// Where the cluster is told from.
async fn source(options: &Options) -> Result<Box<dyn Source>, RunError> {
    if let Some(folder) = &options.manifests {
        return Ok(Box::new(Directory::new(folder)));
    }
    let server = Server::find(options.kubeconfig.as_deref(), options.api_server.as_deref()).await?;
    Ok(Box::new(Kubernetes::new(&server)?))
}

fn host(options: &Options) -> Host {
    Host::new(HostOptions {
        instance: Instance::of_this_machine(&options.instance),
        node: options.node_name.clone(),
        cluster_cidrs: options.cluster_cidr.clone(),
        service_cidrs: options.service_cidr.clone(),
        overlay: (options.vni, options.vxlan_port),
        mtu: options.mtu,
        masquerade: !options.no_masquerade,
        offloads: options.offloads.into(),
        silent_ports: options.silent_ports,
        max_flows: options.max_flows,
    })
}

/// What pods' interfaces are made with, as far as no uplink is needed to know it.
fn pods_settings(options: &Options) -> pods::Settings {
    pods::Settings {
        layout: LayoutSpec::new(Instance::of_this_machine(&options.instance), ""),
        ipam: HostLocal {
            bin_dir: options.cni_bin_dir.clone(),
            // Addresses are given anew after a reboot: no pod outlives it.
            data_dir: options.run_dir().join("addresses"),
            timeout: IPAM,
        },
    }
}

/// Undoes what is half made, until it is undone.
async fn recover(pods: Arc<Pods>) {
    let mut after = Duration::from_millis(100);
    while let Err(error) = pods.recover().await {
        tracing::warn!(%error, "half-made interfaces can't be taken away yet");
        tokio::time::sleep(after).await;
        after = (after * 2).min(Duration::from_secs(10));
    }
}

/// Tells the runtime where the plugin is, once pods can be given an interface.
async fn publish(handle: Handle, options: Options) {
    let Some(folder) = options.cni_conf_dir.clone() else { return };
    if handle.status().wait_for(|status| status.unready().is_none()).await.is_err() {
        return;
    }
    let socket = options.socket();
    match tokio::task::spawn_blocking(move || conflist::publish(&folder, &socket)).await {
        Ok(Ok(path)) => tracing::info!(path = %path.display(), "pods can be attached"),
        Ok(Err(error)) => tracing::error!(%error, "no pod can be attached"),
        Err(error) => tracing::error!(%error, "publishing the network configuration"),
    }
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
