//! The rows through which the tables go from one state of the policies to another, so that nothing is ever judged
//! by rules of one and classes of the other.
//!
//! It is worked out from rows alone: what stands in the tables may be what another process left half-way.

use super::group::digest_of_past;
use crate::plan::{Bits, Digest, PortPolicyRow, Row, RowKey, Rows};
use loxi_core::net::IpPrefix;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Rows in between, the last one with the new rules; none: the way is direct.
///
/// First come classes by which both can be told, with the groups of before; then those of after with the same
/// classes. A group of before that has the name of one of after and doesn't say the same has another name in
/// between: ports still have it.
pub(in crate::plan) fn way(old: &Rows, new: &Rows) -> Vec<Rows> {
    let sides = [Side::of(old), Side::of(new)];
    if sides.iter().any(|side| side.groups.is_empty()) || is_direct(&sides) {
        return Vec::new();
    }
    let joint = Joint::of(&sides);
    let same = |digest: Digest| digest;
    let mut way = vec![joint.rows(&sides[0], |class| class.0, same)];
    let other: BTreeSet<Digest> = sides[0].groups.intersection(&sides[1].groups).copied().collect();
    let other: BTreeSet<Digest> = other.into_iter().filter(|digest| joint.differs(&sides, *digest)).collect();
    if !other.is_empty() {
        let renamed = |digest| if other.contains(&digest) { digest_of_past(digest) } else { digest };
        way.push(joint.rows(&sides[0], |class| class.0, renamed));
    }
    way.push(joint.rows(&sides[1], |class| class.1, same));
    way
}

/// Policies as the tables have them.
struct Side<'a> {
    peers: BTreeMap<IpPrefix, Digest>,
    by_peer: BTreeMap<(Digest, Option<Digest>), &'a Bits>,
    by_port: BTreeMap<Digest, Vec<(&'a RowKey, &'a Row)>>,
    rules: BTreeMap<Digest, &'a Row>,
    ports: Vec<(&'a RowKey, &'a PortPolicyRow)>,
    /// Groups that ports have: nobody is judged by others.
    groups: BTreeSet<Digest>,
}

impl<'a> Side<'a> {
    fn of(rows: &'a Rows) -> Self {
        let mut side = Self {
            peers: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_port: BTreeMap::new(),
            rules: BTreeMap::new(),
            ports: Vec::new(),
            groups: BTreeSet::new(),
        };
        for (key, row) in rows {
            match (key, row) {
                (RowKey::Peer(prefix), Row::Class(class)) => {
                    side.peers.insert(*prefix, *class);
                }
                (RowKey::PeerRules(group, class), Row::Bits(bits)) => {
                    side.by_peer.insert((*group, *class), bits);
                }
                (RowKey::PortRules(group, ..), _) => side.by_port.entry(*group).or_default().push((key, row)),
                (RowKey::Rules(group), _) => {
                    side.rules.insert(*group, row);
                }
                (RowKey::PortPolicy(_), Row::PortPolicy(groups)) => {
                    side.ports.push((key, groups));
                    side.groups.extend(groups.egress.into_iter().chain(groups.ingress));
                }
                _ => {}
            }
        }
        side
    }

    /// Rows of a group that don't depend on peers.
    fn others(&self, group: Digest) -> (Option<&Row>, &[(&'a RowKey, &'a Row)]) {
        (self.rules.get(&group).copied(), self.by_port.get(&group).map_or(&[], Vec::as_slice))
    }

    fn by_class(&self, group: Digest) -> impl Iterator<Item = (Option<Digest>, &Bits)> {
        let of_group = self.by_peer.range((group, None)..).take_while(move |((of, _), _)| *of == group);
        of_group.map(|((_, class), bits)| (*class, *bits))
    }
}

/// Whether every group that both have says the same of the same classes.
fn is_direct([old, new]: &[Side<'_>; 2]) -> bool {
    let same = |group: &Digest| {
        old.others(*group) == new.others(*group) && old.by_class(*group).eq(new.by_class(*group))
    };
    old.peers == new.peers && old.groups.intersection(&new.groups).all(same)
}

/// Of which class a prefix is on either side; none: of nobody that anything names.
type Pair = (Option<Digest>, Option<Digest>);

/// Classes that are one of each side at once.
struct Joint {
    prefixes: BTreeMap<IpPrefix, Pair>,
    classes: BTreeMap<Pair, Digest>,
}

impl Joint {
    fn of(sides: &[Side<'_>; 2]) -> Self {
        let all: BTreeSet<IpPrefix> = sides.iter().flat_map(|side| side.peers.keys().copied()).collect();
        let mut prefixes: BTreeMap<IpPrefix, Pair> = BTreeMap::new();
        // Prefixes sort by address, then length: each comes right after what covers it.
        let mut covering: Vec<(IpPrefix, Pair)> = Vec::new();
        for prefix in all {
            while covering.last().is_some_and(|(last, _)| !last.covers(&prefix)) {
                covering.pop();
            }
            let shorter = covering.last().map_or((None, None), |(_, pair)| *pair);
            let own = |n: usize| sides[n].peers.get(&prefix).copied();
            let pair = (own(0).or(shorter.0), own(1).or(shorter.1));
            prefixes.insert(prefix, pair);
            covering.push((prefix, pair));
        }
        let classes = prefixes.values().map(|pair| (*pair, name(*pair))).collect();
        Self { prefixes, classes }
    }

    /// Whether a group says something else after than before.
    fn differs(&self, [old, new]: &[Side<'_>; 2], group: Digest) -> bool {
        let nobody = [(None, None)];
        let mut classes = self.classes.keys().chain(&nobody);
        old.others(group) != new.others(group)
            || classes.any(|pair| old.by_peer.get(&(group, pair.0)) != new.by_peer.get(&(group, pair.1)))
    }

    /// The groups of one side with joint classes.
    fn rows(
        &self,
        side: &Side<'_>,
        class: impl Fn(&Pair) -> Option<Digest>,
        renamed: impl Fn(Digest) -> Digest,
    ) -> Rows {
        let mut rows = Rows::new();
        rows.extend(
            self.prefixes
                .iter()
                .map(|(prefix, pair)| (RowKey::Peer(*prefix), Row::Class(self.classes[pair]))),
        );
        for group in &side.groups {
            let own = renamed(*group);
            if let Some(rules) = side.rules.get(group) {
                rows.insert(RowKey::Rules(own), (*rules).clone());
            }
            for (key, row) in side.others(*group).1 {
                if let RowKey::PortRules(_, protocol, bits) = key {
                    rows.insert(RowKey::PortRules(own, *protocol, *bits), (*row).clone());
                }
            }
            if let Some(bits) = side.by_peer.get(&(*group, None)) {
                rows.insert(RowKey::PeerRules(own, None), Row::Bits(**bits));
            }
            for (pair, joint) in &self.classes {
                if let Some(bits) = side.by_peer.get(&(*group, class(pair))) {
                    rows.insert(RowKey::PeerRules(own, Some(*joint)), Row::Bits(**bits));
                }
            }
        }
        for (key, groups) in &side.ports {
            let [egress, ingress] = [groups.egress, groups.ingress].map(|group| group.map(&renamed));
            rows.insert((*key).clone(), Row::PortPolicy(PortPolicyRow { egress, ingress }));
        }
        rows
    }
}

/// Such a class lasts as long as the change, and is none of before or after.
fn name((old, new): Pair) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"between");
    for side in [old, new] {
        hash.update([u8::from(side.is_some())]);
        hash.update(side.map_or([0; 16], |class| class.0));
    }
    super::group::digest(hash)
}
