//! What an invocation says: environment and configuration, checked.
//!
//! Only what the plugin itself depends on is looked at. What the configuration means is the agent's to say.

use std::io::Read;

use loxi_cni_proto::{Failure, Invocation, SOCKET, code};
use serde_json::Value;

use crate::version::Version;

/// The longest configuration. The longest that is meant lists a node's attachments for GC.
pub const MAX_CONFIG: u64 = 1 << 20;

/// The longest name that the kernel gives an interface.
const MAX_IFNAME: usize = 15;

/// What of the plugin is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Give a container an interface.
    Add,
    /// Take it away.
    Del,
    /// Is it still as it was made?
    Check,
    /// Could an interface be made?
    Status,
    /// Take away what belongs to nobody.
    Gc,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc];

    /// As `CNI_COMMAND` has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }

    /// The version that brought it.
    const fn since(self) -> Version {
        match self {
            Self::Add | Self::Del | Self::Check => Version::V0_4,
            Self::Status | Self::Gc => Version::V1_1,
        }
    }

    const fn is_about_a_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Say which versions are spoken.
    Version,
    /// Ask the agent.
    Ask {
        /// What for.
        verb: Verb,
        /// Where it listens.
        socket: String,
        /// What it is handed.
        invocation: Invocation,
    },
}

/// An invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The version that the answer is to be in.
    pub version: Version,
    /// What is to be done.
    pub request: Request,
}

/// An invocation that is answered with an error at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The version that the answer is to be in.
    pub version: Version,
    /// The error.
    pub failure: Failure,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { version: Version::NEWEST, failure }
    }
}

/// Reads the configuration's text, up to [`MAX_CONFIG`].
///
/// # Errors
/// If it can't be read, is longer, or is no UTF-8.
pub fn read(stdin: impl Read) -> Result<String, Refused> {
    let mut bytes = Vec::new();
    stdin
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(code::IO, "the configuration can't be read").with_details(error))?;
    if bytes.len() as u64 > MAX_CONFIG {
        let msg = format!("the configuration is longer than {MAX_CONFIG} bytes");
        return Err(Failure::new(code::DECODE, msg).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::new(code::DECODE, "the configuration is no UTF-8").with_details(error).into()
    })
}

impl Input {
    /// The invocation of an environment and a configuration.
    ///
    /// # Errors
    /// If something that the verb needs is missing or makes no sense.
    pub fn new(env: &dyn Fn(&str) -> Option<String>, config: &str) -> Result<Self, Refused> {
        let get = |name: &str| env(name).filter(|value| !value.is_empty());
        let command = get("CNI_COMMAND").ok_or_else(|| missing("CNI_COMMAND"))?;
        if command == "VERSION" {
            // Runtimes probe with whatever they have: only the version is of interest.
            let version = version_of(&serde_json::from_str(config).unwrap_or_default());
            let version = version.unwrap_or(Version::NEWEST);
            return Ok(Self { version, request: Request::Version });
        }
        let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.text() == command) else {
            let msg = format!("CNI_COMMAND is {command:?}, which is no command");
            return Err(Failure::new(code::ENVIRONMENT, msg).into());
        };
        let parsed: Value = serde_json::from_str(config).map_err(|error| {
            Failure::new(code::DECODE, "the configuration is no JSON").with_details(error)
        })?;
        if !parsed.is_object() {
            return Err(Failure::new(code::DECODE, "the configuration is no JSON object").into());
        }
        let version = version_of(&parsed)?;
        let refused = |failure| Refused { version, failure };
        if version < verb.since() {
            let (text, since) = (version.text(), verb.since().text());
            let msg = format!("{command} came with CNI {since}, the configuration is of {text}");
            return Err(refused(Failure::new(code::VERSION, msg)));
        }
        let invocation = invocation(verb, get, config, version).map_err(refused)?;
        let socket = settings(&parsed).map_err(refused)?;
        Ok(Self { version, request: Request::Ask { verb, socket, invocation } })
    }
}

fn missing(name: &str) -> Failure {
    Failure::new(code::ENVIRONMENT, format!("{name} is missing"))
}

fn version_of(config: &Value) -> Result<Version, Failure> {
    let spoken = || Version::ALL.map(Version::text).join(", ");
    // Before there was a field for it, the version was 0.1.0.
    let text = match config.get("cniVersion") {
        None => "0.1.0",
        Some(Value::String(text)) => text,
        Some(other) => {
            let msg = format!("cniVersion is {other}, which is no text");
            return Err(Failure::new(code::DECODE, msg));
        }
    };
    Version::parse(text).ok_or_else(|| {
        Failure::new(code::VERSION, format!("CNI version {text} is not supported"))
            .with_details(format!("supported are {}", spoken()))
    })
}

fn invocation(
    verb: Verb,
    get: impl Fn(&str) -> Option<String>,
    config: &str,
    version: Version,
) -> Result<Invocation, Failure> {
    let needed = |name: &str, here: bool| match get(name) {
        None if here => Err(missing(name)),
        value => Ok(value.unwrap_or_default()),
    };
    let about = verb.is_about_a_container();
    let invocation = Invocation {
        container_id: needed("CNI_CONTAINERID", about)?,
        // A container may have lost its namespace before it is taken away.
        netns: needed("CNI_NETNS", matches!(verb, Verb::Add | Verb::Check))?,
        ifname: needed("CNI_IFNAME", about)?,
        args: get("CNI_ARGS").unwrap_or_default(),
        cni_path: needed("CNI_PATH", verb != Verb::Status)?,
        config: config.to_owned(),
        cni_version: version.text().to_owned(),
    };
    if about {
        check_name("CNI_CONTAINERID", &invocation.container_id)?;
        check_ifname(&invocation.ifname)?;
        Ok(invocation)
    } else {
        // Nobody's: what the environment says of a container is left out.
        Ok(Invocation {
            container_id: String::new(),
            netns: String::new(),
            ifname: String::new(),
            ..invocation
        })
    }
}

/// Letters, digits, `_`, `.` and `-`, the first a letter or a digit.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

fn check_name(variable: &str, value: &str) -> Result<(), Failure> {
    if is_name(value) {
        return Ok(());
    }
    Err(Failure::new(code::ENVIRONMENT, format!("{variable} is {value:?}"))
        .with_details("it has letters, digits, '_', '.' and '-', the first a letter or a digit"))
}

fn check_ifname(name: &str) -> Result<(), Failure> {
    let fine = name.len() <= MAX_IFNAME
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if fine {
        return Ok(());
    }
    Err(Failure::new(code::ENVIRONMENT, format!("CNI_IFNAME is {name:?}"))
        .with_details(format!("the kernel takes up to {MAX_IFNAME} bytes without '/', ':' and spaces")))
}

/// The socket, and that the network has a name.
fn settings(config: &Value) -> Result<String, Failure> {
    let wrong = |field: &str, value: &Value, what: &str| {
        Err(Failure::new(code::CONFIG, format!("{field} is {value}, which is no {what}")))
    };
    match config.get("name") {
        Some(Value::String(name)) if is_name(name) => {}
        None => return Err(Failure::new(code::CONFIG, "the network has no name")),
        Some(other) => return wrong("name", other, "name of a network"),
    }
    match config.get("socket") {
        None => Ok(SOCKET.to_owned()),
        Some(Value::String(path)) if path.starts_with('/') && !path.contains('\0') => Ok(path.clone()),
        Some(other) => wrong("socket", other, "absolute path"),
    }
}
