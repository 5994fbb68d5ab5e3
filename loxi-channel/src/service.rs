//! A dataplane, offered to others.
//!
//! [`serve`] binds both sockets of an endpoint: requests are handed to the
//! dataplane, its events to whoever listens. Bad requests never reach the
//! dataplane. What it answers is the reply, errors included; an answer over the
//! channel's limit becomes `BadRequest`, saying so.

use crate::endpoint::Endpoint;
use crate::events::EventSender;
use crate::frame::{Kind, Limits, PROTOCOL};
use crate::message::{Fault, FaultCode, Hello, Peer, Refused, RefusedReason, Request, Welcome};
use crate::request::{
    Apply, Attach, Detach, Explain, ExportState, GetCapabilities, GetCounters, GetFlows, GetSnapshot,
    ImportState, Inject, Mark, Notice, Outcome, Reply,
};
use crate::server::{BindError, Incoming, Outgoing, Server, Service};
use async_trait::async_trait;
use loxi_core::dataplane::{Dataplane, DataplaneError, SnapshotQuery};
use loxi_core::ir::EntityKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

/// Who serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The program.
    pub server: Peer,
    /// The instance.
    pub instance: String,
    /// See [`Welcome::boot`].
    pub boot: u64,
}

/// Answers requests from a dataplane.
pub struct DataplaneService {
    dataplane: Arc<dyn Dataplane>,
    events: Arc<EventSender>,
    identity: Identity,
    closing: AtomicBool,
}

impl DataplaneService {
    /// A service of this dataplane; `events` gives [`Mark`]s to its listeners.
    #[must_use]
    pub fn new(dataplane: Arc<dyn Dataplane>, events: Arc<EventSender>, identity: Identity) -> Self {
        Self { dataplane, events, identity, closing: AtomicBool::new(false) }
    }

    fn refuse_when_closing(&self) -> Result<(), Fault> {
        if self.closing.load(Ordering::Acquire) {
            let message = "the daemon is shutting down".to_owned();
            return Err(Fault { code: FaultCode::ShuttingDown, message });
        }
        Ok(())
    }

    async fn welcome(&self) -> Result<Welcome, DataplaneError> {
        let capabilities = self.dataplane.capabilities().await?;
        let query = SnapshotQuery { kinds: [EntityKind::Zone].into(), limit: 1, ..SnapshotQuery::default() };
        let page = self.dataplane.snapshot(query).await?;
        Ok(Welcome {
            protocol: PROTOCOL,
            ir_version: loxi_core::IR_VERSION,
            server: self.identity.server.clone(),
            instance: self.identity.instance.clone(),
            backend: capabilities.backend,
            generation: page.generation.0,
            boot: self.identity.boot,
        })
    }
}

#[async_trait]
impl Service for DataplaneService {
    async fn hello(&self, hello: Hello) -> Result<Welcome, Refused> {
        let refused = |reason| Refused { reason };
        if self.closing.load(Ordering::Acquire) {
            return Err(refused(RefusedReason::ShuttingDown));
        }
        if hello.ir_version != loxi_core::IR_VERSION {
            let reason = RefusedReason::IrVersion { ours: loxi_core::IR_VERSION, theirs: hello.ir_version };
            return Err(refused(reason));
        }
        self.welcome().await.map_err(|error| refused(RefusedReason::Other(error.to_string())))
    }

    fn boot(&self) -> u64 {
        self.identity.boot
    }

