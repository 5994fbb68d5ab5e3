//! Where the CNI plugin asks: a gRPC server on a unix socket.
//!
//! Only the socket's owner can connect: its mode is 0600 before it has its name. An operation that has begun is
//! finished, also when the plugin is killed meanwhile: so an ADD is either answered or undone.

pub mod conflist;

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loxi_cni_proto::{AddReply, Attached, Cni, CniServer, Failure, Reply, code};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::pods::{Invocation, NetworkConfig, PodError, Pods};

/// Why the plugin can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// Somebody answers there already.
    #[error("another agent listens at {}", .0.display())]
    InUse(PathBuf),
    /// The socket can't be made.
    #[error("{operation} {}: {source}", path.display())]
    Socket {
        /// What was being done.
        operation: &'static str,
        /// The socket, or its folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The server ended.
    #[error("serve the CNI plugin: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A socket that plugins can connect to; they are answered when it is served.
#[derive(Debug)]
pub struct Socket(UnixListener);

impl Socket {
    /// Makes the socket. One that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// If somebody listens there, or it can't be made.
    pub async fn bind(path: &Path) -> Result<Self, CniError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(CniError::InUse(path.into()));
        }
        let failed = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| CniError::Socket { operation, path, source }
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed("make folder", folder))?;
        }
        // Renamed over the old one when nobody else may connect, so that there is no moment with another mode, or none.
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &new)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(failed("listen at", &new))?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&new, mode).map_err(failed("set the mode of", &new))?;
        std::fs::rename(&new, path).map_err(failed("rename", path))?;
        Ok(Self(listener))
    }

    /// Answers plugins until the future ends; those that have asked are answered.
    ///
    /// # Errors
    /// If the server fails.
    pub async fn serve(self, pods: Arc<Pods>, end: impl Future<Output = ()> + Send) -> Result<(), CniError> {
        let service = CniServer::new(Service(pods));
        let server = tonic::transport::Server::builder().add_service(service);
        Ok(server.serve_with_incoming_shutdown(UnixListenerStream::new(self.0), end).await?)
    }
}

struct Service(Arc<Pods>);

/// Goes on when the one who asked doesn't wait for the answer.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, PodError>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(error) => Err(Failure::new(code::GENERIC, "the agent's work was ended").with_details(error)),
    }
}

fn said(verb: &str, about: &loxi_cni_proto::Invocation, failure: Option<&Failure>) {
    let (container, ifname) = (about.container_id.as_str(), about.ifname.as_str());
    match failure {
        None => tracing::debug!(verb, container, ifname, "done"),
        Some(failure) => {
            tracing::warn!(verb, container, ifname, code = failure.code, error = failure.msg, "refused");
        }
    }
}

impl Service {
    async fn about_interface<T: Send + 'static, F: Future<Output = Result<T, PodError>> + Send + 'static>(
        &self,
        verb: &str,
        request: Request<loxi_cni_proto::Invocation>,
        work: impl FnOnce(Arc<Pods>, Invocation) -> F,
    ) -> Result<T, Failure> {
        let asked = request.into_inner();
        let result = match Invocation::try_from(asked.clone()) {
            Ok(invocation) => finished(work(Arc::clone(&self.0), invocation)).await,
            Err(error) => Err(error.into()),
        };
        said(verb, &asked, result.as_ref().err());
        result
    }
}

#[async_trait::async_trait]
impl Cni for Service {
    async fn add(&self, request: Request<loxi_cni_proto::Invocation>) -> Result<Response<AddReply>, Status> {
        let work = |pods: Arc<Pods>, invocation| async move { pods.add(&invocation).await };
        let result = self.about_interface("ADD", request, work).await;
        Ok(Response::new(result.map(Attached::from).into()))
    }

    async fn del(&self, request: Request<loxi_cni_proto::Invocation>) -> Result<Response<Reply>, Status> {
        let work = |pods: Arc<Pods>, invocation| async move { pods.del(&invocation).await };
        Ok(Response::new(self.about_interface("DEL", request, work).await.into()))
    }

    async fn check(&self, request: Request<loxi_cni_proto::Invocation>) -> Result<Response<Reply>, Status> {
        let work = |pods: Arc<Pods>, invocation| async move { pods.check(&invocation).await };
        Ok(Response::new(self.about_interface("CHECK", request, work).await.into()))
    }

    async fn status(&self, request: Request<loxi_cni_proto::Invocation>) -> Result<Response<Reply>, Status> {
        let result = self.0.status().map_err(Failure::from);
        said("STATUS", request.get_ref(), result.as_ref().err());
        Ok(Response::new(result.into()))
    }

    async fn gc(&self, request: Request<loxi_cni_proto::Invocation>) -> Result<Response<Reply>, Status> {
        let asked = request.into_inner();
        let pods = Arc::clone(&self.0);
        let result = match NetworkConfig::parse(&asked.config) {
            Ok(config) => finished(async move { pods.gc(&config).await }).await,
            Err(error) => Err(error.into()),
        };
        said("GC", &asked, result.as_ref().err());
        Ok(Response::new(result.into()))
    }
}
