//! What the channel needs of a transport, and the one that it has.
//!
//! A transport carries opaque messages in the four roles of nanomsg's
//! scalability protocols. The rest of the crate sees only the traits; another
//! transport (TCP with mutual authentication, for a dataplane on another
//! machine) is another implementation of them.
//!
//! Contract of every implementation:
//!
//! - a request is delivered at most once: it is never sent again by itself;
//! - a message over the receiver's limit is refused before it is allocated;
//! - dropping a future gives up its operation and leaks nothing;
//! - lost connections come back by themselves.

mod nng;

#[cfg(feature = "server")]
pub(crate) use self::nng::{NngPublisher, NngReplier};
#[cfg(feature = "client")]
pub(crate) use self::nng::{NngRequester, NngSubscriber};

use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;

/// Why a transport could not do its part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nothing happened in the time given.
    #[error("timed out")]
    TimedOut,
    /// Nobody listens there.
    #[error("nobody listens there")]
    Refused,
    /// There is no such socket.
    #[error("no such socket")]
    NotFound,
    /// The socket is there and closed to this user.
    #[error("permission denied")]
    Denied,
    /// Somebody else listens there.
    #[error("the address is in use")]
    InUse,
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// This side was closed.
    #[error("closed")]
    Closed,
    /// What the library says of anything else.
    #[error("{0}")]
    Other(String),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It never left: the other side has not seen it.
    #[error("not sent: {0}")]
    NotSent(TransportError),
    /// It left: the other side may or may not have acted on it.
    #[error("no answer: {0}")]
    NoAnswer(TransportError),
}

/// The asking side of request/reply; any number of requests at a time.
#[async_trait]
pub trait Requester: Send + Sync + Debug {
    /// Sends one request and waits for its answer.
    async fn request(&self, bytes: &[u8], timeout: Duration) -> Result<Vec<u8>, RequestError>;
}

/// One of the answering contexts of a socket: one request at a time, many
/// contexts beside each other.
#[async_trait]
pub trait Replier: Send + Debug {
    /// Waits for a request. Given up, it loses none: the next call gets it.
    async fn receive(&mut self) -> Result<Vec<u8>, TransportError>;

    /// Answers the request received last.
    async fn reply(&mut self, bytes: &[u8]) -> Result<(), TransportError>;
}

/// The giving side of events. A slow listener loses the oldest.
pub trait Publisher: Send + Sync + Debug {
    /// Hands a message to the queue of every listener; never waits.
    fn publish(&self, bytes: &[u8]) -> Result<(), TransportError>;
}

/// The taking side of events. A full queue loses the oldest.
#[async_trait]
pub trait Subscriber: Send + Debug {
    /// Waits for a message. Given up, it loses none: the next call gets it.
    async fn next(&mut self) -> Result<Vec<u8>, TransportError>;
}
