//! What is counted, for Prometheus. `docs/metrics.md` lists the names.
//!
//! Nothing is counted here: each scrape reads the dataplane's own counters.

mod http;

pub use http::{MetricsServer, ServeMetricsError};

use crate::Engine;
use crate::keep::Keeper;
use crate::node::Node;
use crate::traffic::Traffic;
use loxi_core::dataplane::Backend;
use loxi_core::ir::EntityKind;
use loxi_core::packet::PortCounters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Arc;

/// Name, help, and how to read a value.
type Reading<T> = (&'static str, &'static str, fn(&PortCounters) -> T);

/// What metrics are about.
pub struct Metrics {
    engine: Arc<Engine>,
    traffic: Traffic,
    keeper: Arc<Keeper>,
    instance: String,
    backend: String,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics of this daemon.
    #[must_use]
    pub fn new(engine: Arc<Engine>, traffic: Traffic, keeper: Arc<Keeper>, instance: &str) -> Self {
        let backend = engine.with_backend(|backend| backend.capabilities().backend);
        Self { engine, traffic, keeper, instance: instance.to_owned(), backend }
    }

    /// A scrape in the text format of OpenMetrics.
    ///
    /// # Errors
    /// If formatting fails, which it doesn't.
    pub fn text(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn ports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.engine.counters();
        let plain: [Reading<u64>; 5] = [
            ("loxi_port_rx_packets", "Frames received", |c| c.rx_packets),
            ("loxi_port_rx_bytes", "Bytes received, without FCS", |c| c.rx_bytes),
            ("loxi_port_tx_packets", "Frames sent", |c| c.tx_packets),
            ("loxi_port_tx_bytes", "Bytes sent, without FCS", |c| c.tx_bytes),
            ("loxi_port_forwarded_packets", "Received frames of which a copy left", |c| c.forwarded),
        ];
        for (name, help, value) in plain {
            let rows = counters.ports.iter().map(|(port, c)| ([("port", port.to_string())], value(c)));
            counter(encoder, name, help, rows)?;
        }
        let by_reason: [Reading<Vec<(String, u64)>>; 4] = [
            ("loxi_port_dropped_packets", "Received frames that were dropped", |c| named(&c.dropped)),
            ("loxi_port_consumed_packets", "Received frames that ended here", |c| named(&c.consumed)),
            ("loxi_port_punted_packets", "Received frames that were handed on", |c| named(&c.punted)),
            ("loxi_port_unsent_packets", "Copies that did not leave by this port", |c| named(&c.unsent)),
        ];
        for (name, help, values) in by_reason {
            let rows = counters.ports.iter().flat_map(|(port, c)| {
                values(c)
                    .into_iter()
                    .map(move |(reason, value)| ([("port", port.to_string()), ("reason", reason)], value))
            });
            counter(encoder, name, help, rows)?;
        }
        let zones = |value: fn(&loxi_core::packet::FlowTotals) -> u64| {
            counters.zones.iter().map(move |(zone, totals)| ([("zone", zone.to_string())], value(totals)))
        };
        gauge(encoder, "loxi_zone_flows", "Flows now", zones(|totals| totals.flows))?;
        gauge(encoder, "loxi_zone_half_open_flows", "Flows not yet established", zones(|t| t.half_open))?;
        gauge(encoder, "loxi_zone_capacity_flows", "Flows at most", zones(|totals| totals.capacity))?;
        counter(encoder, "loxi_zone_created_flows", "Flows made since the start", zones(|t| t.created))
    }

    /// What the fast path has left to the slow path. The reference has no fast path.
    fn slow_path(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counted = self.engine.with_backend(|node| match node {
            Node::Ebpf(backend) => backend.slow_path_counters().unwrap_or_else(|error| {
                tracing::warn!(%error, "reading the slow path's counters");
                BTreeMap::new()
            }),
            Node::Reference(_) => BTreeMap::new(),
        });
        let handed = counted.iter().map(|(port, c)| ([("port", port.to_string())], c.handed_on));
        let help = "Received frames that the fast path handed to the slow path";
        counter(encoder, "loxi_port_slow_path_packets", help, handed)?;
        let finished = counted.iter().flat_map(|(port, c)| {
            let rows = named(&c.finished).into_iter();
            rows.map(move |(reason, value)| ([("port", port.to_string()), ("reason", reason)], value))
        });
        let help = "Of these, frames that the slow path has finished, by why they were handed on";
        counter(encoder, "loxi_port_slow_path_finished_packets", help, finished)
    }

    fn daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let build = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("ir_version", loxi_core::IR_VERSION.to_string()),
            ("backend", self.backend.clone()),
            ("instance", self.instance.clone()),
        ];
        gauge(encoder, "loxi_build_info", "The daemon", [(build, 1)])?;
        let generation = self.engine.generation().0;
        let family = encoder.encode_descriptor(
            "loxi_generation",
            "Generation of the configuration",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(generation).unwrap_or(i64::MAX)).encode(family)?;
        let pipeline = self.engine.pipeline();
        let kinds =
            EntityKind::ALL.iter().map(|kind| ([("kind", kind.name())], pipeline.count(*kind) as u64));
        gauge(encoder, "loxi_entities", "Configured entities", kinds)?;
        let attached = self.engine.with_backend(|backend| backend.attached());
        let ports = pipeline
            .ports()
            .map(|port| ([("port", port.name.to_string())], u64::from(attached.contains(&port.name))));
        gauge(encoder, "loxi_port_attached", "Whether the port is attached", ports)?;
        let lost = self.traffic.counters().into_iter().flat_map(|(port, rx)| {
            [("overrun", rx.overruns), ("truncated", rx.truncated), ("unfinished", rx.unfinished)]
                .map(|(cause, value)| ([("port", port.clone()), ("cause", cause.to_owned())], value))
        });
        let help = "Frames lost before the pipeline saw them, since the port was attached";
        counter(encoder, "loxi_device_lost_frames", help, lost)?;
        self.slow_path(encoder)?;
        let (saves, failures) = self.keeper.counts();
        let results = [([("result", "ok")], saves), ([("result", "failed")], failures)];
        counter(encoder, "loxi_state_saves", "Writings of the state file", results)
    }
}

fn named<R: Display>(counts: &std::collections::BTreeMap<R, u64>) -> Vec<(String, u64)> {
    counts.iter().map(|(reason, value)| (reason.to_string(), *value)).collect()
}

fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        // Above i64::MAX nothing is counted.
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.daemon(&mut encoder)?;
        self.ports(&mut encoder)
    }
}
