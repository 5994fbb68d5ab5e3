//! Asking the agent.

use std::time::Duration;

use loxi_cni_proto::{Attached, CniClient, Failure, Invocation, code};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::input::Verb;

/// How long the agent may take. Runtimes give up after minutes, and nothing that an invocation does takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(5);

/// Hands an invocation to the agent that listens at a path. What ADD has made is returned, the rest has no answer.
///
/// # Errors
/// The agent's own, and that it can't be asked.
pub fn agent(verb: Verb, socket: &str, invocation: Invocation) -> Result<Option<Attached>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(code::IO, "no event loop can be made").with_details(error))?;
    let asked =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, call(verb, socket, invocation)).await });
    asked.unwrap_or_else(|_| {
        let msg =
            format!("the agent at {socket} hasn't answered {} in {} s", verb.text(), PATIENCE.as_secs());
        Err(Failure::new(unreachable(verb), msg))
    })
}

/// The number for an agent that can't be asked. DEL is to be tried again, too: its addresses are still taken.
const fn unreachable(verb: Verb) -> u32 {
    match verb {
        Verb::Status => code::NOT_AVAILABLE,
        Verb::Add | Verb::Del | Verb::Check | Verb::Gc => code::TRY_AGAIN,
    }
}

async fn call(verb: Verb, socket: &str, invocation: Invocation) -> Result<Option<Attached>, Failure> {
    let mut client = CniClient::new(connect(verb, socket).await?);
    let refused = |status: Status| refused(verb, socket, &status);
    let reply = match verb {
        Verb::Add => {
            let reply = client.add(invocation).await.map_err(refused)?;
            return <Result<Attached, Failure>>::from(reply.into_inner()).map(Some);
        }
        Verb::Del => client.del(invocation).await,
        Verb::Check => client.check(invocation).await,
        Verb::Status => client.status(invocation).await,
        Verb::Gc => client.gc(invocation).await,
    };
    <Result<(), Failure>>::from(reply.map_err(refused)?.into_inner()).map(|()| None)
}

async fn connect(verb: Verb, socket: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("unix://{socket}")).map_err(|error| {
        Failure::new(code::CONFIG, format!("no socket can be at {socket}")).with_details(error)
    })?;
    endpoint.connect_timeout(CONNECT).connect().await.map_err(|error| {
        Failure::new(unreachable(verb), format!("the agent can't be reached at {socket}"))
            .with_details(causes(&error))
    })
}

/// An error that is none of CNI's: the agent is stopping, or is of another version.
fn refused(verb: Verb, socket: &str, status: &Status) -> Failure {
    let (number, what) = match status.code() {
        Code::Unimplemented => (code::GENERIC, "doesn't know"),
        _ => (unreachable(verb), "hasn't finished"),
    };
    let msg = format!("the agent at {socket} {what} {}", verb.text());
    Failure::new(number, msg).with_details(format!("{}: {}", status.code(), status.message()))
}

/// An error with what it comes from: the outermost only says that it is of the transport. What one repeats of the next is said
/// once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
