//! The envelope of every message.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–3 | `LOXI` |
//! | 4–5 | protocol, major: another one is refused |
//! | 6–7 | protocol, minor: additions only, never refused |
//! | 8–9 | kind, see [`Kind`] |
//! | 10–11 | reserved, zero |
//! | 12–19 | correlation: chosen by the asker and echoed; in an event its sequence |
//! | 20–23 | length of the body |
//! | 24– | body, see [`codec`](crate::codec) |
//!
//! Numbers are big-endian. The header keeps this form in every future version,
//! so that a side can always say in a reply why it did not understand.
//!
//! Decoding borrows from what the transport received and allocates nothing. The
//! length is held to a limit before any of the body is looked at; the transport
//! holds the whole message to the same limit before it allocates.

use std::fmt;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"LOXI";

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 24;

/// The protocol that this crate speaks.
pub const PROTOCOL: ProtocolVersion = ProtocolVersion { major: 1, minor: 0 };

/// Version of the protocol: a new major breaks, a new minor adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProtocolVersion {
    /// Both sides must have the same.
    pub major: u16,
    /// The lower one of both sides is what may be relied on.
    pub minor: u16,
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What both sides accept. A side that gets more refuses it with
/// [`FrameError::TooLong`]; a side that would send more does not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest body of a request.
    pub request: usize,
    /// Longest body of a reply.
    pub reply: usize,
    /// Longest body of an event.
    pub event: usize,
    /// Deepest nesting of a body.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: 16 << 20, reply: 64 << 20, event: 1 << 20, depth: 64 }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a body is. Numbers are never reused; a reply has the number of
        /// its request with the highest bit set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind of this version.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its number in the header.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The kind with this number, if this version has it.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A client says who it is: [`Hello`](crate::message::Hello).
    Hello = 0x0001,
    /// Answer to a hello: [`Welcome`](crate::message::Welcome).
    Welcome = 0x8001,
    /// Is anybody there: [`Ping`](crate::message::Ping).
    Ping = 0x0002,
    /// Answer to a ping: [`Pong`](crate::message::Pong).
    Pong = 0x8002,
    /// [`GetCapabilities`](crate::request::GetCapabilities).
    Capabilities = 0x0010,
    /// Its answer.
    CapabilitiesReply = 0x8010,
    /// [`Apply`](crate::request::Apply).
    Apply = 0x0011,
    /// Its answer.
    ApplyReply = 0x8011,
    /// [`GetSnapshot`](crate::request::GetSnapshot).
    Snapshot = 0x0012,
    /// Its answer.
    SnapshotReply = 0x8012,
    /// [`GetFlows`](crate::request::GetFlows).
    Flows = 0x0013,
    /// Its answer.
    FlowsReply = 0x8013,
    /// [`GetCounters`](crate::request::GetCounters).
    Counters = 0x0014,
    /// Its answer.
    CountersReply = 0x8014,
    /// [`Explain`](crate::request::Explain).
    Explain = 0x0015,
    /// Its answer.
    ExplainReply = 0x8015,
    /// [`Inject`](crate::request::Inject).
    Inject = 0x0016,
    /// Its answer.
    InjectReply = 0x8016,
    /// [`Attach`](crate::request::Attach).
    Attach = 0x0017,
    /// Its answer.
    AttachReply = 0x8017,
    /// [`Detach`](crate::request::Detach).
    Detach = 0x0018,
    /// Its answer.
    DetachReply = 0x8018,
    /// [`ExportState`](crate::request::ExportState).
    ExportState = 0x0019,
    /// Its answer.
    ExportStateReply = 0x8019,
    /// [`ImportState`](crate::request::ImportState).
    ImportState = 0x001a,
    /// Its answer.
    ImportStateReply = 0x801a,
    /// [`Mark`](crate::request::Mark).
    Mark = 0x001b,
    /// Its answer.
    MarkReply = 0x801b,
    /// On the events' socket: [`Notice`](crate::request::Notice).
    Notice = 0x0100,
    /// Answer to a hello that is not welcome: [`Refused`](crate::message::Refused).
    Refused = 0xfffe,
    /// Answer to a request that was not executed: [`Fault`](crate::message::Fault).
    Fault = 0xffff,
}

