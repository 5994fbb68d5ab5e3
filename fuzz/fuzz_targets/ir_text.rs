//! See `loxi_tests::targets::ir_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    loxi_tests::targets::ir_text(data);
});
