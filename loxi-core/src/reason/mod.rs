//! Reasons: closed lists with an identifier, a stable number and a line of help.
//!
//! Numbers are never reused. A number that this version doesn't know travels
//! as `Other`.

/// Declares a reason enum.
macro_rules! reasons {
    (
        $(#[$doc:meta])* $name:ident {
            $($variant:ident = $number:literal, $id:literal, $help:literal $(, $unobservable:ident)?;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = $help] $variant,)+
            /// A number from a newer version.
            Other(u16),
        }

        impl $name {
            /// Every reason of this version.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Identifier in snake case; `other_N` for unknown numbers.
            #[must_use]
            pub fn id(self) -> std::borrow::Cow<'static, str> {
                match self {
                    $(Self::$variant => $id.into(),)+
                    Self::Other(number) => format!("other_{number}").into(),
                }
            }

            /// Stable number.
            #[must_use]
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)+
                    Self::Other(number) => number,
                }
            }

            /// The reason of a number.
            #[must_use]
            pub fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    other => Self::Other(other),
                }
            }

            /// One line of help.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)+
                    Self::Other(_) => "a reason that this version doesn't know",
                }
            }

            /// Whether every backend can tell this reason apart.
            #[must_use]
            pub fn observable_everywhere(self) -> bool {
                match self {
                    $(Self::$variant => reasons!(@observable $($unobservable)?),)+
                    Self::Other(_) => false,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.id())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::reason::UnknownReason;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($id => Ok(Self::$variant),)+
                    other => other
                        .strip_prefix("other_")
                        .and_then(|number| number.parse().ok())
                        .map(Self::from_number)
                        .ok_or_else(|| crate::reason::UnknownReason(other.to_owned())),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.id())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
    (@observable) => { true };
    (@observable $flag:ident) => { false };
}

mod consumed;
mod drop;
mod punt;

pub use consumed::ConsumedReason;
pub use drop::DropReason;
pub use punt::PuntReason;

/// A text that is no reason's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a reason")]
pub struct UnknownReason(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_identifiers_are_unique_and_round_trip() {
        let numbers: std::collections::BTreeSet<u16> = DropReason::ALL.iter().map(|r| r.number()).collect();
        assert_eq!(numbers.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), *reason);
            assert_eq!(reason.id().parse::<DropReason>().unwrap(), *reason);
        }
        assert_eq!("other_9999".parse::<DropReason>().unwrap(), DropReason::Other(9999));
        assert!("nonsense".parse::<DropReason>().is_err());
    }
}
