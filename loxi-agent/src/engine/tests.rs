use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{
    Backend as _, DataplaneError, FlowPage, FlowQuery, Local, SnapshotPage, SnapshotQuery,
};
use loxi_core::ir::{EntityKey, EntityKind, Pipeline, Tunnel};
use loxi_core::packet::{Counters, Timestamp};
use loxi_reference::Reference;

use super::*;
use crate::cluster::model::{Kind, Name, Namespace, Object, Pod};
use crate::intent::fixture::{attachment, settings, valid};

/// The reference, which can be away, and counts.
struct Dataplane {
    local: Local<Reference>,
    away: AtomicBool,
    transactions: AtomicUsize,
    operations: AtomicUsize,
}

impl Dataplane {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            local: Local::new(Reference::new(), Arc::new(|| Timestamp(Timestamp::SECOND))),
            away: AtomicBool::new(false),
            transactions: AtomicUsize::new(0),
            operations: AtomicUsize::new(0),
        })
    }

    fn reached(&self) -> Result<(), DataplaneError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(DataplaneError::Unreachable("it is away".into())),
            false => Ok(()),
        }
    }

    fn pipeline(&self) -> Pipeline {
        self.local.pipeline()
    }

    fn has_port(&self, port: &PortName) -> bool {
        self.pipeline().entity(&EntityKey::Port(port.clone())).is_some()
    }

    /// Transactions and operations since it was asked last.
    fn counted(&self) -> (usize, usize) {
        (self.transactions.swap(0, Ordering::SeqCst), self.operations.swap(0, Ordering::SeqCst))
    }
}

#[async_trait::async_trait]
impl loxi_core::dataplane::Dataplane for Dataplane {
    async fn capabilities(&self) -> Result<loxi_core::capability::Capabilities, DataplaneError> {
        self.reached()?;
        loxi_core::dataplane::Dataplane::capabilities(&self.local).await
    }

    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        self.reached()?;
        self.transactions.fetch_add(1, Ordering::SeqCst);
        self.operations.fetch_add(transaction.operations.len(), Ordering::SeqCst);
        self.local.apply(&transaction)
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        self.reached()?;
        Ok(self.local.snapshot(&query))
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        self.local.flows(&query)
    }

    async fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(self.local.counters())
    }

    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.reached()?;
        self.local.attach(&port)
    }

    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        self.reached()?;
        self.local.detach(&port)
    }
}

struct Fixed;

impl Prepare for Fixed {
    fn prepare(&self, _node: &Node) -> Result<Settings, String> {
        Ok(settings())
    }
}

struct World {
    dataplane: Arc<Dataplane>,
    updates: mpsc::Sender<Update>,
    handle: Handle,
}

impl World {
    fn new(kept: Option<Cluster>, attachments: Vec<Attachment>) -> Self {
        let dataplane = Dataplane::new();
        let (updates, from) = mpsc::channel(64);
        let (handle, _) = start(Parts {
            node: "n1".into(),
            updates: from,
            kept,
            attachments,
            dataplane: Arc::clone(&dataplane) as Arc<dyn loxi_core::dataplane::Dataplane>,
            owner: Owner::new("agent").unwrap(),
            prepare: Arc::new(Fixed),
        });
        Self { dataplane, updates, handle }
    }

    async fn synced() -> Self {
        let world = Self::new(None, Vec::new());
        world.put(node("n1", "172.18.0.1", "10.244.1.0/24")).await;
        world.updates.send(Update::Synced).await.unwrap();
        world.until(|status| status.applied).await;
        world
    }

    async fn put(&self, object: impl Into<Object>) {
        self.updates.send(Update::Event(Event::Put(object.into()))).await.unwrap();
    }

    async fn know(&self, number: u8) {
        self.put(Namespace { name: Name::of_cluster("default"), ..Namespace::default() }).await;
        let name = Name::new("default", format!("pod-{number}"));
        self.put(Pod { name, ips: attachment(number).addresses, ..Pod::default() }).await;
    }

    async fn until(&self, what: impl FnMut(&Arc<Status>) -> bool) -> Arc<Status> {
        let mut status = self.handle.status();
        let until = tokio::time::timeout(Duration::from_secs(60), status.wait_for(what));
        until.await.expect("it comes to that").unwrap().clone()
    }

    fn tunnels(&self) -> Vec<String> {
        self.dataplane.pipeline().tunnels().map(|tunnel: &Tunnel| tunnel.remote.to_string()).collect()
    }
}

fn node(name: &str, address: &str, cidr: &str) -> Node {
    Node {
        name: Name::of_cluster(name),
        internal_ips: vec![address.parse().unwrap()],
        pod_cidrs: vec![cidr.parse().unwrap()],
        ..Node::default()
    }
}

#[tokio::test]
async fn nothing_is_applied_before_everything_is_known() {
    let world = World::new(None, vec![attachment(1)]);
    world.put(node("n1", "172.18.0.1", "10.244.1.0/24")).await;
    world.put(node("n2", "172.18.0.2", "10.244.2.0/24")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.dataplane.counted(), (0, 0));
    world.updates.send(Update::Synced).await.unwrap();
    world.until(|status| status.applied).await;
    // The node's network, the other node and the interface that was there are one transaction.
    assert_eq!(world.dataplane.counted().0, 1);
    assert_eq!(world.tunnels(), ["172.18.0.2"]);
    assert!(world.dataplane.has_port(&attachment(1).port));
    let mut intent = Intent::new(settings());
    intent.apply(Event::Put(node("n2", "172.18.0.2", "10.244.2.0/24").into()));
    intent.attach(attachment(1));
    let expected = valid(&mut intent);
    assert_eq!(world.dataplane.pipeline().keys().count(), expected.keys().count());
}

