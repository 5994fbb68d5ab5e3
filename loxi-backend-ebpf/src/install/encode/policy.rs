//! Groups of rules, classes of peers. A group is named by its content, so it never changes.

use super::{Written, addr_of};
use crate::install::writer::Writer;
use crate::plan::{Bits, Digest, PortBits, PortPolicyRow, RulesRow};
use crate::sys::{PEER_RULES, PEERS, POLICIES, PORT_RULES, Table};
use loxi_core::net::{IpPrefix, PortName};
use loxi_ebpf_layout::limits::POLICY_WORDS;
use loxi_ebpf_layout::policy::{
    GROUP_BITS, Group, GroupClass, GroupPort, NO_CLASS, PEER_FIXED_BITS, PROTOCOL_BITS, PeerKey, Rules,
};

fn group(w: &mut Writer, digest: Digest) -> Written<u32> {
    w.number(|names| &mut names.rules, &digest)
}

fn class(w: &mut Writer, class: Option<Digest>) -> Written<u32> {
    match class {
        Some(digest) => w.number(|names| &mut names.classes, &digest),
        None => Ok(NO_CLASS),
    }
}

pub(super) fn put_rules(w: &mut Writer, digest: Digest, row: &RulesRow) -> Written {
    w.going.remove(&digest);
    let number = group(w, digest)?;
    let value = Group {
        allow: Rules { words: row.allow },
        deny: Rules { words: row.deny },
        admin: row.admin,
        network_policy: row.network_policy,
        isolated: row.isolated.into(),
        words: POLICY_WORDS as u32,
    };
    w.kernel.fill(POLICIES, number, &value);
    Ok(())
}

pub(super) fn delete_rules(w: &mut Writer, digest: Digest) -> Written {
    w.going.insert(digest);
    Ok(())
}

pub(super) fn put_peer_rules(w: &mut Writer, digest: Digest, of: Option<Digest>, bits: &Bits) -> Written {
    let key = GroupClass { group: group(w, digest)?, class: class(w, of)? };
    Ok(w.put(PEER_RULES, &key, &Rules { words: *bits })?)
}

pub(super) fn delete_peer_rules(w: &mut Writer, digest: Digest, of: Option<Digest>) -> Written {
    let key = GroupClass { group: group(w, digest)?, class: class(w, of)? };
    Ok(w.unset(PEER_RULES, &key)?)
}

fn port_key(w: &mut Writer, digest: Digest, protocol: Option<u8>, port: PortBits) -> Written<GroupPort> {
    let bits = if protocol.is_some() { PROTOCOL_BITS + u32::from(port.bits) } else { GROUP_BITS };
    Ok(GroupPort {
        bits,
        group: group(w, digest)?,
        protocol: protocol.unwrap_or(0),
        port: port.port.to_be_bytes(),
        reserved: 0,
    })
}

pub(super) fn put_port_rules(
    w: &mut Writer,
    digest: Digest,
    protocol: Option<u8>,
    port: PortBits,
    bits: &Bits,
) -> Written {
    let key = port_key(w, digest, protocol, port)?;
    Ok(w.put(PORT_RULES, &key, &Rules { words: *bits })?)
}

pub(super) fn delete_port_rules(
    w: &mut Writer,
    digest: Digest,
    protocol: Option<u8>,
    port: PortBits,
) -> Written {
    let key = port_key(w, digest, protocol, port)?;
    Ok(w.unset(PORT_RULES, &key)?)
}

fn peer_key(prefix: IpPrefix) -> PeerKey {
    let (family, addr) = addr_of(prefix.addr());
    PeerKey { bits: PEER_FIXED_BITS + u32::from(prefix.len()), family: family.into(), addr }
}

pub(super) fn put_peer(w: &mut Writer, prefix: IpPrefix, of: Digest) -> Written {
    let class = class(w, Some(of))?;
    Ok(w.put(PEERS, &peer_key(prefix), &class)?)
}

pub(super) fn delete_peer(w: &mut Writer, prefix: IpPrefix) -> Written {
    Ok(w.unset(PEERS, &peer_key(prefix))?)
}

/// Offset of the word that says which groups a port has.
fn groups_of(number: u32) -> usize {
    number as usize * Table::PortPolicy.sizes().1
}

pub(super) fn put_port_policy(w: &mut Writer, port: &PortName, row: &PortPolicyRow) -> Written {
    let number = w.number(|names| &mut names.ports, port)?;
    let mut groups = 0;
    for (digest, shift) in [(row.egress, 0), (row.ingress, 32)] {
        if let Some(digest) = digest {
            groups |= u64::from(group(w, digest)?) << shift;
        }
    }
    Ok(w.word(Table::PortPolicy, groups_of(number), groups)?)
}

pub(super) fn delete_port_policy(w: &mut Writer, port: &PortName) -> Written {
    match w.names.ports.number(port) {
        Some(number) => Ok(w.word(Table::PortPolicy, groups_of(number), 0)?),
        None => Ok(()),
    }
}
