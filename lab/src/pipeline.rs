//! What each node's dataplane is told: the lab's network as a pipeline.
//!
//! Everything is static. Nothing is learned on the bridge, and what has no entry goes nowhere; only the neighbours
//! on the wire are asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use loxi_core::ir::{Admin, CtTimeouts, CtZone};
use loxi_core::ir::{
    AntiSpoof, Attachment, BackendState, Bridge, BridgePort, Entity, Fdb, FdbTarget, Flooding, Interface,
    InterfaceOn, LbAlgorithm, LbBackend, LbMode, LbService, LocalDelivery, Locality, Neighbor, NextHop,
    NextHopAction, OnNoBackend, Origin, OtherPorts, OuterDf, OuterDscp, OuterTtl, Owner, Pipeline,
    PolicyAction, PolicyDirection, PolicyIsolation, PolicyPeer, PolicyPorts, PolicyRule, PolicySubject,
    PolicyTier, Port, PortKind, Route, RouteTarget, Scope, ServiceScope, TrafficPolicy, Tunnel, TunnelKind,
    TunnelTermination, UdpChecksum, Unclaimed, VipAddress, VipMode, VlanMode, Vrf,
};
use loxi_core::net::{
    BackendName, BridgeName, InterfaceName, IpPrefix, IpProtocol, L4Ports, MacAddr, Mtu, NetError,
    NextHopName, PolicyName, PortName, TerminationName, TunnelName, VlanId, Vni, VrfName, ZoneName,
};
use loxi_linux::layout;

use crate::plan::{
    self, Family, NODES, POD_MTU, PODS, Plan, SERVER_PORT, SERVICE_PORT, VNI, WIDE_POD, WIRE_MTU,
};
use crate::services::SERVICES;

/// The port that a policy of the first node guards.
pub const GUARDED_POD: u8 = 3;

/// The pipeline of a node.
///
/// # Errors
/// None with the addresses and names of [`plan`]; the types' constructors check them all the same.
pub fn pipeline(plan: &Plan, node: u8) -> Result<Pipeline, NetError> {
    let owner = Owner::new("file")?;
    let mut describe = Describe { plan, node, entities: Vec::new() };
    describe.domains()?;
    describe.ports()?;
    describe.interfaces()?;
    describe.stations()?;
    describe.tunnel()?;
    describe.routes()?;
    describe.services()?;
    if node == 1 {
        describe.policies()?;
    }
    Ok(Pipeline::from_entities(&owner, describe.entities))
}

/// A description in the making.
struct Describe<'a> {
    plan: &'a Plan,
    node: u8,
    entities: Vec<Entity>,
}

fn pods_vrf() -> Result<VrfName, NetError> {
    VrfName::new("pods")
}

fn underlay_vrf() -> Result<VrfName, NetError> {
    VrfName::new("underlay")
}

fn bridge() -> Result<BridgeName, NetError> {
    BridgeName::new("br0")
}

fn zone() -> Result<ZoneName, NetError> {
    ZoneName::new("pods")
}

fn switch() -> Result<InterfaceName, NetError> {
    InterfaceName::new(layout::SWITCH)
}

fn uplink() -> Result<InterfaceName, NetError> {
    InterfaceName::new("uplink")
}

fn pod_port(pod: u8) -> Result<PortName, NetError> {
    PortName::new(format!("hs{pod}"))
}

fn mac(mac: loxi_linux::MacAddr) -> MacAddr {
    MacAddr::new(mac.0)
}

fn prefix(prefix: loxi_linux::Prefix) -> IpPrefix {
    IpPrefix::containing(prefix.addr, prefix.len)
}

fn both(address: impl Fn(Family) -> IpAddr) -> BTreeSet<IpAddr> {
    Family::ALL.map(address).into()
}

