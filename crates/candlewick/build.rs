//! `cfg(metal)`: whether Metal is there, Apple's or the emulator's. `cfg(cuda)`: whether NVIDIA's driver exists for the system.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(metal)");
    println!("cargo::rustc-check-cfg=cfg(cuda)");
    println!("cargo::rerun-if-changed=build.rs");
    let set = |name: &str| std::env::var_os(name);
    if set("CARGO_CFG_TARGET_VENDOR").is_some_and(|vendor| vendor == "apple") || set("CARGO_FEATURE_EMULATED").is_some()
    {
        println!("cargo::rustc-cfg=metal");
    }
    if set("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "linux" || os == "windows") {
        println!("cargo::rustc-cfg=cuda");
    }
}
