//! The CNI plugin, a thin client of the agent.
//!
//! It reads the invocation ([`input`]), asks the agent ([`ask`]), and renders the answer in the version that was asked
//! for ([`output`]). It keeps nothing, changes nothing on the machine, and prints one JSON value on standard output.
//! Nothing here panics, whatever the environment, the configuration or the agent say.

pub mod ask;
pub mod input;
pub mod output;
pub mod version;

use std::io::Read;

use input::{Input, Request};

/// What the process prints and ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output; empty: nothing.
    pub stdout: String,
    /// Whether it went well.
    pub success: bool,
}

/// One invocation, from the environment and the input to what is printed.
pub fn run(env: &dyn Fn(&str) -> Option<String>, stdin: impl Read) -> Outcome {
    let input = match input::read(stdin).and_then(|text| Input::new(env, &text)) {
        Ok(input) => input,
        Err(refused) => {
            let stdout = output::failure(refused.version, &refused.failure);
            return Outcome { stdout, success: false };
        }
    };
    let result = match &input.request {
        Request::Version => Ok(output::versions(input.version)),
        Request::Ask { verb, socket, invocation } => ask::agent(*verb, socket, invocation.clone())
            .map(|answer| answer.map(|answer| output::attached(input.version, &answer)).unwrap_or_default()),
    };
    match result {
        Ok(stdout) => Outcome { stdout, success: true },
        Err(failure) => Outcome { stdout: output::failure(input.version, &failure), success: false },
    }
}
