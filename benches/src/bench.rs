//! A workload made ready on the reference.

use crate::workload::Workload;
use loxi_conformance::{Row, build};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, Local};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::{FirstChoice, Timestamp, Verdict};
use loxi_reference::Reference;
use std::sync::Arc;

/// Why a workload can't be measured.
#[derive(Debug)]
pub struct BenchError(pub String);

impl std::fmt::Display for BenchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

fn wrong(error: impl std::fmt::Display) -> BenchError {
    BenchError(error.to_string())
}

/// A dataplane with a workload on it.
pub struct Bench {
    local: Local<Reference>,
    packets: Vec<(PortName, Vec<u8>)>,
    egress: Option<PortName>,
    next: usize,
    now: Timestamp,
}

impl Bench {
    /// Configures the reference, prepares the flows and checks every measured packet once.
    ///
    /// # Errors
    /// [`BenchError`] if something can't be configured, or a packet goes astray.
    pub fn new(workload: &Workload) -> Result<Self, BenchError> {
        let now = Timestamp(1_000 * Timestamp::SECOND);
        let local = Local::new(Reference::new(), Arc::new(move || now));
        let row = Row {
            name: workload.name(),
            pipeline: Some(workload.pipeline().to_owned()),
            needs: Vec::new(),
            with: Some(loxi_core::text::parse_yaml(workload.with()).map_err(wrong)?),
            steps: Vec::new(),
        };
        let owner = Owner::new("bench").map_err(wrong)?;
        local.apply(&Transaction::replace("bench", owner, row.entities().map_err(wrong)?)).map_err(wrong)?;
        let ports: Vec<PortName> = local.pipeline().ports().map(|port| port.name.clone()).collect();
        for port in &ports {
            local.attach(port).map_err(wrong)?;
        }
        let bytes = |(port, text): (&str, String)| {
            Ok((PortName::new(port).map_err(wrong)?, build(&text).map_err(wrong)?))
        };
        let egress = workload.egress().map(PortName::new).transpose().map_err(wrong)?;
        let mut bench = Self { local, packets: Vec::new(), egress, next: 0, now };
        for i in 0..workload.flows {
            for packet in workload.prepare(i) {
                let (port, bytes) = bytes(packet)?;
                bench.receive(&port, &bytes);
            }
            bench.packets.push(bytes(workload.packet(i))?);
        }
        bench.check()?;
        Ok(bench)
    }

    fn receive(&self, port: &PortName, bytes: &[u8]) -> Verdict {
        self.local.with_backend(|reference| reference.receive(port, bytes, self.now, &mut FirstChoice))
    }

    /// Runs the next packet, as the daemon does.
    pub fn step(&mut self) -> Verdict {
        let (port, bytes) = &self.packets[self.next];
        let now = self.now;
        let verdict =
            self.local.with_backend(|reference| reference.receive(port, bytes, now, &mut FirstChoice));
        self.next += 1;
        if self.next == self.packets.len() {
            self.next = 0;
            // Flows that are made anew each round must have ended by the next.
            self.now = if self.packets.len() > 1 { self.now.plus_s(31) } else { self.now };
        }
        verdict
    }

    /// Runs every packet once and checks where it goes.
    ///
    /// # Errors
    /// [`BenchError`] naming the packet that went astray.
    pub fn check(&mut self) -> Result<(), BenchError> {
        for i in 0..self.packets.len() {
            let verdict = self.step();
            let ports: Vec<&PortName> = verdict.outputs.iter().map(|output| &output.port).collect();
            let wanted: Vec<&PortName> = self.egress.iter().collect();
            if ports != wanted {
                return Err(BenchError(format!(
                    "packet {i} left by {ports:?}, wanted {wanted:?}: {}",
                    verdict.fate
                )));
            }
        }
        Ok(())
    }

    /// The backend's name.
    #[must_use]
    pub fn backend(&self) -> String {
        self.local.with_backend(|backend| backend.capabilities().backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::workloads;

    #[test]
    fn every_workload_goes_where_it_says() {
        for workload in workloads() {
            let small = Workload { flows: workload.flows.min(200), ..workload };
            Bench::new(&small).unwrap_or_else(|error| panic!("{}: {error}", small.name())).check().unwrap();
        }
    }
}
