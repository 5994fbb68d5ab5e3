//! A case made ready: pipeline and flows in the tables, and the reference's word on what must come out.

use super::case::Case;
use super::frames::frames;
use super::path::Resized;
use super::world::World;
use anyhow::{Context as _, Result, bail, ensure};
use loxi_backend_ebpf::measure::{Bench, Hook, Target};
use loxi_backend_ebpf::{Devices, Ebpf, Mode, Options, Sizes};
use loxi_conformance::{Row, build};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, ChoiceMode, InjectRequest, Local, PacketIn};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::{Flow, FlowState, State, TcpState, Timestamp, Verdict};
use loxi_ebpf_layout::bench::{Frames, STEP, number, resize, source};
use loxi_reference::Reference;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Flows whose every byte is compared.
const SAMPLES: u32 = 32;

/// Packets between two turns of the clock while flows are met for the first time: fewer than
/// come in the second after which a decision is looked at again.
const WARM: u32 = 1 << 16;

/// What a program at TC returns for a frame that is sent: linux/pkt_cls.h.
const TC_ACT_REDIRECT: i32 = 7;
/// What one at XDP does: linux/bpf.h.
const XDP_REDIRECT: i32 = 4;

/// The backend on the devices of a [`World`].
pub(super) struct Node<'w> {
    world: &'w World,
    local: Local<Ebpf>,
    /// How far the programs' clock is behind.
    lag: Arc<AtomicU64>,
    /// Hooks at which packets of all ports are met.
    hooks: &'static [Hook],
}

impl<'w> Node<'w> {
    /// Loads it.
    pub(super) fn new(world: &'w World, sizes: Sizes, mode: Mode, hooks: &'static [Hook]) -> Result<Self> {
        let lag = Arc::new(AtomicU64::new(0));
        let options = Options {
            mode,
            sizes,
            devices: Devices::Here,
            pins: Some(world.pins()),
            discard_state: true,
            ..Options::default()
        };
        Ok(Self { world, local: Local::new(Ebpf::open(options)?, clock(&lag)), lag, hooks })
    }
}

/// The clock as the programs read it.
fn clock(lag: &Arc<AtomicU64>) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let lag = Arc::clone(lag);
    Arc::new(move || Timestamp(loxi_linux::clock::now() - lag.load(Ordering::SeqCst)))
}

/// A case made ready.
pub(super) struct Ready<'n> {
    pub(super) case: Case,
    pub(super) bench: Bench,
    node: &'n Node<'n>,
    reference: Local<Reference>,
    /// Verdicts of the samples.
    wanted: BTreeMap<u32, Verdict>,
    /// The first flow's frame.
    pub(super) frame: Vec<u8>,
}

impl<'n> Ready<'n> {
    /// Configures both, stores the flows, lets each meet a packet, and checks the samples.
    pub(super) fn new(node: &'n Node<'n>, case: Case) -> Result<Self> {
        let reference = Local::new(Reference::new(), clock(&node.lag));
        let path = case.path;
        let row = Row {
            name: path.name.to_owned(),
            pipeline: path.pipeline.map(str::to_owned),
            needs: Vec::new(),
            with: Some(loxi_core::text::parse_yaml(&path.with())?),
            steps: Vec::new(),
        };
        // Each is another transaction, which would otherwise be known by its name.
        let name = format!("bench {case} {}", loxi_linux::clock::now());
        let change = Transaction::replace(&name, Owner::new("bench")?, row.entities()?);
        configure(&node.local, &change)?;
        configure(&reference, &change)?;
        let frame = case.frame(0, "A")?;
        let bench = Bench::load(&node.world.pins(), case.flows)?;
        let mut ready = Self { case, bench, node, reference, wanted: BTreeMap::new(), frame };
        ready.store_flows()?;
        ready.bench.set_frames(&ready.frames()?)?;
        let mut wanted = BTreeMap::new();
        for i in ready.samples() {
            wanted.insert(i, judged(&ready.reference, case.ingress()?, case.frame(i, "A")?)?);
        }
        ready.wanted = wanted;
        ready.warm()?;
        ready.check()?;
        Ok(ready)
    }

    fn samples(&self) -> impl Iterator<Item = u32> + use<> {
        let flows = self.case.flows;
        (0..flows).step_by((flows / SAMPLES).max(1) as usize)
    }

