//! What is learned besides flows, under the core's trait.

use super::flow::accounts::{is_raced, more};
use super::flow::codec::{generation, number};
use super::flow::key::{ip, wire};
use super::flow::times::tick;
use super::store::{Store, noted};
use super::tables::{is_fixed, kept_word, lowered, station_word};
use crate::sys::{
    AFFINITY, BACKENDS, BRIDGES, ENDPOINTS, FRAGMENTS, KernelError, NEIGHBORS, PATH_MTUS, PORT_POLICY, Put,
    STATIONS, Table, bytes,
};
use loxi_core::dataplane::StateStore;
use loxi_core::ir::{FdbKey, NeighborKey, ServiceKey};
use loxi_core::net::{BackendName, BridgeName, IpProtocol, MacAddr, PortName, VlanId};
use loxi_core::packet::{
    AffinityEntry, FdbEntry, FlowTuple, FragmentEntry, FragmentKey, NeighborEntry, NeighborState,
    PathMtuEntry, Timestamp,
};
use loxi_core::reason::DropReason;
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::TICK_SHIFT;
use loxi_ebpf_layout::l2::{Link, Station, StationAt};
use loxi_ebpf_layout::l3::{self, Fragment, Neighbor, neighbor};
use loxi_ebpf_layout::lb::{Affinity, AffinityKey};
use loxi_ebpf_layout::limits::{FRAGMENTS as MOST_FRAGMENTS, LEARNED_NEIGHBORS, LEARNED_STATIONS};
use loxi_ebpf_layout::scratch::Globals;
use loxi_ebpf_layout::tunnel::{self, EndpointKey};
use std::mem::offset_of;
use std::net::IpAddr;

