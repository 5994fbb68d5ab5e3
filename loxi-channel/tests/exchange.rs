//! Client and server over real sockets.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use loxi_channel::client::Options;
use loxi_channel::events::{EventReceiver, EventSender, Gap};
use loxi_channel::message::{Peer, RefusedReason};
use loxi_channel::transport::TransportError;
use loxi_channel::{
    CallError, ConnectError, Connection, Endpoint, Fault, FaultCode, Hello, Incoming, Limits, Outgoing,
    PROTOCOL, Ping, Pong, Refused, Server, Service, Welcome,
};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Welcomes clients of IR version 1. Its one further request stands for any: a
/// second hello through `call` can't happen, so pings carry the tests.
#[derive(Default)]
struct Daemon {
    boot: u64,
    hellos: AtomicUsize,
    slow_hello: Option<Duration>,
    breaks: bool,
}

#[async_trait]
impl Service for Daemon {
    async fn hello(&self, hello: Hello) -> Result<Welcome, Refused> {
        assert!(!self.breaks, "on purpose");
        self.hellos.fetch_add(1, Ordering::SeqCst);
        if let Some(pause) = self.slow_hello {
            tokio::time::sleep(pause).await;
        }
        if hello.ir_version != 1 {
            let reason = RefusedReason::IrVersion { ours: 1, theirs: hello.ir_version };
            return Err(Refused { reason });
        }
        Ok(Welcome {
            protocol: PROTOCOL,
            ir_version: 1,
            server: peer("daemon"),
            instance: "test".to_owned(),
            backend: "none".to_owned(),
            generation: 3,
            boot: self.boot,
        })
    }

    fn boot(&self) -> u64 {
        self.boot
    }

    async fn call(&self, request: Incoming) -> Result<Outgoing, Fault> {
        Err(request.unknown())
    }
}

fn peer(name: &str) -> Peer {
    Peer { name: name.to_owned(), version: "0".to_owned() }
}

fn hello() -> Hello {
    Hello { protocol: PROTOCOL, ir_version: 1, client: peer("test") }
}

fn serve(endpoint: &Endpoint, daemon: Daemon) -> Server {
    Server::bind(endpoint, Limits::default(), 4, Arc::new(daemon)).unwrap()
}

fn place() -> (tempfile::TempDir, Endpoint) {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
    (folder, endpoint)
}

