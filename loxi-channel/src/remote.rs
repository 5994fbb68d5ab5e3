//! A daemon's dataplane, as if it were here.
//!
//! [`RemoteDataplane`] implements [`Dataplane`]. What the dataplane itself says
//! arrives unchanged; what goes wrong on the way becomes
//!
//! | on the way | the caller gets |
//! | --- | --- |
//! | not sent, or the daemon refuses this client | `Unreachable` |
//! | no answer to `apply` | `OutcomeUnknown`: send it again with the same id |
//! | no answer to anything else | `Unreachable` |
//! | over a limit, or not encodable | `BadRequest` |
//! | a request that the daemon doesn't know | `NotSupported` |
//! | an answer that can't be read, a daemon that broke | `Internal` (`apply`: `OutcomeUnknown`) |
//!
//! `attach`, `detach` and `import_state` can be repeated without harm after
//! `Unreachable`; `inject` with `commit` can't.

use crate::client::{CallError, ConnectError, Connection, Options};
use crate::endpoint::Endpoint;
use crate::events::{Delivery, EventError, EventReceiver, Gap};
use crate::frame::PROTOCOL;
use crate::message::{FaultCode, Hello, Peer, Request, Welcome};
use crate::request::{
    Apply, Attach, Detach, Explain, ExportState, GetCapabilities, GetCounters, GetFlows, GetSnapshot,
    ImportState, Inject, Mark, Notice, Reply,
};
use async_trait::async_trait;
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{
    Dataplane, DataplaneError, EventQueue, EventSender, Events, Explanation, FlowPage, FlowQuery,
    InjectRequest, Injected, PacketIn, SnapshotPage, SnapshotQuery,
};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, State, Timestamp};
use std::time::Duration;

/// How often a stream without events looks whether its reader is still there.
const READER_CHECK: Duration = Duration::from_secs(1);

/// How long to wait for a mark before asking for the next one.
const MARK_WAIT: Duration = Duration::from_millis(100);

/// The dataplane of a daemon.
#[derive(Debug)]
pub struct RemoteDataplane {
    endpoint: Endpoint,
    options: Options,
    connection: Connection,
}

impl RemoteDataplane {
    /// Connects to a daemon and says hello. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(endpoint: &Endpoint, client: Peer, options: Options) -> Result<Self, ConnectError> {
        let hello = Hello { protocol: PROTOCOL, ir_version: loxi_core::IR_VERSION, client };
        let connection = Connection::open(endpoint, hello, options.clone()).await?;
        Ok(Self { endpoint: endpoint.clone(), options, connection })
    }

    /// What the daemon said last about itself.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.connection.welcome()
    }

    async fn ask<R>(&self, request: &R) -> Result<<R::Reply as Reply>::Result, DataplaneError>
    where
        R: Request + Sync,
        R::Reply: Reply,
    {
        self.connection.call(request).await.map_err(told)?.into_outcome()
    }

    /// Waits until what the daemon publishes reaches this receiver.
    async fn listening(&self, receiver: &mut EventReceiver) -> Result<(), DataplaneError> {
        let until = tokio::time::Instant::now() + self.options.timeout;
        // Unlike any other listener's, which would only cost a needless start of the stream.
        let token = rand_token();
        while tokio::time::Instant::now() < until {
            self.ask(&Mark { token }).await?;
            let asked = tokio::time::Instant::now() + MARK_WAIT;
            while let Ok(next) = tokio::time::timeout_at(asked, receiver.next::<Notice>()).await {
                match next {
                    Ok(Delivery { event: Notice::Mark(seen), .. }) if seen == token => return Ok(()),
                    Ok(_) | Err(EventError::Frame(_)) => {}
                    Err(EventError::Transport(error)) => {
                        return Err(DataplaneError::Unreachable(error.to_string()));
                    }
                }
            }
        }
        Err(DataplaneError::Unreachable("no event arrives from the daemon".to_owned()))
    }
}

