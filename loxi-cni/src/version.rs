//! The versions of CNI that the plugin speaks.

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.4.0.
    V0_4,
    /// 1.0.0.
    V1_0,
    /// 1.1.0.
    V1_1,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::V0_4, Self::V1_0, Self::V1_1];

    /// What errors are rendered in where the configuration names no version that is spoken here.
    pub const NEWEST: Self = Self::V1_1;

    /// As configurations write it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::V0_4 => "0.4.0",
            Self::V1_0 => "1.0.0",
            Self::V1_1 => "1.1.0",
        }
    }

    /// The version of a text, if it is spoken here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.text() == text)
    }
}
