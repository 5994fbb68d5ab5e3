//! loxi-channel
