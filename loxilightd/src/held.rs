//! The dataplane as the channel serves it.
//!
//! A transaction is acknowledged only after the state file has it, so that a
//! client that sends it again to the next daemon gets the first result. A port
//! that somebody detaches stays so, over a restart too, until somebody attaches
//! it; all others are attached by [`crate::attach`]. Beside what a backend says
//! of a packet stands what the reference makes of it. Each request is a span.

use crate::Engine;
use crate::keep::Keeper;
use async_trait::async_trait;
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{
    Dataplane, DataplaneError, Events, Explanation, FlowPage, FlowQuery, InjectRequest, Injected, PacketIn,
    SnapshotPage, SnapshotQuery,
};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, State, Timestamp};
use std::sync::Arc;

/// The daemon's dataplane.
pub struct Held {
    engine: Arc<Engine>,
    keeper: Arc<Keeper>,
}

impl Held {
    /// Serves this engine, kept by this keeper.
    #[must_use]
    pub fn new(engine: Arc<Engine>, keeper: Arc<Keeper>) -> Self {
        Self { engine, keeper }
    }

    fn save(&self) {
        // A file of some MB is written here; other requests have other threads.
        tokio::task::block_in_place(|| self.keeper.save(&self.engine));
    }
}

/// Logs what became of a change.
fn told<T>(outcome: &Result<T, DataplaneError>) {
    match outcome {
        Ok(_) => tracing::info!("done"),
        Err(error) => tracing::info!(%error, "refused"),
    }
}

#[async_trait]
impl Dataplane for Held {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        Dataplane::capabilities(&*self.engine).await
    }

    #[tracing::instrument(skip_all, fields(id = %transaction.id, owner = %transaction.owner))]
    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        // A file of some MB is written here; other requests have other threads.
        let outcome = tokio::task::block_in_place(|| self.keeper.apply(&self.engine, &transaction));
        told(&outcome);
        outcome
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        Ok(self.engine.snapshot(&query))
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        self.engine.flows(&query)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(self.engine.counters())
    }

    async fn events(&self) -> Result<Events, DataplaneError> {
        Ok(self.engine.events())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(port = %packet.port))]
    async fn explain(&self, packet: PacketIn, now: Option<Timestamp>) -> Result<Explanation, DataplaneError> {
        let now = now.or(packet.at).unwrap_or_else(|| Timestamp(loxi_linux::clock::now()));
        let mut explanation = self.engine.explain(&packet, Some(now))?;
        explanation.reference = self.engine.with_backend(|node| node.reference(&packet, now))?;
        Ok(explanation)
    }

    #[tracing::instrument(skip_all, fields(packets = request.packets.len(), commit = request.commit))]
    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        self.engine.inject(&request)
    }

    #[tracing::instrument(skip(self), fields(%port))]
    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        let outcome = self.engine.attach(&port);
        if outcome.is_ok() {
            self.keeper.set_detached(&port, false);
            self.save();
        }
        told(&outcome);
        outcome
    }

    #[tracing::instrument(skip(self), fields(%port))]
    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        // Noted first: otherwise it could be attached again before the note is there.
        let before = self.keeper.detached().contains(&port);
        self.keeper.set_detached(&port, true);
        let outcome = self.engine.detach(&port);
        if outcome.is_err() {
            self.keeper.set_detached(&port, before);
        }
        self.save();
        told(&outcome);
        outcome
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn export_state(&self) -> Result<State, DataplaneError> {
        Dataplane::export_state(&*self.engine).await
    }

    #[tracing::instrument(skip_all)]
    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        let outcome = Dataplane::import_state(&*self.engine, state).await;
        self.save();
        told(&outcome);
        outcome
    }
}
