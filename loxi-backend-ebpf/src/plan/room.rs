//! Room in the tables, of which entities can ask for any number of entries: counted row by row, so that what
//! doesn't fit is refused before anything is touched.
//!
//! What is there at rest may take half of a table, since what replaces it is made before it goes. Policies that
//! change take what they are, what they will be and what lies between at once: that may take the whole.

use super::compile::policy::prefixes;
use super::{Digest, NatActionRow, Row, RowKey, Rows, SetRef};
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{AddrSet, EntityKey, Pipeline, PolicyPeer};
use loxi_core::net::PortName;
use loxi_ebpf_layout::limits;
use std::collections::BTreeMap;

macro_rules! tables {
    ($($name:ident = $symbol:literal: $room:expr;)+) => {
        /// A table in which entries are counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // each is the table of that name
        pub enum Counted {
            $($name,)+
        }

        impl Counted {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The table's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $symbol,)+
                }
            }
        }

        impl Default for Room {
            /// As the tables are made.
            fn default() -> Self {
                Self { entries: [$($room as u64),+] }
            }
        }
    };
}

tables! {
    Sets = "SETS": limits::SET_MEMBERS;
    PortVlans = "PORT_VLANS": limits::LINK_THINGS;
    GuardMacs = "GUARD_MACS": limits::LINK_THINGS;
    LinkAddrs = "LINK_ADDRS": limits::LINK_THINGS;
    LocalAddrs = "LOCAL_ADDRS": limits::LINK_THINGS;
    BareUdp = "BARE_UDP": limits::BARE_UDP;
    NatPool = "NAT_POOL": limits::NAT_POOL;
    ServiceRanges = "SERVICE_RANGES": 16 * limits::SERVICES;
    Lists = "LISTS": limits::LIST_PLACES;
    Hashes = "HASHES": limits::HASH_PLACES;
    Policies = "POLICIES": limits::POLICIES - 1;
    Peers = "PEERS": limits::PEERS;
    PeerRules = "PEER_RULES": limits::POLICY_PAIRS;
    PortRules = "PORT_RULES": limits::POLICY_PAIRS;
}

const TABLES: usize = Counted::ALL.len();

/// How many entries each table has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    entries: [u64; TABLES],
}

impl Room {
    /// The same with other room in one table.
    #[must_use]
    pub fn with(mut self, table: Counted, entries: u64) -> Self {
        self.entries[table as usize] = entries;
        self
    }
}

/// Entries that rows take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    entries: [u64; TABLES],
}

/// The entries that a row takes.
fn each(key: &RowKey, row: &Row, mut take: impl FnMut(Counted, u64)) {
    match (key, row) {
        (RowKey::Member(..), _) => take(Counted::Sets, 1),
        (RowKey::PortVlan(..), _) => take(Counted::PortVlans, 1),
        (RowKey::PortMac(..), _) => take(Counted::GuardMacs, 1),
        (RowKey::LinkAddr(..), _) => take(Counted::LinkAddrs, 1),
        (RowKey::LocalAddr(..), _) => take(Counted::LocalAddrs, 1),
        (RowKey::BareUdp(_), _) => take(Counted::BareUdp, 1),
        (RowKey::Rules(_), _) => take(Counted::Policies, 1),
        (RowKey::Peer(_), _) => take(Counted::Peers, 1),
        (RowKey::PeerRules(..), _) => take(Counted::PeerRules, 1),
        (RowKey::PortRules(..), _) => take(Counted::PortRules, 1),
        (RowKey::Nat(_), Row::Nat(rules)) => {
            for rule in rules {
                if let NatActionRow::Snat(pool, _) = &rule.action {
                    take(Counted::NatPool, pool.len() as u64);
                }
            }
        }
        (RowKey::Service(key), Row::Service(service)) => {
            // Those that get nothing stand behind the list.
            take(Counted::Lists, service.list.len() as u64 + service.idle.len() as u64);
            take(Counted::Hashes, service.table.into());
            if key.ports.count() > 1 {
                take(Counted::ServiceRanges, prefixes(key.ports).len() as u64);
            }
        }
        _ => {}
    }
}

impl Taken {
    fn of(rows: &Rows) -> Self {
        let mut taken = Self::default();
        for (key, row) in rows {
            each(key, row, |table, count| taken.entries[table as usize] += count);
        }
        taken
    }

    /// Counts what a unit's rows take.
    pub(super) fn add(&mut self, rows: &Rows) {
        let more = Self::of(rows);
        self.entries.iter_mut().zip(more.entries).for_each(|(all, more)| *all += more);
    }

    /// Takes out what was counted of a unit's rows.
    pub(super) fn take(&mut self, rows: &Rows) {
        let less = Self::of(rows);
        self.entries.iter_mut().zip(less.entries).for_each(|(all, less)| *all = all.saturating_sub(less));
    }

    /// Whether there is room. `before`: what was taken until now; where it isn't more that is asked for, it has been
    /// there. `rows`: of the unit that was counted last.
    ///
    /// # Errors
    /// [`CompileError::TooMany`], of the entity whose rows take most.
    pub(super) fn check(
        &self,
        before: &Self,
        room: &Room,
        rows: &Rows,
        pipeline: &Pipeline,
    ) -> Result<(), CompileError> {
        for table in Counted::ALL {
            let at = *table as usize;
            let (asked, limit) = (self.entries[at], room.entries[at] / 2);
            if asked > limit && asked > before.entries[at] {
                refuse(*table, rows, pipeline, limit, asked)?;
            }
        }
        Ok(())
    }
}

