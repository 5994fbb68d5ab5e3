//! A dataplane at the other end of real sockets: every method's arguments and
//! answers arrive as they are, and what is lost on the way is told apart.

#![allow(clippy::unwrap_used)]

mod samples;

use async_trait::async_trait;
use loxi_channel::client::Options;
use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, Identity, Limits, RemoteDataplane, Served, serve};
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Transaction, TransactionId};
use loxi_core::dataplane::{
    Dataplane, DataplaneError, EventGap, EventQueue, Events, Explanation, FlowPage, FlowQuery, InjectRequest,
    Injected, PacketIn, SnapshotPage, SnapshotQuery,
};
use loxi_core::net::PortName;
use loxi_core::packet::{Counters, State, Timestamp};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers what is written here, after checking what it was asked.
#[derive(Default)]
struct Script {
    /// Every answer is this error.
    error: Option<DataplaneError>,
    /// Transactions take this long.
    slow: Duration,
    /// Answers are this much longer.
    padding: usize,
    events: Mutex<EventQueue>,
    applied: Mutex<Vec<TransactionId>>,
}

impl Script {
    fn say<T>(&self, answer: T) -> Result<T, DataplaneError> {
        self.error.clone().map_or(Ok(answer), Err)
    }
}

#[async_trait]
impl Dataplane for Script {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        Ok(Capabilities::full("script", 10))
    }
    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        tokio::time::sleep(self.slow).await;
        assert_eq!(transaction, samples::transaction());
        self.applied.lock().unwrap().push(transaction.id);
        self.say(samples::applied())
    }
    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        if query.limit == 1 {
            return Ok(samples::snapshot_page());
        }
        assert_eq!(query, samples::snapshot_query());
        self.say(samples::snapshot_page())
    }
    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        assert_eq!(query, samples::flow_query());
        self.say(samples::flow_page())
    }
    async fn counters(&self) -> Result<Counters, DataplaneError> {
        self.say(samples::counters())
    }
    async fn events(&self) -> Result<Events, DataplaneError> {
        Ok(self.events.lock().unwrap().subscribe())
    }
    async fn explain(&self, packet: PacketIn, now: Option<Timestamp>) -> Result<Explanation, DataplaneError> {
        assert_eq!((packet, now), (samples::packet(), Some(Timestamp(3))));
        self.say(samples::explanation())
    }
    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        assert_eq!(request, samples::inject_request());
        let mut injected = samples::injected();
        injected.verdict.outputs[0].bytes.resize(3 + self.padding, 0);
        self.say(vec![injected])
    }
    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        assert_eq!(port, samples::port("hs1"));
        self.say(())
    }
    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        assert_eq!(port, samples::port("hs2"));
        self.say(())
    }
    async fn export_state(&self) -> Result<State, DataplaneError> {
        self.say(samples::state())
    }
    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        assert_eq!(state, samples::state());
        self.say(())
    }
}

struct Pair {
    script: Arc<Script>,
    served: Served,
    remote: RemoteDataplane,
    endpoint: Endpoint,
    _folder: tempfile::TempDir,
}

fn peer() -> Peer {
    Peer { name: "test".to_owned(), version: "0".to_owned() }
}

async fn pair(script: Script, limits: Limits, timeout: Duration) -> Pair {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
    let script = Arc::new(script);
    let identity = Identity { server: peer(), instance: "one".to_owned(), boot: 77 };
    let served = serve(&endpoint, limits, 4, identity, script.clone()).await.unwrap();
    let options = Options { limits, timeout, ..Options::default() };
    let remote = RemoteDataplane::connect(&endpoint, peer(), options).await.unwrap();
    Pair { script, served, remote, endpoint, _folder: folder }
}

