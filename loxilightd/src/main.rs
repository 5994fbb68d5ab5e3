//! loxilightd
fn main() {}
