//! Virtual addresses, services, endpoints.
//!
//! Which endpoints a service may use is decided here, once for all packets: the active ones, else the
//! draining ones, and of these what the traffic policy says.

use super::{Source, members, too_many};
use crate::plan::{BackendRow, Row, RowKey, Rows, ServiceRow, SetRef};
use loxi_core::dataplane::CompileError;
use loxi_core::ir::{
    BackendState, EntityKey, LbAlgorithm, LbBackend, LbMode, LbService, Locality, MaglevSize, OnNoBackend,
    OtherPorts, PipelineEntity, ServiceKey, ServiceScope, TrafficPolicy, VipAddress, VipKey, VipMode,
};
use loxi_core::net::{BackendName, IpProtocol, L4Ports};
use loxi_ebpf_layout::code::{Fate, drop};
use loxi_ebpf_layout::lb::{algorithm, mode, vip};
use loxi_ebpf_layout::limits::{LIST_LENGTH, TABLE_LIST_LENGTH};

pub(super) fn backend(source: &Source<'_>, name: &BackendName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<LbBackend>(name) else { return };
    let row = BackendRow {
        address: config.address,
        port: config.port,
        weight: config.weight,
        local: config.locality == Locality::Local,
        down: config.state == BackendState::Down,
    };
    rows.insert(RowKey::Backend(name.clone()), Row::Backend(row));
}

pub(super) fn vip(source: &Source<'_>, key: &VipKey, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<VipAddress>(key) else { return };
    let mut flags = match config.mode {
        VipMode::Shared => 0,
        VipMode::Exclusive { other, echo } => {
            let reject = if other == OtherPorts::Reject { vip::REJECT } else { 0 };
            vip::EXCLUSIVE | reject | if echo { vip::ECHO } else { 0 }
        }
    };
    if services_at(source, key).any(|service| service.ports.count() > 1) {
        flags |= vip::RANGES;
    }
    rows.insert(RowKey::Vip(key.clone()), Row::Flags(flags));
}

/// Services of a virtual address.
fn services_at<'a>(source: &Source<'a>, key: &VipKey) -> impl Iterator<Item = &'a LbService> {
    let lowest = ServiceKey {
        vrf: key.vrf.clone(),
        vip: key.address,
        protocol: IpProtocol(0),
        ports: L4Ports::one(0),
        scope: ServiceScope::Any,
    };
    let here = (key.vrf.clone(), key.address);
    LbService::table(source.pipeline)
        .range(lowest..)
        .map(|(_, owned)| &owned.entity)
        .take_while(move |service| (&service.vrf, service.vip) == (&here.0, here.1))
}

pub(super) fn service(source: &Source<'_>, key: &ServiceKey, rows: &mut Rows) -> Result<(), CompileError> {
    let Some(config) = source.pipeline.get::<LbService>(key) else { return Ok(()) };
    let all: Vec<&LbBackend> =
        config.backends.iter().filter_map(|name| source.pipeline.get::<LbBackend>(name)).collect();
    let eligible = eligible(config, &all).and_then(|eligible| usable(config, eligible));
    let list: Vec<_> = match &eligible {
        Ok(eligible) => eligible.iter().map(|b| (b.name.clone(), b.address, b.port, b.weight)).collect(),
        Err(_) => Vec::new(),
    };
    fits(key, &list, table_of(config).is_some())?;
    let idle = {
        let used = eligible.as_deref().unwrap_or_default();
        let mut used = used.iter().map(|backend| &backend.name).peekable();
        config.backends.iter().filter(|name| used.next_if(|used| used == name).is_none()).cloned().collect()
    };
    let (refusal, reject) = match &eligible {
        Ok(_) => (0, false),
        Err(reason) if *reason == drop::NO_LOCAL_BACKEND => {
            (reason.get(), config.on_no_local_backend == OnNoBackend::Reject)
        }
        Err(reason) => (reason.get(), config.on_no_backend == OnNoBackend::Reject),
    };
    let row = ServiceRow {
        mode: match config.mode {
            LbMode::Nat => mode::NAT,
            LbMode::FullNat => mode::FULL_NAT,
            LbMode::DsrIpip => mode::DSR_IPIP,
            LbMode::DsrL2 => mode::DSR_L2,
        },
        algorithm: match config.algorithm {
            LbAlgorithm::Maglev { .. } => algorithm::MAGLEV,
            LbAlgorithm::SourceHash => algorithm::SOURCE_HASH,
            LbAlgorithm::RoundRobin => algorithm::ROUND_ROBIN,
            LbAlgorithm::Random => algorithm::RANDOM,
            LbAlgorithm::LeastConnections => algorithm::LEAST_CONNECTIONS,
        },
        refusal,
        reject,
        sources: !config.source_ranges.is_empty(),
        affinity_s: config.affinity.map(|affinity| affinity.timeout_s),
        table: if eligible.is_ok() { table_of(config).unwrap_or(0) } else { 0 },
        list,
        idle,
    };
    rows.insert(RowKey::Service(key.clone()), Row::Service(row));
    members(rows, &SetRef::Sources(key.clone()), &config.source_ranges);
    Ok(())
}

