//! The asking side of the channel.
//!
//! A [`Connection`] begins with a hello and lives over restarts of the daemon:
//! after a call that failed on the way, the next one says hello again first. A
//! call is never repeated by itself. Its error says whether the daemon can have
//! seen it ([`CallError::NotSent`]: no; [`CallError::OutcomeUnknown`]: perhaps).

use crate::endpoint::Endpoint;
use crate::frame::{Frame, FrameError, Kind, Limits};
use crate::message::{Fault, Hello, Message, Refused, Request, Welcome};
use crate::transport::{NngRequester, RequestError, Requester, TransportError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it accepts and sends.
    pub limits: Limits,
    /// How long a call may take.
    pub timeout: Duration,
    /// How long to wait for a daemon that is not there yet. Zero fails at once,
    /// saying why.
    pub wait_for_daemon: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), timeout: Duration::from_secs(30), wait_for_daemon: Duration::ZERO }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers at the socket.
    #[error("no daemon at {}: {source}", endpoint.control().display())]
    Unreachable {
        /// Where it was looked for.
        endpoint: Endpoint,
        /// What the transport met.
        source: TransportError,
    },
    /// The daemon answers, and does not want this client.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The daemon answers, and not with a welcome.
    #[error("no welcome: {0}")]
    Hello(CallError),
}

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The daemon has not seen the request.
    #[error("the daemon can't be reached: {0}")]
    NotSent(TransportError),
    /// The daemon may have executed the request.
    #[error("no answer, the outcome is unknown: {0}")]
    OutcomeUnknown(TransportError),
    /// The request has no frame (too long, or without an encoding): not sent.
    #[error("request not sent: {0}")]
    Request(FrameError),
    /// An answer came that this side can't read; the request was executed.
    #[error("unreadable answer: {0}")]
    Reply(FrameError),
    /// The daemon did not execute the request.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The daemon was restarted, and its successor does not want this client.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A client's connection to a daemon. Calls may run beside each other.
#[derive(Debug)]
pub struct Connection {
    requester: Box<dyn Requester>,
    options: Options,
    hello: Hello,
    correlation: AtomicU64,
    welcome: Mutex<Welcome>,
    /// A call failed on the way: the daemon may be another one now.
    doubtful: AtomicBool,
}

impl Connection {
    /// Connects and says hello.
    pub async fn open(endpoint: &Endpoint, hello: Hello, options: Options) -> Result<Self, ConnectError> {
        let patient = !options.wait_for_daemon.is_zero();
        let unreachable = |source| ConnectError::Unreachable { endpoint: endpoint.clone(), source };
        let limit = options.limits.reply;
        let requester = NngRequester::dial(&endpoint.control(), limit, patient).map_err(unreachable)?;
        let first = if patient { options.wait_for_daemon } else { options.timeout };
        let correlation = AtomicU64::new(1);
        let welcome = match exchange(&requester, &hello, &options.limits, 0, first).await {
            Ok(welcome) => welcome,
            Err(CallError::NotSent(source)) => return Err(unreachable(source)),
            Err(CallError::Refused(refused)) => return Err(refused.into()),
            Err(error) => return Err(ConnectError::Hello(error)),
        };
        Ok(Self {
            requester: Box::new(requester),
            options,
            hello,
            correlation,
            welcome: Mutex::new(welcome),
            doubtful: AtomicBool::new(false),
        })
    }

    /// What the daemon said last about itself. `boot` changes when it restarts.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request and waits for its reply, for as long as the options say.
    pub async fn call<R: Request + Sync>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.call_within(request, self.options.timeout).await
    }

    /// Sends a request and waits for its reply.
    pub async fn call_within<R: Request + Sync>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Reply, CallError> {
        if self.doubtful.load(Ordering::Acquire) {
            let welcome = self.exchange(&self.hello, timeout).await.map_err(unseen)?;
            *self.welcome.lock().unwrap_or_else(PoisonError::into_inner) = welcome;
            self.doubtful.store(false, Ordering::Release);
        }
        self.exchange(request, timeout).await
    }

    async fn exchange<R: Request + Sync>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Reply, CallError> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed);
        let limits = &self.options.limits;
        let reply = exchange(&*self.requester, request, limits, correlation, timeout).await;
        if let Err(CallError::NotSent(_) | CallError::OutcomeUnknown(_)) = &reply {
            self.doubtful.store(true, Ordering::Release);
        }
        reply
    }
}

/// The outcome of a call whose hello failed: whatever became of the hello, the
/// call itself was not sent.
fn unseen(error: CallError) -> CallError {
    match error {
        CallError::OutcomeUnknown(source) => CallError::NotSent(source),
        CallError::Reply(error) => CallError::Request(error),
        other => other,
    }
}

async fn exchange<R: Request + Sync>(
    requester: &dyn Requester,
    request: &R,
    limits: &Limits,
    correlation: u64,
    timeout: Duration,
) -> Result<R::Reply, CallError> {
    let bytes = request.to_frame(correlation, limits.request).map_err(CallError::Request)?;
    let answer = requester.request(&bytes, timeout).await.map_err(|error| match error {
        RequestError::NotSent(source) => CallError::NotSent(source),
        RequestError::NoAnswer(source) => CallError::OutcomeUnknown(source),
    })?;
    let frame = Frame::decode(&answer, limits.reply).map_err(CallError::Reply)?;
    if frame.correlation != correlation {
        return Err(CallError::Reply(FrameError::Correlation {
            found: frame.correlation,
            expected: correlation,
        }));
    }
    match frame.kind {
        Kind::Fault => Err(Fault::from_frame(&frame, limits.depth).map_or_else(CallError::Reply, Into::into)),
        Kind::Refused => {
            Err(Refused::from_frame(&frame, limits.depth).map_or_else(CallError::Reply, Into::into))
        }
        _ => R::Reply::from_frame(&frame, limits.depth).map_err(CallError::Reply),
    }
}
