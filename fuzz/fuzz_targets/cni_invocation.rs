//! See `loxi_tests::targets::cni_invocation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    loxi_tests::targets::cni_invocation(data);
});
