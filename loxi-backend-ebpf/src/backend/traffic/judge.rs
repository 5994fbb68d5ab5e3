//! Asking the programs, and what the reference says of the same packet.

use super::node::{CLIENTS, FAR, Node, mac};
use crate::run::{Asker, choices_of, verdict_of};
use crate::sys::{Kernel, KernelError};
use loxi_core::capability::Capabilities;
use loxi_core::change::Change;
use loxi_core::dataplane::{Backend, ChoiceMode, InjectRequest, Injected, PacketIn};
use loxi_core::ir::Pipeline;
use loxi_core::net::PortName;
use loxi_core::packet::{Choice, RecordedChoices, Timestamp, Verdict};
use loxi_ebpf_layout::code;
use loxi_ebpf_layout::scratch::{Beside, Question, flag};
use loxi_reference::Reference;

/// When everything happens: beyond the boot time of a test machine.
pub(super) const NOW: Timestamp = Timestamp(1_000_000 * Timestamp::SECOND);

/// A packet and the number of the port at which it comes in.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) packet: PacketIn,
    pub(super) port: u32,
    /// It is of a connection that is there.
    pub(super) known: bool,
    /// It may take the place of a flow that is over. That one's ports are still taken where nothing is kept.
    pub(super) replaces: bool,
}

/// What the programs said of a packet; where they leave it to the slow path, that they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) choices: Vec<Choice>,
    pub(super) unfinished: bool,
}

/// Asks about a packet, which is kept or has no consequences.
pub(super) fn ask(
    asker: &mut Asker,
    kernel: &dyn Kernel,
    names: &crate::install::Names,
    frame: &Frame,
    question: &Question,
    commit: bool,
) -> Result<Judged, KernelError> {
    let dry = if commit { 0 } else { flag::DRY };
    let now = [NOW.0 as u32, (NOW.0 >> 32) as u32];
    let beside = Beside { port: frame.port, flags: flag::ASKED | dry, now, nonce: 0 };
    let asked = asker.ask(kernel, &frame.packet.bytes, beside, question)?;
    let unfinished = code::is_unfinished(asked.answer.fate);
    let verdict = verdict_of(&asked, names);
    let choices = if unfinished { Vec::new() } else { choices_of(kernel, &asked.answer) };
    Ok(Judged { verdict, choices, unfinished })
}

/// The reference before and after a change, on the same state.
pub(super) struct Sides {
    pub(super) before: Reference,
    pub(super) after: Reference,
}

impl Sides {
    pub(super) fn new(capabilities: &Capabilities) -> Self {
        let new = || Reference::new().assuming(capabilities);
        Self { before: new(), after: new() }
    }

    fn both(&mut self) -> [&mut Reference; 2] {
        [&mut self.before, &mut self.after]
    }

    /// Makes both what a pipeline says, and attaches every port.
    pub(super) fn configure(&mut self, pipeline: &Pipeline) {
        let change = loxi_core::change::diff(&Pipeline::default(), pipeline);
        for side in self.both() {
            side.install(change.clone(), NOW).unwrap();
            pipeline.ports().for_each(|port| side.attach_port(&port.name).unwrap());
        }
    }

    /// What both make of a packet that is kept, with choices that were made elsewhere.
    pub(super) fn commit(&mut self, packet: &PacketIn, choices: &[Choice]) -> Injected {
        let request = InjectRequest {
            packets: vec![packet.clone()],
            now: Some(NOW),
            choices: ChoiceMode::Recorded(choices.to_vec()),
            commit: true,
        };
        let [one, other] = self.both().map(|side| side.inject(&request, NOW).unwrap().remove(0));
        assert_eq!(one.verdict, other.verdict, "the two sides are of the same state");
        one
    }

    pub(super) fn change(&mut self, change: &Change) {
        self.after.install(change.clone(), NOW).unwrap();
    }

    /// The change stands.
    pub(super) fn follow(&mut self, change: &Change) {
        self.before.install(change.clone(), NOW).unwrap();
    }
}

/// What the reference makes of a packet with the choices that the programs made.
pub(super) fn replay(side: &Reference, packet: &PacketIn, choices: &[Choice]) -> Injected {
    side.test_packet(packet, NOW, &mut RecordedChoices::new(choices)).unwrap()
}

/// Whether one side comes to what the programs said, with their choices.
pub(super) fn is_of(side: &Reference, frame: &Frame, judged: &Judged) -> bool {
    replay(side, &frame.packet, &judged.choices).verdict == judged.verdict
}

