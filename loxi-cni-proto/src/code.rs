//! The numbers of CNI's errors.

/// The plugin doesn't speak the configuration's version.
pub const VERSION: u32 = 1;
/// A field of the configuration that is not supported.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container is not known or is not there.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// An environment variable is missing or makes no sense.
pub const ENVIRONMENT: u32 = 4;
/// Reading or writing failed.
pub const IO: u32 = 5;
/// The configuration can't be decoded.
pub const DECODE: u32 = 6;
/// The configuration makes no sense.
pub const CONFIG: u32 = 7;
/// It may succeed later, and the runtime shall try.
pub const TRY_AGAIN: u32 = 11;
/// STATUS: an ADD can't be served.
pub const NOT_AVAILABLE: u32 = 50;
/// The interface, or something it needs, is there already.
pub const EXISTS: u32 = 100;
/// CHECK: something is not as ADD left it.
pub const DIFFERS: u32 = 101;
/// Addresses could not be given or taken back.
pub const IPAM: u32 = 102;
/// Anything else.
pub const GENERIC: u32 = 999;
