//! Prints the JSON Schema of a pipeline file.

fn main() {
    print!("{}", loxi_core::text::json_schema());
}
