//! Events: drops that the programs tell of, and zones that fill up.

use crate::install::Names;
use crate::sys::Map;
use loxi_core::dataplane::{Event, EventKind};
use loxi_core::net::{IpProtocol, MacAddr, PortName};
use loxi_core::packet::{FlowTuple, Timestamp};
use loxi_core::reason::DropReason;
use loxi_ebpf_layout::count::Told;
use std::collections::{BTreeMap, VecDeque};

/// Unread events at most; the oldest go first.
const MOST: usize = 4096;

/// Events until somebody reads them.
pub(super) struct Events {
    drops: Option<aya::maps::RingBuf<aya::maps::MapData>>,
    waiting: VecDeque<Event>,
    /// When a drop that the slow path decided was last told.
    told: BTreeMap<(PortName, DropReason), Timestamp>,
}

impl Events {
    /// Reads what the programs tell.
    pub(super) fn open(drops: Map) -> Self {
        let ring = drops.into_ring();
        if let Err(error) = &ring {
            tracing::warn!(%error, "drops will not be told");
        }
        Self { drops: ring.ok(), waiting: VecDeque::new(), told: BTreeMap::new() }
    }

    /// Notes an event.
    pub(super) fn push(&mut self, at: Timestamp, kind: EventKind) {
        if self.waiting.len() >= MOST {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Event { at, kind });
    }

    /// Notes a drop that the slow path decided, at most once a second for a port and reason.
    pub(super) fn dropped(&mut self, at: Timestamp, port: &PortName, reason: DropReason, packet: String) {
        let key = (port.clone(), reason);
        if self.told.get(&key).is_some_and(|before| at < before.plus_s(1)) {
            return;
        }
        self.told.insert(key, at);
        self.push(at, EventKind::Dropped { port: port.clone(), reason, packet });
    }

    /// Everything since the last call, oldest first.
    pub(super) fn drain(&mut self, names: &Names) -> Vec<Event> {
        let mut found = Vec::new();
        if let Some(ring) = &mut self.drops {
            while let Some(item) = ring.next() {
                if let Some(told) = crate::sys::value::<Told>(&item) {
                    found.push(told);
                }
            }
        }
        for told in found {
            if let Some(port) = names.ports.live(told.port.into()).cloned() {
                let reason = DropReason::from_number(told.reason.into());
                let kind = EventKind::Dropped { port, reason, packet: text(&told) };
                self.push(Timestamp(told.at), kind);
            }
        }
        self.waiting.drain(..).collect()
    }
}

/// A packet in words.
fn text(told: &Told) -> String {
    let addr = |n: usize| crate::install::ip_of(told.family.into(), told.addrs[n]);
    match (addr(0), addr(1)) {
        (Some(src), Some(dst)) if told.family != 0 => FlowTuple {
            src,
            dst,
            protocol: IpProtocol(told.protocol),
            src_port: u16::from_be(told.sport),
            dst_port: u16::from_be(told.dport),
        }
        .to_string(),
        _ => format!("{} -> {}", MacAddr::new(told.macs[0]), MacAddr::new(told.macs[1])),
    }
}
