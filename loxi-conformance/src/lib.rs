//! loxi-conformance
