//! What can be measured.

/// Kinds of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// A socket buffer at TC.
    Tc,
    /// A frame at XDP.
    Xdp,
}

impl Hook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tc, Self::Xdp];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }

    /// The array of the installed entry program.
    pub(super) const fn entry(self) -> &'static str {
        match self {
            Self::Tc => "entry-tc",
            Self::Xdp => "entry-xdp",
        }
    }

    /// The array through which the wrapper jumps.
    pub(super) const fn measured(self) -> &'static str {
        match self {
            Self::Tc => "MEASURED_TC",
            Self::Xdp => "MEASURED_XDP",
        }
    }
}

/// What a floor looks a flow up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Floor {
    /// An array, by the key's hash: the least that a look-up can be.
    Array,
    /// The kernel's hash table.
    Hash,
    /// The kernel's hash table that evicts.
    Lru,
    /// The installed flow table.
    Flows,
}

impl Floor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Array, Self::Flows, Self::Hash, Self::Lru];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Hash => "hash",
            Self::Lru => "lru",
            Self::Flows => "flows",
        }
    }

    pub(super) const fn table(self, v6: bool) -> Option<&'static str> {
        Some(match (self, v6) {
            (Self::Array, _) => "FLOOR_ARRAY",
            (Self::Hash, false) => "FLOOR_HASH_V4",
            (Self::Hash, true) => "FLOOR_HASH_V6",
            (Self::Lru, false) => "FLOOR_LRU_V4",
            (Self::Lru, true) => "FLOOR_LRU_V6",
            (Self::Flows, _) => return None,
        })
    }
}

/// What the wrapper runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    Empty,
    /// A floor.
    Floor(Floor),
    /// The installed entry program.
    Installed,
}

impl Target {
    /// The program of the bench; `None`: an installed one.
    pub(super) fn program(self, hook: Hook) -> Option<String> {
        match self {
            Self::Empty => Some(format!("{}_empty", hook.name())),
            Self::Floor(floor) => Some(format!("{}_floor_{}", hook.name(), floor.name())),
            Self::Installed => None,
        }
    }
}
