//! Defaults of the text form that a type's own `Default` can't give.

use crate::net::L4Ports;

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn ageing_s() -> u32 {
    300
}

pub(crate) fn max_macs() -> u32 {
    4096
}

pub(crate) fn weight() -> u16 {
    1
}

pub(crate) fn vxlan_port() -> u16 {
    4789
}

pub(crate) fn ct_entries() -> u32 {
    1 << 20
}

// Constant ranges: first is below last, so the constructor can't refuse them.
pub(crate) fn entropy_ports() -> L4Ports {
    L4Ports::new(49152, 65535).unwrap_or(L4Ports::ANY)
}

pub(crate) fn nat_ports() -> L4Ports {
    L4Ports::new(1024, 65535).unwrap_or(L4Ports::ANY)
}
