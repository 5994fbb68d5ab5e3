//! Prints the reference's capabilities as they are committed.

use loxi_core::dataplane::Backend;

fn main() {
    let text = serde_saphyr::to_string(&loxi_reference::Reference::new().capabilities());
    print!("{}", text.unwrap_or_default());
}
