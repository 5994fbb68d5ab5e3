//! Whatever arrives, the dataplane is asked only what a sound request asks.

use super::*;
use crate::frame::{Frame, HEADER_LEN, MAGIC};
use crate::message::{Message, Ping};
use crate::server::answer as answer_bytes;
use loxi_core::capability::Capabilities;
use loxi_core::change::{Applied, Generation, Transaction};
use loxi_core::dataplane::{Events, FlowPage, FlowQuery, SnapshotPage};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::Counters;
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;

/// Counts what it is asked.
#[derive(Default)]
struct Counting {
    asked: AtomicUsize,
}

impl Counting {
    fn count<T: Default>(&self) -> Result<T, DataplaneError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(T::default())
    }
}

#[async_trait]
impl Dataplane for Counting {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        self.count::<()>()?;
        Ok(Capabilities::full("counting", 1))
    }
    async fn apply(&self, _: Transaction) -> Result<Applied, DataplaneError> {
        self.count::<()>()?;
        Ok(Applied { generation: Generation(1), created: 0, updated: 0, deleted: 0 })
    }
    async fn snapshot(&self, _: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        self.count()
    }
    async fn flows(&self, _: FlowQuery) -> Result<FlowPage, DataplaneError> {
        self.count()
    }
    async fn counters(&self) -> Result<Counters, DataplaneError> {
        self.count()
    }
    async fn events(&self) -> Result<Events, DataplaneError> {
        Ok(Events::channel(1).1)
    }
    async fn attach(&self, _: PortName) -> Result<(), DataplaneError> {
        self.count()
    }
    async fn detach(&self, _: PortName) -> Result<(), DataplaneError> {
        self.count()
    }
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    dataplane: Arc<Counting>,
    service: Arc<dyn Service>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
        let events = EventSender::bind(&endpoint, Limits::default(), 1).unwrap();
        let dataplane = Arc::new(Counting::default());
        let server = Peer { name: "test".to_owned(), version: "0".to_owned() };
        let identity = Identity { server, instance: "test".to_owned(), boot: 1 };
        let service = DataplaneService::new(dataplane.clone(), Arc::new(events), identity);
        Self { runtime, dataplane, service: Arc::new(service), _folder: folder }
    }

    /// The answer's kind, and how often the dataplane was asked for it.
    fn send(&self, bytes: &[u8]) -> (Kind, usize) {
        let before = self.dataplane.asked.load(Ordering::SeqCst);
        let answer = self.runtime.block_on(answer_bytes(&self.service, bytes.to_vec(), Limits::default()));
        let asked = self.dataplane.asked.load(Ordering::SeqCst) - before;
        (Frame::decode(&answer, Limits::default().reply).unwrap().kind, asked)
    }
}

fn frame_of(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Ping { token: 0 }.to_frame(1, 1 << 20).unwrap();
    bytes.truncate(HEADER_LEN);
    bytes[8..10].copy_from_slice(&kind.code().to_be_bytes());
    bytes[20..24].copy_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn apply() -> Vec<u8> {
    let transaction = Transaction::replace("a", Owner::new("test").unwrap(), []);
    Apply { transaction }.to_frame(1, 1 << 20).unwrap()
}

#[test]
fn arbitrary_bytes_ask_nothing() {
    let bench = Bench::new();
    proptest!(ProptestConfig::with_cases(500), |(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        magic in any::<bool>(),
    )| {
        let bytes = if magic { [&MAGIC[..], &bytes].concat() } else { bytes };
        prop_assert_eq!(bench.send(&bytes), (Kind::Fault, 0));
    });
}

#[test]
fn arbitrary_bodies_ask_nothing_but_what_they_say() {
    let bench = Bench::new();
    let with_arguments = vec![
        Kind::Apply,
        Kind::Snapshot,
        Kind::Flows,
        Kind::Explain,
        Kind::Inject,
        Kind::Attach,
        Kind::Detach,
        Kind::ImportState,
    ];
    proptest!(ProptestConfig::with_cases(1000), |(
        kind in prop::sample::select(with_arguments),
        body in prop::collection::vec(any::<u8>(), 0..300),
    )| {
        // Random bytes are never a map with the field that each of these needs.
        prop_assert_eq!(bench.send(&frame_of(kind, &body)), (Kind::Fault, 0));
    });
}

#[test]
fn damaged_transactions_are_refused_or_still_sound() {
    let bench = Bench::new();
    let (mut refused, mut sound) = (0, 0);
    let good = apply();
    for at in 0..good.len() {
        for value in [0, 1, 0x60, 0x7f, 0xa0, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let body = Frame::decode(&bytes, 1 << 20).ok().filter(|frame| frame.kind == Kind::Apply);
            let readable = body.is_some_and(|frame| Apply::from_frame(&frame, 64).is_ok());
            match bench.send(&bytes) {
                (Kind::ApplyReply, 1) if readable => sound += 1,
                (Kind::Fault, 0) if !readable => refused += 1,
                // Another kind without arguments, whose unknown fields are skipped.
                (kind, asked) => assert!(at < HEADER_LEN && asked <= 2, "{at} {value:#x} {kind:?}"),
            }
        }
    }
    assert!(refused > 300 && sound > 50, "{refused} refused, {sound} sound");
    assert_eq!(bench.send(&apply()), (Kind::ApplyReply, 1));
}

#[test]
fn a_method_that_the_dataplane_lacks_is_a_reply() {
    let bench = Bench::new();
    let request = ExportState {}.to_frame(1, 1 << 20).unwrap();
    assert_eq!(bench.send(&request), (Kind::ExportStateReply, 0));
}