/// Whether there is room for policies on their way, on which each step has its own rows beside those before.
///
/// # Errors
/// [`CompileError::TooMany`].
pub(super) fn check_way<'a>(
    way: impl IntoIterator<Item = &'a Rows>,
    room: &Room,
    pipeline: &Pipeline,
) -> Result<(), CompileError> {
    let mut from: Option<&Rows> = None;
    for rows in way {
        let mut both = Taken::of(rows);
        for (key, row) in from.into_iter().flatten().filter(|(key, _)| !rows.contains_key(*key)) {
            each(key, row, |table, count| both.entries[table as usize] += count);
        }
        for table in Counted::ALL {
            let (asked, limit) = (both.entries[*table as usize], room.entries[*table as usize]);
            if asked > limit {
                refuse(*table, rows, pipeline, limit, asked)?;
            }
        }
        from = Some(rows);
    }
    Ok(())
}

/// Refuses whoever takes most of a table among these rows, if anybody takes of it.
fn refuse(
    table: Counted,
    rows: &Rows,
    pipeline: &Pipeline,
    limit: u64,
    asked: u64,
) -> Result<(), CompileError> {
    let mut all: BTreeMap<(EntityKey, &str), u64> = BTreeMap::new();
    let ports = subjects(rows);
    for (key, row) in rows {
        let mut own = 0;
        each(key, row, |other, count| own += if other == table { count } else { 0 });
        if own > 0 && table == Counted::Peers {
            all = mentions(pipeline);
            break;
        }
        if own > 0
            && let Some(asks) = who(table, key, row, &ports, pipeline)
        {
            *all.entry(asks).or_default() += own;
        }
    }
    // Of equals the first.
    match all.into_iter().rev().max_by_key(|(_, count)| *count) {
        Some(((entity, field), _)) => {
            let field = format!("{field}, with all in {}", table.name());
            Err(CompileError::TooMany { entity, field, limit, asked })
        }
        None => Ok(()),
    }
}

/// A port that has each group of rules.
fn subjects(rows: &Rows) -> BTreeMap<Digest, PortName> {
    let mut found = BTreeMap::new();
    for (key, row) in rows {
        if let (RowKey::PortPolicy(port), Row::PortPolicy(groups)) = (key, row) {
            for digest in groups.egress.into_iter().chain(groups.ingress) {
                found.entry(digest).or_insert_with(|| port.clone());
            }
        }
    }
    found
}

/// Prefixes that peers of policies mention.
fn mentions(pipeline: &Pipeline) -> BTreeMap<(EntityKey, &'static str), u64> {
    let mut found = BTreeMap::new();
    for rule in pipeline.policy_rules() {
        match &rule.peer {
            PolicyPeer::Any => {}
            PolicyPeer::Prefixes { prefixes, except } => {
                let count = prefixes.len() + except.len();
                found.insert((EntityKey::PolicyRule(rule.key()), "peer"), count as u64);
            }
            PolicyPeer::Set(name) => {
                let count = pipeline.get::<AddrSet>(name).map_or(0, |set| set.members.len());
                found.insert((EntityKey::AddrSet(name.clone()), "members"), count as u64);
            }
        }
    }
    found
}

/// The entity that a row comes from, and the field.
fn who(
    table: Counted,
    key: &RowKey,
    row: &Row,
    ports: &BTreeMap<Digest, PortName>,
    pipeline: &Pipeline,
) -> Option<(EntityKey, &'static str)> {
    Some(match key {
        RowKey::Member(set, _) => match set {
            SetRef::Guard(port) => (EntityKey::Port(port.clone()), "anti_spoof.addresses"),
            SetRef::NodeLocal(vrf) => (EntityKey::Vrf(vrf.clone()), "node_local"),
            SetRef::Peers(name) => {
                let of = pipeline.terminations().find(|termination| termination.name == *name)?;
                (EntityKey::Termination(of.key()), "peers")
            }
            SetRef::Sources(key) => (EntityKey::Service(key.clone()), "source_ranges"),
            SetRef::NatSrc(key) => (EntityKey::NatRule(key.clone()), "matches.src"),
            SetRef::NatDst(key) => (EntityKey::NatRule(key.clone()), "matches.dst"),
        },
        RowKey::PortVlan(port, _) => (EntityKey::Port(port.clone()), "attachment.bridge.vlan"),
        RowKey::PortMac(port, _) => (EntityKey::Port(port.clone()), "anti_spoof.macs"),
        RowKey::LinkAddr(..) | RowKey::LocalAddr(..) => match row {
            Row::Is(name) => (EntityKey::Interface(name.clone()), "addresses"),
            _ => return None,
        },
        RowKey::BareUdp(port) => {
            let with = |of: &&loxi_core::ir::TunnelTermination| matches!(of.matches, loxi_core::ir::TunnelKind::Vxlan { port: own, .. } if own == *port);
            (EntityKey::Termination(pipeline.terminations().find(with)?.key()), "matches.vxlan.port")
        }
        RowKey::Nat(_) => match row {
            Row::Nat(rules) => {
                let pool = |row: &&super::NatRow| match &row.action {
                    NatActionRow::Snat(pool, _) => pool.len(),
                    _ => 0,
                };
                (EntityKey::NatRule(rules.iter().max_by_key(pool)?.key.clone()), "action.snat.pool")
            }
            _ => return None,
        },
        RowKey::Service(key) => {
            let field = match table {
                Counted::Hashes => "algorithm",
                Counted::ServiceRanges => "ports",
                _ => "backends",
            };
            (EntityKey::Service(key.clone()), field)
        }
        RowKey::Rules(digest) | RowKey::PeerRules(digest, _) | RowKey::PortRules(digest, ..) => {
            (EntityKey::Port(ports.get(digest)?.clone()), "policies")
        }
        _ => return None,
    })
}
