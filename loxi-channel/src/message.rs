//! The bodies of frames, and which reply answers which request.
//!
//! Within a major version of the protocol, fields and kinds are only added:
//! a field that came later has a default, and unknown ones are skipped. The
//! description that a transaction carries is strict and has a version of its
//! own, [`Hello::ir_version`].

use crate::codec::{self, CodecError};
use crate::frame::{Frame, FrameError, Kind, PROTOCOL, ProtocolVersion};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// A body with its kind.
pub trait Message: Serialize + DeserializeOwned + Send {
    /// The kind that the header gives it.
    const KIND: Kind;

    /// The frame of this message.
    fn to_frame(&self, correlation: u64, limit: usize) -> Result<Vec<u8>, FrameError> {
        let body = codec::encode(self).map_err(|error| malformed(Self::KIND, &error))?;
        let frame = Frame { version: PROTOCOL, kind: Self::KIND, correlation, body: &body };
        frame.encode(limit)
    }

    /// The message in a frame, if it is of this kind.
    fn from_frame(frame: &Frame<'_>, depth: usize) -> Result<Self, FrameError> {
        if frame.kind != Self::KIND {
            return Err(FrameError::UnexpectedKind { found: frame.kind, expected: Self::KIND });
        }
        codec::decode(frame.body, depth).map_err(|error| malformed(Self::KIND, &error))
    }
}

fn malformed(kind: Kind, error: &CodecError) -> FrameError {
    FrameError::Malformed { kind, reason: error.to_string() }
}

/// A message that a client sends, with the reply it gets.
pub trait Request: Message {
    /// What answers it, unless a [`Fault`] does.
    type Reply: Message;
}

/// Which program, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// For people: `llcli`, `loxi-agent`, `loxilightd`.
    pub name: String,
    /// The version of that program.
    pub version: String,
}

/// The first request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol that the client speaks.
    pub protocol: ProtocolVersion,
    /// The version of the description that it sends.
    pub ir_version: u32,
    /// Who it is.
    pub client: Peer,
}

/// The answer to a [`Hello`] that both sides can build on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol that the server speaks.
    pub protocol: ProtocolVersion,
    /// The version of the description that it takes.
    pub ir_version: u32,
    /// Who it is.
    pub server: Peer,
    /// Which instance of the daemon.
    pub instance: String,
    /// Which backend it holds.
    pub backend: String,
    /// The generation of what is installed.
    pub generation: u64,
    /// Differs after every start of the daemon: a client that sees it change
    /// knows that its daemon was restarted.
    pub boot: u64,
}

/// The answer to a [`Hello`] that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("refused: {reason}")]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
}

/// Why a server does not want a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusedReason {
    /// Another version of the description.
    IrVersion {
        /// The server's.
        ours: u32,
        /// The client's.
        theirs: u32,
    },
    /// The daemon is on its way out.
    ShuttingDown,
    /// In words, for whatever has no variant in this version.
    Other(String),
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IrVersion { ours, theirs } => {
                write!(f, "the daemon takes descriptions of version {ours}, the client sends {theirs}")
            }
            Self::ShuttingDown => f.write_str("the daemon is shutting down"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// Asks for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the [`Pong`].
    pub token: u64,
}

/// Answer to a [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The ping's.
    pub token: u64,
    /// See [`Welcome::boot`].
    pub boot: u64,
}

/// The channel's own answer to a request that it did not execute. What an
/// executed request has to say, errors included, is in its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people.
    pub message: String,
}

/// Why a request was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultCode {
    /// Not a frame, or not the body that its kind promises.
    Malformed,
    /// A kind that the server does not know, or does not take as a request.
    UnknownKind,
    /// Another major version of the protocol.
    Protocol,
    /// The request, or the reply that it would get, is over the limit.
    TooLong,
    /// The daemon is on its way out.
    ShuttingDown,
    /// The handler broke. Whether the request had effects is unknown.
    Internal,
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::UnknownKind => "unknown kind",
            Self::Protocol => "protocol",
            Self::TooLong => "too long",
            Self::ShuttingDown => "shutting down",
            Self::Internal => "internal",
        })
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::TooNew { .. } | FrameError::TooOld { .. } => FaultCode::Protocol,
            FrameError::UnknownKind { .. } | FrameError::UnexpectedKind { .. } => FaultCode::UnknownKind,
            FrameError::TooLong { .. } => FaultCode::TooLong,
            _ => FaultCode::Malformed,
        };
        Self { code, message: error.to_string() }
    }
}

macro_rules! messages {
    ($($kind:ident),*) => { $(impl Message for $kind { const KIND: Kind = Kind::$kind; })* };
}

messages!(Hello, Welcome, Refused, Ping, Pong, Fault);

impl Request for Hello {
    type Reply = Welcome;
}

impl Request for Ping {
    type Reply = Pong;
}