fn hosts(addresses: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpPrefix> {
    addresses.into_iter().map(IpPrefix::host).collect()
}

impl Describe<'_> {
    fn put(&mut self, entity: impl Into<Entity>) {
        self.entities.push(entity.into());
    }

    /// Zone, VRFs and bridge.
    fn domains(&mut self) -> Result<(), NetError> {
        let node = self.node;
        self.put(CtZone {
            name: zone()?,
            max_flows: 1 << 16,
            max_half_open: None,
            max_per_source: None,
            mid_stream_pickup: false,
            timeouts: CtTimeouts::default(),
            origin: Origin::default(),
        });
        let own = both(|family| plan::host(node, family)).into_iter();
        let host = |family| plan::host(node, family);
        self.put(Vrf {
            name: pods_vrf()?,
            zone: Some(zone()?),
            snat_address_v4: if let IpAddr::V4(addr) = host(Family::V4) { Some(addr) } else { None },
            snat_address_v6: if let IpAddr::V6(addr) = host(Family::V6) { Some(addr) } else { None },
            node_local: hosts(own.chain(both(|family| plan::on_wire(node, family)))),
            origin: Origin::default(),
        });
        self.put(Vrf {
            name: underlay_vrf()?,
            zone: None,
            snat_address_v4: None,
            snat_address_v6: None,
            node_local: BTreeSet::new(),
            origin: Origin::default(),
        });
        self.put(Bridge {
            name: bridge()?,
            zone: Some(zone()?),
            learning: false,
            ageing_s: 300,
            max_macs: 64,
            unknown_unicast: Flooding::Drop,
            multicast: Flooding::Drop,
            broadcast: Flooding::Drop,
            any_ethertype: false,
            proxy_neighbors: true,
            flood_tunnels: BTreeSet::new(),
            origin: Origin::default(),
        });
        Ok(())
    }

    fn ports(&mut self) -> Result<(), NetError> {
        let (plan, node) = (self.plan, self.node);
        let member = BridgePort {
            bridge: bridge()?,
            vlan: VlanMode::Access(VlanId::default()),
            learning: false,
            split_horizon: None,
        };
        let port = |name, kind, mac, mtu, attachment| -> Result<Port, NetError> {
            Ok(Port {
                name,
                kind,
                mac,
                mtu: Mtu::new(mtu)?,
                admin: Admin::Up,
                attachment,
                underlay: false,
                scope: Scope::Internal,
                anti_spoof: None,
                unclaimed: None,
                origin: Origin::default(),
            })
        };
        let at_wire = mac(plan.wire_mac(plan::Spot::Node(node)));
        let attachment = Attachment::Vrf(underlay_vrf()?);
        self.put(Port {
            underlay: true,
            scope: Scope::External,
            unclaimed: Some(Unclaimed::Punt),
            ..port(PortName::new("eth0")?, PortKind::Uplink, at_wire, WIRE_MTU, attachment)?
        });
        let bridged = || Attachment::Bridge(member.clone());
        let (name, of_host) = (PortName::new(layout::HOST)?, mac(plan.host_mac(node)));
        self.put(port(name, PortKind::Host, of_host, POD_MTU, bridged())?);
        for pod in PODS {
            let mtu = if pod == WIDE_POD { WIRE_MTU } else { POD_MTU };
            let of_pod = mac(plan.pod_mac(node, pod));
            self.put(Port {
                anti_spoof: Some(AntiSpoof {
                    addresses: hosts(both(|family| plan::pod(node, pod, family))),
                    macs: BTreeSet::new(),
                    dhcp_client: false,
                }),
                ..port(pod_port(pod)?, PortKind::Pod, of_pod, mtu, bridged())?
            });
        }
        let (name, vtep) = (PortName::new(layout::VTEP)?, mac(plan.vtep_mac(node)));
        self.put(port(name, PortKind::Tunnel, vtep, POD_MTU, Attachment::Vrf(pods_vrf()?))?);
        Ok(())
    }

    fn interfaces(&mut self) -> Result<(), NetError> {
        let (plan, node) = (self.plan, self.node);
        self.put(Interface {
            name: switch()?,
            on: InterfaceOn::Bridge { bridge: bridge()?, vlan: VlanId::default() },
            vrf: pods_vrf()?,
            mac: mac(plan.switch_mac(node)),
            addresses: both(|family| plan::switch(node, family)),
            mtu: Mtu::new(POD_MTU)?,
            local: LocalDelivery::Answer,
            origin: Origin::default(),
        });
        self.put(Interface {
            name: uplink()?,
            on: InterfaceOn::Port(PortName::new("eth0")?),
            vrf: underlay_vrf()?,
            mac: mac(plan.wire_mac(plan::Spot::Node(node))),
            addresses: both(|family| plan::on_wire(node, family)),
            mtu: Mtu::new(WIRE_MTU)?,
            local: LocalDelivery::Punt,
            origin: Origin::default(),
        });
        Ok(())
    }

    /// Who is on the bridge: MAC to port, and IP to MAC.
    fn stations(&mut self) -> Result<(), NetError> {
        let (plan, node) = (self.plan, self.node);
        let of_host = (PortName::new(layout::HOST)?, plan.host_mac(node), both(|f| plan::host(node, f)));
        let mut stations = vec![of_host];
        for pod in PODS {
            stations.push((pod_port(pod)?, plan.pod_mac(node, pod), both(|f| plan::pod(node, pod, f))));
        }
        for (port, station, addresses) in stations {
            self.put(Fdb {
                bridge: bridge()?,
                vlan: VlanId::default(),
                mac: mac(station),
                target: FdbTarget::Port(port),
                origin: Origin::default(),
            });
            for address in addresses {
                self.put(Neighbor {
                    interface: switch()?,
                    address,
                    mac: mac(station),
                    origin: Origin::default(),
                });
            }
        }
        Ok(())
    }

    /// The tunnel to each other node, and where theirs end.
    fn tunnel(&mut self) -> Result<(), NetError> {
        let (plan, node) = (self.plan, self.node);
        let vni = Vni::new(VNI)?;
        let local = plan::on_wire(node, Family::V4);
        let mut peers = Vec::new();
        for other in NODES.into_iter().filter(|other| *other != node) {
            let remote = plan::on_wire(other, Family::V4);
            peers.push(remote);
            self.put(Tunnel {
                name: tunnel_to(node, other)?,
                kind: TunnelKind::Vxlan { vni, port: 4789 },
                underlay_vrf: underlay_vrf()?,
                local,
                remote,
                port: PortName::new(layout::VTEP)?,
                inner_dst_mac: Some(mac(plan.vtep_mac(other))),
                ttl: OuterTtl::default(),
                dscp: OuterDscp::default(),
                df: OuterDf::default(),
                udp_checksum: UdpChecksum::default(),
                source_ports: L4Ports::new(49152, 65535)?,
                origin: Origin::default(),
            });
        }
        self.put(TunnelTermination {
            name: TerminationName::new("vxlan")?,
            vrf: underlay_vrf()?,
            dst: local,
            matches: TunnelKind::Vxlan { vni, port: 4789 },
            peers: hosts(peers),
            port: PortName::new(layout::VTEP)?,
            exclusive: false,
            origin: Origin::default(),
        });
        Ok(())
    }

    fn routes(&mut self) -> Result<(), NetError> {
        let node = self.node;
        let pods_link = self.direct("pods-link", switch()?, None)?;
        let wire = self.direct("wire", uplink()?, None)?;
        for family in Family::ALL {
            self.route(pods_vrf()?, prefix(plan::pod_cidr(node, family)), &pods_link);
            for other in NODES.into_iter().filter(|other| *other != node) {
                let name = NextHopName::new(format!("to-n{other}"))?;
                let action = NextHopAction::Tunnel(tunnel_to(node, other)?);
                self.put(NextHop { name: name.clone(), action, origin: Origin::default() });
                self.route(pods_vrf()?, prefix(plan::pod_cidr(other, family)), &name);
            }
            // Whatever is neither pod nor service is the host's to route.
            let gateway = plan::host(node, family);
            let host = self.direct(&format!("host-{family}"), switch()?, Some(gateway))?;
            self.route(pods_vrf()?, IpPrefix::containing(gateway, 0), &host);
            self.route(underlay_vrf()?, prefix(plan::wire(family)), &wire);
        }
        Ok(())
    }

    fn direct(
        &mut self,
        name: &str,
        interface: InterfaceName,
        gateway: Option<IpAddr>,
    ) -> Result<NextHopName, NetError> {
        let name = NextHopName::new(name)?;
        let action = NextHopAction::Direct { interface, gateway };
        self.put(NextHop { name: name.clone(), action, origin: Origin::default() });
        Ok(name)
    }

    fn route(&mut self, vrf: VrfName, prefix: IpPrefix, hop: &NextHopName) {
        let target = RouteTarget::NextHop(hop.clone());
        self.put(Route { vrf, prefix, target, origin: Origin::default() });
    }

    fn services(&mut self) -> Result<(), NetError> {
        for service in SERVICES {
            for family in Family::ALL {
                let mut backends = BTreeSet::new();
                for (node, pod) in service.endpoints.iter().copied() {
                    let name = BackendName::new(format!("n{node}-pod{pod}/{family}"))?;
                    self.put(LbBackend {
                        name: name.clone(),
                        address: plan::pod(node, pod, family),
                        port: SERVER_PORT,
                        weight: 1,
                        state: BackendState::Active,
                        locality: if node == self.node { Locality::Local } else { Locality::Remote },
                        origin: Origin::default(),
                    });
                    backends.insert(name);
                }
                let origin = Origin(format!("lab/{}", service.name));
                self.put(VipAddress {
                    vrf: pods_vrf()?,
                    address: service.address(family),
                    mode: VipMode::Exclusive { other: OtherPorts::Reject, echo: true },
                    origin: origin.clone(),
                });
                for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
                    self.put(LbService {
                        vrf: pods_vrf()?,
                        vip: service.address(family),
                        protocol,
                        ports: L4Ports::one(SERVICE_PORT),
                        scope: ServiceScope::Any,
                        backends: backends.clone(),
                        algorithm: LbAlgorithm::Random,
                        affinity: None,
                        traffic_policy: TrafficPolicy::Cluster,
                        source_ranges: BTreeSet::new(),
                        mode: LbMode::Nat,
                        on_no_backend: OnNoBackend::Reject,
                        on_no_local_backend: OnNoBackend::Reject,
                        origin: origin.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The guarded pod accepts TCP at the server's port from the first pod of its node, and nothing else.
    fn policies(&mut self) -> Result<(), NetError> {
        let node = self.node;
        let subject = PolicySubject::Ports(BTreeSet::from([pod_port(GUARDED_POD)?]));
        let origin = Origin("lab/guard".into());
        self.put(PolicyIsolation {
            policy: PolicyName::new("guard")?,
            direction: PolicyDirection::Ingress,
            subject: subject.clone(),
            origin: origin.clone(),
        });
        self.put(PolicyRule {
            direction: PolicyDirection::Ingress,
            tier: PolicyTier::NetworkPolicy,
            priority: 100,
            subject,
            peer: PolicyPeer::Prefixes {
                prefixes: hosts(both(|family| plan::pod(node, 1, family))),
                except: BTreeSet::new(),
            },
            protocol: Some(IpProtocol::TCP),
            ports: PolicyPorts::Ranges(BTreeSet::from([L4Ports::one(SERVER_PORT)])),
            action: PolicyAction::Allow,
            origin,
        });
        Ok(())
    }
}

fn tunnel_to(node: u8, other: u8) -> Result<TunnelName, NetError> {
    TunnelName::new(format!("n{node}-n{other}"))
}
