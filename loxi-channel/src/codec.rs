//! The encoding of bodies: CBOR (RFC 8949) by serde.
//!
//! Self-describing, so that a field added by a minor version is skipped by a
//! side that does not know it, and so that a capture can be read without this
//! crate. A body is exactly one item: bytes after it are an error. Nesting is
//! limited; the decoder allocates only as data really arrives, never by a length
//! that is merely claimed.

use serde::{Serialize, de::DeserializeOwned};

/// Why a body could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value has no encoding.
    #[error("can't be encoded: {0}")]
    Encode(String),
    /// The bytes end in the middle, or are not CBOR.
    #[error("not CBOR at byte {at}")]
    Syntax {
        /// Where the decoder stood.
        at: usize,
    },
    /// The bytes end before the value does.
    #[error("the body ends in the middle of a value")]
    Truncated,
    /// Well-formed, but not the value that belongs here.
    #[error("{0}")]
    Meaning(String),
    /// Nested deeper than the limit.
    #[error("nested deeper than {limit}")]
    TooDeep {
        /// The limit of this side.
        limit: usize,
    },
    /// Something follows the value.
    #[error("{0} bytes after the value")]
    Trailing(usize),
}

/// The bytes of a value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|error| CodecError::Encode(error.to_string()))?;
    Ok(bytes)
}

/// The value of all the bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<T, CodecError> {
    use ciborium::de::Error;

    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, depth).map_err(
        |error: Error<std::io::Error>| match error {
            Error::Io(_) => CodecError::Truncated,
            Error::Syntax(at) => CodecError::Syntax { at },
            Error::Semantic(_, reason) => CodecError::Meaning(reason),
            Error::RecursionLimitExceeded => CodecError::TooDeep { limit: depth },
        },
    )?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_an_error() {
        assert_eq!(decode::<u8>(&[7, 7], 8), Err(CodecError::Trailing(1)));
    }

    #[test]
    fn nesting_is_limited() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct Nest(Vec<Nest>);
        let mut bytes = vec![0x81; 1000];
        bytes.push(0x80);
        assert!(matches!(decode::<Nest>(&bytes, 64), Err(CodecError::TooDeep { limit: 64 })));
        // A value that nobody asked for is skipped within the same limit.
        let mut bytes = vec![0x81; 100_000];
        bytes.push(0x80);
        assert!(matches!(
            decode::<serde::de::IgnoredAny>(&bytes, 64),
            Err(CodecError::TooDeep { limit: 64 })
        ));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // Arrays, texts and byte strings of 2^62 items, of which none follows.
        for major in [0x5b, 0x7b, 0x9b] {
            let mut bytes = vec![major];
            bytes.extend_from_slice(&(1_u64 << 62).to_be_bytes());
            assert!(decode::<Vec<u8>>(&bytes, 8).is_err());
            assert!(decode::<String>(&bytes, 8).is_err());
        }
    }
}
