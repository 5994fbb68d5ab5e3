//! What is wrong with a value that was offered as one of the checked types.

/// Why a textual or numeric value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A name is empty, too long, or has a character that is not allowed.
    #[error("`{value}` is not a {what}: 1 to {max} characters of A-Z a-z 0-9 . _ : / @ - are allowed")]
    Name {
        /// The kind of name, for example `port name`.
        what: &'static str,
        /// The refused text.
        value: String,
        /// The longest allowed name, in bytes.
        max: usize,
    },
    /// Not six colon-separated hexadecimal octets.
    #[error("`{0}` is not a MAC address (expected six hexadecimal octets, as 02:00:00:00:00:01)")]
    Mac(String),
    /// Not an IP address with an optional prefix length.
    #[error("`{0}` is not an IP prefix (expected ADDRESS or ADDRESS/LENGTH)")]
    Prefix(String),
    /// Bits are set to the right of the prefix length.
    #[error("`{given}` has host bits set; the prefix is {network}")]
    HostBits {
        /// The refused text.
        given: String,
        /// The prefix that contains it.
        network: String,
    },
    /// A number lies outside the range of its field.
    #[error("{what} {value} is out of range {min}..={max}")]
    Range {
        /// The field's name.
        what: &'static str,
        /// The refused value.
        value: u64,
        /// Lowest legal value.
        min: u64,
        /// Highest legal value.
        max: u64,
    },
    /// Not a protocol name or number.
    #[error("`{0}` is not an IP protocol (tcp, udp, sctp, icmp, icmpv6, … or 0-255)")]
    Protocol(String),
    /// Not a port or a range of ports.
    #[error("`{0}` is not an L4 port or range (expected 80 or 8000-8100, first not above last)")]
    Ports(String),
}
