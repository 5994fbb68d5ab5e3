//! The reference as a backend.

use crate::frame::{Checksums, View};
use crate::stages::{Run, Surroundings};
use crate::world::{Install, World};
use loxi_core::capability::{Capabilities, Feature};
use loxi_core::change::Change;
use loxi_core::dataplane::{
    Backend, CompileError, DataplaneError, Event, EventKind, FlowPage, FlowQuery, FlowStore, InjectRequest,
    Injected, InstallError, PacketIn, Placement, PlacementAt,
};
use loxi_core::ir::{Pipeline, Port};
use loxi_core::net::PortName;
use loxi_core::packet::{
    ChoiceSource, Counters, Fate, FirstChoice, State, Timestamp, Trace, Unsent, Verdict,
};
use loxi_core::reason::DropReason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Entities of one kind at most. The reference has no tables of fixed size;
/// the limit keeps a mistake from eating the machine.
const LIMIT: u64 = 1 << 20;

/// Unread events at most; the oldest go first.
const EVENTS: usize = 4096;

/// Where frames go and come from. The reference itself does no I/O.
pub trait PortIo: Send {
    /// Opens the device of a port.
    ///
    /// # Errors
    /// In words: what is missing.
    fn open(&mut self, port: &Port) -> Result<(), String>;

    /// Closes it. One that isn't open stays so.
    fn close(&mut self, port: &PortName);

    /// Sends a frame.
    ///
    /// # Errors
    /// Why it didn't leave.
    fn send(&mut self, port: &PortName, frame: &[u8]) -> Result<(), DropReason>;
}

/// The reference's program: the pipeline itself, there being nothing to lower it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePlan {
    /// What it runs.
    pub pipeline: Pipeline,
}

/// What is the same for every packet.
#[derive(Debug, Clone, Copy)]
struct Rules {
    passes_nothing: bool,
    verify_l4: bool,
}

/// The reference interpreter.
pub struct Reference {
    world: World,
    io: Option<Box<dyn PortIo>>,
    rules: Rules,
    fail_at: Option<u64>,
    events: VecDeque<Event>,
    /// When a drop of this port and reason was last told.
    told: BTreeMap<(PortName, DropReason), Timestamp>,
    zone_warned: BTreeSet<loxi_core::net::ZoneName>,
    expired: Timestamp,
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

impl Reference {
    /// A reference without I/O: what leaves is in verdicts only.
    #[must_use]
    pub fn new() -> Self {
        Self {
            world: World::default(),
            io: None,
            rules: Rules { passes_nothing: false, verify_l4: true },
            fail_at: None,
            events: VecDeque::new(),
            told: BTreeMap::new(),
            zone_warned: BTreeSet::new(),
            expired: Timestamp(0),
        }
    }

    /// A reference whose outputs leave by `io`.
    #[must_use]
    pub fn with_io(io: Box<dyn PortIo>) -> Self {
        Self { io: Some(io), ..Self::new() }
    }

    /// The negative control: takes every configuration and passes no packet
    /// (`unsupported`). A test that passes on it proves nothing.
    #[must_use]
    pub fn passing_nothing(self) -> Self {
        Self { rules: Rules { passes_nothing: true, ..self.rules }, ..self }
    }

    /// A reference that does no more than a backend of these capabilities where that changes what
    /// becomes of packets: without [`Feature::VerifyL4Checksum`] transport checksums are not
    /// verified. A packet that came with a wrong one then leaves with one that is wrong by as much.
    #[must_use]
    pub fn assuming(self, capabilities: &Capabilities) -> Self {
        let verify_l4 = capabilities.features.contains(&Feature::VerifyL4Checksum);
        Self { rules: Rules { verify_l4, ..self.rules }, ..self }
    }

    /// Makes the given step of every installation fail, so that undoing can be tested.
    pub fn fail_install_at(&mut self, step: Option<u64>) {
        self.fail_at = step;
    }

