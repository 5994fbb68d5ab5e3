//! loxi-reference