    /// Lets the reference see the first packet of the first flow, and stores as many like it as the case has,
    /// all established.
    fn store_flows(&self) -> Result<()> {
        let case = self.case;
        let now = clock(&self.node.lag)();
        let syn = case.frame(0, "S")?;
        let request = InjectRequest { commit: true, ..request(case.ingress()?, syn) };
        self.reference.inject(&request)?;
        let mut state = self.reference.with_backend(|reference| reference.export_state());
        let Some(mut first) = state.flows.pop() else { return Ok(()) };
        ensure!(state.flows.is_empty(), "the first packet made more than one flow");
        first.state = FlowState::Tcp(TcpState::Established);
        first.expires = now.plus_s(86_400);
        let like = |i: u32| like(&first, &case.path.client(case.v6, i), source(i).0);
        let flows = (0..case.flows).map(like).collect::<Result<Vec<_>>>()?;
        let sampled = self.samples().map(like).collect::<Result<Vec<_>>>()?;
        let all = State { flows, ..state.clone() };
        self.node.local.with_backend(|backend| backend.import_state(all, now))?;
        self.reference
            .with_backend(|backend| backend.import_state(State { flows: sampled, ..state }, now))?;
        Ok(())
    }

    /// What the wrapper makes.
    fn frames(&self) -> Result<Frames> {
        let case = self.case;
        let name = case.ingress()?;
        let port = self
            .node
            .local
            .with_backend(|backend| backend.port_number(&name))
            .context("the port's number")?;
        let resize = match case.path.resized {
            Resized::No => resize::NONE,
            Resized::Longer => resize::SHRINK,
            Resized::Shorter => resize::GROW,
        };
        let tunnelled = case.path.resized == Resized::Shorter;
        let frames = frames(&self.frame, case.v6, tunnelled, case.flows)?;
        Ok(Frames { port, resize, zone: self.bench.zone_of(port)?.into(), ..frames })
    }

    /// The hook at which packets can be repeated whatever is done to them.
    fn patient(&self) -> Hook {
        if self.case.path.resized == Resized::Longer { Hook::Xdp } else { Hook::Tc }
    }

    /// Every flow's first packet goes the long way, at which a million take longer than the second after which
    /// the first of them would again. So the programs' clock stands still meanwhile.
    pub(super) fn warm(&self) -> Result<()> {
        let hook = self.patient();
        self.bench.aim(hook, Target::Installed)?;
        let offset = self.bench.globals()?.clock_offset;
        let (begun, behind) = (loxi_linux::clock::now(), self.node.lag.load(Ordering::SeqCst));
        for round in 0..2 {
            for _ in 0..self.case.flows.div_ceil(WARM) {
                let lag = loxi_linux::clock::now() - begun;
                self.bench.set_clock_offset(offset.wrapping_sub(lag))?;
                self.node.lag.store(behind + lag, Ordering::SeqCst);
                let run = self.bench.run(hook, &self.frame, WARM.min(self.case.flows))?;
                ensure!(run.action == self.sent(hook), "round {round}: the programs say {}", run.action);
            }
        }
        Ok(())
    }

    /// What a program returns for a packet that is sent.
    pub(super) fn sent(&self, hook: Hook) -> i32 {
        match hook {
            Hook::Tc => TC_ACT_REDIRECT,
            Hook::Xdp => XDP_REDIRECT,
        }
    }

    /// Holds every sample to the reference's verdict: asked, and as it is measured.
    pub(super) fn check(&self) -> Result<()> {
        for (i, wanted) in &self.wanted {
            let frame = self.case.frame(*i, "A")?;
            ensure!(
                matches!(&*wanted.outputs, [only] if only.port.as_str() == self.case.path.egress),
                "flow {i}: the reference says {}: {:?}",
                wanted.fate,
                wanted.outputs
            );
            let got = judged(&self.node.local, self.case.ingress()?, frame)?;
            ensure!(got.fate == wanted.fate, "flow {i}: {} instead of {}", got.fate, wanted.fate);
            self.same(*i, &got.outputs[0].bytes, &wanted.outputs[0].bytes)?;
            for hook in self.node.hooks.iter().copied().filter(|hook| self.case.path.hooks.contains(hook)) {
                self.check_run(hook, *i, &wanted.outputs[0].bytes)?;
            }
        }
        Ok(())
    }

