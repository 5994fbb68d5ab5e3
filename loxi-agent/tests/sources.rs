//! What sources tell is the cluster that there is, whatever happens on the way: one table for both, and the API server's faults.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

#[path = "fixture/api.rs"]
mod api;

use std::sync::Arc;
use std::time::Duration;

use api::{Api, Fault};
use loxi_agent::cluster::model::Name;
use loxi_agent::cluster::{Cluster, Event};
use loxi_agent::source::{Directory, Kubernetes, Server, Source, Update, manifest};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A source, and the place where its cluster is changed.
enum World {
    Folder(tempfile::TempDir),
    Api(Api),
}

fn file_of(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or("-");
    format!("{}-{}-{}.json", object["kind"].as_str().unwrap(), text("namespace"), text("name"))
}

impl World {
    async fn each() -> [Self; 2] {
        [Self::Folder(tempfile::tempdir().unwrap()), Self::Api(Api::start().await)]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::Api(_) => "API server",
        }
    }

    fn put(&self, object: &Value) {
        match self {
            Self::Folder(folder) => {
                let new = folder.path().join(".new");
                std::fs::write(&new, object.to_string()).unwrap();
                std::fs::rename(new, folder.path().join(file_of(object))).unwrap();
            }
            Self::Api(api) => api.put(object.clone()),
        }
    }

    fn delete(&self, object: &Value) {
        match self {
            Self::Folder(folder) => std::fs::remove_file(folder.path().join(file_of(object))).unwrap(),
            Self::Api(api) => api.delete(object),
        }
    }

    async fn source(&self) -> Box<dyn Source> {
        match self {
            Self::Folder(folder) => Box::new(Directory::new(folder.path())),
            Self::Api(api) => Box::new(Kubernetes::new(&server(api).await).unwrap()),
        }
    }
}

async fn server(api: &Api) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let url = &api.url;
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
         clusters: [{{name: k, cluster: {{server: \"{url}\"}}}}], users: [{{name: u, user: {{}}}}]}}"
    );
    std::fs::write(&path, text).unwrap();
    Server::find(Some(&path), None).await.unwrap()
}

/// Who listens to a source.
struct Listener {
    from: mpsc::Receiver<Update>,
    cluster: Cluster,
    synced: u32,
    stale: Option<Arc<str>>,
    /// Objects that were told as gone.
    gone: Vec<Name>,
}

impl Listener {
    fn new(source: Box<dyn Source>) -> Self {
        let (to, from) = mpsc::channel(64);
        tokio::spawn(source.run(to));
        Self { from, cluster: Cluster::default(), synced: 0, stale: None, gone: Vec::new() }
    }

    /// Listens until something is so.
    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        while !is(self) {
            let update = timeout(Duration::from_secs(60), self.from.recv()).await;
            let update = update.unwrap_or_else(|_| panic!("{what}: {:?} {:?}", self.cluster, self.stale));
            match update.expect("it goes on") {
                Update::Event(event) => {
                    if let Event::Gone(reference) = &event {
                        self.gone.push(reference.name.clone());
                    }
                    self.cluster.apply(event);
                }
                Update::Synced => self.synced += 1,
                Update::Stale(why) => self.stale = why,
            }
        }
    }

    async fn until_it_is(&mut self, what: &str, objects: &[Value]) {
        let wanted = cluster(objects);
        self.until(what, |it| it.cluster == wanted && it.synced == 1 && it.stale.is_none()).await;
    }
}

fn cluster(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    for object in objects.iter().flat_map(|object| manifest::parse(&object.to_string()).unwrap()) {
        cluster.apply(Event::Put(object));
    }
    cluster
}

fn node(name: &str, cidr: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": [cidr]}})
}

fn pod(name: &str, label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1"},
        "metadata": {"name": name, "namespace": "web", "labels": {"app": label}}})
}

fn service(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "web"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}})
}

fn slice(name: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "web", "labels": {"kubernetes.io/service-name": "s"}},
        "endpoints": [{"addresses": ["10.244.1.9"]}], "ports": [{"port": 8080}]})
}

fn policy(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "web"}, "spec": {"podSelector": {}}})
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}})
}