/// Why bytes are not a frame, or not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than a header.
    #[error("truncated frame: {have} bytes, a header has {HEADER_LEN}")]
    Truncated {
        /// What arrived.
        have: usize,
    },
    /// Not from a loxi peer at all.
    #[error("not a loxi frame (it begins with {found:02x?})")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The other side is ahead by a major version.
    #[error("the peer speaks protocol {theirs}, newer than ours ({PROTOCOL}): update this side")]
    TooNew {
        /// The version in the header.
        theirs: ProtocolVersion,
    },
    /// The other side is behind by a major version.
    #[error("the peer speaks protocol {theirs}, older than ours ({PROTOCOL}): update that side")]
    TooOld {
        /// The version in the header.
        theirs: ProtocolVersion,
    },
    /// A kind that this version does not have.
    #[error("unknown message kind {code:#06x}")]
    UnknownKind {
        /// The number in the header.
        code: u16,
    },
    /// The reserved field is not zero.
    #[error("reserved header field is {found:#06x}, not 0")]
    Reserved {
        /// What it is.
        found: u16,
    },
    /// More than the limit allows.
    #[error("body of {length} bytes, the limit is {limit}")]
    TooLong {
        /// The length stated, or asked for.
        length: usize,
        /// The limit of this side.
        limit: usize,
    },
    /// The header's length and what follows it differ.
    #[error("the header states a body of {stated} bytes, and {have} follow")]
    LengthMismatch {
        /// The header's length.
        stated: usize,
        /// The bytes after the header.
        have: usize,
    },
    /// A known kind, but not one that belongs here.
    #[error("a {found:?} where {expected:?} belongs")]
    UnexpectedKind {
        /// What the header says.
        found: Kind,
        /// What the place asks for.
        expected: Kind,
    },
    /// The body is not what its kind says.
    #[error("malformed {kind:?}: {reason}")]
    Malformed {
        /// What the header says.
        kind: Kind,
        /// What the decoder met.
        reason: String,
    },
    /// The answer belongs to another question.
    #[error("answer to request {found}, asked was {expected}")]
    Correlation {
        /// What the header says.
        found: u64,
        /// What was asked.
        expected: u64,
    },
}

/// A frame whose header is sound and whose body is still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The sender's protocol; its major is ours.
    pub version: ProtocolVersion,
    /// What the body is.
    pub kind: Kind,
    /// Echoed in a reply, the sequence in an event.
    pub correlation: u64,
    /// The encoded body.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame whose body has at most `limit` bytes.
    pub fn decode(bytes: &'a [u8], limit: usize) -> Result<Self, FrameError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Truncated { have: bytes.len() });
        };
        let found = [header[0], header[1], header[2], header[3]];
        if found != MAGIC {
            return Err(FrameError::BadMagic { found });
        }
        let version = ProtocolVersion { major: u16_at(header, 4), minor: u16_at(header, 6) };
        if version.major > PROTOCOL.major {
            return Err(FrameError::TooNew { theirs: version });
        }
        if version.major < PROTOCOL.major {
            return Err(FrameError::TooOld { theirs: version });
        }
        let stated = u32_at(header, 20) as usize;
        if stated > limit {
            return Err(FrameError::TooLong { length: stated, limit });
        }
        if stated != body.len() {
            return Err(FrameError::LengthMismatch { stated, have: body.len() });
        }
        let reserved = u16_at(header, 10);
        if reserved != 0 {
            return Err(FrameError::Reserved { found: reserved });
        }
        let code = u16_at(header, 8);
        let kind = Kind::from_code(code).ok_or(FrameError::UnknownKind { code })?;
        Ok(Self { version, kind, correlation: correlation_of(bytes).unwrap_or_default(), body })
    }

    /// Writes a frame of our version, unless its body is over `limit`.
    pub fn encode(&self, limit: usize) -> Result<Vec<u8>, FrameError> {
        let length = self.body.len();
        let stated = match u32::try_from(length) {
            Ok(stated) if length <= limit => stated,
            _ => return Err(FrameError::TooLong { length, limit }),
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN + length);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version.major.to_be_bytes());
        bytes.extend_from_slice(&self.version.minor.to_be_bytes());
        bytes.extend_from_slice(&self.kind.code().to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.correlation.to_be_bytes());
        bytes.extend_from_slice(&stated.to_be_bytes());
        bytes.extend_from_slice(self.body);
        Ok(bytes)
    }
}

/// The correlation of anything with our magic, whatever else is wrong with it:
/// what a refusal answers to.
#[must_use]
pub fn correlation_of(bytes: &[u8]) -> Option<u64> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    if header[..4] != MAGIC {
        return None;
    }
    let mut field = [0; 8];
    field.copy_from_slice(&header[12..20]);
    Some(u64::from_be_bytes(field))
}

fn u16_at(header: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

fn u32_at(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
