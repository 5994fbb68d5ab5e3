//! Groups of rules, classes of peers.

use super::{Reader, prefix_of};
use crate::plan::{Digest, PortBits, PortPolicyRow, Row, RowKey, RulesRow};
use crate::sys::{KernelError, PEER_RULES, PEERS, POLICIES, PORT_POLICY, PORT_RULES, Table, bytes};
use loxi_ebpf_layout::policy::{GROUP_BITS, GroupPort, NO_CLASS, PEER_FIXED_BITS, PROTOCOL_BITS};

impl Reader<'_> {
    pub(super) fn policies(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        for (digest, number) in names.rules.all() {
            let value = kernel.at(POLICIES, number);
            let row = RulesRow {
                allow: value.allow.words,
                deny: value.deny.words,
                admin: value.admin,
                network_policy: value.network_policy,
                isolated: value.isolated != 0,
            };
            self.read.rows.insert(RowKey::Rules(*digest), Row::Rules(row));
        }
        for (key, value) in kernel.all(PEER_RULES)? {
            let class = if key.class == NO_CLASS { Some(None) } else { self.class(key.class).map(Some) };
            let row = names.rules.live(key.group).copied().zip(class);
            let row = row.map(|(group, class)| (RowKey::PeerRules(group, class), Row::Bits(value.words)));
            self.note(Table::PeerRules, bytes(&key), row);
        }
        for (key, value) in kernel.all(PORT_RULES)? {
            let row = self.port_rules(&key).map(|key| (key, Row::Bits(value.words)));
            self.note(Table::PortRules, bytes(&key), row);
        }
        for (key, class) in kernel.all(PEERS)? {
            let prefix = prefix_of(key.family, key.addr, key.bits.wrapping_sub(PEER_FIXED_BITS));
            let row = prefix.zip(self.class(class));
            let row = row.map(|(prefix, class)| (RowKey::Peer(prefix), Row::Class(class)));
            self.note(Table::Peers, bytes(&key), row);
        }
        for number in 1..kernel.length(PORT_POLICY) {
            let groups = kernel.at(PORT_POLICY, number).groups;
            if groups != 0 {
                let row = self.port_policy(number, groups);
                self.note(Table::PortPolicy, bytes(&number), row);
            }
        }
        Ok(())
    }

    fn class(&self, number: u32) -> Option<Digest> {
        self.names.classes.live(number).copied()
    }

    fn port_rules(&self, key: &GroupPort) -> Option<RowKey> {
        let group = *self.names.rules.live(key.group)?;
        if key.bits == GROUP_BITS {
            return Some(RowKey::PortRules(group, None, PortBits { bits: 0, port: 0 }));
        }
        let bits = u8::try_from(key.bits.checked_sub(PROTOCOL_BITS)?).ok()?;
        Some(RowKey::PortRules(
            group,
            Some(key.protocol),
            PortBits { bits, port: u16::from_be_bytes(key.port) },
        ))
    }

    fn port_policy(&self, number: u32, groups: u64) -> Option<(RowKey, Row)> {
        let group = |number: u32| {
            if number == 0 { Some(None) } else { self.names.rules.live(number).copied().map(Some) }
        };
        let row = PortPolicyRow { egress: group(groups as u32)?, ingress: group((groups >> 32) as u32)? };
        Some((RowKey::PortPolicy(self.names.ports.live(number)?.clone()), Row::PortPolicy(row)))
    }
}