#[tokio::test]
async fn every_source_tells_the_cluster_that_there_is() {
    for world in World::each().await {
        let name = world.name();
        let mut there =
            vec![node("n1", "10.244.1.0/24"), namespace(), pod("a", "x"), slice("s-1"), policy("p")];
        there.iter().for_each(|object| world.put(object));
        let mut listener = Listener::new(world.source().await);
        listener.until_it_is(name, &there).await;
        // New, changed, gone, and there again as another.
        there.push(service("s", "10.96.0.1"));
        world.put(&there[5]);
        listener.until_it_is(name, &there).await;
        there[2] = pod("a", "y");
        world.put(&there[2]);
        listener.until_it_is(name, &there).await;
        world.delete(&there.remove(3));
        listener.until_it_is(name, &there).await;
        assert!(name == "folder" || listener.gone == [Name::new("web", "s-1")], "{:?}", listener.gone);
        world.delete(&there[0]);
        there[0] = node("n1", "10.244.7.0/24");
        world.put(&there[0]);
        listener.until_it_is(name, &there).await;
        // A service that somebody else serves, and one without an address, are none of ours.
        let mut proxied = service("s", "10.96.0.1");
        proxied["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
        world.put(&proxied);
        there.pop();
        listener.until_it_is(name, &there).await;
    }
}

#[tokio::test]
async fn an_object_that_is_wrong_is_named_and_stays_what_it_was() {
    for world in World::each().await {
        let there = [node("n1", "10.244.1.0/24"), namespace()];
        there.iter().for_each(|object| world.put(object));
        let mut listener = Listener::new(world.source().await);
        listener.until_it_is(world.name(), &there).await;
        world.put(&node("n1", "10.244.1.0/99"));
        listener.until(world.name(), |it| it.stale.as_deref().is_some_and(|why| why.contains("n1"))).await;
        assert_eq!(listener.cluster, cluster(&there), "{}", world.name());
        // It doesn't become nothing by a list either.
        if let World::Api(api) = &world {
            api.forget();
            api.cut();
            api.put(pod("late", "x"));
            listener.until("listed anew", |it| it.cluster.pod(&Name::new("web", "late")).is_some()).await;
            assert!(listener.cluster.node("n1").is_some() && listener.gone.is_empty());
            api.delete(&pod("late", "x"));
        }
        world.put(&node("n1", "10.244.2.0/24"));
        listener.until_it_is(world.name(), &[node("n1", "10.244.2.0/24"), namespace()]).await;
        world.put(&node("n1", "10.244.1.0/99"));
        listener.until(world.name(), |it| it.stale.is_some()).await;
        world.delete(&node("n1", "10.244.1.0/99"));
        listener.until_it_is(world.name(), &[namespace()]).await;
    }
}

#[tokio::test]
async fn an_object_of_another_form_costs_nothing_but_itself() {
    let api = Api::start().await;
    api.put(node("n1", "10.244.1.0/24"));
    let mut listener = Listener::new(World::Api(api.clone()).source().await);
    listener.until_it_is("first", &api.objects()).await;
    // Of one watch, in order: what comes after it is told, and so is its end.
    let mut odd = service("odd", "10.96.0.9");
    odd["spec"]["ports"] = "none".into();
    api.put(odd.clone());
    api.put(service("s", "10.96.0.1"));
    listener.until("named", |it| it.stale.as_deref().is_some_and(|why| why.contains("web/odd"))).await;
    listener.until("told", |it| it.cluster.service(&Name::new("web", "s")).is_some()).await;
    api.delete(&odd);
    listener.until_it_is("without it", &api.objects()).await;
}

#[tokio::test]
async fn a_server_that_can_t_be_asked_changes_nothing_and_is_told() {
    let api = Api::start().await;
    let there = [node("n1", "10.244.1.0/24"), namespace(), pod("a", "x")];
    there.iter().for_each(|object| api.put(object.clone()));
    api.fail([Fault::Internal, Fault::Busy, Fault::Cut]);
    let mut listener = Listener::new(World::Api(api.clone()).source().await);
    listener.until("faults are said", |it| it.stale.is_some()).await;
    assert_eq!(listener.synced, 0);
    listener.until_it_is("listed after all", &there).await;
    // Each watch goes on where it was.
    api.asked();
    api.fail([Fault::Internal; 6]);
    api.cut();
    listener.until("stale", |it| it.stale.is_some()).await;
    listener.until("fresh without any event", |it| it.stale.is_none()).await;
    assert_eq!((listener.cluster.clone(), listener.gone.len()), (cluster(&there), 0));
    let asked = api.asked();
    assert!(asked.iter().all(|one| one.contains("watch=true")), "nothing was listed: {asked:?}");
    assert!(asked.iter().any(|one| one.contains("resourceVersion=3")), "{asked:?}");
}

#[tokio::test]
async fn what_went_while_nobody_watched_is_told_as_gone() {
    let api = Api::start().await;
    let there = [node("n1", "10.244.1.0/24"), pod("a", "x"), pod("b", "x")];
    there.iter().for_each(|object| api.put(object.clone()));
    let mut listener = Listener::new(World::Api(api.clone()).source().await);
    listener.until_it_is("first", &there).await;
    api.fail([Fault::Internal; 6]);
    api.cut();
    api.delete(&there[1]);
    api.forget();
    listener.until_it_is("listed anew", &[there[0].clone(), there[2].clone()]).await;
    assert_eq!(listener.gone, [Name::new("web", "a")]);
}

#[tokio::test]
async fn bookmarks_move_the_place_at_which_a_watch_goes_on() {
    let api = Api::start().await;
    api.put(node("n1", "10.244.1.0/24"));
    let mut listener = Listener::new(World::Api(api.clone()).source().await);
    listener.until_it_is("first", &api.objects()).await;
    // Pods change; the other watches get bookmarks alone.
    for number in 0..5 {
        api.put(pod("a", &number.to_string()));
    }
    listener.until_it_is("pods", &api.objects()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    api.asked();
    api.forget();
    api.cut();
    api.put(pod("b", "x"));
    listener.until_it_is("after the cut", &api.objects()).await;
    let asked = api.asked();
    let listed = asked.iter().filter(|one| !one.contains("watch=true")).count();
    assert_eq!(listed, 0, "{asked:?}");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let api = Api::start().await;
    for number in 0..1200 {
        api.put(pod(&format!("p{number}"), "x"));
    }
    let mut listener = Listener::new(World::Api(api.clone()).source().await);
    listener.until("synced", |it| it.synced == 1).await;
    assert_eq!(listener.cluster.pods().count(), 1200);
    let asked = api.asked();
    let pages = asked.iter().filter(|one| one.contains("/pods") && one.contains("limit=500")).count();
    assert_eq!(pages, 3, "{asked:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Put(Value),
    Delete(Value),
    Cut,
    Forget,
    Fail(Vec<Fault>),
}

fn object() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..3_u8, 0..3_u8).prop_map(|(n, cidr)| node(&format!("n{n}"), &format!("10.244.{cidr}.0/24"))),
        (0..4_u8, 0..3_u8).prop_map(|(n, label)| pod(&format!("p{n}"), &label.to_string())),
        (0..3_u8, 1..9_u8).prop_map(|(n, ip)| service(&format!("s{n}"), &format!("10.96.0.{ip}"))),
        (0..3_u8).prop_map(|n| slice(&format!("e{n}"))),
        (0..3_u8).prop_map(|n| policy(&format!("q{n}"))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::Internal), Just(Fault::Busy), Just(Fault::Cut)];
    prop_oneof![
        6 => object().prop_map(Step::Put),
        4 => object().prop_map(Step::Delete),
        2 => Just(Step::Cut),
        1 => Just(Step::Forget),
        1 => prop::collection::vec(fault, 1..4).prop_map(Step::Fail),
    ]
}

proptest! {
    // Each waits for real time: a watcher's first wait is about a second.
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_the_cluster_that_is_there(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::start().await;
            let mut listener = Listener::new(World::Api(api.clone()).source().await);
            listener.until("first", |it| it.synced == 1).await;
            for step in steps {
                match step {
                    Step::Put(object) => api.put(object),
                    Step::Delete(object) => api.delete(&object),
                    Step::Cut => api.cut(),
                    Step::Forget => api.forget(),
                    Step::Fail(faults) => api.fail(faults),
                }
                tokio::task::yield_now().await;
            }
            listener.until_it_is("the end", &api.objects()).await;
        });
    }
}