impl Store<'_> {
    /// Makes every decision that flows keep stale.
    pub(super) fn outdate(&self) {
        let _ = self.kernel.memory(Table::Globals).word(offset_of!(Globals, epoch)).fetch_add(1);
    }

    /// Puts a learned thing in that isn't there; whether it is new. A program may be the first.
    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<bool, KernelError> {
        match self.kernel.put(table, key, value, Put::New) {
            Ok(()) => Ok(true),
            Err(error) if is_raced(&error) => {
                self.kernel.put(table, key, value, Put::Any)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn station_key(&self, key: &FdbKey) -> Option<Station> {
        let bridge: u16 = number(&self.names.bridges, &key.bridge);
        let link = Link { id: bridge, vlan: key.vlan.get() };
        (bridge != 0).then_some(Station { link, mac: key.mac.octets(), reserved: 0 })
    }

    /// A learned station; `None`: its bridge or port has no live name.
    pub(super) fn fdb_entry(&self, key: &Station, at: &StationAt) -> Option<FdbEntry> {
        Some(FdbEntry {
            key: FdbKey {
                bridge: self.names.bridges.live(key.link.id.into())?.clone(),
                vlan: VlanId::new(key.link.vlan).ok()?,
                mac: MacAddr::new(key.mac),
            },
            port: self.names.ports.live(at.port.into())?.clone(),
            tunnel: self.names.tunnels.name(at.tunnel.into()).cloned(),
            expires: Timestamp(at.expires),
        })
    }

    /// Learns a station; one whose bridge or port isn't configured is left out.
    pub(super) fn keep_station(&mut self, entry: &FdbEntry) -> Result<(), KernelError> {
        let port = number(&self.names.ports, &entry.port);
        let Some(key) = self.station_key(&entry.key).filter(|_| port != 0) else { return Ok(()) };
        let tunnel = entry.tunnel.as_ref().map_or(0, |name| number(&self.names.tunnels, name));
        let at = StationAt { port, tunnel, fixed: 0, expires: entry.expires.0 };
        match self.kernel.look(STATIONS, &key)? {
            Some(known) if known.fixed != 0 => {}
            Some(known) => {
                self.kernel.set(STATIONS, &key, &at)?;
                if (known.port, known.tunnel) != (port, tunnel) {
                    self.outdate();
                }
            }
            None => {
                let room = kept_word(&*self.kernel, kept::STATIONS).load() < LEARNED_STATIONS.into();
                if room && self.put_new(Table::Stations, bytes(&key), bytes(&at))? {
                    more(kept_word(&*self.kernel, kept::STATIONS));
                    more(station_word(&*self.kernel, key.link.id));
                }
            }
        }
        Ok(())
    }

    fn neighbor_key(&self, key: &NeighborKey) -> Option<l3::NeighborKey> {
        let interface = number(&self.names.interfaces, &key.interface);
        let (family, addr) = wire(key.address);
        (interface != 0).then_some(l3::NeighborKey { interface, family: family.into(), addr })
    }

    /// A learned neighbour; `None`: its interface has no live name.
    pub(super) fn neighbor_entry(&self, key: &l3::NeighborKey, known: &Neighbor) -> Option<NeighborEntry> {
        Some(NeighborEntry {
            key: NeighborKey {
                interface: self.names.interfaces.live(key.interface)?.clone(),
                address: ip(u8::try_from(key.family).ok()?, key.addr),
            },
            state: match known.state {
                neighbor::INCOMPLETE => NeighborState::Incomplete,
                _ => NeighborState::Reachable(MacAddr::new(known.mac)),
            },
            asked: Timestamp(known.asked),
            expires: Timestamp(known.expires),
        })
    }

    /// Learns a neighbour; one whose interface isn't configured is left out.
    pub(super) fn keep_neighbor(&mut self, entry: &NeighborEntry) -> Result<(), KernelError> {
        let Some(key) = self.neighbor_key(&entry.key) else { return Ok(()) };
        let (state, mac) = match entry.state {
            NeighborState::Incomplete => (neighbor::INCOMPLETE, MacAddr::ZERO),
            NeighborState::Reachable(mac) => (neighbor::REACHABLE, mac),
        };
        let new = Neighbor { mac: mac.octets(), state, asked: entry.asked.0, expires: entry.expires.0 };
        match self.kernel.look(NEIGHBORS, &key)? {
            Some(known) if is_fixed(&known) => {}
            Some(known) => {
                self.kernel.set(NEIGHBORS, &key, &new)?;
                let both = known.state == neighbor::REACHABLE && state == neighbor::REACHABLE;
                if both && known.mac != new.mac {
                    self.outdate();
                }
            }
            None => {
                let room = kept_word(&*self.kernel, kept::NEIGHBORS).load() < LEARNED_NEIGHBORS.into();
                if room && self.put_new(Table::Neighbors, bytes(&key), bytes(&new))? {
                    more(kept_word(&*self.kernel, kept::NEIGHBORS));
                }
            }
        }
        Ok(())
    }

    fn affinity_key(&self, service: &ServiceKey, client: IpAddr) -> Option<AffinityKey> {
        let service = number(&self.names.services, service);
        let (family, client) = wire(client);
        (service != 0).then_some(AffinityKey { service, family: family.into(), client })
    }

    /// A client's endpoint; `None`: the service has no live name, or the endpoint none at all.
    pub(super) fn affinity_entry(&self, key: &AffinityKey, known: &Affinity) -> Option<AffinityEntry> {
        let backend = self.names.backends.name(known.backend)?.clone();
        Some(AffinityEntry {
            service: self.names.services.live(key.service)?.clone(),
            client: ip(u8::try_from(key.family).ok()?, key.client),
            backend: (backend, known.generation.into()),
            expires: Timestamp(known.expires),
        })
    }

    /// Remembers a client's endpoint; one of which there is no number is left out.
    pub(super) fn keep_affinity(&mut self, entry: &AffinityEntry) -> Result<(), KernelError> {
        let Some(key) = self.affinity_key(&entry.service, entry.client) else { return Ok(()) };
        let (name, at) = &entry.backend;
        let backend = number(&self.names.backends, name);
        if backend == 0 {
            return Ok(());
        }
        let new = Affinity { backend, generation: generation(*at), expires: entry.expires.0 };
        self.kernel.set(AFFINITY, &key, &new)
    }

    fn endpoint(&self, remote: IpAddr) -> Result<Option<u32>, KernelError> {
        let (family, addr) = wire(remote);
        let place = self.kernel.look(ENDPOINTS, &EndpointKey { family: family.into(), addr })?;
        Ok(place.filter(|place| *place != 0 && *place < self.kernel.length(PATH_MTUS)))
    }

    /// The path MTU at a place.
    pub(super) fn path_mtu_entry(&self, remote: IpAddr, place: u32) -> Option<PathMtuEntry> {
        let word = self.kernel.at(PATH_MTUS, place);
        let (mtu, until) = lowered(word);
        let expires = Timestamp(u64::from(until) << TICK_SHIFT);
        (word != 0).then_some(PathMtuEntry { remote, mtu, expires })
    }

    /// Learns a path MTU; one towards a remote without a place is left out.
    pub(super) fn keep_path_mtu(&mut self, entry: &PathMtuEntry) -> Result<(), KernelError> {
        let Some(place) = self.endpoint(entry.remote)? else { return Ok(()) };
        let before = self.path_mtu_entry(entry.remote, place);
        let word = self.kernel.memory(Table::PathMtus).word(place as usize * size_of::<u64>());
        word.store(tunnel::path_mtu(entry.mtu, tick(entry.expires)));
        if before.is_none_or(|before| before.mtu != entry.mtu) {
            self.outdate();
        }
        Ok(())
    }

    fn fragment_key(&self, key: &FragmentKey) -> Option<l3::FragmentKey> {
        let zone: u8 = number(&self.names.zones, &key.zone);
        let ((family, src), (other, dst)) = (wire(key.src), wire(key.dst));
        let known = zone != 0 && family == other;
        let (protocol, id) = (key.protocol, key.id);
        known.then_some(l3::FragmentKey { zone, family, protocol, reserved: 0, id, src, dst })
    }

    /// A fragmented packet; `None`: its zone has no live name.
    pub(super) fn fragment_entry(&self, key: &l3::FragmentKey, known: &Fragment) -> Option<FragmentEntry> {
        let [src, dst] = [key.src, key.dst].map(|addr| ip(key.family, addr));
        let first = match u16::try_from(known.reason) {
            Ok(0) => Ok(FlowTuple {
                src,
                dst,
                protocol: IpProtocol(key.protocol),
                src_port: u16::from_be(known.sport),
                dst_port: u16::from_be(known.dport),
            }),
            reason => Err(DropReason::from_number(reason.unwrap_or(u16::MAX))),
        };
        Some(FragmentEntry {
            zone: self.names.zones.live(key.zone.into())?.clone(),
            src,
            dst,
            id: key.id,
            protocol: key.protocol,
            first,
            expires: Timestamp(known.expires),
        })
    }

    /// Remembers a first fragment; one of a zone that isn't configured is left out.
    pub(super) fn keep_fragment(&mut self, entry: &FragmentEntry) -> Result<(), KernelError> {
        let Some(key) = self.fragment_key(&entry.key()) else { return Ok(()) };
        let (sport, dport, reason) = match &entry.first {
            Ok(tuple) => (tuple.src_port.to_be(), tuple.dst_port.to_be(), 0),
            Err(reason) => (0, 0, reason.number().into()),
        };
        let new = Fragment { sport, dport, reason, expires: entry.expires.0 };
        if self.put_new(Table::Fragments, bytes(&key), bytes(&new))? {
            more(kept_word(&*self.kernel, kept::FRAGMENTS));
        }
        Ok(())
    }
}

impl StateStore for Store<'_> {
    fn station(&self, key: &FdbKey) -> Option<FdbEntry> {
        let key = self.station_key(key)?;
        let known = noted(self.kernel.look(STATIONS, &key)).filter(|known| known.fixed == 0)?;
        self.fdb_entry(&key, &known)
    }

    fn put_station(&mut self, entry: FdbEntry) {
        noted(self.keep_station(&entry));
    }

    /// Learned stations of a bridge. While there is room for more, expired ones may be among them.
    fn stations(&mut self, bridge: &BridgeName, now: Timestamp) -> u64 {
        let bridge: u16 = number(&self.names.bridges, bridge);
        let most = self.kernel.at(BRIDGES, bridge.into()).current().max_stations;
        let full = station_word(&*self.kernel, bridge).load() >= most
            || kept_word(&*self.kernel, kept::STATIONS).load() >= LEARNED_STATIONS.into();
        if full && self.stations_due(now) {
            noted(self.sweep_stations(now));
        }
        station_word(&*self.kernel, bridge).load()
    }

    fn neighbor(&self, key: &NeighborKey) -> Option<NeighborEntry> {
        let key = self.neighbor_key(key)?;
        let known = noted(self.kernel.look(NEIGHBORS, &key)).filter(|known| !is_fixed(known))?;
        self.neighbor_entry(&key, &known)
    }

    fn put_neighbor(&mut self, entry: NeighborEntry) {
        noted(self.keep_neighbor(&entry));
    }

    fn affinity(&self, service: &ServiceKey, client: IpAddr) -> Option<AffinityEntry> {
        let key = self.affinity_key(service, client)?;
        self.affinity_entry(&key, &noted(self.kernel.look(AFFINITY, &key))?)
    }

    fn put_affinity(&mut self, entry: AffinityEntry) {
        noted(self.keep_affinity(&entry));
    }

    fn path_mtu(&self, remote: IpAddr) -> Option<PathMtuEntry> {
        self.path_mtu_entry(remote, noted(self.endpoint(remote))?)
    }

    fn put_path_mtu(&mut self, entry: PathMtuEntry) {
        noted(self.keep_path_mtu(&entry));
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        let key = self.fragment_key(key)?;
        self.fragment_entry(&key, &noted(self.kernel.look(FRAGMENTS, &key))?)
    }

    fn put_fragment(&mut self, entry: FragmentEntry) {
        noted(self.keep_fragment(&entry));
    }

    /// Records of fragmented packets. While there are fewer than may be, some that tell nothing any
    /// more may be among them.
    fn fragments(&mut self, now: Timestamp) -> usize {
        let kept = |store: &Self| kept_word(&*store.kernel, kept::FRAGMENTS).load();
        if kept(self) >= MOST_FRAGMENTS.into() && self.fragments_due(now) {
            noted(self.sweep_fragments(now));
        }
        usize::try_from(kept(self)).unwrap_or(usize::MAX)
    }

    fn slot(&self, backend: &BackendName) -> u64 {
        let number: u32 = number(&self.names.backends, backend);
        if number == 0 { 0 } else { self.kernel.at(BACKENDS, number).current().generation.into() }
    }

    fn turn(&mut self, service: &ServiceKey) -> u64 {
        let number: u32 = number(&self.names.services, service);
        if number == 0 {
            return 0;
        }
        self.kernel.memory(Table::Turns).word(number as usize * size_of::<u64>()).fetch_add(1)
    }

    /// The generation of a port's policies, as far as flows remember it: its low 32 bits.
    fn policy_generation(&self, port: &PortName) -> u64 {
        let number: u32 = number(&self.names.ports, port);
        let whole = if number == 0 { 0 } else { self.kernel.at(PORT_POLICY, number).generation };
        generation(whole).into()
    }
}
