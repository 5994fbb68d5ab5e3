//! What the CNI plugin and the agent say to each other, by gRPC on a unix socket.
//!
//! The plugin hands over the invocation as it was given. The answers are of no CNI version: the plugin renders them.
//! An error of CNI is part of a reply ([`Failure`]); a gRPC status means that the agent could not be asked.
//!
//! The code is generated from `proto/cni.proto` and committed, so building needs no compiler of protocol buffers; a test
//! holds the two together, and writes the code anew if `LOXI_GENERATE` is set.

#[allow(missing_docs, clippy::all, rust_2018_idioms, reason = "generated")]
mod generated {
    include!("generated/loxi.cni.v1.rs");
}

pub mod code;

#[cfg(feature = "client")]
pub use generated::cni_client::CniClient;
#[cfg(feature = "server")]
pub use generated::cni_server::{Cni, CniServer};
pub use generated::{
    AddReply, Address, Attached, Dns, Done, Failure, Interface, Invocation, Reply, Route, add_reply, reply,
};

/// Where the agent listens if nothing else is said.
pub const SOCKET: &str = "/run/loxi/default/agent/cni.sock";

impl Failure {
    /// An error with its number, without details.
    #[must_use]
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(self, details: impl std::fmt::Display) -> Self {
        Self { details: details.to_string(), ..self }
    }
}

impl From<Result<Attached, Failure>> for AddReply {
    fn from(result: Result<Attached, Failure>) -> Self {
        let outcome = result.map_or_else(add_reply::Outcome::Failure, add_reply::Outcome::Attached);
        Self { outcome: Some(outcome) }
    }
}

impl From<Result<(), Failure>> for Reply {
    fn from(result: Result<(), Failure>) -> Self {
        let outcome = result.map_or_else(reply::Outcome::Failure, |()| reply::Outcome::Done(Done {}));
        Self { outcome: Some(outcome) }
    }
}

/// A reply that says neither how it went nor why not: the other side speaks a newer protocol.
fn unsaid() -> Failure {
    Failure::new(code::GENERIC, "the agent's answer is of a kind that this plugin doesn't know")
}

impl From<AddReply> for Result<Attached, Failure> {
    fn from(reply: AddReply) -> Self {
        match reply.outcome {
            Some(add_reply::Outcome::Attached(attached)) => Ok(attached),
            Some(add_reply::Outcome::Failure(failure)) => Err(failure),
            None => Err(unsaid()),
        }
    }
}

impl From<Reply> for Result<(), Failure> {
    fn from(reply: Reply) -> Self {
        match reply.outcome {
            Some(reply::Outcome::Done(Done {})) => Ok(()),
            Some(reply::Outcome::Failure(failure)) => Err(failure),
            None => Err(unsaid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_as_they_went() {
        let failure = Failure::new(code::TRY_AGAIN, "not yet").with_details("no podCIDR");
        for result in [Ok(Attached::default()), Err(failure.clone())] {
            assert_eq!(<Result<Attached, Failure>>::from(AddReply::from(result.clone())), result);
        }
        for result in [Ok(()), Err(failure)] {
            assert_eq!(<Result<(), Failure>>::from(Reply::from(result.clone())), result);
        }
    }

    #[test]
    fn silence_is_no_success() {
        assert!(<Result<(), Failure>>::from(Reply::default()).is_err());
        assert!(<Result<Attached, Failure>>::from(AddReply::default()).is_err());
    }
}
