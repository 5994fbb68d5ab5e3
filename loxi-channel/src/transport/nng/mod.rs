//! nanomsg SP by NNG.
//!
//! Three options carry the transport's contract: `ResendTime` off (a request is
//! never repeated), `RecvMaxSize` (checked by the library before it allocates),
//! and the permissions of the socket's file.

#[cfg(feature = "client")]
mod asking;
#[cfg(feature = "client")]
pub(crate) use asking::{NngRequester, NngSubscriber};

#[cfg(feature = "server")]
mod answering;
#[cfg(feature = "server")]
pub(crate) use answering::{NngPublisher, NngReplier};

mod operation;

use super::TransportError;
use crate::frame::HEADER_LEN;
use nng::options::{Options, ReconnectMaxTime, ReconnectMinTime, RecvMaxSize};
use nng::{Error, Protocol, Socket};
use std::path::Path;
use std::time::Duration;

/// First and longest pause between two attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Events queued for one listener, on either side.
const EVENT_QUEUE: i32 = 1024;

/// SP's own header: a request travels with its id.
const SP_HEADER: usize = 8;

/// What the rest of the crate is told of the library's errors.
fn told(error: Error) -> TransportError {
    match error {
        Error::TimedOut => TransportError::TimedOut,
        Error::ConnectionRefused => TransportError::Refused,
        Error::EntryNotFound => TransportError::NotFound,
        Error::PermissionDenied => TransportError::Denied,
        Error::AddressInUse => TransportError::InUse,
        Error::ConnectionReset | Error::ConnectionAborted => TransportError::Broken,
        Error::Closed | Error::Canceled => TransportError::Closed,
        other => TransportError::Other(other.to_string()),
    }
}

/// The longest message that a body of `limit` bytes makes.
fn message_limit(limit: usize) -> usize {
    limit.saturating_add(HEADER_LEN + SP_HEADER)
}

fn url(path: &Path) -> String {
    format!("ipc://{}", path.display())
}

fn open(protocol: Protocol, limit: usize) -> Result<Socket, Error> {
    let socket = Socket::new(protocol)?;
    socket.set_opt::<RecvMaxSize>(message_limit(limit))?;
    socket.set_opt::<ReconnectMinTime>(Some(RECONNECT.0))?;
    socket.set_opt::<ReconnectMaxTime>(Some(RECONNECT.1))?;
    Ok(socket)
}
