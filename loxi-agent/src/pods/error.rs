//! Why an operation failed, and CNI's number for it.

use std::path::PathBuf;

use loxi_cni_proto::{Failure, code};
use loxi_linux::layout::LayoutError;
use loxi_linux::sys::SysError;

use super::{Key, KeyError, StoreError};
use crate::engine::RequestError;
use crate::ipam::{IpamError, RangeError};

/// Why an operation on a pod's interface failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PodError {
    /// The container or the interface can't be named so.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `CNI_ARGS` can't be read.
    #[error("CNI_ARGS: {0}")]
    Args(String),
    /// The configuration can't be decoded.
    #[error("the configuration can't be read: {0}")]
    Decode(#[from] serde_json::Error),
    /// A field of the configuration makes no sense.
    #[error("{field} in the configuration: {reason}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A field that is not supported yet says something.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
    /// The container's namespace is not there.
    #[error("there is no namespace {}", .0.display())]
    NoNetns(PathBuf),
    /// The interface is there already.
    #[error("{what} is there already")]
    Exists {
        /// The interface, and where.
        what: String,
    },
    /// No such interface was made here.
    #[error("no interface was made for {0}")]
    Unknown(Key),
    /// Pods can't get a network yet.
    #[error("the node has no podCIDR yet")]
    NoNetwork,
    /// An interface could not be made now.
    #[error("{0}")]
    NotReady(String),
    /// The node's podCIDRs don't fit.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Something is not as it was made.
    #[error("{0}")]
    Differs(String),
    /// About the addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// About the links.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// About the system.
    #[error("{step}: {source}")]
    Sys {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: SysError,
    },
    /// About the dataplane.
    #[error("the dataplane: {0}")]
    Node(#[from] RequestError),
    /// About the interfaces' files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent is stopping, or its code broke.
    #[error("the work was ended: {0}")]
    Stopped(String),
    /// Several of them, of garbage collection or a start: these go on after each.
    #[error("{} of the interfaces and addresses to be taken away are still there", .0.len())]
    Left(Vec<(String, PodError)>),
}

impl PodError {
    fn code(&self) -> u32 {
        match self {
            Self::Key(_) | Self::Args(_) => code::ENVIRONMENT,
            Self::Decode(_) => code::DECODE,
            Self::Config { .. } => code::CONFIG,
            Self::Unsupported(_) => code::UNSUPPORTED_FIELD,
            Self::NoNetns(_) | Self::Unknown(_) => code::UNKNOWN_CONTAINER,
            Self::Exists { .. } => code::EXISTS,
            Self::NoNetwork | Self::Node(RequestError::NotYet(_)) | Self::Ipam(IpamError::Timeout { .. }) => {
                code::TRY_AGAIN
            }
            Self::NotReady(_) => code::NOT_AVAILABLE,
            Self::Differs(_) => code::DIFFERS,
            Self::Ipam(IpamError::Refused { code: code::TRY_AGAIN, .. }) => code::TRY_AGAIN,
            Self::Ipam(_) => code::IPAM,
            Self::Store(_) => code::IO,
            Self::Range(_)
            | Self::Layout(_)
            | Self::Sys { .. }
            | Self::Node(RequestError::Refused(_))
            | Self::Stopped(_)
            | Self::Left(_) => code::GENERIC,
        }
    }
}

impl From<PodError> for Failure {
    fn from(error: PodError) -> Self {
        let details = match &error {
            PodError::Left(each) => {
                each.iter().map(|(what, why)| format!("{what}: {why}")).collect::<Vec<_>>().join("; ")
            }
            PodError::Ipam(IpamError::Refused { details, .. }) => details.clone(),
            _ => String::new(),
        };
        Self { code: error.code(), msg: error.to_string(), details }
    }
}