    /// Runs a frame that came in at a port, and sends what comes of it.
    pub fn receive(
        &mut self,
        port: &PortName,
        frame: &[u8],
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Verdict {
        let mut injected = run(&mut self.world, self.rules, port, frame, now, choices, false);
        self.send(&mut injected.verdict);
        self.tell_drop(port, frame, now, injected.verdict.fate);
        injected.verdict
    }

    /// Forgets what has expired. Cheap to call often: it works once a second.
    pub fn tick(&mut self, now: Timestamp) {
        if now < self.expired.plus_s(1) {
            return;
        }
        self.expired = now;
        self.world.state.expire_all(now);
        self.told.retain(|_, at| now < at.plus_s(1));
        self.tell_zones(now);
    }

    fn send(&mut self, verdict: &mut Verdict) {
        let Some(io) = &mut self.io else { return };
        for output in &verdict.outputs {
            if let Err(reason) = io.send(&output.port, &output.bytes) {
                let counters = self.world.counters_of(&output.port);
                counters.tx_packets = counters.tx_packets.saturating_sub(1);
                counters.tx_bytes = counters.tx_bytes.saturating_sub(output.bytes.len() as u64);
                *counters.unsent.entry(reason).or_default() += 1;
                verdict.unsent.push(Unsent { port: output.port.clone(), reason });
            }
        }
    }

    fn push(&mut self, at: Timestamp, kind: EventKind) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { at, kind });
    }

    fn tell_drop(&mut self, port: &PortName, frame: &[u8], now: Timestamp, fate: Fate) {
        let Fate::Dropped(reason) = fate else { return };
        let key = (port.clone(), reason);
        if self.told.get(&key).is_some_and(|at| now < at.plus_s(1)) {
            return;
        }
        self.told.insert(key, now);
        let kind = EventKind::Dropped { port: port.clone(), reason, packet: summary(frame, self.rules) };
        self.push(now, kind);
    }

    fn tell_zones(&mut self, now: Timestamp) {
        let zones: Vec<_> =
            self.world.config.zones().map(|z| (z.name.clone(), self.world.state.totals(z))).collect();
        for (zone, totals) in zones {
            let nearly = totals.flows * 10 >= totals.capacity * 9;
            if nearly && self.zone_warned.insert(zone.clone()) {
                let kind = EventKind::ZoneNearlyFull { zone, flows: totals.flows, capacity: totals.capacity };
                self.push(now, kind);
            } else if !nearly {
                self.zone_warned.remove(&zone);
            }
        }
    }

    fn known(&self, port: &PortName) -> Result<&Port, DataplaneError> {
        self.world.get::<Port>(port).ok_or_else(|| DataplaneError::NoSuchPort(port.clone()))
    }
}

/// A frame in words.
fn summary(frame: &[u8], rules: Rules) -> String {
    let checksums = Checksums { verify: rules.verify_l4, zero_udp: BTreeSet::new() };
    match View::parse(frame, &checksums) {
        Ok(view) => match view.ip() {
            Some(ip) => ip.tuple().to_string(),
            None => format!("{} -> {}", view.src, view.dst),
        },
        Err(reason) => format!("{} bytes, {reason}", frame.len()),
    }
}

fn run(
    world: &mut World,
    rules: Rules,
    port: &PortName,
    frame: &[u8],
    now: Timestamp,
    choices: &mut dyn ChoiceSource,
    with_trace: bool,
) -> Injected {
    if rules.passes_nothing {
        let verdict = Verdict::dropped(DropReason::Unsupported);
        return Injected { verdict, choices: Vec::new(), trace: Trace::default(), punt: None };
    }
    let around = Surroundings {
        config: &world.config,
        attached: &world.attached,
        state: &mut world.state,
        counters: &mut world.ports,
        tokens: &mut world.tokens,
        now,
        verify_l4: rules.verify_l4,
    };
    let ran = Run::new(around, choices, with_trace).run(port, frame);
    Injected { verdict: ran.verdict, choices: ran.choices, trace: ran.trace, punt: None }
}

