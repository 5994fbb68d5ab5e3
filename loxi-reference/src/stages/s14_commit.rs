//! Stage 14: only now does a flow exist.
//!
//! Limits in this order: flows of the zone (`ct_full`), half-open ones, those
//! of one source. Expired flows don't count; an established one is never
//! evicted for a new one.

use super::egress::Way;
use super::ingress::{Packet, Tracking};
use super::s06_states::{opening, timeout};
use super::{Run, Step, drop, ip_of, step};
use loxi_core::dataplane::FlowInsertError;
use loxi_core::ir::CtZone;
use loxi_core::packet::{AffinityEntry, Flow, FlowId, FlowIngress, FlowState, Translation};
use loxi_core::reason::DropReason;

impl Run<'_> {
    pub(super) fn s14_commit(&mut self, packet: &Packet, way: &Way) -> Step {
        let Tracking::New(tentative) = &packet.tracking else { return Ok(()) };
        let Some(zone) = packet.zone.as_ref().and_then(|zone| self.zone_of(zone)) else { return Ok(()) };
        let ip = ip_of(&packet.view)?;
        let Some(state) = opening(&ip.l4, &zone) else { return drop(DropReason::CtInvalid) };
        self.limits(&zone, state, tentative.original.src)?;
        let id = FlowId { zone: zone.name.clone(), tuple: tentative.original };
        let reply = match tentative.translation {
            Translation::Nat => tentative.translated.reversed(),
            Translation::DsrIpip | Translation::DsrL2 => tentative.original.reversed(),
        };
        let flow = Flow {
            reply,
            translation: tentative.translation,
            state,
            created: self.now,
            expires: self.now.plus_s(timeout(state, id.tuple.protocol, &zone)),
            ingress: FlowIngress {
                port: packet.port.name.clone(),
                mac: packet.view.src,
                tunnel: packet.tunnel.clone(),
            },
            service: tentative.service.clone(),
            backend: tentative.backend.clone(),
            dsr_target: tentative.dsr_target,
            policy: self.stamp(&packet.port.name, way.port()),
            hairpin: tentative.hairpin,
            packets: [1, 0],
            bytes: [ip.len as u64, 0],
            id,
        };
        step!(self, Commit, None, ("{}", flow.id.tuple), ("flow {state}, replies {}", flow.reply));
        if let (Some(service), Some(backend), Some(timeout)) =
            (&flow.service, &flow.backend, tentative.affinity_s)
        {
            let client = flow.id.tuple.src;
            let entry = AffinityEntry {
                service: service.clone(),
                client,
                backend: backend.clone(),
                expires: self.now.plus_s(timeout),
            };
            self.state.put_affinity(entry);
        }
        match self.state.insert(flow, self.now) {
            Ok(()) => Ok(()),
            Err(FlowInsertError::Full) => drop(DropReason::CtFull),
            Err(_) => drop(DropReason::PortsExhausted),
        }
    }

    fn limits(&mut self, zone: &CtZone, state: FlowState, source: std::net::IpAddr) -> Step {
        let exceeded = |run: &Self| {
            let totals = run.state.totals(zone);
            let half_open = zone.max_half_open.filter(|_| state.is_half_open());
            if totals.flows >= totals.capacity {
                Some(DropReason::CtFull)
            } else if half_open.is_some_and(|limit| totals.half_open >= u64::from(limit)) {
                Some(DropReason::CtHalfOpenLimit)
            } else {
                // Where nothing is limited, nobody needs to count.
                zone.max_per_source
                    .is_some_and(|limit| run.state.of_source(&zone.name, source) >= u64::from(limit))
                    .then_some(DropReason::CtSourceLimit)
            }
        };
        if exceeded(self).is_none() {
            return Ok(());
        }
        self.state.expire(self.now);
        match exceeded(self) {
            Some(reason) => {
                step!(self, Commit, None, ("zone {} source {source}", zone.name), ("drop {reason}"));
                drop(reason)
            }
            None => Ok(()),
        }
    }
}
