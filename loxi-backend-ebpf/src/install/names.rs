//! Numbers in the tables, and what they stand for.
//!
//! Programs know ports, endpoints and the like by numbers. Which number is whose is kept in
//! the table `NAMES`, which no program reads, so that whoever takes over the tables knows it too.
//!
//! # Contract
//! - A number is given out before anything refers to it, and given back after nothing that is
//!   configured does.
//! - A number given back is *retired*: flows may still refer to it, and it keeps its name until
//!   it is given out again, which happens to the longest retired one and only when no fresh one is left.
//! - 0 stands for nothing, in every space.

use crate::plan::{Digest, SetRef};
use crate::sys::{Kernel, KernelError, NAMES};
use loxi_core::ir::{NatKey, ServiceKey};
use loxi_core::net::{
    BackendName, BridgeName, GroupName, InterfaceName, NextHopName, PortName, TerminationName, TunnelName,
    VrfName, ZoneName,
};
use loxi_ebpf_layout::limits;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// All numbers of a kind are in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no number is left for {0}")]
pub struct Exhausted(pub String);

/// A name in the form in which the table has it: at most 253 bytes.
pub trait Named: Ord + Clone {
    /// As text.
    fn to_text(&self) -> String;
    /// Of a text; `None`: it is none.
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! plain_names {
    ($($name:ty),+) => {
        $(impl Named for $name {
            fn to_text(&self) -> String {
                self.to_string()
            }
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })+
    };
}

plain_names!(
    ZoneName,
    VrfName,
    BridgeName,
    InterfaceName,
    PortName,
    TunnelName,
    NextHopName,
    GroupName,
    BackendName,
    IpAddr
);

impl Named for Digest {
    fn to_text(&self) -> String {
        format!("{self:?}")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl Named for ServiceKey {
    fn to_text(&self) -> String {
        // A key of names, numbers and addresses always has a text.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Named for SetRef {
    fn to_text(&self) -> String {
        match self {
            Self::Guard(port) => format!("guard {port}"),
            Self::NodeLocal(vrf) => format!("node-local {vrf}"),
            Self::Peers(name) => format!("peers {name}"),
            Self::Sources(key) => format!("sources {}", key.to_text()),
            Self::NatSrc(key) => format!("nat-src {} {}", key.vrf, key.priority),
            Self::NatDst(key) => format!("nat-dst {} {}", key.vrf, key.priority),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ')?;
        let nat = || {
            let (vrf, priority) = rest.split_once(' ')?;
            Some(NatKey { vrf: vrf.parse().ok()?, priority: priority.parse().ok()? })
        };
        Some(match kind {
            "guard" => Self::Guard(rest.parse().ok()?),
            "node-local" => Self::NodeLocal(rest.parse().ok()?),
            "peers" => Self::Peers(rest.parse::<TerminationName>().ok()?),
            "sources" => Self::Sources(ServiceKey::from_text(rest)?),
            "nat-src" => Self::NatSrc(nat()?),
            "nat-dst" => Self::NatDst(nat()?),
            _ => return None,
        })
    }
}

const LIVE: u8 = 1;
const RETIRED: u8 = 2;

/// Bytes before a text: its state, its length, and one of nothing.
const HEAD: usize = 3;

/// Numbers of one kind of thing.
#[derive(Debug)]
pub struct Space<T> {
    /// Which space of the table it is.
    tag: u32,
    /// Highest number.
    last: u32,
    numbers: BTreeMap<T, u32>,
    names: BTreeMap<u32, T>,
    /// Numbers that nobody has, those that have rested longest first.
    retired: VecDeque<u32>,
    /// By the names that had them last.
    resting: BTreeMap<T, u32>,
    next: u32,
}

impl<T: Named> Space<T> {
    fn new(tag: u32, last: u32) -> Self {
        let (numbers, names, resting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { tag, last, numbers, names, retired: VecDeque::new(), resting, next: 1 }
    }

    /// The number of a name that is in use.
    #[must_use]
    pub fn number(&self, name: &T) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number that a name has, or had last.
    #[must_use]
    pub fn last(&self, name: &T) -> Option<u32> {
        self.number(name).or_else(|| self.resting.get(name).copied())
    }

    /// Whose number it is or was last.
    #[must_use]
    pub fn name(&self, number: u32) -> Option<&T> {
        self.names.get(&number)
    }

    /// Whose number it is; `None` also for one that is retired.
    #[must_use]
    pub fn live(&self, number: u32) -> Option<&T> {
        self.names.get(&number).filter(|name| self.numbers.get(*name) == Some(&number))
    }

    /// Every name in use with its number.
    pub fn all(&self) -> impl Iterator<Item = (&T, u32)> {
        self.numbers.iter().map(|(name, number)| (name, *number))
    }

    /// The number that a name has or would get; whether it has it already.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn choose(&self, name: &T) -> Result<(u32, bool), Exhausted> {
        if let Some(number) = self.numbers.get(name) {
            return Ok((*number, true));
        }
        let number = match self.resting.get(name) {
            Some(number) => *number,
            None if self.next <= self.last => self.next,
            None => *self.retired.front().ok_or_else(|| Exhausted(name.to_text()))?,
        };
        Ok((number, false))
    }

    /// A number that nobody has, for a name that has one already.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn fresh(&self, name: &T) -> Result<u32, Exhausted> {
        if self.next <= self.last {
            return Ok(self.next);
        }
        self.retired.front().copied().ok_or_else(|| Exhausted(name.to_text()))
    }

    /// Gives a name the number that was chosen for it.
    pub fn give(&mut self, name: &T, number: u32) {
        self.next = self.next.max(number + 1);
        if self.retired.front() == Some(&number) {
            self.retired.pop_front();
        } else {
            self.retired.retain(|retired| *retired != number);
        }
        let had = self.names.insert(number, name.clone());
        if let Some(had) = had.filter(|had| self.resting.get(had) == Some(&number)) {
            self.resting.remove(&had);
        }
        if let Some(before) = self.numbers.insert(name.clone(), number).filter(|before| *before != number) {
            self.rest(name, before);
        }
    }

    /// Takes a name's number back.
    pub fn retire(&mut self, name: &T) {
        if let Some(number) = self.numbers.remove(name) {
            self.rest(name, number);
        }
    }

    fn rest(&mut self, name: &T, number: u32) {
        self.retired.push_back(number);
        self.resting.insert(name.clone(), number);
    }

    /// Key and value of the table's row about a name.
    #[must_use]
    pub fn row(&self, name: &T, number: u32, live: bool) -> ([u32; 2], [u8; 256]) {
        let text = name.to_text();
        let mut value = [0u8; 256];
        let length = text.len().min(value.len() - HEAD);
        value[0] = if live { LIVE } else { RETIRED };
        value[1] = length as u8;
        value[HEAD..HEAD + length].copy_from_slice(&text.as_bytes()[..length]);
        ([self.tag, number], value)
    }

    fn read(&mut self, number: u32, value: &[u8; 256]) {
        let end = HEAD + value[1] as usize;
        let Some(name) = value.get(HEAD..end).and_then(|text| T::from_text(std::str::from_utf8(text).ok()?))
        else {
            return;
        };
        if number == 0 || number > self.last {
            return;
        }
        self.next = self.next.max(number + 1);
        if value[0] == LIVE {
            self.numbers.insert(name.clone(), number);
        } else {
            self.rest(&name, number);
        }
        self.names.insert(number, name);
    }
}

macro_rules! spaces {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $tag:literal, $last:expr;)+) => {
        /// All numbers.
        #[derive(Debug)]
        pub struct Names {
            $($(#[$doc])* pub $field: Space<$type>,)+
        }

        impl Default for Names {
            fn default() -> Self {
                Self { $($field: Space::new($tag, $last),)+ }
            }
        }

        impl Names {
            /// Reads the table. What is no name of ours is left out.
            ///
            /// # Errors
            /// [`KernelError`].
            pub fn load(kernel: &dyn Kernel) -> Result<Self, KernelError> {
                let mut names = Self::default();
                let mut found = kernel.all(NAMES)?;
                // Numbers that were retired at the same time are as old as each other.
                found.sort_unstable_by_key(|(key, _)| *key);
                for ([tag, number], value) in found {
                    match tag {
                        $($tag => names.$field.read(number, &value),)+
                        _ => {}
                    }
                }
                Ok(names)
            }
        }
    };
}

spaces! {
    /// Conntrack zones.
    zones: ZoneName = 1, limits::ZONES;
    /// VRFs.
    vrfs: VrfName = 2, limits::VRFS - 1;
    /// Bridges.
    bridges: BridgeName = 3, limits::BRIDGES - 1;
    /// L3 interfaces.
    interfaces: InterfaceName = 4, limits::INTERFACES - 1;
    /// Ports.
    ports: PortName = 5, limits::PORTS - 1;
    /// Tunnels.
    tunnels: TunnelName = 6, limits::TUNNELS - 1;
    /// Next hops.
    next_hops: NextHopName = 7, limits::NEXT_HOPS - 1;
    /// Groups of next hops.
    groups: GroupName = 8, limits::GROUPS - 1;
    /// Endpoints.
    backends: BackendName = 9, limits::BACKENDS - 1;
    /// Services.
    services: ServiceKey = 10, limits::SERVICES - 1;
    /// Sets of addresses. None has a number without a member or a thing that refers to it.
    sets: SetRef = 11, limits::SET_MEMBERS - 1;
    /// Remote addresses.
    endpoints: IpAddr = 12, limits::ENDPOINTS - 1;
    /// Groups of policy rules.
    rules: Digest = 13, limits::POLICIES - 1;
    /// Classes of peers.
    classes: Digest = 14, limits::PEERS - 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_rest_are_given_again() {
        let mut space: Space<Digest> = Space::new(1, 4);
        let name = |n: u32| Digest([[n.to_ne_bytes(); 4].concat().try_into().unwrap()][0]);
        for n in 0..1000 {
            let (number, known) = space.choose(&name(n)).unwrap();
            assert!(!known && number <= 4);
            space.give(&name(n), number);
            space.retire(&name(n));
            assert_eq!(space.last(&name(n)), Some(number));
        }
        assert_eq!((space.retired.len(), space.resting.len()), (4, 4));
        // Whoever had one last gets it again, however long it has rested.
        assert_eq!(space.choose(&name(997)).unwrap().0, space.last(&name(997)).unwrap());
        // All in use.
        for n in 996..1000 {
            let (number, _) = space.choose(&name(n)).unwrap();
            space.give(&name(n), number);
        }
        assert_eq!(space.choose(&name(1)), Err(Exhausted(name(1).to_text())));
    }
}
