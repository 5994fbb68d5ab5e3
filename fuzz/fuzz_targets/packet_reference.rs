//! See `loxi_tests::targets::packet_reference`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    loxi_tests::targets::packet_reference(data);
});
