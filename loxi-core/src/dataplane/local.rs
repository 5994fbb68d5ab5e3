//! A dataplane in this process.

use super::{
    Backend, Dataplane, DataplaneError, Event, EventKind, EventQueue, Events, Explanation, FlowPage,
    FlowQuery, InjectRequest, Injected, PacketIn, Placement, SnapshotPage, SnapshotQuery,
};
use crate::capability::Capabilities;
use crate::change::{Applied, Change, Changed, Generation, Transaction, TransactionId, plan_change};
use crate::ir::{Entity, EntityKind, Owned, Pipeline};
use crate::net::PortName;
use crate::packet::{Counters, State, Timestamp};
use crate::validate::validate;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tells the time: CLOCK_BOOTTIME in ns.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Results of transactions that are remembered.
const REMEMBERED: usize = 1024;

/// Entities of a snapshot page unless asked otherwise.
const PAGE: usize = 10_000;

/// Everything that must survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSnapshot {
    /// Generation.
    pub generation: Generation,
    /// Entities with their owners.
    pub entities: Vec<Owned<Entity>>,
    /// Results of past transactions, oldest first.
    pub results: Vec<(TransactionId, Applied)>,
    /// What was learned; nothing where the backend keeps it.
    pub state: State,
    /// Ports that were attached.
    pub attached: Vec<PortName>,
}

struct Inner<B: Backend> {
    backend: B,
    capabilities: Capabilities,
    pipeline: Pipeline,
    generation: Generation,
    results: VecDeque<(TransactionId, Applied)>,
    events: EventQueue,
}

/// A backend as a [`Dataplane`]. The same is offered by synchronous methods,
/// for programs without a runtime. Every call takes one lock; none waits for
/// anything else.
pub struct Local<B: Backend> {
    inner: Mutex<Inner<B>>,
    clock: Clock,
}

impl<B: Backend> Local<B> {
    /// A dataplane with nothing configured.
    pub fn new(backend: B, clock: Clock) -> Self {
        let capabilities = backend.capabilities();
        let inner = Inner {
            backend,
            capabilities,
            pipeline: Pipeline::default(),
            generation: Generation(0),
            results: VecDeque::new(),
            events: EventQueue::default(),
        };
        Self { inner: Mutex::new(inner), clock }
    }

    /// A dataplane that goes on where another one was saved. Ports are not attached yet.
    ///
    /// # Errors
    /// As [`Local::apply`] for the saved entities, or as [`Backend::import_state`].
    pub fn restore(backend: B, clock: Clock, saved: LocalSnapshot) -> Result<Self, DataplaneError> {
        let local = Self::new(backend, clock);
        {
            let now = local.now();
            let mut inner = local.lock();
            let mut change = Change::default();
            for owned in saved.entities {
                let key = owned.entity.key();
                change.entities.push(Changed { key, old: None, new: Some(owned) });
            }
            inner.install(&change, now)?;
            inner.generation = saved.generation;
            inner.results = saved.results.into();
            // What the backend has kept itself is newer than anything that was kept for it.
            if !(inner.backend.keeps_state() && saved.state == State::default()) {
                inner.backend.import_state(saved.state, now)?;
            }
        }
        Ok(local)
    }