fn rand_token() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds it from the system's randomness.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What became of a call that is not a transaction.
fn told(error: CallError) -> DataplaneError {
    let text = error.to_string();
    match error {
        CallError::NotSent(_) | CallError::OutcomeUnknown(_) | CallError::Refused(_) => {
            DataplaneError::Unreachable(text)
        }
        CallError::Request(_) => DataplaneError::BadRequest { field: "request".to_owned(), message: text },
        CallError::Reply(_) => DataplaneError::Internal(text),
        CallError::Fault(fault) => match fault.code {
            FaultCode::UnknownKind => DataplaneError::NotSupported { capability: fault.message },
            FaultCode::Protocol | FaultCode::ShuttingDown => DataplaneError::Unreachable(text),
            FaultCode::Malformed | FaultCode::TooLong => {
                DataplaneError::BadRequest { field: "request".to_owned(), message: fault.message }
            }
            FaultCode::Internal => DataplaneError::Internal(text),
        },
    }
}

#[async_trait]
impl Dataplane for RemoteDataplane {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        self.ask(&GetCapabilities {}).await
    }

    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        let request = Apply { transaction };
        match self.connection.call(&request).await {
            Ok(reply) => reply.into_outcome(),
            Err(error) => Err(match told(error.clone()) {
                DataplaneError::Internal(_) => unknown(request),
                DataplaneError::Unreachable(_) if matches!(error, CallError::OutcomeUnknown(_)) => {
                    unknown(request)
                }
                other => other,
            }),
        }
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        self.ask(&GetSnapshot { query }).await
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        self.ask(&GetFlows { query }).await
    }

    async fn counters(&self) -> Result<Counters, DataplaneError> {
        self.ask(&GetCounters {}).await
    }

    async fn events(&self) -> Result<Events, DataplaneError> {
        let mut receiver = EventReceiver::open(&self.endpoint, self.options.limits)
            .map_err(|error| DataplaneError::Unreachable(error.to_string()))?;
        self.listening(&mut receiver).await?;
        let (sender, events) = Events::channel(EventQueue::CAPACITY);
        tokio::spawn(forward(receiver, sender));
        Ok(events)
    }

    async fn explain(&self, packet: PacketIn, now: Option<Timestamp>) -> Result<Explanation, DataplaneError> {
        self.ask(&Explain { packet, now }).await
    }

    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        self.ask(&Inject { request }).await
    }

    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.ask(&Attach { port }).await
    }

    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.ask(&Detach { port }).await
    }

    async fn export_state(&self) -> Result<State, DataplaneError> {
        self.ask(&ExportState {}).await
    }

    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        self.ask(&ImportState { state }).await
    }
}

fn unknown(request: Apply) -> DataplaneError {
    DataplaneError::OutcomeUnknown { id: request.transaction.id }
}

/// Hands events on until the reader or the socket is gone.
async fn forward(mut receiver: EventReceiver, sender: EventSender) {
    loop {
        let next = match tokio::time::timeout(READER_CHECK, receiver.next::<Notice>()).await {
            Ok(next) => next,
            // A gap of nothing is no news; it only tells whether somebody would read it.
            Err(_) if sender.send_gap(0) => continue,
            Err(_) => return,
        };
        let alive = match next {
            Ok(delivery) => {
                let missed = match delivery.gap {
                    Gap::None => 0,
                    Gap::Missed(missed) => missed,
                    // How many were missed over a restart nobody knows; that some were is the point.
                    Gap::Unknown => 1,
                };
                let told = missed == 0 || sender.send_gap(missed);
                told && match delivery.event {
                    Notice::Event(event) => sender.send(event),
                    Notice::Mark(_) => true,
                }
            }
            // One that a newer daemon sends and this side can't read.
            Err(EventError::Frame(_)) => sender.send_gap(1),
            Err(EventError::Transport(_)) => return,
        };
        if !alive {
            return;
        }
    }
}
