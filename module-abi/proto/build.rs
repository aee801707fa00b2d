//! Compiles the payload messages without an external `protoc`, and keeps their descriptors for `abi.lock`.

use std::{env, error::Error, fs, path::PathBuf};

use prost_build::Config;

const FILES: &[&str] = &[
    "common",
    "authorizer",
    "allocator",
    "isolator",
    "leader",
    "exporter",
    "fetcher",
    "logger",
    "image_store",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files: Vec<String> = FILES
        .iter()
        .map(|name| format!("tepui/module/{name}.proto"))
        .collect();
    let set = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&set),
    )?;
    Config::new()
        .btree_map(["."])
        .include_file("_includes.rs")
        .compile_fds(set)?;
    Ok(())
}