    /// Everything that must survive a restart.
    pub fn save(&self) -> LocalSnapshot {
        self.lock().snapshot()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        // A panic inside a backend must not take the whole dataplane down; each
        // operation either finishes or is undone before it can unwind past here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Lets the caller use the backend itself, under the lock.
    pub fn with_backend<R>(&self, f: impl FnOnce(&mut B) -> R) -> R {
        f(&mut self.lock().backend)
    }

    /// What is configured.
    pub fn pipeline(&self) -> Pipeline {
        self.lock().pipeline.clone()
    }

    /// The current generation.
    pub fn generation(&self) -> Generation {
        self.lock().generation
    }

    /// Synchronous [`Dataplane::apply`].
    ///
    /// # Errors
    /// [`DataplaneError::Change`], `Invalid`, `Compile` or `Install`; nothing has changed then.
    pub fn apply(&self, tx: &Transaction) -> Result<Applied, DataplaneError> {
        self.commit(tx, None)
    }

    /// Applies a transaction and has `keep` write down everything that must
    /// survive a restart, before anybody can see the result. If it can't, the
    /// transaction is undone. `keep` runs under the dataplane's lock: it must
    /// not call the dataplane.
    ///
    /// # Errors
    /// As [`Local::apply`], and [`DataplaneError::NotKept`]; nothing has changed then.
    pub fn apply_kept(
        &self,
        tx: &Transaction,
        keep: &mut dyn FnMut(LocalSnapshot) -> Result<(), String>,
    ) -> Result<Applied, DataplaneError> {
        self.commit(tx, Some(keep))
    }

    fn commit(&self, tx: &Transaction, keep: Option<Keep<'_>>) -> Result<Applied, DataplaneError> {
        let now = self.now();
        let mut inner = self.lock();
        if let Some((_, applied)) = inner.results.iter().find(|(id, _)| *id == tx.id) {
            return Ok(applied.clone());
        }
        let change = plan_change(&inner.pipeline, inner.generation, tx)?;
        let undo = inner.install(&change, now)?;
        let before = inner.generation;
        if !change.is_empty() {
            inner.generation = Generation(before.0 + 1);
        }
        let applied = summary(inner.generation, &change);
        inner.results.push_back((tx.id.clone(), applied.clone()));
        if let Some(keep) = keep
            && let Err(message) = keep(inner.snapshot())
        {
            inner.backend.undo(undo);
            change.inverse().apply_to(&mut inner.pipeline);
            inner.generation = before;
            inner.results.pop_back();
            return Err(DataplaneError::NotKept(message));
        }
        if inner.results.len() > REMEMBERED {
            inner.results.pop_front();
        }
        inner.tell(tx, &change, &applied, now);
        Ok(applied)
    }

    /// What a transaction would change; changes nothing.
    ///
    /// # Errors
    /// As [`Local::apply`], short of installing.
    pub fn plan(&self, tx: &Transaction) -> Result<Change, DataplaneError> {
        let inner = self.lock();
        let change = plan_change(&inner.pipeline, inner.generation, tx)?;
        let mut pipeline = inner.pipeline.clone();
        change.apply_to(&mut pipeline);
        validate(&pipeline)?;
        B::compile(&pipeline, &inner.capabilities)?;
        Ok(change)
    }

    /// Whether what is installed is what the pipeline compiles to.
    ///
    /// # Errors
    /// [`DataplaneError::Internal`] if it is not, or what installing it once would have said.
    pub fn audit(&self) -> Result<(), DataplaneError> {
        let inner = self.lock();
        let wanted = B::compile(&inner.pipeline, &inner.capabilities)?;
        if inner.backend.read_back()? == wanted {
            Ok(())
        } else {
            Err(DataplaneError::Internal("what is installed is not what the pipeline compiles to".to_owned()))
        }
    }

    /// Where each rule landed.
    ///
    /// # Errors
    /// [`DataplaneError::Internal`] if what is installed can't be read.
    pub fn placements(&self) -> Result<Vec<Placement>, DataplaneError> {
        Ok(B::placements(&self.lock().backend.read_back()?))
    }

    /// Synchronous [`Dataplane::snapshot`].
    pub fn snapshot(&self, query: &SnapshotQuery) -> SnapshotPage {
        let inner = self.lock();
        let limit = if query.limit == 0 { PAGE } else { (query.limit as usize).min(PAGE) };
        let skip = usize::try_from(query.skip).unwrap_or(usize::MAX);
        let wants = |kind| query.kinds.is_empty() || query.kinds.contains(&kind);
        let admits = |owned: &Owned<Entity>| {
            wants(owned.entity.kind()) && query.owner.as_ref().is_none_or(|owner| *owner == owned.owner)
        };
        let mut entities: Vec<_> =
            inner.pipeline.entities().filter(admits).skip(skip).take(limit.saturating_add(1)).collect();
        let next = (entities.len() > limit).then(|| {
            entities.truncate(limit);
            query.skip + limit as u64
        });
        let learned =
            (wants(EntityKind::Fdb) || wants(EntityKind::Neighbor)).then(|| inner.backend.export_state());
        let learned = learned.unwrap_or_default();
        SnapshotPage {
            generation: inner.generation,
            entities,
            next,
            attached: inner.backend.attached(),
            learned_fdb: if wants(EntityKind::Fdb) { learned.fdb } else { Vec::new() },
            learned_neighbors: if wants(EntityKind::Neighbor) { learned.neighbors } else { Vec::new() },
        }
    }

    /// Synchronous [`Dataplane::flows`].
    ///
    /// # Errors
    /// As [`Backend::flows`].
    pub fn flows(&self, query: &FlowQuery) -> Result<FlowPage, DataplaneError> {
        let now = self.now();
        self.lock().backend.flows(query, now)
    }

    /// Synchronous [`Dataplane::counters`].
    pub fn counters(&self) -> Counters {
        self.lock().backend.counters()
    }

    /// Synchronous [`Dataplane::events`].
    pub fn events(&self) -> Events {
        self.lock().events.subscribe()
    }

    /// Hands the backend's events to the readers. Long-running programs call it every now and then.
    pub fn pump_events(&self) {
        self.lock().pump();
    }

    /// Synchronous [`Dataplane::explain`].
    ///
    /// # Errors
    /// As [`Backend::explain`].
    pub fn explain(&self, packet: &PacketIn, now: Option<Timestamp>) -> Result<Explanation, DataplaneError> {
        let now = now.or(packet.at).unwrap_or_else(|| self.now());
        let inner = self.lock();
        let installed = inner.backend.explain(packet, now)?;
        Ok(Explanation { backend: inner.capabilities.backend.clone(), installed, reference: None })
    }

    /// Synchronous [`Dataplane::inject`].
    ///
    /// # Errors
    /// As [`Backend::inject`].
    pub fn inject(&self, request: &InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        let now = request.now.unwrap_or_else(|| self.now());
        let mut inner = self.lock();
        let injected = inner.backend.inject(request, now)?;
        inner.pump();
        Ok(injected)
    }

    /// Synchronous [`Dataplane::attach`].
    ///
    /// # Errors
    /// As [`Backend::attach_port`].
    pub fn attach(&self, port: &PortName) -> Result<(), DataplaneError> {
        let now = self.now();
        let mut inner = self.lock();
        inner.backend.attach_port(port)?;
        inner.events.publish(&Event { at: now, kind: EventKind::PortAttached(port.clone()) });
        Ok(())
    }

    /// Synchronous [`Dataplane::detach`].
    ///
    /// # Errors
    /// As [`Backend::detach_port`].
    pub fn detach(&self, port: &PortName) -> Result<(), DataplaneError> {
        let now = self.now();
        let mut inner = self.lock();
        inner.backend.detach_port(port)?;
        inner.events.publish(&Event { at: now, kind: EventKind::PortDetached(port.clone()) });
        Ok(())
    }
}

/// Writes a snapshot down.
type Keep<'a> = &'a mut dyn FnMut(LocalSnapshot) -> Result<(), String>;

fn summary(generation: Generation, change: &Change) -> Applied {
    let count = |f: fn(&Changed) -> bool| change.entities.iter().filter(|c| f(c)).count() as u64;
    Applied {
        generation,
        created: count(|c| c.old.is_none()),
        updated: count(|c| c.old.is_some() && c.new.is_some()),
        deleted: count(|c| c.new.is_none()),
    }
}

impl<B: Backend> Inner<B> {
    fn snapshot(&self) -> LocalSnapshot {
        LocalSnapshot {
            generation: self.generation,
            entities: self.pipeline.entities().collect(),
            results: self.results.iter().cloned().collect(),
            state: if self.backend.keeps_state() { State::default() } else { self.backend.export_state() },
            attached: self.backend.attached(),
        }
    }