fn quick() -> Options {
    Options { timeout: Duration::from_secs(5), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_then_calls_beside_each_other() {
    let (_folder, endpoint) = place();
    let server = serve(&endpoint, Daemon { boot: 5, ..Daemon::default() });
    let connection = Connection::open(&endpoint, hello(), quick()).await.unwrap();
    assert_eq!(connection.welcome().generation, 3);

    let connection = Arc::new(connection);
    let mut calls = tokio::task::JoinSet::new();
    for worker in 0..16_u64 {
        let connection = Arc::clone(&connection);
        calls.spawn(async move {
            for count in 0..200 {
                let token = worker * 1000 + count;
                let pong = connection.call(&Ping { token }).await.unwrap();
                assert_eq!(pong, Pong { token, boot: 5 });
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_reach_the_sockets() {
    let (_folder, endpoint) = place();
    let _server = serve(&endpoint, Daemon::default());
    let _events = EventSender::bind(&endpoint, Limits::default(), 1).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(endpoint.folder()), 0o700);
    for socket in [endpoint.control(), endpoint.events()] {
        assert!(socket.metadata().unwrap().file_type().is_socket());
        assert_eq!(mode(&socket), 0o600, "{}", socket.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_daemon_is_said_at_once() {
    let (_folder, endpoint) = place();
    let began = Instant::now();
    match Connection::open(&endpoint, hello(), quick()).await {
        Err(ConnectError::Unreachable { source, .. }) => {
            assert!(matches!(source, TransportError::NotFound | TransportError::Refused), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_wait_for_a_daemon_to_come() {
    let (_folder, endpoint) = place();
    let options = Options { wait_for_daemon: Duration::from_secs(10), ..quick() };
    let client = {
        let endpoint = endpoint.clone();
        tokio::spawn(async move { Connection::open(&endpoint, hello(), options).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _server = serve(&endpoint, Daemon::default());
    client.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwelcome_client_hears_why() {
    let (_folder, endpoint) = place();
    let _server = serve(&endpoint, Daemon::default());
    let odd = Hello { ir_version: 9, ..hello() };
    match Connection::open(&endpoint, odd, quick()).await {
        Err(ConnectError::Refused(Refused { reason })) => {
            assert_eq!(reason, RefusedReason::IrVersion { ours: 1, theirs: 9 });
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_breaks_is_a_fault_and_the_server_lives() {
    let (_folder, endpoint) = place();
    let _server = serve(&endpoint, Daemon { breaks: true, ..Daemon::default() });
    for _ in 0..10 {
        match Connection::open(&endpoint, hello(), quick()).await {
            Err(ConnectError::Hello(CallError::Fault(fault))) => {
                assert_eq!(fault.code, FaultCode::Internal);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_an_unknown_outcome_and_is_not_asked_again() {
    let (_folder, endpoint) = place();
    let daemon = Arc::new(Daemon { slow_hello: Some(Duration::from_millis(400)), ..Daemon::default() });
    let service: Arc<dyn Service> = Arc::clone(&daemon) as _;
    let server = Server::bind(&endpoint, Limits::default(), 4, service).unwrap();
    let options = Options { timeout: Duration::from_millis(100), ..Options::default() };
    match Connection::open(&endpoint, hello(), options).await {
        Err(ConnectError::Hello(CallError::OutcomeUnknown(TransportError::TimedOut))) => {}
        other => panic!("{other:?}"),
    }
    server.shutdown().await;
    assert_eq!(daemon.hellos.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_the_daemon() {
    let (_folder, endpoint) = place();
    let server = serve(&endpoint, Daemon { boot: 1, ..Daemon::default() });
    let connection = Connection::open(&endpoint, hello(), quick()).await.unwrap();
    server.shutdown().await;

    let short = Duration::from_millis(200);
    match connection.call_within(&Ping { token: 1 }, short).await {
        Err(CallError::NotSent(_) | CallError::OutcomeUnknown(_)) => {}
        other => panic!("{other:?}"),
    }
    let _server = serve(&endpoint, Daemon { boot: 2, ..Daemon::default() });
    let pong = connection.call(&Ping { token: 2 }).await.unwrap();
    assert_eq!(pong, Pong { token: 2, boot: 2 });
    assert_eq!(connection.welcome().boot, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_up_calls_leave_the_connection_usable() {
    let (_folder, endpoint) = place();
    let _server = serve(&endpoint, Daemon::default());
    let connection = Connection::open(&endpoint, hello(), quick()).await.unwrap();
    for token in 0..300 {
        let ping = Ping { token };
        let call = connection.call(&ping);
        let pause = Duration::from_micros(token % 150);
        let _ = tokio::time::timeout(pause, call).await;
    }
    connection.call(&Ping { token: 1 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_do_not_share_a_place() {
    let (_folder, endpoint) = place();
    let _server = serve(&endpoint, Daemon::default());
    let second = Server::bind(&endpoint, Limits::default(), 1, Arc::new(Daemon::default()));
    assert!(second.unwrap_err().to_string().contains("in use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_in_order_and_gaps_are_told() {
    let (_folder, endpoint) = place();
    let sender = EventSender::bind(&endpoint, Limits::default(), 1).unwrap();
    let mut receiver = EventReceiver::open(&endpoint, Limits::default()).unwrap();
    // A subscription has no acknowledgement: send until the first one arrives.
    let mut token = 0;
    let first = loop {
        sender.send(&Ping { token }).unwrap();
        token += 1;
        let wait = Duration::from_millis(50);
        if let Ok(first) = tokio::time::timeout(wait, receiver.next::<Ping>()).await {
            break first.unwrap();
        }
    };
    assert_eq!(first.gap, Gap::None);

    // Far more than the queues hold, with nobody taking.
    for _ in 0..20_000 {
        sender.send(&Ping { token }).unwrap();
        token += 1;
    }
    let (mut last, mut missed, mut taken) = (first.event.token, 0, 1);
    while last + 1 < token {
        let wait = Duration::from_secs(5);
        let delivery = tokio::time::timeout(wait, receiver.next::<Ping>());
        let delivery = delivery.await.expect("the newest event").unwrap();
        let before = match delivery.gap {
            Gap::None => 0,
            Gap::Missed(count) => count,
            Gap::Unknown => panic!("no restart here"),
        };
        assert_eq!(delivery.event.token, last + 1 + before);
        last = delivery.event.token;
        missed += before;
        taken += 1;
    }
    assert!(missed > 0, "the queues are bounded");
    assert_eq!(first.event.token + taken + missed, token);
}