    /// Runs flow `i` as it is measured.
    fn check_run(&self, hook: Hook, i: u32, wanted: &[u8]) -> Result<()> {
        let before = self.bench.frames()?;
        // The state before the one whose number is the flow's; the multiplier is odd, so it has an inverse.
        let inverse = (0..6).fold(1u64, |x, _| x.wrapping_mul(2u64.wrapping_sub(STEP.0.wrapping_mul(x))));
        let state = u64::from(i).wrapping_sub(STEP.1).wrapping_mul(inverse);
        ensure!(
            number(state.wrapping_mul(STEP.0).wrapping_add(STEP.1), before.mask) == i,
            "no state leads to {i}"
        );
        for target in [Target::Empty, Target::Installed] {
            self.bench.aim(hook, target)?;
            self.bench.set_frames(&Frames { state, ..before })?;
            let run = self.bench.run(hook, &self.frame, 1)?;
            let (wanted, action) = match target {
                Target::Installed => (wanted.to_vec(), self.sent(hook)),
                _ => (self.case.frame(i, "A")?, if hook == Hook::Tc { -1 } else { 2 }),
            };
            ensure!(run.action == action, "flow {i}, {target:?}: the program says {}", run.action);
            self.same(i, &run.frame, &wanted).with_context(|| format!("{target:?} at {}", hook.name()))?;
        }
        self.bench.set_frames(&before)?;
        Ok(())
    }

    /// Whether two frames are the same, but for what is chosen freely: a tunnel's source port, and the
    /// identification of what may be fragmented.
    fn same(&self, i: u32, got: &[u8], wanted: &[u8]) -> Result<()> {
        let free: &[usize] =
            if self.case.path.name == "vxlan_encapsulate" { &[18, 19, 24, 25, 34, 35] } else { &[] };
        let differs = |at: &usize| !free.contains(at) && got.get(*at) != wanted.get(*at);
        match (0..got.len().max(wanted.len())).find(differs) {
            None => Ok(()),
            Some(at) => bail!("flow {i}: byte {at} differs:\n got    {}\n wanted {}", hex(got), hex(wanted)),
        }
    }

    /// Frames that came in and were forwarded, and that left, at the ports of the path.
    pub(super) fn forwarded(&self) -> (u64, u64) {
        let counters = self.node.local.counters();
        let of = |name: &str| {
            counters
                .ports
                .iter()
                .find(|(port, _)| port.as_str() == name)
                .map(|(_, c)| c.clone())
                .unwrap_or_default()
        };
        (of(self.case.path.ingress).forwarded, of(self.case.path.egress).tx_packets)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(128).map(|byte| format!("{byte:02x}")).collect()
}

/// Applies a change and opens every port.
fn configure<B: Backend>(local: &Local<B>, change: &Transaction) -> Result<()> {
    local.apply(change)?;
    for port in local.pipeline().ports() {
        local.attach(&port.name)?;
    }
    Ok(())
}

fn request(port: PortName, bytes: Vec<u8>) -> InjectRequest {
    let packets = vec![PacketIn { port, bytes, at: None }];
    InjectRequest { packets, now: None, choices: ChoiceMode::First, commit: false }
}

/// What becomes of a packet.
fn judged<B: Backend>(local: &Local<B>, port: PortName, bytes: Vec<u8>) -> Result<Verdict> {
    let mut injected = local.inject(&request(port, bytes))?;
    Ok(injected.pop().context("no verdict")?.verdict)
}

/// A flow like another, of another source.
fn like(first: &Flow, client: &str, port: u16) -> Result<Flow> {
    let mut flow = first.clone();
    let addr: IpAddr = client.parse()?;
    ensure!(flow.reply.dst == flow.id.tuple.src, "the flow's source is translated");
    (flow.id.tuple.src, flow.id.tuple.src_port) = (addr, port);
    (flow.reply.dst, flow.reply.dst_port) = (addr, port);
    Ok(flow)
}

impl Case {
    fn ingress(self) -> Result<PortName> {
        Ok(PortName::new(self.path.ingress)?)
    }

    pub(super) fn frame(self, i: u32, flags: &str) -> Result<Vec<u8>> {
        build(&self.path.frame(self.v6, i, flags)).map_err(|error| anyhow::anyhow!("{error}"))
    }
}