    /// Tells the readers of events what a transaction did.
    fn tell(&mut self, tx: &Transaction, change: &Change, applied: &Applied, now: Timestamp) {
        for changed in &change.entities {
            if let (Some(old), Some(new)) = (&changed.old, &changed.new)
                && old.owner != new.owner
            {
                let kind = EventKind::OwnershipTaken {
                    entity: changed.key.clone(),
                    from: old.owner.clone(),
                    to: new.owner.clone(),
                };
                self.events.publish(&Event { at: now, kind });
            }
        }
        let (id, owner) = (tx.id.clone(), tx.owner.clone());
        let kind = EventKind::Applied { id, owner, generation: applied.generation };
        self.events.publish(&Event { at: now, kind });
        self.pump();
    }

    /// Validates, compiles and installs; on an error everything is as before.
    fn install(&mut self, change: &Change, now: Timestamp) -> Result<B::Undo, DataplaneError> {
        change.apply_to(&mut self.pipeline);
        let result = self.check_and_install(change, now);
        if result.is_err() {
            change.inverse().apply_to(&mut self.pipeline);
        }
        result
    }

    fn check_and_install(&mut self, change: &Change, now: Timestamp) -> Result<B::Undo, DataplaneError> {
        validate(&self.pipeline)?;
        self.capabilities.check(&self.pipeline)?;
        let delta = self.backend.compile_change(&self.pipeline, change, &self.capabilities)?;
        Ok(self.backend.install(delta, now)?)
    }

    fn pump(&mut self) {
        for event in self.backend.poll_events() {
            self.events.publish(&event);
        }
    }
}

#[async_trait::async_trait]
impl<B: Backend> Dataplane for Local<B> {
    async fn capabilities(&self) -> Result<Capabilities, DataplaneError> {
        Ok(self.lock().capabilities.clone())
    }

    async fn apply(&self, transaction: Transaction) -> Result<Applied, DataplaneError> {
        // No await inside: once polled it runs to its end, so dropping it can't half-apply.
        Self::apply(self, &transaction)
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<SnapshotPage, DataplaneError> {
        Ok(Self::snapshot(self, &query))
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowPage, DataplaneError> {
        Self::flows(self, &query)
    }

    async fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(Self::counters(self))
    }

    async fn events(&self) -> Result<Events, DataplaneError> {
        Ok(Self::events(self))
    }

    async fn explain(&self, packet: PacketIn, now: Option<Timestamp>) -> Result<Explanation, DataplaneError> {
        Self::explain(self, &packet, now)
    }

    async fn inject(&self, request: InjectRequest) -> Result<Vec<Injected>, DataplaneError> {
        Self::inject(self, &request)
    }

    async fn attach(&self, port: PortName) -> Result<(), DataplaneError> {
        Self::attach(self, &port)
    }

    async fn detach(&self, port: PortName) -> Result<(), DataplaneError> {
        Self::detach(self, &port)
    }

    async fn export_state(&self) -> Result<State, DataplaneError> {
        Ok(self.lock().backend.export_state())
    }

    async fn import_state(&self, state: State) -> Result<(), DataplaneError> {
        let now = self.now();
        self.lock().backend.import_state(state, now)
    }
}
