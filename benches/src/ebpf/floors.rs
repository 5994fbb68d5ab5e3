//! Floors: parse, one look-up, rewrite, with the flows of a path.

use super::measure::{Effort, repeated};
use super::node::Ready;
use anyhow::Result;
use loxi_backend_ebpf::measure::{Floor, Hook, Target};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::bench::{KeyV6, Value, source};
use loxi_ebpf_layout::flow::rest;
use std::net::IpAddr;

/// What a floor came to.
#[derive(Debug, Clone, Copy)]
pub struct FloorFigure {
    /// What the flow was looked up in.
    pub floor: Floor,
    /// The hook.
    pub hook: Hook,
    /// IPv6.
    pub v6: bool,
    /// Flows.
    pub flows: u32,
    /// Net ns per packet.
    pub ns: f64,
}

impl std::fmt::Display for FloorFigure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.v6 { "v6" } else { "v4" };
        let name = format!("{}/floor_{}/{family}/{}", self.hook.name(), self.floor.name(), self.flows);
        write!(f, "{name:<40} {:>7.0} net ns", self.ns)
    }
}

/// Measures every floor.
pub(super) fn floors(ready: &Ready<'_>, hook: Hook, effort: &Effort) -> Result<Vec<FloorFigure>> {
    let case = ready.case;
    let mut figures = Vec::new();
    for floor in Floor::ALL {
        fill(ready, floor)?;
        let net = repeated(ready, hook, Target::Floor(floor), effort)?;
        figures.push(FloorFigure { floor, hook, v6: case.v6, flows: case.flows, ns: net.ns });
    }
    Ok(figures)
}

fn addr(text: &str) -> Result<Addr> {
    Ok(match text.parse()? {
        IpAddr::V4(addr) => Addr::v4(addr.octets()),
        IpAddr::V6(addr) => Addr::v6(addr.octets()),
    })
}

/// Stores what the floor finds.
fn fill(ready: &Ready<'_>, floor: Floor) -> Result<()> {
    if floor == Floor::Flows {
        return Ok(());
    }
    let case = ready.case;
    let (vip, pod) =
        if case.v6 { ("fd00:10:96::1", "fd00:10:244:1::11") } else { ("10.96.0.1", "10.244.1.11") };
    let (vip, pod) = (addr(vip)?, addr(pod)?);
    let zone = ready.bench.frames()?.zone as u8;
    for i in 0..case.flows {
        let client = addr(&case.path.client(case.v6, i))?;
        let port = source(i).0.to_be();
        let key = KeyV6 { addrs: [client, vip], rest: rest::key(port, 80u16.to_be(), 6, zone) };
        let record = Value { addrs: [client, pod], ports: [port, 8080u16.to_be()], ..Value::default() };
        ready.bench.fill(floor, case.v6, &key, &record)?;
    }
    Ok(())
}
