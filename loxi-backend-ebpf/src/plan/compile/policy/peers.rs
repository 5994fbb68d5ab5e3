//! Classes of peers: addresses that the same definitions mean.
//!
//! An address belongs to the longest prefix that any definition mentions and that holds it. What is
//! true of one address of such a prefix is true of all that belong to it: every mentioned prefix
//! either covers it or has none of them. So a walk over the prefixes in order, with those that cover
//! the current one on a stack, finds each class.

use super::group::{Group, digest, encode_peer};
use super::{add, is_empty, set};
use crate::plan::{Bits, Digest, Row, RowKey, Rows};
use loxi_core::ir::{AddrSet, Pipeline, PolicyPeer};
use loxi_core::net::IpPrefix;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Definitions that are true of an address, by number.
type Class = Rc<BTreeSet<usize>>;

/// What rules mean by a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Definition<'a> {
    peer: &'a PolicyPeer,
    /// Members of a named set.
    members: Option<&'a BTreeSet<IpPrefix>>,
}

/// Every definition that rules use, and the classes that they make.
pub(super) struct Peers<'a> {
    /// In order: a class has the same name whatever else is defined.
    definitions: Vec<Definition<'a>>,
    prefixes: Vec<(IpPrefix, Digest)>,
    classes: BTreeSet<Digest>,
    /// Classes that each definition is part of.
    by_definition: Vec<Vec<Digest>>,
}

fn used<'a>(pipeline: &'a Pipeline, groups: &[Group<'a>]) -> BTreeSet<Definition<'a>> {
    let peers = groups.iter().flat_map(|group| group.rules().map(|(_, rule)| &rule.peer));
    let peers = peers.filter(|peer| **peer != PolicyPeer::Any);
    peers.map(|peer| Definition { peer, members: members(pipeline, peer) }).collect()
}

fn members<'a>(pipeline: &'a Pipeline, peer: &PolicyPeer) -> Option<&'a BTreeSet<IpPrefix>> {
    match peer {
        PolicyPeer::Set(name) => pipeline.get::<AddrSet>(name).map(|set| &set.members),
        PolicyPeer::Any | PolicyPeer::Prefixes { .. } => None,
    }
}

impl<'a> Peers<'a> {
    pub(super) fn of(pipeline: &'a Pipeline, groups: &[Group<'a>]) -> Self {
        Self::new(used(pipeline, groups))
    }

    fn new(definitions: BTreeSet<Definition<'a>>) -> Self {
        let definitions: Vec<_> = definitions.into_iter().collect();
        let mut classes: BTreeMap<Class, Digest> = BTreeMap::new();
        let mut prefixes = Vec::new();
        for (prefix, class) in classify(&mentions(&definitions)) {
            let name = *classes.entry(Rc::clone(&class)).or_insert_with(|| name(&definitions, &class));
            prefixes.push((prefix, name));
        }
        let mut by_definition: Vec<Vec<Digest>> = vec![Vec::new(); definitions.len()];
        for (class, name) in &classes {
            class.iter().for_each(|number| by_definition[*number].push(*name));
        }
        Self { definitions, prefixes, classes: classes.into_values().collect(), by_definition }
    }

    /// The number of what a rule means by its peer.
    fn find(&self, peer: &PolicyPeer) -> Option<usize> {
        self.definitions.binary_search_by(|other| other.peer.cmp(peer)).ok()
    }

    /// Rows of the classes, and of what groups say of them.
    pub(super) fn put(&self, groups: &[Group<'_>], rows: &mut Rows) {
        rows.extend(self.prefixes.iter().map(|(prefix, name)| (RowKey::Peer(*prefix), Row::Class(*name))));
        for group in groups {
            self.put_group(group, rows);
        }
    }

    /// Which rules of a group mean each class.
    fn put_group(&self, group: &Group<'_>, rows: &mut Rows) {
        let mut any = Bits::default();
        let mut own: BTreeMap<usize, Bits> = BTreeMap::new();
        for (bit, rule) in group.rules() {
            match self.find(&rule.peer) {
                Some(number) => set(own.entry(number).or_default(), bit),
                None => set(&mut any, bit),
            }
        }
        let mut found: BTreeMap<Option<Digest>, Bits> = BTreeMap::new();
        if !is_empty(&any) {
            found.insert(None, any);
            found.extend(self.classes.iter().map(|class| (Some(*class), any)));
        }
        for (number, bits) in &own {
            for class in &self.by_definition[*number] {
                add(found.entry(Some(*class)).or_default(), bits);
            }
        }
        rows.extend(
            found.into_iter().map(|(class, bits)| (RowKey::PeerRules(group.digest, class), Row::Bits(bits))),
        );
    }
}

/// Which definitions mention a prefix: inside, or as an exception.
type Mentions = BTreeMap<IpPrefix, Vec<(usize, bool)>>;

fn mentions(definitions: &[Definition<'_>]) -> Mentions {
    let mut found = Mentions::new();
    for (number, definition) in definitions.iter().enumerate() {
        let mut note = |prefixes: &BTreeSet<IpPrefix>, inside: bool| {
            for prefix in prefixes {
                found.entry(*prefix).or_default().push((number, inside));
            }
        };
        match definition.peer {
            PolicyPeer::Any => {}
            PolicyPeer::Set(_) => definition.members.into_iter().for_each(|members| note(members, true)),
            PolicyPeer::Prefixes { prefixes, except } => {
                note(prefixes, true);
                note(except, false);
            }
        }
    }
    found
}

/// How often the prefixes that cover the current one are in a definition, and in its exceptions.
#[derive(Default, Clone, Copy)]
struct Count {
    inside: u32,
    outside: u32,
}

/// The class of each prefix, where it isn't that of the next shorter one.
fn classify(mentions: &Mentions) -> Vec<(IpPrefix, Class)> {
    let mut found = Vec::new();
    let mut counts: BTreeMap<usize, Count> = BTreeMap::new();
    let nobody = Class::default();
    let mut covering: Vec<(IpPrefix, Class)> = Vec::new();
    // Prefixes sort by address, then length: each comes right after what covers it.
    for (prefix, mentioned) in mentions {
        while let Some((last, _)) = covering.last()
            && !last.covers(prefix)
        {
            for (number, inside) in mentions.get(last).into_iter().flatten() {
                let count = counts.entry(*number).or_default();
                *side(count, *inside) -= 1;
            }
            covering.pop();
        }
        let shorter = covering.last().map_or(&nobody, |(_, class)| class);
        let mut class = BTreeSet::clone(shorter);
        for (number, inside) in mentioned {
            let count = counts.entry(*number).or_default();
            *side(count, *inside) += 1;
            if count.inside > 0 && count.outside == 0 {
                class.insert(*number);
            } else {
                class.remove(number);
            }
        }
        let class = if class == **shorter {
            Rc::clone(shorter)
        } else {
            let class = Rc::new(class);
            found.push((*prefix, Rc::clone(&class)));
            class
        };
        covering.push((*prefix, class));
    }
    found
}

fn side(count: &mut Count, inside: bool) -> &mut u32 {
    if inside { &mut count.inside } else { &mut count.outside }
}

fn name(definitions: &[Definition<'_>], class: &BTreeSet<usize>) -> Digest {
    let mut hash = Sha256::new();
    for number in class {
        encode_peer(&mut hash, definitions[*number].peer);
    }
    digest(hash)
}
