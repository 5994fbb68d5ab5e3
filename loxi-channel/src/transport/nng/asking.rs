//! The two roles of a client.

use super::operation::Operation;
use super::{EVENT_QUEUE, open, told, url};
use crate::transport::{RequestError, Requester, Subscriber, TransportError};
use async_trait::async_trait;
use nng::options::protocol::pubsub::Subscribe;
use nng::options::protocol::reqrep::ResendTime;
use nng::options::{Options, RecvBufferSize};
use nng::{Context, Error, Protocol, Socket};
use std::path::Path;
use std::time::{Duration, Instant};

/// Connects now, or says why not; with `patient`, goes on trying instead.
fn dial(socket: &Socket, path: &Path, patient: bool) -> Result<(), Error> {
    if patient { socket.dial_async(&url(path)) } else { socket.dial(&url(path)) }
}

/// The asking side.
#[derive(Debug)]
pub(crate) struct NngRequester {
    socket: Socket,
}

impl NngRequester {
    pub(crate) fn dial(path: &Path, limit: usize, patient: bool) -> Result<Self, TransportError> {
        let socket = open(Protocol::Req0, limit).map_err(told)?;
        socket.set_opt::<ResendTime>(None).map_err(told)?;
        dial(&socket, path, patient).map_err(told)?;
        Ok(Self { socket })
    }
}

#[async_trait]
impl Requester for NngRequester {
    async fn request(&self, bytes: &[u8], timeout: Duration) -> Result<Vec<u8>, RequestError> {
        let not_sent = |error: Error| RequestError::NotSent(told(error));
        let no_answer = |error: Error| RequestError::NoAnswer(told(error));

        let until = Instant::now() + timeout;
        let context = Context::new(&self.socket).map_err(not_sent)?;
        let mut operation = Operation::new().map_err(not_sent)?;
        operation.send(&context, bytes, Some(timeout)).await.map_err(not_sent)?;
        let left = until.saturating_duration_since(Instant::now());
        operation.receive(&context, Some(left)).await.map_err(no_answer)
    }
}

/// The taking side of events.
#[derive(Debug)]
pub(crate) struct NngSubscriber {
    operation: Operation,
    socket: Socket,
}

impl NngSubscriber {
    pub(crate) fn dial(path: &Path, limit: usize, patient: bool) -> Result<Self, TransportError> {
        let socket = open(Protocol::Sub0, limit).map_err(told)?;
        socket.set_opt::<RecvBufferSize>(EVENT_QUEUE).map_err(told)?;
        socket.set_opt::<Subscribe>(Vec::new()).map_err(told)?;
        dial(&socket, path, patient).map_err(told)?;
        Ok(Self { operation: Operation::new().map_err(told)?, socket })
    }
}

#[async_trait]
impl Subscriber for NngSubscriber {
    async fn next(&mut self) -> Result<Vec<u8>, TransportError> {
        self.operation.receive_from(&self.socket).await.map_err(told)
    }
}
