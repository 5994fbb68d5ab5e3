//! Which ports are attached, and to what.

use loxi_core::net::PortName;
use std::collections::BTreeMap;

/// The device of an attached port; a port without one has zeroes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// Its index where the dataplane has it.
    pub ifindex: u32,
    /// [`loxi_ebpf_layout::l2::exit`].
    pub exit: u8,
    /// [`loxi_ebpf_layout::l2::side`].
    pub side: u8,
}

/// Every attached port.
pub type Attached = BTreeMap<PortName, Device>;
