//! loxi-linux
