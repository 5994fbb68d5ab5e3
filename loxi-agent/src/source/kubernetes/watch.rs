//! One kind's watch.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::StreamExt;
use k8s_openapi::api::{core, discovery, networking};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::Told;
use crate::cluster::Event;
use crate::cluster::model::{Kind, Name, Object, Reference};
use crate::source::decode::{self, DecodeError};

/// How many objects a page of a list has.
const PAGE: u32 = 500;

/// A kind to watch, and who is told.
#[derive(Debug)]
pub(super) struct Watch {
    kind: Kind,
    /// What the API calls it.
    resource: ApiResource,
    tell: mpsc::Sender<Told>,
}

/// Nobody listens any more.
struct Unheard;

impl Watch {
    pub(super) fn new(kind: Kind, tell: mpsc::Sender<Told>) -> Self {
        Self { kind, resource: resource(kind), tell }
    }

    /// Watches until nobody listens.
    pub(super) async fn run(self, client: Client, config: watcher::Config) {
        // Untyped: an object whose form is wrong would else be an error of the watch, and lost.
        let api: Api<DynamicObject> = Api::all_with(client, &self.resource);
        let stream = watcher(api, config.page_size(PAGE)).default_backoff();
        let mut stream = pin!(stream);
        let mut listing = Listing::default();
        while let Some(next) = stream.next().await {
            let told = match next {
                Ok(event) => self.event(event, &mut listing).await,
                Err(error) => self.failed(&error).await,
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn failed(&self, error: &watcher::Error) -> Result<(), Unheard> {
        let kind = self.kind;
        // The place in the history that was asked for is forgotten: an ordinary end, after which it lists anew.
        if let watcher::Error::WatchError(status) = error
            && status.code == 410
        {
            tracing::debug!(kind = kind.name(), "listing anew");
            return Ok(());
        }
        let why = in_words(error);
        tracing::warn!(kind = kind.name(), error = %why, "watching again");
        self.say(Told::Failed(kind, why)).await
    }

    async fn event(
        &self,
        event: watcher::Event<DynamicObject>,
        listing: &mut Listing,
    ) -> Result<(), Unheard> {
        match event {
            watcher::Event::Init => {
                listing.objects.clear();
                listing.seen.clear();
                Ok(())
            }
            watcher::Event::InitApply(object) => {
                let name = name_of(&object);
                match self.understood(&name, object, listing).await? {
                    Converted::Object(object) => listing.objects.push(object),
                    // Told as gone with the others, if it was known.
                    Converted::Nothing => return Ok(()),
                    Converted::Wrong => {}
                }
                listing.seen.insert(name);
                Ok(())
            }
            watcher::Event::InitDone => {
                let seen = std::mem::take(&mut listing.seen);
                let known = std::mem::replace(&mut listing.known, seen);
                // What goes first makes room for what comes.
                let gone: Vec<Name> = known.difference(&listing.known).cloned().collect();
                for name in gone {
                    self.gone(name, listing).await?;
                }
                for object in std::mem::take(&mut listing.objects) {
                    self.say(Told::Event(Event::Put(object))).await?;
                }
                self.say(Told::Listed(self.kind)).await
            }
            watcher::Event::Apply(object) => {
                let name = name_of(&object);
                match self.understood(&name, object, listing).await? {
                    Converted::Object(object) => {
                        listing.known.insert(name);
                        self.say(Told::Event(Event::Put(object))).await
                    }
                    Converted::Nothing if listing.known.remove(&name) => self.gone(name, listing).await,
                    Converted::Nothing => Ok(()),
                    Converted::Wrong => {
                        // One that was never understood is known all the same: it goes by name.
                        listing.known.insert(name);
                        Ok(())
                    }
                }
            }
            watcher::Event::Delete(object) => {
                let name = name_of(&object);
                listing.known.remove(&name);
                self.gone(name, listing).await
            }
        }
    }

    async fn understood(
        &self,
        name: &Name,
        object: DynamicObject,
        listing: &mut Listing,
    ) -> Result<Converted, Unheard> {
        let of = &self.resource;
        let decoded = serde_json::to_value(object).map_err(DecodeError::from);
        let converted = match decoded.and_then(|value| decode::object(&of.api_version, &of.kind, value)) {
            Ok(Some(object)) => Converted::Object(object),
            Ok(None) => Converted::Nothing,
            Err(error) => {
                listing.wrong.insert(name.clone());
                self.say(Told::Understood(self.kind, name.clone(), Some(error.to_string()))).await?;
                return Ok(Converted::Wrong);
            }
        };
        self.right(name, listing).await?;
        Ok(converted)
    }

    /// Nothing is wrong with an object, or there is none any more.
    async fn right(&self, name: &Name, listing: &mut Listing) -> Result<(), Unheard> {
        if listing.wrong.remove(name) {
            self.say(Told::Understood(self.kind, name.clone(), None)).await?;
        }
        Ok(())
    }

    async fn gone(&self, name: Name, listing: &mut Listing) -> Result<(), Unheard> {
        self.right(&name, listing).await?;
        self.say(Told::Event(Event::Gone(Reference { kind: self.kind, name }))).await
    }

    async fn say(&self, told: Told) -> Result<(), Unheard> {
        self.tell.send(told).await.map_err(|_| Unheard)
    }
}

enum Converted {
    Object(Object),
    /// It is nothing that a packet depends on.
    Nothing,
    Wrong,
}

/// What a watch keeps.
#[derive(Debug, Default)]
struct Listing {
    /// The objects that there are, as far as was told.
    known: BTreeSet<Name>,
    /// Those of them that aren't understood.
    wrong: BTreeSet<Name>,
    /// Those of a list that has begun, and their names with those of objects that aren't understood.
    objects: Vec<Object>,
    seen: BTreeSet<Name>,
}

/// What the API calls a kind.
fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Node => ApiResource::erase::<core::v1::Node>(&()),
        Kind::Namespace => ApiResource::erase::<core::v1::Namespace>(&()),
        Kind::Pod => ApiResource::erase::<core::v1::Pod>(&()),
        Kind::Service => ApiResource::erase::<core::v1::Service>(&()),
        Kind::EndpointSlice => ApiResource::erase::<discovery::v1::EndpointSlice>(&()),
        Kind::NetworkPolicy => ApiResource::erase::<networking::v1::NetworkPolicy>(&()),
    }
}

/// The kind whose objects are called so in paths.
pub(super) fn kind_of(plural: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| resource(*kind).plural == plural)
}

fn name_of(object: &DynamicObject) -> Name {
    let meta = &object.metadata;
    let name = meta.name.clone().unwrap_or_default();
    match &meta.namespace {
        Some(namespace) => Name::new(namespace.clone(), name),
        None => Name::of_cluster(name),
    }
}

/// An error with its causes, each once.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
