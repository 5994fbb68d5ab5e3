//! Policies as bitmaps: groups of rules, classes of peers.
//!
//! The rules that a port's connections in one direction are subject to are a [group](GroupDef), named
//! by its content; ports with the same rules share one. Three look-ups judge a connection, whatever
//! the number of rules: the class of the peer's address, the rules of the group that mean that class,
//! the rules that mean protocol and port. A rule means a connection if both say so, and the lowest
//! such bit of a tier decides.
//!
//! Tables of prefixes answer with the longest one, so each row here says all that shorter ones say.
//! Where a row would repeat what the next shorter one says, or say nothing, it is left out.

mod group;
mod peers;
mod ports;
mod way;

pub use group::{GroupDef, groups_of, rules_of};
pub(in crate::plan) use ports::prefixes;
pub(in crate::plan) use way::way;

use crate::plan::{Bits, PortPolicyRow, Row, RowKey, Rows, RulesRow};
use group::{Group, Subjects};
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{Pipeline, PolicyAction, PolicyDirection};
use loxi_core::net::PortName;
use peers::Peers;
use std::collections::BTreeMap;

pub(super) fn policies(pipeline: &Pipeline, rows: &mut Rows) -> Result<(), CompileError> {
    let subjects = Subjects::of(pipeline)?;
    let peers = Peers::of(pipeline, &subjects.groups);
    put(pipeline, &subjects, &peers, rows);
    Ok(())
}

fn put(pipeline: &Pipeline, subjects: &Subjects<'_>, peers: &Peers<'_>, rows: &mut Rows) {
    let mut ports: BTreeMap<&PortName, PortPolicyRow> = BTreeMap::new();
    for ((port, direction), number) in &subjects.groups_by_port {
        let row = ports.entry(port).or_insert(PortPolicyRow { egress: None, ingress: None });
        let digest = Some(subjects.groups[*number].digest);
        match direction {
            PolicyDirection::Egress => row.egress = digest,
            PolicyDirection::Ingress => row.ingress = digest,
        }
    }
    for (port, row) in ports {
        rows.insert(RowKey::PortPolicy(port.clone()), Row::PortPolicy(row));
    }
    for group in &subjects.groups {
        rows.insert(RowKey::Rules(group.digest), Row::Rules(rules(group)));
        ports::put(pipeline, group, rows);
    }
    peers.put(&subjects.groups, rows);
}

fn rules(group: &Group<'_>) -> RulesRow {
    let mut row = RulesRow {
        allow: Bits::default(),
        deny: Bits::default(),
        admin: group.tiers.admin,
        network_policy: group.tiers.network_policy,
        isolated: group.isolated,
    };
    for (bit, rule) in group.rules() {
        match rule.action {
            PolicyAction::Allow => set(&mut row.allow, bit),
            PolicyAction::Deny => set(&mut row.deny, bit),
            PolicyAction::Pass => {}
        }
    }
    row
}

/// Sets a bit; none beyond the last word.
fn set(bits: &mut Bits, bit: u32) {
    if let Some(word) = bits.get_mut(bit as usize / 64) {
        *word |= 1 << (bit % 64);
    }
}

/// Adds the bits of another.
fn add(bits: &mut Bits, other: &Bits) {
    for (word, more) in bits.iter_mut().zip(other) {
        *word |= more;
    }
}

fn is_empty(bits: &Bits) -> bool {
    bits.iter().all(|word| *word == 0)
}