/// Whether a judgement is that of before or that of after. Where the reference is no measure of it, what the
/// programs said while nothing changed is: `steady`, before and after.
pub(super) fn admitted(sides: &Sides, frame: &Frame, judged: &Judged, steady: [&Judged; 2]) -> bool {
    if judged.unfinished || frame.replaces && steady.contains(&judged) {
        return steady.contains(&judged);
    }
    is_of(&sides.before, frame, judged) || is_of(&sides.after, frame, judged)
}

/// A judgement that is neither, in words.
pub(super) fn told(
    sides: &Sides,
    frame: &Frame,
    judged: &Judged,
    change: &Change,
    seed: u64,
    number: u64,
) -> String {
    let [before, after] = [&sides.before, &sides.after].map(|side| {
        let side = replay(side, &frame.packet, &judged.choices);
        format!("{:?}\n{}", side.verdict, side.trace)
    });
    format!(
        "seed {seed}, change {number}: {judged:?}\nis neither what was before\n{before}\nnor what is after\n\
         {after}\n{change:#?}"
    )
}

fn frame(port: &str, text: &str) -> PacketIn {
    let bytes = loxi_conformance::build(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    PacketIn { port: PortName::new(port).unwrap(), bytes, at: None }
}

/// Packets of new connections: to services and to where routes lead, from both sides and several hosts.
pub(super) fn openings(node: Node) -> Vec<PacketIn> {
    let ip = if node.v6 { "ipv6" } else { "ipv4" };
    let mut found = Vec::new();
    for (name, net) in CLIENTS {
        for host in 1..=3u8 {
            let (own, gate, src) = (mac(net, host), mac(net, 0), node.address(net, host));
            let mut to = |dst: String, l4: String| {
                found.push(frame(name, &format!("eth {own}>{gate} / {ip} {src}>{dst} / {l4}")));
            };
            for vip in 1..=2 {
                for sport in 0..2 {
                    let sport = 40_000 + 100 * u16::from(host) + sport;
                    to(node.address(96, vip), format!("tcp {sport}>80 S"));
                    to(node.address(96, vip), format!("udp {sport}>80 / data ask"));
                    to(node.address(96, vip), format!("udp {sport}>8005 / data ask"));
                }
            }
            for far in FAR {
                let sport = 41_000 + u16::from(host);
                to(node.address(far, 1), format!("udp {sport}>53 / data far"));
                to(node.address(far, 7), format!("tcp {sport}>443 S"));
            }
        }
    }
    found
}

/// A packet with both ends exchanged; of TCP, with other flags.
pub(super) fn turned(port: &PortName, bytes: &[u8], flags: u8) -> Option<PacketIn> {
    let mut bytes = bytes.to_vec();
    let (addresses, length, l4) = match bytes.get(12..14)? {
        [0x08, 0x00] => (26, 4, 34),
        [0x86, 0xdd] => (22, 16, 54),
        _ => return None,
    };
    let protocol = if length == 4 { bytes[23] } else { bytes[20] };
    let mut exchange = |at: usize, length: usize| {
        let both = bytes.get_mut(at..at + 2 * length)?;
        both.rotate_left(length);
        Some(())
    };
    exchange(0, 6)?;
    exchange(addresses, length)?;
    exchange(l4, 2)?;
    match protocol {
        6 => with_flags(&mut bytes, l4, flags),
        17 => {}
        _ => return None,
    }
    Some(PacketIn { port: port.clone(), bytes, at: None })
}

/// A TCP packet of the same connection with other flags.
pub(super) fn later(packet: &PacketIn, flags: u8) -> PacketIn {
    let mut packet = packet.clone();
    let (protocol, l4) = if packet.bytes[12] == 8 { (packet.bytes[23], 34) } else { (packet.bytes[20], 54) };
    if protocol == 6 {
        with_flags(&mut packet.bytes, l4, flags);
    }
    packet
}

fn with_flags(bytes: &mut [u8], l4: usize, flags: u8) {
    let (at, sum) = (l4 + 12, l4 + 16);
    let word = |bytes: &[u8], at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let (old, new) = (word(bytes, at), word(bytes, at) & 0xff00 | u32::from(flags));
    // RFC 1624: ~(~sum + ~old + new).
    let mut all = (!word(bytes, sum) & 0xffff) + (!old & 0xffff) + new;
    all = (all & 0xffff) + (all >> 16);
    all = (all & 0xffff) + (all >> 16);
    bytes[at + 1] = flags;
    bytes[sum..sum + 2].copy_from_slice(&(!all as u16).to_be_bytes());
}
