//! The two roles of a daemon.

use super::operation::Operation;
use super::{EVENT_QUEUE, open, told, url};
use crate::transport::{Publisher, Replier, TransportError};
use async_trait::async_trait;
use nng::options::transport::ipc::Permissions;
use nng::options::{Options, SendBufferSize};
use nng::{Context, Error, ListenerBuilder, Protocol, Socket};
use std::path::Path;

const SOCKET_MODE: u32 = 0o600;

fn listen(socket: &Socket, path: &Path) -> Result<(), Error> {
    let listener = ListenerBuilder::new(socket, &url(path))?;
    listener.set_opt::<Permissions>(SOCKET_MODE)?;
    listener.start().map_err(|(_, error)| error)?;
    Ok(())
}

/// One of the answering contexts.
#[derive(Debug)]
pub(crate) struct NngReplier {
    // Declared in the order of release: the operation before its context.
    operation: Operation,
    context: Context,
    _socket: Socket,
}

impl NngReplier {
    /// Listens with `count` contexts.
    pub(crate) fn listen(path: &Path, limit: usize, count: usize) -> Result<Vec<Self>, TransportError> {
        let socket = open(Protocol::Rep0, limit).map_err(told)?;
        let contexts = (0..count)
            .map(|_| {
                Ok(Self {
                    operation: Operation::new()?,
                    context: Context::new(&socket)?,
                    _socket: socket.clone(),
                })
            })
            .collect::<Result<Vec<_>, Error>>()
            .map_err(told)?;
        listen(&socket, path).map_err(told)?;
        Ok(contexts)
    }
}

#[async_trait]
impl Replier for NngReplier {
    async fn receive(&mut self) -> Result<Vec<u8>, TransportError> {
        self.operation.receive(&self.context, None).await.map_err(told)
    }

    async fn reply(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.operation.send(&self.context, bytes, None).await.map_err(told)
    }
}

/// The giving side of events.
#[derive(Debug)]
pub(crate) struct NngPublisher {
    socket: Socket,
}

impl NngPublisher {
    pub(crate) fn listen(path: &Path) -> Result<Self, TransportError> {
        // Listeners send nothing: what arrives is not ours.
        let socket = open(Protocol::Pub0, 0).map_err(told)?;
        socket.set_opt::<SendBufferSize>(EVENT_QUEUE).map_err(told)?;
        listen(&socket, path).map_err(told)?;
        Ok(Self { socket })
    }
}

impl Publisher for NngPublisher {
    fn publish(&self, bytes: &[u8]) -> Result<(), TransportError> {
        // A publisher's send only fills queues.
        self.socket.send(bytes).map_err(|(_, error)| told(error))
    }
}
