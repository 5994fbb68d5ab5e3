//! Why a command failed, and with which exit code.

use loxi_core::dataplane::DataplaneError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was given makes no sense. Nothing was sent.
    #[error("{0}")]
    Input(String),
    /// Nobody answers.
    #[error("{0}")]
    NoDaemon(String),
    /// The dataplane said no, or the way to it broke.
    #[error("{0}")]
    Dataplane(#[from] DataplaneError),
    /// The answer can't be shown.
    #[error("output: {0}")]
    Output(std::io::Error),
    /// The answer makes no sense.
    #[error("{0}")]
    Odd(String),
}

impl Failure {
    /// For what should not happen.
    pub(crate) const INTERNAL: u8 = 70;

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::NoDaemon(_) | Self::Dataplane(DataplaneError::Unreachable(_)) => 3,
            Self::Dataplane(DataplaneError::OutcomeUnknown { .. }) => 5,
            Self::Dataplane(DataplaneError::Internal(_)) | Self::Output(_) | Self::Odd(_) => Self::INTERNAL,
            Self::Dataplane(_) => 4,
        }
    }
}
