//! `get`: what is configured and learned.

use crate::args::{Get, Output};
use crate::failure::Failure;
use crate::{columns, show, time};
use loxi_core::dataplane::{Dataplane, SnapshotPage, SnapshotQuery};
use loxi_core::ir::{Entity, EntityKind, Owned, Owner, Pipeline};
use loxi_core::packet::NeighborState;
use loxi_core::text;
use serde_json::{Map, Value, json};

/// How often a snapshot is begun again because it changed meanwhile.
const ATTEMPTS: usize = 10;

/// Every page of these kinds, of one generation, as one.
pub(crate) async fn snapshot(
    dataplane: &dyn Dataplane,
    kinds: &[EntityKind],
    owner: Option<&Owner>,
) -> Result<SnapshotPage, Failure> {
    let whole = SnapshotQuery {
        kinds: kinds.iter().copied().collect(),
        owner: owner.cloned(),
        ..SnapshotQuery::default()
    };
    'attempt: for _ in 0..ATTEMPTS {
        let mut all = dataplane.snapshot(whole.clone()).await?;
        while let Some(skip) = all.next {
            let page = dataplane.snapshot(SnapshotQuery { skip, ..whole.clone() }).await?;
            if page.generation != all.generation {
                continue 'attempt;
            }
            all.entities.extend(page.entities);
            all.next = page.next;
        }
        return Ok(all);
    }
    Err(Failure::Odd("the configuration changes too fast to be read".to_owned()))
}

/// The pipeline of a snapshot of all kinds.
pub(crate) fn pipeline(entities: Vec<Owned<Entity>>) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for Owned { owner, entity } in entities {
        pipeline.put(owner, entity);
    }
    pipeline
}

/// Runs the command.
pub(crate) async fn run(dataplane: &dyn Dataplane, get: &Get, output: Output) -> Result<(), Failure> {
    let kinds = get.kind.kinds();
    let mut page = snapshot(dataplane, &kinds, get.owner.as_ref()).await?;
    if get.owner.is_some() {
        // What is learned has no owner.
        page.learned_fdb.clear();
        page.learned_neighbors.clear();
    }
    if get.as_file {
        let pipeline = pipeline(page.entities);
        return match output {
            Output::Json => show::line(&text::to_json(&pipeline)),
            Output::Table | Output::Yaml => show::text(&text::to_yaml(&pipeline)),
        };
    }
    match output {
        Output::Table => show::text(&tables(&page, &kinds)),
        _ => show::value(&document(&page, &kinds), output),
    }
}

/// A table per kind; several have titles, and then empty ones are left out.
fn tables(page: &SnapshotPage, kinds: &[EntityKind]) -> String {
    let mut text = String::new();
    for kind in kinds {
        let mut rows: Vec<Vec<String>> = page
            .entities
            .iter()
            .filter(|owned| owned.entity.kind() == *kind)
            .map(|owned| {
                let mut row = columns::row(&owned.entity, attached(page, &owned.entity));
                row.push(owned.owner.to_string());
                row
            })
            .collect();
        rows.extend(learned(page, *kind));
        if kinds.len() > 1 {
            if rows.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("# {}\n", kind.table()));
        }
        let headings: Vec<_> = columns::headings(*kind).iter().copied().chain(["OWNER"]).collect();
        text.push_str(&show::table(&headings, rows));
    }
    text
}

fn attached(page: &SnapshotPage, entity: &Entity) -> bool {
    matches!(entity, Entity::Port(port) if page.attached.contains(&port.name))
}

/// Rows of what was learned of a kind.
fn learned(page: &SnapshotPage, kind: EntityKind) -> Vec<Vec<String>> {
    let now = time::now();
    let left = |expires: loxi_core::packet::Timestamp| time::span(expires.0.saturating_sub(now.0));
    match kind {
        EntityKind::Fdb => {
            let row = |entry: &loxi_core::packet::FdbEntry| {
                let key = &entry.key;
                let to = match &entry.tunnel {
                    Some(tunnel) => format!("port {} tunnel {tunnel}", entry.port),
                    None => format!("port {}", entry.port),
                };
                let state = format!("learned, {} left", left(entry.expires));
                vec![
                    key.bridge.to_string(),
                    key.vlan.to_string(),
                    key.mac.to_string(),
                    to,
                    state,
                    String::new(),
                ]
            };
            page.learned_fdb.iter().map(row).collect()
        }
        EntityKind::Neighbor => {
            let row = |entry: &loxi_core::packet::NeighborEntry| {
                let (mac, state) = match entry.state {
                    NeighborState::Incomplete => (String::new(), "incomplete".to_owned()),
                    NeighborState::Reachable(mac) => {
                        (mac.to_string(), format!("learned, {} left", left(entry.expires)))
                    }
                };
                let key = &entry.key;
                vec![key.interface.to_string(), key.address.to_string(), mac, state, String::new()]
            };
            page.learned_neighbors.iter().map(row).collect()
        }
        _ => Vec::new(),
    }
}

/// For programs: a list per kind; each entity as in a file, with its owner, and a
/// port with whether it is attached. What was learned says so.
fn document(page: &SnapshotPage, kinds: &[EntityKind]) -> Value {
    let mut document = Map::new();
    document.insert("generation".to_owned(), json!(page.generation));
    for kind in kinds {
        let mut list: Vec<Value> = Vec::new();
        for owned in page.entities.iter().filter(|owned| owned.entity.kind() == *kind) {
            let mut fields = fields(&owned.entity);
            fields.insert("owner".to_owned(), json!(owned.owner));
            if *kind == EntityKind::Port {
                fields.insert("attached".to_owned(), json!(attached(page, &owned.entity)));
            }
            list.push(Value::Object(fields));
        }
        match kind {
            EntityKind::Fdb => list.extend(page.learned_fdb.iter().map(|entry| {
                json!({
                    "bridge": entry.key.bridge, "vlan": entry.key.vlan, "mac": entry.key.mac,
                    "target": {"port": entry.port}, "tunnel": entry.tunnel,
                    "expires": entry.expires, "learned": true,
                })
            })),
            EntityKind::Neighbor => list.extend(page.learned_neighbors.iter().map(|entry| {
                let mac = match entry.state {
                    NeighborState::Incomplete => None,
                    NeighborState::Reachable(mac) => Some(mac),
                };
                json!({
                    "interface": entry.key.interface, "address": entry.key.address, "mac": mac,
                    "expires": entry.expires, "learned": true,
                })
            })),
            _ => {}
        }
        document.insert(kind.table().to_owned(), Value::Array(list));
    }
    Value::Object(document)
}

/// The entity's own fields, without its kind around them.
fn fields(entity: &Entity) -> Map<String, Value> {
    match serde_json::to_value(entity) {
        Ok(Value::Object(outer)) => match outer.into_iter().next() {
            Some((_, Value::Object(fields))) => fields,
            _ => Map::new(),
        },
        _ => Map::new(),
    }
}
