//! The caller's interface.

use super::{
    DataplaneError, Events, Explanation, FlowPage, FlowQuery, InjectRequest, Injected, PacketIn,
    SnapshotPage, SnapshotQuery,
};
use crate::capability::Capabilities;
use crate::change::{Applied, Transaction};
use crate::net::PortName;
use crate::packet::{Counters, State, Timestamp};

fn missing<T>(capability: &str) -> Result<T, DataplaneError> {
    Err(DataplaneError::NotSupported { capability: capability.to_owned() })
}

/// A dataplane, local or remote: a caller can't tell which.
///
/// Every method may fail with [`DataplaneError::Unreachable`]. Dropping the
/// future of [`Dataplane::apply`] never half-applies: the transaction is then
/// applied as a whole or not at all. Methods that a later version adds have a
/// body that returns [`DataplaneError::NotSupported`].
#[async_trait::async_trait]
pub trait Dataplane: Send + Sync {
    /// What the backend can do.
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError>;

    /// Applies a transaction as a whole or not at all. Sent again with the same id it returns the
    /// first result.
    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError>;

    /// A page of what is configured.
    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError>;

    /// A page of flows.
    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError>;

    /// Counters.
    async fn counters(&self) -> Result<Counters, DataplaneError>;

    /// Events from now on.
    async fn events(&self) -> Result<Events, DataplaneError> {
        missing("events")
    }

    /// Why a packet goes where it goes. Changes nothing.
    async fn explain(&self, packet: PacketIn, now: Option<Timestamp>) -> Result<Explanation, DataplaneError> {
        let _ = (packet, now);
        missing("explain")
    }

    /// Runs packets in order, on a copy of the state unless `commit` is set.
    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        let _ = request;
        missing("inject")
    }

    /// Opens a port for packets.
    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        let _ = port;
        missing("attach")
    }

    /// Closes a port.
    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        let _ = port;
        missing("detach")
    }

    /// Everything learned.
    async fn export_state(&self) -> Result<State, DataplaneError> {
        missing("export_state")
    }

    /// Takes over what another dataplane has learned.
    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        let _ = state;
        missing("import_state")
    }
}
