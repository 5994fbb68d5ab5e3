//! Who an entity belongs to, and where it came from.

use crate::net::NetError;

/// Who may change an entity: `agent`, `cli`, `file`, a program's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Owner(String);

impl Owner {
    /// Checks and wraps an owner's name.
    ///
    /// # Errors
    /// [`NetError::Name`] unless it has 1 to 63 characters of `A-Z a-z 0-9 . _ - : / @`.
    pub fn new(name: impl Into<String>) -> Result<Self, NetError> {
        // The rules are those of entity names; one check serves both.
        crate::net::BridgeName::new(name).map(|name| Self(name.into())).map_err(|error| match error {
            NetError::Name { value, max, .. } => NetError::Name { what: "owner", value, max },
            other => other,
        })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Owner {
    type Error = NetError;
    fn try_from(name: String) -> Result<Self, NetError> {
        Self::new(name)
    }
}

impl std::str::FromStr for Owner {
    type Err = NetError;
    fn from_str(name: &str) -> Result<Self, NetError> {
        Self::new(name)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> String {
        owner.0
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Where an entity came from, as its owner wrote it: for example a Kubernetes
/// UID and a rule's index. The dataplane never looks inside; it is shown by
/// drops, flows and `explain`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Origin(pub String);

impl Origin {
    /// Whether the owner gave none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}