#[tokio::test]
async fn what_was_kept_is_applied_while_the_source_says_nothing() {
    let kept = Cluster::from(vec![
        node("n1", "172.18.0.1", "10.244.1.0/24").into(),
        node("n2", "172.18.0.2", "10.244.2.0/24").into(),
    ]);
    let world = World::new(Some(kept), Vec::new());
    let status = world.until(|status| status.applied).await;
    assert!(!status.synced && status.stale.is_some());
    assert_eq!(world.tunnels(), ["172.18.0.2"]);
    // The source knows better: n2 is gone.
    let all = vec![node("n1", "172.18.0.1", "10.244.1.0/24").into()];
    world.updates.send(Update::Event(Event::All(Kind::Node, all))).await.unwrap();
    world.updates.send(Update::Synced).await.unwrap();
    world.updates.send(Update::Stale(None)).await.unwrap();
    let status = world.until(|status| status.synced && status.stale.is_none()).await;
    assert_eq!((world.tunnels().len(), status.stale_since), (0, None));
}

#[tokio::test]
async fn a_change_costs_what_it_changes() {
    let world = World::synced().await;
    for number in 2..200 {
        world
            .put(node(&format!("n{number}"), &format!("172.18.0.{number}"), &format!("10.244.{number}.0/24")))
            .await;
    }
    world.handle.detach(attachment(9).port).await.unwrap();
    world.dataplane.counted();
    world.know(1).await;
    world.handle.attach(attachment(1)).await.unwrap();
    let (_, operations) = world.dataplane.counted();
    // Port, station and two neighbours; policies have their own.
    assert!((4..12).contains(&operations), "{operations}");
}

#[tokio::test]
async fn an_interface_is_there_when_attach_returns_and_gone_when_detach_does() {
    let world = World::synced().await;
    let port = attachment(1).port;
    world.know(1).await;
    world.handle.attach(attachment(1)).await.unwrap();
    assert!(world.dataplane.has_port(&port));
    assert!(world.dataplane.local.with_backend(|backend| backend.attached()).contains(&port));
    world.handle.detach(port.clone()).await.unwrap();
    assert!(!world.dataplane.has_port(&port));
    // Once more is no error.
    world.handle.detach(port).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_nobody_knows_is_waited_for_and_then_refused_for_now() {
    let world = World::synced().await;
    let begun = Instant::now();
    let refused = world.handle.attach(attachment(1)).await;
    assert_eq!(refused, Err(RequestError::NotYet("pod default/pod-1 isn't known yet".into())));
    assert!(begun.elapsed() >= UNKNOWN_POD);
    assert!(!world.dataplane.has_port(&attachment(1).port));
    // One that becomes known meanwhile is attached.
    let handle = world.handle.clone();
    let attached = tokio::spawn(async move { handle.attach(attachment(1)).await });
    tokio::time::sleep(UNKNOWN_POD / 2).await;
    world.know(1).await;
    assert_eq!(attached.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn an_object_that_is_refused_is_set_aside_alone_until_it_changes() {
    let world = World::synced().await;
    // No tunnel ends at such an address.
    world.put(node("bad", "224.0.0.5", "10.244.5.0/24")).await;
    let status = world.until(|status| !status.problems.is_empty()).await;
    assert_eq!(status.problems[0].object, "Node bad");
    world.put(node("n2", "172.18.0.2", "10.244.2.0/24")).await;
    world.handle.detach(attachment(1).port).await.unwrap();
    assert_eq!(world.tunnels(), ["172.18.0.2"]);
    world.put(node("bad", "172.18.0.5", "10.244.5.0/24")).await;
    world.until(|status| status.problems.is_empty()).await;
    assert_eq!(world.tunnels().len(), 2);
}

#[tokio::test]
async fn a_dataplane_that_was_away_gets_the_whole_again() {
    let world = World::synced().await;
    world.dataplane.away.store(true, Ordering::SeqCst);
    world.put(node("n2", "172.18.0.2", "10.244.2.0/24")).await;
    let status = world.until(|status| status.waits_for.is_some()).await;
    assert!(status.unready().unwrap().contains("it is away"));
    world.know(1).await;
    let refused = world.handle.attach(attachment(1)).await;
    assert!(matches!(refused, Err(RequestError::NotYet(_))), "{refused:?}");
    world.dataplane.counted();
    world.dataplane.away.store(false, Ordering::SeqCst);
    world.until(|status| status.waits_for.is_none()).await;
    assert_eq!(world.tunnels(), ["172.18.0.2"]);
    // What was refused is not there.
    assert!(!world.dataplane.has_port(&attachment(1).port));
    let zones = world.dataplane.pipeline().keys().filter(|key| key.kind() == EntityKind::Zone).count();
    let (transactions, operations) = world.dataplane.counted();
    assert!(zones == 1 && transactions == 1 && operations > 10, "{transactions} {operations}");
}
