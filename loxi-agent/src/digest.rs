//! SHA-256 of texts, as hex digits.

use sha2::{Digest, Sha256};

/// All 64 digits.
pub(crate) fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