/// Places of the table by which an algorithm chooses.
fn table_of(service: &LbService) -> Option<u32> {
    match service.algorithm {
        LbAlgorithm::Maglev { table_size } => Some(table_size.get()),
        LbAlgorithm::SourceHash => Some(MaglevSize::default().get()),
        LbAlgorithm::RoundRobin | LbAlgorithm::Random | LbAlgorithm::LeastConnections => None,
    }
}

/// Endpoints that may be used, in name order; never none.
fn eligible<'a>(service: &LbService, all: &[&'a LbBackend]) -> Result<Vec<&'a LbBackend>, Fate> {
    let of = |state: BackendState, local: bool| -> Vec<&'a LbBackend> {
        let wanted = |b: &&&LbBackend| b.state == state && (!local || b.locality == Locality::Local);
        all.iter().filter(wanted).copied().collect()
    };
    let first = |local: bool| {
        let active = of(BackendState::Active, local);
        if active.is_empty() { of(BackendState::Draining, local) } else { active }
    };
    let anywhere = first(false);
    if anywhere.is_empty() {
        return Err(drop::NO_BACKEND);
    }
    match service.traffic_policy {
        TrafficPolicy::Cluster => Ok(anywhere),
        TrafficPolicy::Local => {
            let local = first(true);
            if local.is_empty() { Err(drop::NO_LOCAL_BACKEND) } else { Ok(local) }
        }
        TrafficPolicy::PreferLocal => {
            let local = of(BackendState::Active, true);
            Ok(if local.is_empty() { anywhere } else { local })
        }
    }
}

/// A table over endpoints without any weight has no places, so nobody is chosen.
fn usable<'a>(service: &LbService, eligible: Vec<&'a LbBackend>) -> Result<Vec<&'a LbBackend>, Fate> {
    let weighed = table_of(service).is_none() || eligible.iter().any(|backend| backend.weight > 0);
    if weighed { Ok(eligible) } else { Err(drop::NO_BACKEND) }
}

/// Whether a list can be searched, and its weights be summed up in 32 bits.
fn fits<T>(
    key: &ServiceKey,
    list: &[(BackendName, T, u16, u16)],
    by_table: bool,
) -> Result<(), CompileError> {
    let entity = || EntityKey::Service(key.clone());
    let length = list.len() as u64;
    let most = u64::from(if by_table { TABLE_LIST_LENGTH } else { LIST_LENGTH });
    if length > most {
        return Err(too_many(entity(), "backends", most, length));
    }
    let total: u64 = list.iter().map(|(.., weight)| u64::from(*weight)).sum();
    if total > u64::from(u32::MAX) {
        return Err(too_many(entity(), "backends.weight", u32::MAX.into(), total));
    }
    Ok(())
}
