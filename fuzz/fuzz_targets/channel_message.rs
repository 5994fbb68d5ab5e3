//! See `loxi_tests::targets::channel_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    loxi_tests::targets::channel_message(data);
});
