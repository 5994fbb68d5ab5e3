//! loxi-core
