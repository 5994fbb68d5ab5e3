//! Errors. All of them can be sent over a channel.

use crate::capability::{CapacityExceeded, Unsupported};
use crate::change::{ChangeError, TransactionId};
use crate::ir::EntityKey;
use crate::net::PortName;
use crate::validate::ValidationErrors;

/// Why a pipeline can't be compiled for a backend. Nothing has been touched.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CompileError {
    /// The backend can't do what an entity asks.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Too many entities.
    #[error(transparent)]
    Capacity(#[from] CapacityExceeded),
    /// An entity asks for more of something than the backend has room for.
    #[error("{entity}: {field}: {asked} exceed the backend's limit of {limit}")]
    TooMany {
        /// The entity.
        entity: EntityKey,
        /// Its field.
        field: String,
        /// How many at most.
        limit: u64,
        /// How many it asks for.
        asked: u64,
    },
}

/// Why an installation failed. Everything is as before.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("install step {step} ({what}): {message}")]
#[serde(deny_unknown_fields)]
pub struct InstallError {
    /// Number of the step, from 0.
    pub step: u64,
    /// What it was about.
    pub what: String,
    /// What went wrong.
    pub message: String,
}

/// Why a dataplane refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DataplaneError {
    /// The transaction itself.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The entities don't fit together.
    #[error("{0}")]
    Invalid(#[from] ValidationErrors),
    /// The backend can't express it.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Installing failed; everything is as before.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The change was installed and could not be written down, so it was undone.
    #[error("the change could not be kept, and was undone: {0}")]
    NotKept(String),
    /// No such port is configured.
    #[error("port {0} does not exist")]
    NoSuchPort(PortName),
    /// The port could not be attached.
    #[error("port {port}: {message}")]
    Attach {
        /// The port.
        port: PortName,
        /// What went wrong.
        message: String,
    },
    /// Another program holds the hook of the port's device. It is never replaced.
    #[error("port {port}: program {program} is attached to {device} already")]
    AttachConflict {
        /// The port.
        port: PortName,
        /// Its device.
        device: String,
        /// The program that is there, as the kernel names it.
        program: String,
    },
    /// The dataplane has no such method.
    #[error("the dataplane has no capability {capability}")]
    NotSupported {
        /// What it lacks.
        capability: String,
    },
    /// A request is malformed.
    #[error("{field}: {message}")]
    BadRequest {
        /// The field.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// The answer to a transaction was lost: it may or may not have been applied. Send it again
    /// with the same id.
    #[error("the outcome of transaction {id} is unknown; send it again with the same id")]
    OutcomeUnknown {
        /// The transaction.
        id: TransactionId,
    },
    /// The dataplane can't be reached.
    #[error("the dataplane can't be reached: {0}")]
    Unreachable(String),
    /// A bug on the other side, or state that can't be.
    #[error("internal error: {0}")]
    Internal(String),
}
