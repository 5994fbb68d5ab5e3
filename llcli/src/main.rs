//! llcli
fn main() {}
