//! The answering side of the channel.
//!
//! Several requests are worked on at a time, each in a task of its own: one that
//! breaks is answered by a fault and takes nobody along. Bad frames never reach
//! the [`Service`]; they are answered with what is wrong with them. A request
//! that was begun is finished even if the server is told to stop.

use crate::endpoint::{Endpoint, EndpointError};
use crate::frame::{Frame, FrameError, Kind, Limits, correlation_of};
use crate::message::{Fault, FaultCode, Hello, Message, Ping, Pong, Refused, Welcome};
use crate::transport::{NngReplier, Replier, TransportError};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a daemon does with requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Judges a client.
    async fn hello(&self, hello: Hello) -> Result<Welcome, Refused>;

    /// See [`Welcome::boot`].
    fn boot(&self) -> u64;

    /// Executes a request. What the execution has to say, errors included, is the
    /// reply; a fault means that it was not executed.
    async fn call(&self, request: Incoming) -> Result<Outgoing, Fault>;
}

/// A request whose frame is sound and whose body is still encoded.
#[derive(Debug)]
pub struct Incoming {
    kind: Kind,
    bytes: Vec<u8>,
    limits: Limits,
}

impl Incoming {
    /// What it asks for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its body, if that is what the kind promises.
    pub fn body<M: Message>(&self) -> Result<M, Fault> {
        let frame = Frame::decode(&self.bytes, self.limits.request)?;
        Ok(M::from_frame(&frame, self.limits.depth)?)
    }

    /// The fault for a kind that the service does not take.
    #[must_use]
    pub fn unknown(&self) -> Fault {
        Fault { code: FaultCode::UnknownKind, message: format!("this daemon takes no {:?}", self.kind) }
    }

    /// The reply to this request.
    pub fn reply<M: Message>(&self, message: &M) -> Result<Outgoing, Fault> {
        let correlation = correlation_of(&self.bytes).unwrap_or_default();
        Ok(Outgoing(message.to_frame(correlation, self.limits.reply)?))
    }
}

/// A reply, encoded.
#[derive(Debug)]
pub struct Outgoing(Vec<u8>);

/// Why a server could not begin to listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The folder of its sockets.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The socket.
    #[error("{}: {source}", endpoint.control().display())]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// What the transport met.
        source: TransportError,
    },
}

/// A listening server. Dropped, it stops without waiting for what was begun.
#[derive(Debug)]
pub struct Server {
    workers: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Listens at the endpoint and serves `concurrency` requests at a time. Must
    /// be called in a tokio runtime.
    pub fn bind(
        endpoint: &Endpoint,
        limits: Limits,
        concurrency: usize,
        service: Arc<dyn Service>,
    ) -> Result<Self, BindError> {
        endpoint.prepare()?;
        let repliers = NngReplier::listen(&endpoint.control(), limits.request, concurrency.max(1))
            .map_err(|source| BindError::Listen { endpoint: endpoint.clone(), source })?;
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for replier in repliers {
            workers.spawn(work(Box::new(replier), Arc::clone(&service), limits, stopped.clone()));
        }
        Ok(Self { workers, stop })
    }

    /// Takes no more requests, and waits for those that were begun.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
    }
}

async fn work(
    mut replier: Box<dyn Replier>,
    service: Arc<dyn Service>,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let received = tokio::select! {
            received = replier.receive() => received,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let bytes = match received {
            Ok(bytes) => bytes,
            Err(TransportError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "receiving a request");
                continue;
            }
        };
        let answer = answer(&service, bytes, limits).await;
        // The asker may be gone: there is nobody else to tell.
        if let Err(error) = replier.reply(&answer).await {
            tracing::debug!(%error, "sending a reply");
        }
    }
}

/// The frame that answers these bytes, whatever they are.
pub(crate) async fn answer(service: &Arc<dyn Service>, bytes: Vec<u8>, limits: Limits) -> Vec<u8> {
    let correlation = correlation_of(&bytes).unwrap_or_default();
    let kind = match Frame::decode(&bytes, limits.request) {
        Ok(frame) => frame.kind,
        Err(error) => return fault(&error.into(), correlation),
    };
    let incoming = Incoming { kind, bytes, limits };
    let service = Arc::clone(service);
    let handled = tokio::spawn(async move { handle(&*service, incoming).await });
    match handled.await {
        Ok(Ok(Outgoing(frame))) => frame,
        Ok(Err(error)) => fault(&error, correlation),
        Err(error) => {
            tracing::error!(%error, ?kind, "handling a request");
            let message = format!("handling {kind:?} broke; the daemon's log says how");
            let code = FaultCode::Internal;
            fault(&Fault { code, message }, correlation)
        }
    }
}

async fn handle(service: &dyn Service, incoming: Incoming) -> Result<Outgoing, Fault> {
    match incoming.kind {
        Kind::Hello => match service.hello(incoming.body()?).await {
            Ok(welcome) => incoming.reply(&welcome),
            Err(refused) => incoming.reply(&refused),
        },
        Kind::Ping => {
            let Ping { token } = incoming.body()?;
            let boot = service.boot();
            incoming.reply(&Pong { token, boot })
        }
        _ => service.call(incoming).await,
    }
}

/// A fault always has a frame: what it quotes is cut to fit.
fn fault(fault: &Fault, correlation: u64) -> Vec<u8> {
    const LONGEST: usize = 4096;
    let fault = Fault { code: fault.code, message: fault.message.chars().take(LONGEST / 4).collect() };
    fault.to_frame(correlation, 2 * LONGEST).unwrap_or_else(|error: FrameError| {
        tracing::error!(%error, "encoding a fault");
        Vec::new()
    })
}
