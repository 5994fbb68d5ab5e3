//! Attaches ports as their devices come and go.
//!
//! Every configured port is attached as soon as its device exists, unless
//! somebody has detached it. A port whose device was taken away, or made anew
//! under the same name, is detached, and attached again when there is one. What
//! stands in the way is logged once, not at each attempt.

use crate::Engine;
use crate::keep::Keeper;
use crate::traffic::Traffic;
use loxi_core::change::Generation;
use loxi_core::dataplane::{Backend, SnapshotQuery};
use loxi_core::ir::{Entity, EntityKind, Port};
use loxi_core::net::PortName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often ports without a device are looked after.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// How often the devices of attached ports are looked for.
const CHECK: Duration = Duration::from_secs(1);

/// Keeps ports attached.
pub struct Attacher {
    engine: Arc<Engine>,
    traffic: Traffic,
    keeper: Arc<Keeper>,
    /// The generation of which `ports` are.
    seen: Option<Generation>,
    ports: Vec<Port>,
    /// What stood in the way last.
    complaints: BTreeMap<PortName, String>,
    checked: Instant,
}

impl Attacher {
    /// Looks after the ports of this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, traffic: Traffic, keeper: Arc<Keeper>) -> Self {
        Self {
            engine,
            traffic,
            keeper,
            seen: None,
            ports: Vec::new(),
            complaints: BTreeMap::new(),
            checked: Instant::now(),
        }
    }

    /// Looks once. Returns how many ports still wait for a device.
    pub fn look(&mut self) -> usize {
        self.refresh();
        if self.checked.elapsed() >= CHECK {
            self.checked = Instant::now();
            self.detach_lost();
        }
        let attached = self.engine.with_backend(|backend| backend.attached());
        let detached = self.keeper.detached();
        let mut waiting = 0;
        for port in &self.ports {
            if attached.binary_search(&port.name).is_ok() || detached.contains(&port.name) {
                continue;
            }
            match self.engine.attach(&port.name) {
                Ok(()) => {
                    self.complaints.remove(&port.name);
                    tracing::info!(port = %port.name, "attached");
                }
                Err(error) => {
                    waiting += 1;
                    let complaint = error.to_string();
                    if self.complaints.get(&port.name) != Some(&complaint) {
                        tracing::warn!(port = %port.name, %error, "not attached yet");
                        self.complaints.insert(port.name.clone(), complaint);
                    }
                }
            }
        }
        waiting
    }

    /// The configured ports, read again only when something has changed.
    fn refresh(&mut self) {
        if self.seen == Some(self.engine.generation()) {
            return;
        }
        let mut query = SnapshotQuery { kinds: [EntityKind::Port].into(), ..SnapshotQuery::default() };
        self.ports.clear();
        loop {
            let page = self.engine.snapshot(&query);
            self.ports.extend(page.entities.into_iter().filter_map(|owned| match owned.entity {
                Entity::Port(port) => Some(port),
                _ => None,
            }));
            self.seen = Some(page.generation);
            match page.next {
                Some(next) => query.skip = next,
                None => break,
            }
        }
        let ports = &self.ports;
        self.complaints.retain(|name, _| ports.iter().any(|port| port.name == *name));
    }

    fn detach_lost(&self) {
        for port in &self.ports {
            match self.traffic.is_lost(&self.engine, port) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(port = %port.name, "its device is gone");
                    if let Err(error) = self.engine.detach(&port.name) {
                        tracing::warn!(port = %port.name, %error, "detaching");
                    }
                }
                Err(error) => tracing::warn!(port = %port.name, %error, "looking for its device"),
            }
        }
    }
}