    async fn call(&self, incoming: Incoming) -> Result<Outgoing, Fault> {
        self.refuse_when_closing()?;
        let dataplane = &*self.dataplane;
        match incoming.kind() {
            Kind::Capabilities => {
                let GetCapabilities {} = incoming.body()?;
                answer::<GetCapabilities>(&incoming, dataplane.capabilities().await)
            }
            Kind::Apply => {
                let Apply { transaction } = incoming.body()?;
                answer::<Apply>(&incoming, dataplane.apply(transaction).await)
            }
            Kind::Snapshot => {
                let GetSnapshot { query } = incoming.body()?;
                answer::<GetSnapshot>(&incoming, dataplane.snapshot(query).await)
            }
            Kind::Flows => {
                let GetFlows { query } = incoming.body()?;
                answer::<GetFlows>(&incoming, dataplane.flows(query).await)
            }
            Kind::Counters => {
                let GetCounters {} = incoming.body()?;
                answer::<GetCounters>(&incoming, dataplane.counters().await)
            }
            Kind::Explain => {
                let Explain { packet, now } = incoming.body()?;
                answer::<Explain>(&incoming, dataplane.explain(packet, now).await)
            }
            Kind::Inject => {
                let Inject { request } = incoming.body()?;
                answer::<Inject>(&incoming, dataplane.inject(request).await)
            }
            Kind::Attach => {
                let Attach { port } = incoming.body()?;
                answer::<Attach>(&incoming, dataplane.attach(port).await)
            }
            Kind::Detach => {
                let Detach { port } = incoming.body()?;
                answer::<Detach>(&incoming, dataplane.detach(port).await)
            }
            Kind::ExportState => {
                let ExportState {} = incoming.body()?;
                answer::<ExportState>(&incoming, dataplane.export_state().await)
            }
            Kind::ImportState => {
                let ImportState { state } = incoming.body()?;
                answer::<ImportState>(&incoming, dataplane.import_state(state).await)
            }
            Kind::Mark => {
                let Mark { token } = incoming.body()?;
                let sent = self.events.send(&Notice::Mark(token));
                let sent = sent.map_err(|error| DataplaneError::Internal(error.to_string()));
                answer::<Mark>(&incoming, sent)
            }
            _ => Err(incoming.unknown()),
        }
    }
}

fn answer<R: Request>(
    incoming: &Incoming,
    outcome: Outcome<<R::Reply as Reply>::Result>,
) -> Result<Outgoing, Fault>
where
    R::Reply: Reply,
{
    match incoming.reply(&R::Reply::of(outcome)) {
        // The request was executed, which a fault would deny.
        Err(Fault { code: FaultCode::TooLong, message }) => {
            let message = format!("executed, but the answer is too long for the channel ({message})");
            let error = DataplaneError::BadRequest { field: "request".to_owned(), message };
            incoming.reply(&R::Reply::of(Err(error)))
        }
        other => other,
    }
}

/// Why a dataplane could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The dataplane gives no events.
    #[error("no events to publish: {0}")]
    Events(DataplaneError),
}

/// A dataplane that is being served. Dropped, it stops without waiting.
pub struct Served {
    server: Server,
    service: Arc<DataplaneService>,
    pump: JoinSet<()>,
}

/// Serves a dataplane, `concurrency` requests at a time. Must be called in a
/// tokio runtime.
///
/// # Errors
/// [`ServeError`]; nothing listens then.
pub async fn serve(
    endpoint: &Endpoint,
    limits: Limits,
    concurrency: usize,
    identity: Identity,
    dataplane: Arc<dyn Dataplane>,
) -> Result<Served, ServeError> {
    let mut events = dataplane.events().await.map_err(ServeError::Events)?;
    let sender = Arc::new(EventSender::bind(endpoint, limits, identity.boot)?);
    let service = Arc::new(DataplaneService::new(dataplane, Arc::clone(&sender), identity));
    let server = Server::bind(endpoint, limits, concurrency, Arc::clone(&service) as Arc<dyn Service>)?;
    let mut pump = JoinSet::new();
    pump.spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if let Err(error) = sender.send(&Notice::Event(event)) {
                        tracing::warn!(%error, "an event has no frame");
                    }
                }
                Err(gap) => sender.skip(gap.missed),
            }
        }
    });
    Ok(Served { server, service, pump })
}

impl Served {
    /// Takes no more requests, finishes those that were begun, and ends the events.
    pub async fn shutdown(self) {
        self.service.closing.store(true, Ordering::Release);
        self.server.shutdown().await;
        drop(self.pump);
    }
}

#[cfg(test)]
mod tests;