async fn plain(script: Script) -> Pair {
    pair(script, Limits::default(), Duration::from_secs(10)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_arrives_and_is_answered() {
    let pair = plain(Script::default()).await;
    let remote = &pair.remote;
    let welcome = remote.welcome();
    assert_eq!((&*welcome.backend, welcome.generation, welcome.boot), ("script", 4, 77));
    assert_eq!((&*welcome.instance, welcome.ir_version), ("one", loxi_core::IR_VERSION));

    assert_eq!(remote.capabilities().await.unwrap(), Capabilities::full("script", 10));
    assert_eq!(remote.apply(samples::transaction()).await.unwrap(), samples::applied());
    assert_eq!(remote.snapshot(samples::snapshot_query()).await.unwrap(), samples::snapshot_page());
    assert_eq!(remote.flows(samples::flow_query()).await.unwrap(), samples::flow_page());
    assert_eq!(remote.counters().await.unwrap(), samples::counters());
    let explained = remote.explain(samples::packet(), Some(Timestamp(3))).await.unwrap();
    assert_eq!(explained, samples::explanation());
    assert_eq!(remote.inject(samples::inject_request()).await.unwrap(), [samples::injected()]);
    remote.attach(samples::port("hs1")).await.unwrap();
    remote.detach(samples::port("hs2")).await.unwrap();
    assert_eq!(remote.export_state().await.unwrap(), samples::state());
    remote.import_state(samples::state()).await.unwrap();
    assert_eq!(pair.script.applied.lock().unwrap().len(), 1);
    pair.served.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_dataplane_arrive_as_they_were_made() {
    for error in samples::errors() {
        let pair = plain(Script { error: Some(error.clone()), ..Script::default() }).await;
        let remote = &pair.remote;
        assert_eq!(remote.apply(samples::transaction()).await, Err(error.clone()));
        assert_eq!(remote.counters().await, Err(error.clone()));
        assert_eq!(remote.attach(samples::port("hs1")).await, Err(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_transaction_has_an_unknown_outcome() {
    let slow = Duration::from_millis(500);
    let script = Script { slow, ..Script::default() };
    let pair = pair(script, Limits::default(), Duration::from_millis(150)).await;
    let id = samples::transaction().id;
    let outcome = pair.remote.apply(samples::transaction()).await;
    assert_eq!(outcome, Err(DataplaneError::OutcomeUnknown { id }));

    pair.served.shutdown().await;
    for _ in 0..2 {
        let outcome = pair.remote.counters().await;
        assert!(matches!(outcome, Err(DataplaneError::Unreachable(_))), "{outcome:?}");
    }
    assert_eq!(pair.script.applied.lock().unwrap().len(), 1, "what was begun is finished, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_limit_says_so() {
    let limits = Limits { reply: 2048, ..Limits::default() };
    let script = Script { padding: 4096, ..Script::default() };
    let pair = pair(script, limits, Duration::from_secs(10)).await;
    match pair.remote.inject(samples::inject_request()).await {
        Err(DataplaneError::BadRequest { message, .. }) => assert!(message.contains("executed"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_the_limit_is_not_sent() {
    let limits = Limits { request: 200, ..Limits::default() };
    let pair = pair(Script::default(), limits, Duration::from_secs(10)).await;
    let outcome = pair.remote.import_state(samples::state()).await;
    assert!(matches!(outcome, Err(DataplaneError::BadRequest { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_begin_when_asked_for_and_gaps_are_told() {
    let pair = plain(Script::default()).await;
    // None of these may be lost: listening has begun when `events` returns.
    for round in 0..20_u64 {
        let mut events = pair.remote.events().await.unwrap();
        let mut event = samples::event();
        event.at = Timestamp(round);
        pair.script.events.lock().unwrap().publish(&event);
        let next = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap();
        assert_eq!(next, Some(Ok(event)));
    }

    let mut events = pair.remote.events().await.unwrap();
    // More than the daemon's own queue holds, before its pump can run.
    let many = EventQueue::CAPACITY as u64 * 2;
    {
        let mut queue = pair.script.events.lock().unwrap();
        for n in 0..many {
            let mut event = samples::event();
            event.at = Timestamp(n);
            queue.publish(&event);
        }
    }
    // A gap is told before the events that wait to be read, wherever among them it was.
    let (mut seen, mut missed, mut last) = (0, 0, None);
    while seen + missed < many {
        match tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap() {
            Ok(event) => {
                assert!(last < Some(event.at));
                last = Some(event.at);
                seen += 1;
            }
            Err(EventGap { missed: gap }) => missed += gap,
        }
    }
    assert_eq!(seen + missed, many);
    assert!(missed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_description_is_refused() {
    let pair = plain(Script::default()).await;
    let hello = loxi_channel::Hello {
        protocol: loxi_channel::PROTOCOL,
        ir_version: loxi_core::IR_VERSION + 1,
        client: peer(),
    };
    let refused = loxi_channel::Connection::open(&pair.endpoint, hello, Options::default()).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("version"), "{error}");
}
