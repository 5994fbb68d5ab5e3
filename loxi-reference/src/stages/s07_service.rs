//! Stage 7: services, and addresses on which services live.
//!
//! Only for frames to our MAC. The service of the most specific scope wins.
//! An exclusive address that no service claims is answered, rejected or
//! dropped, never forwarded. A shared one's other traffic is not ours where the
//! port leaves such to the local stack; elsewhere it is forwarded, to whoever
//! has the address.

use super::ingress::Packet;
use super::{Run, Step, drop, entity, ip_of, step};
use crate::frame::{Icmp, IcmpError, L4};
use loxi_core::ir::{
    EntityKey, LbBackend, LbMode, LbService, OnNoBackend, OtherPorts, Scope, ServiceScope, Unclaimed,
    VipAddress, VipKey, VipMode,
};
use loxi_core::net::VrfName;
use loxi_core::packet::{Fate, FlowTuple, Translation};
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use std::net::IpAddr;

impl Run<'_> {
    pub(super) fn s07_service(&mut self, packet: &mut Packet) -> Step {
        if !packet.to_us || packet.tentative().is_none() {
            return Ok(());
        }
        let (Some(vrf), Some(tuple)) = (packet.vrf.clone(), packet.tuple) else { return Ok(()) };
        if let Some(service) = self.service(packet, &tuple) {
            return self.serve(packet, &service, &tuple);
        }
        let Some(vip) = self.deciding_vip(packet, &vrf, tuple.dst, false) else { return Ok(()) };
        let entry = || entity(EntityKey::Vip(vip.key()), &vip.origin);
        let VipMode::Exclusive { other, echo } = vip.mode else {
            step!(self, Service, entry(), ("{tuple}"), ("punt not_ours_shared"));
            return Err(Fate::Punted(PuntReason::NotOursShared));
        };
        let asks = matches!(ip_of(&packet.view)?.l4, L4::Icmp(Icmp::Query { request: true, echo: true, .. }));
        if asks && echo {
            step!(self, Service, entry(), ("{tuple}"), ("answer echo"));
            self.answer_echo(packet)?;
            return Err(Fate::Consumed(ConsumedReason::EchoReply));
        }
        step!(
            self,
            Service,
            entry(),
            ("{tuple}"),
            ("{}: no_service", if other == OtherPorts::Reject { "reject" } else { "drop" })
        );
        if other == OtherPorts::Reject {
            self.reject(packet)?;
        }
        drop(DropReason::NoService)
    }

    /// The virtual address that decides what becomes of a packet to it. Of a shared one what no service claims is left
    /// to the local stack where the port leaves such to it; elsewhere it is as if the address were none.
    pub(super) fn deciding_vip(
        &self,
        packet: &Packet,
        vrf: &VrfName,
        address: IpAddr,
        claimed: bool,
    ) -> Option<VipAddress> {
        let vip = self.config.get::<VipAddress>(&VipKey { vrf: vrf.clone(), address })?;
        let decides = vip.mode != VipMode::Shared || claimed || packet.port.unclaimed() == Unclaimed::Punt;
        decides.then(|| vip.clone())
    }

    /// The service that claims a packet of this ingress.
    pub(super) fn service(&self, packet: &Packet, tuple: &FlowTuple) -> Option<LbService> {
        let own = match packet.port.scope {
            Scope::Internal => ServiceScope::Internal,
            Scope::External => ServiceScope::External,
        };
        let claims = |service: &&LbService| {
            service.protocol == tuple.protocol
                && service.ports.contains(tuple.dst_port)
                && (service.scope == own || service.scope == ServiceScope::Any)
        };
        let vrf = packet.vrf.as_ref()?;
        // `any` sorts below the others.
        self.services_of(vrf, tuple.dst).filter(claims).max_by_key(|service| service.scope).cloned()
    }

    fn serve(&mut self, packet: &mut Packet, service: &LbService, tuple: &FlowTuple) -> Step {
        let entry = || entity(EntityKey::Service(service.key()), &service.origin);
        let ranges = &service.source_ranges;
        if !ranges.is_empty() && !ranges.iter().any(|range| range.contains(tuple.src)) {
            step!(self, Service, entry(), ("{tuple}"), ("drop source_range"));
            return drop(DropReason::SourceRange);
        }
        let backend = match self.pick_backend(service, tuple) {
            Ok(backend) => backend,
            Err(reason) => {
                let policy = if reason == DropReason::NoLocalBackend {
                    service.on_no_local_backend
                } else {
                    service.on_no_backend
                };
                step!(
                    self,
                    Service,
                    entry(),
                    ("{tuple}"),
                    ("{}: {reason}", if policy == OnNoBackend::Reject { "reject" } else { "drop" })
                );
                if policy == OnNoBackend::Reject {
                    self.reject(packet)?;
                }
                return drop(reason);
            }
        };
        step!(
            self,
            Service,
            entry(),
            ("{tuple}"),
            ("{} to backend {} {}:{}", mode(service.mode), backend.name, backend.address, backend.port)
        );
        self.use_backend(packet, service, &backend)
    }

    fn use_backend(&mut self, packet: &mut Packet, service: &LbService, backend: &LbBackend) -> Step {
        let generation = self.state.slot(&backend.name);
        let Some(tentative) = packet.tentative() else { return Ok(()) };
        tentative.service = Some(service.key());
        tentative.backend = Some((backend.name.clone(), generation));
        tentative.affinity_s = service.affinity.map(|affinity| affinity.timeout_s);
        match service.mode {
            LbMode::Nat | LbMode::FullNat => {
                tentative.full_nat = service.mode == LbMode::FullNat;
                tentative.translated.dst = backend.address;
                if backend.port != 0 {
                    tentative.translated.dst_port = backend.port;
                }
                let translated = tentative.translated;
                packet.translate(&translated)
            }
            LbMode::DsrIpip => {
                tentative.translation = Translation::DsrIpip;
                tentative.dsr_target = Some(backend.address);
                Ok(())
            }
            LbMode::DsrL2 => {
                tentative.translation = Translation::DsrL2;
                tentative.dsr_target = Some(backend.address);
                Ok(())
            }
        }
    }

    /// Answers what is refused: RST to TCP, port unreachable to anything else.
    pub(super) fn reject(&mut self, packet: &Packet) -> Step {
        if matches!(ip_of(&packet.view)?.l4, L4::Tcp { .. }) {
            self.answer_reset(packet)
        } else {
            self.answer_error(packet, IcmpError::PortUnreachable)
        }
    }
}

fn mode(mode: LbMode) -> &'static str {
    match mode {
        LbMode::Nat => "nat",
        LbMode::FullNat => "full nat",
        LbMode::DsrIpip => "dsr by ipip",
        LbMode::DsrL2 => "dsr by mac",
    }
}
