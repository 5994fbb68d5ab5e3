//! NAT rules of a VRF, in their order.

use super::{Source, members, too_many};
use crate::plan::{NatActionRow, NatRow, Row, RowKey, Rows, SetRef};
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{EntityKey, NatAction, NatKey, NatRule, PipelineEntity};
use loxi_core::net::VrfName;
use loxi_ebpf_layout::limits::NAT_RULES;

pub(super) fn rules(source: &Source<'_>, vrf: &VrfName, rows: &mut Rows) -> Result<(), CompileError> {
    let at = |priority| NatKey { vrf: vrf.clone(), priority };
    let of_vrf = NatRule::table(source.pipeline).range(at(0)..=at(u32::MAX));
    let rules: Vec<NatRow> = of_vrf.map(|(_, owned)| rule(&owned.entity, rows)).collect();
    let (limit, asked) = (u64::from(NAT_RULES), rules.len() as u64);
    if asked > limit {
        return Err(too_many(EntityKey::Vrf(vrf.clone()), "nat_rules", limit, asked));
    }
    if !rules.is_empty() {
        rows.insert(RowKey::Nat(vrf.clone()), Row::Nat(rules));
    }
    Ok(())
}

fn rule(rule: &NatRule, rows: &mut Rows) -> NatRow {
    let (key, matches) = (rule.key(), &rule.matches);
    members(rows, &SetRef::NatSrc(key.clone()), &matches.src);
    members(rows, &SetRef::NatDst(key.clone()), &matches.dst);
    NatRow {
        key,
        protocol: matches.protocol.map(|protocol| protocol.0),
        ports: matches.dst_ports,
        src: !matches.src.is_empty(),
        dst: !matches.dst.is_empty(),
        egress: matches.egress.clone(),
        action: match &rule.action {
            NatAction::NoNat => NatActionRow::NoNat,
            // IPv4 sorts before IPv6.
            NatAction::Snat { pool, ports } => NatActionRow::Snat(pool.iter().copied().collect(), *ports),
            NatAction::Masquerade { ports } => NatActionRow::Masquerade(*ports),
            NatAction::OneToOne { internal, external } => NatActionRow::OneToOne(*internal, *external),
            NatAction::Dnat { address, port } => NatActionRow::Dnat(*address, *port),
        },
    }
}
