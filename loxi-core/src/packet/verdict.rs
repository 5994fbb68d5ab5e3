//! Verdicts.

use crate::net::PortName;
use crate::reason::{ConsumedReason, DropReason, PuntReason};

/// Bytes as text: lower-case hexadecimal in formats for people, raw in binary ones.
pub(crate) mod hex_bytes {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(bytes);
        }
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("hexadecimal bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                super::parse_hex(text).map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_byte_buf(Visitor)
        }
    }
}

/// Why a text is no hexadecimal bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// A character that is neither a digit nor a separator.
    #[error("`{found}` at offset {at} is not a hexadecimal digit")]
    Digit {
        /// Byte offset.
        at: usize,
        /// The character.
        found: char,
    },
    /// An odd number of digits.
    #[error("{digits} hexadecimal digits don't make whole bytes")]
    Odd {
        /// Digits found.
        digits: usize,
    },
}

/// Reads hexadecimal bytes; white space, `:` and `_` between digits don't count.
///
/// # Errors
/// [`HexError`].
pub fn parse_hex(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut digits = 0;
    let mut high = 0;
    for (at, found) in text.char_indices() {
        if found.is_whitespace() || matches!(found, ':' | '_') {
            continue;
        }
        // to_digit(16) is below 16.
        let digit = found.to_digit(16).ok_or(HexError::Digit { at, found })? as u8;
        digits += 1;
        if digits % 2 == 1 {
            high = digit << 4;
        } else {
            bytes.push(high | digit);
        }
    }
    if digits % 2 == 1 { Err(HexError::Odd { digits }) } else { Ok(bytes) }
}

/// A packet that leaves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Where.
    pub port: PortName,
    /// The frame, from its destination MAC on, without FCS.
    #[serde(with = "hex_bytes")]
    pub bytes: Vec<u8>,
}

/// A copy that does not leave.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsent {
    /// Where it would have left.
    pub port: PortName,
    /// Why it doesn't.
    pub reason: DropReason,
}

/// What became of the packet itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// At least one copy left.
    Forwarded,
    /// It ended here, having been for us.
    Consumed(ConsumedReason),
    /// It was handed on.
    Punted(PuntReason),
    /// It was dropped.
    Dropped(DropReason),
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forwarded => f.pad("forwarded"),
            Self::Consumed(reason) => f.pad(&format!("consumed({reason})")),
            Self::Punted(reason) => f.pad(&format!("punted({reason})")),
            Self::Dropped(reason) => f.pad(&format!("dropped({reason})")),
        }
    }
}

/// What a packet led to. Outputs may stand beside any fate: an ICMP error
/// beside a drop, an answer beside a consumed request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What became of the packet.
    pub fate: Fate,
    /// Packets that leave, in port order.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// Copies that don't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsent: Vec<Unsent>,
}

impl Verdict {
    /// A drop without output.
    #[must_use]
    pub fn dropped(reason: DropReason) -> Self {
        Self { fate: Fate::Dropped(reason), outputs: Vec::new(), unsent: Vec::new() }
    }
}
