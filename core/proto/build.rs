//! Compiles the protocol files without an external `protoc`.

use std::path::PathBuf;

const FILES: &[&str] = &[
    "mesos/v1/mesos.proto",
    "mesos/v1/allocator.proto",
    "mesos/v1/maintenance.proto",
    "mesos/v1/quota.proto",
    "mesos/v1/scheduler.proto",
    "mesos/v1/executor.proto",
    "mesos/v1/agent.proto",
    "mesos/v1/master.proto",
    "mesos/v1/resource_provider.proto",
    "tepui/link.proto",
    "tepui/disk.proto",
];

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let root = PathBuf::from("proto");
    let set = protox::compile(FILES, [&root])?;
    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        .include_file("_includes.rs")
        .enable_type_names();
    config.compile_fds(set)?;
    Ok(())
}
