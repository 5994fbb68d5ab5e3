//! Rows: readable files of packets and what becomes of them.

use crate::packet::{PacketError, build};
use loxi_core::capability::Feature;
use loxi_core::ir::{Entity, EntityKey};
use loxi_core::net::PortName;
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};
use loxi_core::text::{PipelineText, TextError, parse_yaml};
use std::collections::BTreeMap;

/// Every committed row file: name, text.
const FILES: &[(&str, &str)] = &[
    ("parse", include_str!("../rows/parse.yaml")),
    ("bridge", include_str!("../rows/bridge.yaml")),
    ("neighbor", include_str!("../rows/neighbor.yaml")),
    ("anti_spoof", include_str!("../rows/anti_spoof.yaml")),
    ("route", include_str!("../rows/route.yaml")),
    ("tunnel", include_str!("../rows/tunnel.yaml")),
    ("conntrack", include_str!("../rows/conntrack.yaml")),
    ("service", include_str!("../rows/service.yaml")),
    ("nat", include_str!("../rows/nat.yaml")),
    ("policy", include_str!("../rows/policy.yaml")),
    ("fragment", include_str!("../rows/fragment.yaml")),
];

/// Pipelines that rows refer to by name.
const PIPELINES: &[(&str, &str)] = &[
    ("node", include_str!("../rows/pipelines/node.yaml")),
    ("switch", include_str!("../rows/pipelines/switch.yaml")),
    ("router", include_str!("../rows/pipelines/router.yaml")),
];

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowFile {
    /// Texts that stand for others: `{name}` in packets.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What one row shows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it shows, in words; unique.
    pub name: String,
    /// A committed pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// What a dataplane must be able to do for it, beyond what its entities need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Feature>,
    /// Entities besides, or in place of, those of the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<PipelineText>,
    /// What happens, in order.
    pub steps: Vec<RowStep>,
}

/// One step: a packet with what must become of it, or a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowStep {
    /// Seconds since the row's start; none: as the step before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Entities that are put by a transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<PipelineText>,
    /// Entities that are deleted by a transaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<EntityKey>,
    /// A port that is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach: Option<PortName>,
    /// Ingress port of a packet.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// The packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<String>,
    /// Values of the free choices to be made, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choose: Vec<u64>,
    /// What must become of the packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expectation>,
}

/// What must become of a packet. What isn't given must not be: an output that
/// isn't listed fails the row.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Dropped, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DropReason>,
    /// Punted, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub punted: Option<PuntReason>,
    /// Consumed, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed: Option<ConsumedReason>,
    /// Packets that leave: port and packet. With none of the reasons above it was forwarded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<(PortName, String)>,
    /// Copies that don't leave: port and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsent: Vec<(PortName, DropReason)>,
    /// Tunnel ports by which it came in, inside another packet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<PortName>,
    /// Tunnel ports by which it leaves, inside another packet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub into: Vec<PortName>,
    /// Flows after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
}

/// Why rows can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The file.
    #[error("rows/{file}.yaml: {error}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong.
        error: TextError,
    },
    /// A pipeline.
    #[error("row `{row}`: pipeline: {error}")]
    Pipeline {
        /// The row.
        row: String,
        /// What is wrong.
        error: TextError,
    },
    /// There is no such pipeline.
    #[error("row `{row}`: there is no pipeline `{name}`")]
    NoPipeline {
        /// The row.
        row: String,
        /// The name given.
        name: String,
    },
    /// A packet.
    #[error("row `{row}`, step {step}: {error}")]
    Packet {
        /// The row.
        row: String,
        /// The step, from 1.
        step: usize,
        /// What is wrong.
        error: PacketError,
    },
    /// Two rows have one name.
    #[error("two rows are named `{0}`")]
    SameName(String),
}

/// Every committed row with the stage that its file is about.
///
/// # Errors
/// [`RowError`] for the first thing that can't be read.
pub fn rows() -> Result<Vec<(String, Row)>, RowError> {
    let mut rows = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (file, text) in FILES {
        let error = |error| RowError::File { file: (*file).to_owned(), error };
        let parsed: RowFile = parse_yaml(text).map_err(error)?;
        for mut row in parsed.rows {
            for step in &mut row.steps {
                let outs =
                    step.expect.iter_mut().flat_map(|expect| expect.out.iter_mut().map(|(_, packet)| packet));
                for packet in step.packet.iter_mut().chain(outs) {
                    for (name, value) in &parsed.vars {
                        *packet = packet.replace(&format!("{{{name}}}"), value);
                    }
                }
            }
            if !names.insert(row.name.clone()) {
                return Err(RowError::SameName(row.name));
            }
            rows.push(((*file).to_owned(), row));
        }
    }
    Ok(rows)
}

impl Row {
    /// The entities with which it starts.
    ///
    /// # Errors
    /// [`RowError::NoPipeline`], [`RowError::Pipeline`].
    pub fn entities(&self) -> Result<Vec<Entity>, RowError> {
        let error = |error| RowError::Pipeline { row: self.name.clone(), error };
        let mut entities: BTreeMap<EntityKey, Entity> = BTreeMap::new();
        if let Some(name) = &self.pipeline {
            let no = || RowError::NoPipeline { row: self.name.clone(), name: name.clone() };
            let (_, text) = PIPELINES.iter().find(|(known, _)| known == name).ok_or_else(no)?;
            for entity in loxi_core::text::from_yaml(text).map_err(error)? {
                entities.insert(entity.key(), entity);
            }
        }
        if let Some(with) = &self.with {
            for entity in with.clone().into_entities().map_err(error)? {
                entities.insert(entity.key(), entity);
            }
        }
        Ok(entities.into_values().collect())
    }

    /// The bytes of a packet of one of its steps.
    ///
    /// # Errors
    /// [`RowError::Packet`].
    pub fn bytes(&self, step: usize, packet: &str) -> Result<Vec<u8>, RowError> {
        build(packet).map_err(|error| RowError::Packet { row: self.name.clone(), step: step + 1, error })
    }
}