impl Backend for Reference {
    type Plan = ReferencePlan;
    type PlanDelta = Change;
    type Undo = UndoInstall;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::full("reference", LIMIT);
        if !self.rules.verify_l4 {
            capabilities.features.remove(&Feature::VerifyL4Checksum);
        }
        capabilities
    }

    fn compile(pipeline: &Pipeline, capabilities: &Capabilities) -> Result<ReferencePlan, CompileError> {
        capabilities.check(pipeline)?;
        Ok(ReferencePlan { pipeline: pipeline.clone() })
    }

    fn compile_change(
        &self,
        _new: &Pipeline,
        change: &Change,
        _capabilities: &Capabilities,
    ) -> Result<Change, CompileError> {
        Ok(change.clone())
    }

    fn install(&mut self, delta: Change, _now: Timestamp) -> Result<UndoInstall, InstallError> {
        let before = self.world.attached.clone();
        let undo = self.world.install(&delta, self.fail_at)?;
        if let Some(io) = &mut self.io {
            // A removed port's device is closed before anything can take its name.
            for port in before.difference(&self.world.attached) {
                io.close(port);
            }
        }
        Ok(UndoInstall(undo))
    }

    fn undo(&mut self, undo: UndoInstall) {
        let before = self.world.attached.clone();
        self.world.undo(undo.0);
        let Some(io) = &mut self.io else { return };
        let reopened: Vec<PortName> = self.world.attached.difference(&before).cloned().collect();
        for port in reopened {
            // A device that has gone in the meantime leaves its port detached.
            let opened = self.world.get::<Port>(&port).is_some_and(|config| io.open(config).is_ok());
            if !opened {
                self.world.attached.remove(&port);
            }
        }
    }

    fn read_back(&self) -> Result<ReferencePlan, DataplaneError> {
        Ok(ReferencePlan { pipeline: (*self.world.config).clone() })
    }

    fn placements(plan: &ReferencePlan) -> Vec<Placement> {
        let place = |entity| Placement { entity, at: PlacementAt::Reference, reason: String::new() };
        plan.pipeline.keys().map(place).collect()
    }

    fn attach_port(&mut self, port: &PortName) -> Result<(), DataplaneError> {
        let config = self.known(port)?.clone();
        if self.world.attached.contains(port) {
            return Ok(());
        }
        if let Some(io) = &mut self.io {
            io.open(&config).map_err(|message| DataplaneError::Attach { port: port.clone(), message })?;
        }
        self.world.attached.insert(port.clone());
        Ok(())
    }

    fn detach_port(&mut self, port: &PortName) -> Result<(), DataplaneError> {
        self.known(port)?;
        if self.world.attached.remove(port)
            && let Some(io) = &mut self.io
        {
            io.close(port);
        }
        Ok(())
    }

    fn attached(&self) -> Vec<PortName> {
        self.world.attached.iter().cloned().collect()
    }

    fn flows(&self, query: &FlowQuery, now: Timestamp) -> Result<FlowPage, DataplaneError> {
        let size = query.page_size();
        let mut flows: Vec<_> = self
            .world
            .state
            .flows
            .after(query.cursor.as_ref(), &query.filter, now)
            .take(size + 1)
            .cloned()
            .collect();
        let more = flows.len() > size;
        flows.truncate(size);
        let next = if more { flows.last().map(|flow| flow.id.clone()) } else { None };
        Ok(FlowPage { flows, next })
    }

    fn counters(&self) -> Counters {
        self.world.counters()
    }

    fn poll_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    fn export_state(&self) -> State {
        self.world.export()
    }

    fn import_state(&mut self, state: State, now: Timestamp) -> Result<(), DataplaneError> {
        self.world.import(state, now)
    }

    fn explain(&self, packet: &PacketIn, now: Timestamp) -> Result<Trace, DataplaneError> {
        Ok(self.test_packet(packet, now, &mut FirstChoice)?.trace)
    }

    fn test_packet(
        &self,
        packet: &PacketIn,
        now: Timestamp,
        choices: &mut dyn ChoiceSource,
    ) -> Result<Injected, DataplaneError> {
        self.known(&packet.port)?;
        let mut world = self.world.clone();
        let now = packet.at.unwrap_or(now);
        Ok(run(&mut world, self.rules, &packet.port, &packet.bytes, now, choices, true))
    }

    fn inject(&mut self, request: &InjectRequest, now: Timestamp) -> Result<Vec<Injected>, DataplaneError> {
        for packet in &request.packets {
            self.known(&packet.port)?;
        }
        let mut choices = request.choices.source();
        let mut copy = (!request.commit).then(|| self.world.clone());
        let mut results = Vec::with_capacity(request.packets.len());
        for packet in &request.packets {
            let now = packet.at.unwrap_or(now);
            let world = copy.as_mut().unwrap_or(&mut self.world);
            let mut injected = run(world, self.rules, &packet.port, &packet.bytes, now, &mut *choices, true);
            if request.commit {
                self.send(&mut injected.verdict);
                self.tell_drop(&packet.port, &packet.bytes, now, injected.verdict.fate);
            }
            results.push(injected);
        }
        Ok(results)
    }
}

/// How to take an installation of the reference back.
#[derive(Debug)]
pub struct UndoInstall(Install);
