//! The daemon's dataplane, which may come later than the agent.

use loxi_channel::client::Options;
use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, RemoteDataplane};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{Dataplane, DataplaneError, FlowPage, FlowQuery, SnapshotPage, SnapshotQuery};
use loxi_core::net::PortName;
use loxi_core::packet::Counters;
use tokio::sync::OnceCell;

/// Connects when it is asked for the first time; until then a daemon that isn't there is `Unreachable`.
#[derive(Debug)]
pub struct Reaching {
    endpoint: Endpoint,
    connected: OnceCell<RemoteDataplane>,
}

impl Reaching {
    /// The daemon at an endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connected: OnceCell::new() }
    }

    async fn daemon(&self) -> Result<&RemoteDataplane, DataplaneError> {
        let connect = || async {
            let client = Peer { name: "loxi-agent".into(), version: env!("CARGO_PKG_VERSION").into() };
            RemoteDataplane::connect(&self.endpoint, client, Options::default()).await
        };
        let connected = self.connected.get_or_try_init(connect).await;
        connected.map_err(|error| DataplaneError::Unreachable(error.to_string()))
    }
}

#[async_trait::async_trait]
impl Dataplane for Reaching {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        self.daemon().await?.capabilities().await
    }

    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        self.daemon().await?.apply(transaction).await
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        self.daemon().await?.snapshot(query).await
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        self.daemon().await?.flows(query).await
    }

    async fn counters(&self) -> Result<Counters, DataplaneError> {
        self.daemon().await?.counters().await
    }

    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.daemon().await?.attach(port).await
    }

    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.daemon().await?.detach(port).await
    }
}
