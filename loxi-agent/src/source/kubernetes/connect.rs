//! Where the API server is, and as whom it is asked.

use std::path::{Path, PathBuf};

use kube::client::ClientBuilder;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::observe::Observer;

/// Why an API server can't be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A kubeconfig.
    #[error("{}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// The files that a pod has of its cluster.
    #[error("this is no pod with a service account, and no kubeconfig is given: {0}")]
    InCluster(#[from] InClusterError),
    /// The server's address.
    #[error("--api-server {text}: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificates and keys that don't fit, for instance.
    #[error("the API server's client: {0}")]
    Client(#[from] kube::Error),
}

/// An API server.
#[derive(Debug, Clone)]
pub struct Server(Config);

impl Server {
    /// The server of a kubeconfig's current context; without one, the one of the cluster that this process is a pod of.
    /// `address` stands for the address that either has: a pod's is a service, which this very agent may have to make.
    ///
    /// # Errors
    /// If it isn't described right.
    pub async fn find(kubeconfig: Option<&Path>, address: Option<&str>) -> Result<Self, ConnectError> {
        let mut config = match kubeconfig {
            Some(path) => {
                let failed = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
            }
            None => Config::incluster()?,
        };
        if let Some(text) = address {
            let wrong = |reason: String| ConnectError::Address { text: text.to_owned(), reason };
            let uri: http::Uri =
                text.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
            if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(wrong("no address such as https://10.0.0.1:6443".into()));
            }
            config.cluster_url = uri;
        }
        Ok(Self(config))
    }

    pub(super) fn client(&self, observer: &Observer) -> Result<Client, ConnectError> {
        Ok(ClientBuilder::try_from(self.0.clone())?.with_layer(observer).build())
    }
}
