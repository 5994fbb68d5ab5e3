//! The committed code is what the protocol's file says.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

use std::path::Path;

/// Generates the code anew, compares, and writes it if `LOXI_GENERATE` is set.
#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["cni.proto"], [root.join("proto")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)
        .unwrap();
    let name = "loxi.cni.v1.rs";
    let fresh = std::fs::read_to_string(folder.path().join(name)).unwrap();
    let path = root.join("src/generated").join(name);
    if std::env::var_os("LOXI_GENERATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == fresh, "run `LOXI_GENERATE=1 cargo test -p loxi-cni-proto`");
}
