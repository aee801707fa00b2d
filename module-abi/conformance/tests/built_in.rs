//! The suites against the libraries of the workspace, loaded as files: the built-in modules and the examples.
//!
//! `cargo xtask test` builds them first and says where they are. Without that this would test stale files, so it fails.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;
use tepui_module_conformance::{
    Subject, allocator, authorizer, container_logger, exporter, fetcher, image_store, isolator,
    leader,
};
use tepui_module_proto::isolator::ContainerConfig;
use tepui_proto::v1::{Image, image};

fn library(name: &str) -> PathBuf {
    let dirs = env::var_os("TEPUI_MODULE_DIRS");
    let dirs = dirs.expect(
        "TEPUI_MODULE_DIRS says where the module libraries are; `cargo xtask test` sets it",
    );
    let file = format!(
        "{}{name}{}",
        env::consts::DLL_PREFIX,
        env::consts::DLL_SUFFIX
    );
    let found =
        env::split_paths(&dirs).flat_map(|dir| [dir.join(&file), dir.join("examples").join(&file)]);
    let found = found.into_iter().find(|path| path.is_file());
    let found =
        found.unwrap_or_else(|| panic!("{file} is not built; `cargo xtask test` builds it"));
    found.canonicalize().unwrap()
}

/// In the daemon and in a child process.
fn both(library_name: &str, name: &str, settings: serde_json::Value, suite: impl Fn(&Subject)) {
    let file = library(library_name);
    suite(&Subject::file(&file, name, settings.clone()));
    suite(&Subject::process(&file, name, settings));
}

#[test]
fn allow_all() {
    both("tepui_authorizers", "allow-all", json!({}), |subject| {
        authorizer(subject).unwrap()
    });
}

#[test]
fn local() {
    let settings = json!({
        "permissive": false,
        "run_tasks": [{"principals": {"values": ["somebody"]}, "users": {"values": ["www"]}}],
        "register_frameworks": [{"principals": {"type": "ANY"}, "roles": {"values": ["a/%"]}}],
    });
    both("tepui_authorizers", "local", settings, |subject| {
        authorizer(subject).unwrap()
    });
}

#[test]
fn hierarchical() {
    both("tepui_allocators", "hierarchical", json!({}), |subject| {
        allocator(subject).unwrap()
    });
}

#[test]
fn round_robin() {
    both("tepui_allocators", "round-robin", json!({}), |subject| {
        allocator(subject).unwrap()
    });
}

#[test]
fn standalone() {
    both("tepui_leaders", "standalone", json!({}), |subject| {
        leader(subject).unwrap()
    });
}

#[test]
fn images() {
    if !std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        eprintln!("NOT RUN: image stores need root");
        return;
    }
    // An image of one empty layer, whose digests were computed by other means.
    let layouts = tempfile::tempdir().unwrap();
    let layout = layouts.path().join("empty");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}"#;
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:83656ea199d8d74b56ef7fe4a0bef9dd10aa412ec632f8ccdf3e0c903471c0a2","size":151},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef","size":1024}]}"#;
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(),
        "digest": "sha256:2610400cbe43690060eb8b4d0cbea3941c77c51ffee5a11b9b4683499e74f649",
    }] });
    for (name, content) in [
        (
            "oci-layout",
            br#"{ "imageLayoutVersion": "1.0.0" }"#.to_vec(),
        ),
        ("index.json", index.to_string().into_bytes()),
        (
            "blobs/sha256/5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
            vec![0; 1024],
        ),
        (
            "blobs/sha256/83656ea199d8d74b56ef7fe4a0bef9dd10aa412ec632f8ccdf3e0c903471c0a2",
            config.into(),
        ),
        (
            "blobs/sha256/2610400cbe43690060eb8b4d0cbea3941c77c51ffee5a11b9b4683499e74f649",
            manifest.into(),
        ),
    ] {
        std::fs::write(layout.join(name), content).unwrap();
    }
    let image = Image {
        r#type: image::Type::Docker.into(),
        docker: Some(image::Docker {
            name: "oci:empty".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let settings = json!({ "layouts_dir": layouts.path() });
    both("tepui_images", "oci", settings, |subject| {
        image_store(subject, Some(&image)).unwrap()
    });
    both("tepui_images", "docker", json!({}), |subject| {
        image_store(subject, None).unwrap()
    });
    appc(layouts.path());
}

/// The suite for `appc`, with an image that has an empty root file system.
fn appc(dir: &std::path::Path) {
    std::fs::create_dir(dir.join("rootfs")).unwrap();
    let manifest = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"empty"}"#;
    std::fs::write(dir.join("manifest"), manifest).unwrap();
    let arch = if cfg!(target_arch = "aarch64") {
        "aarch64"
    } else {
        "amd64"
    };
    let archive = format!("empty-latest-linux-{arch}.aci");
    let packed = std::process::Command::new("tar")
        .args(["-czf", &archive, "manifest", "rootfs"])
        .current_dir(dir)
        .status();
    assert!(packed.unwrap().success());
    let image = Image {
        r#type: image::Type::Appc.into(),
        appc: Some(image::Appc {
            name: "empty".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let settings = json!({ "appc_simple_discovery_uri_prefix": format!("{}/", dir.display()) });
    both("tepui_images", "appc", settings, |subject| {
        image_store(subject, Some(&image)).unwrap()
    });
}

#[test]
fn prometheus() {
    let settings = json!({"max_series": 100});
    both("tepui_exporters", "prometheus", settings, |subject| {
        exporter(subject).unwrap()
    });
}

#[test]
fn uri() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let known = file.path().to_str().unwrap();
    both("tepui_fetchers", "uri", json!({}), |subject| {
        fetcher(subject, Some(known)).unwrap()
    });
}

#[test]
fn loggers() {
    // The library's own folder.
    let program = library("tepui_loggers").with_file_name("tepui-logger");
    let rotating = json!({"program": program, "max_stdout_size": "64KB"});
    for (name, settings) in [
        ("sandbox", json!({})),
        ("off", json!({})),
        ("rotating", rotating),
    ] {
        both("tepui_loggers", name, settings, |subject| {
            container_logger(subject).unwrap()
        });
    }
}

/// Needs root and the cgroup hierarchies of version 1; `cargo xtask test` says so where they are missing.
#[test]
fn kernel_isolators() {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let hierarchies = ["cpu", "memory"].map(|name| PathBuf::from("/sys/fs/cgroup").join(name));
    if !root || hierarchies.iter().any(|dir| !dir.join("tasks").is_file()) {
        eprintln!("NOT RUN: the kernel isolators need root and cgroup version 1");
        return;
    }
    let cpus = tepui_proto::v1::Resource {
        name: "cpus".to_owned(),
        r#type: tepui_proto::v1::value::Type::Scalar.into(),
        scalar: Some(tepui_proto::v1::value::Scalar { value: 0.5 }),
        ..Default::default()
    };
    let config = ContainerConfig {
        resources: vec![prost::Message::encode_to_vec(&cpus)],
        ..ContainerConfig::default()
    };
    let own = format!("tepui-conformance-{}", std::process::id());
    let profiles = tempfile::tempdir().unwrap();
    let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW" }"#;
    std::fs::write(profiles.path().join("p"), profile).unwrap();
    for (name, settings) in [
        ("cgroups/cpu", json!({"cgroups_root": own})),
        ("cgroups/mem", json!({"cgroups_root": own})),
        ("cgroups/all", json!({"cgroups_root": own})),
        ("appc/runtime", json!({})),
        ("disk/du", json!({})),
        ("docker/runtime", json!({})),
        ("docker/volume", json!({})),
        ("filesystem/linux", json!({})),
        ("filesystem/posix", json!({})),
        ("linux/devices", json!({})),
        ("namespaces/ipc", json!({})),
        ("namespaces/pid", json!({})),
        ("posix/cpu", json!({})),
        ("posix/mem", json!({})),
        ("posix/rlimits", json!({})),
        (
            "linux/capabilities",
            json!({"bounding_capabilities": {"capabilities": ["KILL"]}}),
        ),
        ("environment_secret", json!({})),
        ("volume/host_path", json!({})),
        ("volume/image", json!({})),
        ("volume/secret", json!({})),
        ("volume/sandbox_path", json!({})),
        ("linux/nnp", json!({})),
        (
            "linux/seccomp",
            json!({"seccomp_config_dir": profiles.path(), "seccomp_profile_name": "p"}),
        ),
    ] {
        both("tepui_isolators", name, settings, |subject| {
            isolator(subject, &config).unwrap()
        });
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let dir = hierarchy.unwrap().path().join(&own);
        if dir.exists() {
            // Fails when a container's own was left in it.
            std::fs::remove_dir(dir).unwrap();
        }
    }
}

#[test]
fn examples() {
    let groups = json!({"admins": "ops", "groups": {"ops": ["root"], "web": ["www"]}});
    both("group_authorizer", "acme/group", groups, |subject| {
        authorizer(subject).unwrap()
    });
    both(
        "longest_wait",
        "acme/longest-wait",
        json!({"per_round": 3}),
        |subject| allocator(subject).unwrap(),
    );
    let root = tempfile::tempdir().unwrap();
    let settings = json!({"root": root.path(), "max_megabytes": 1});
    let config = ContainerConfig {
        labels: [("scratch".to_owned(), "yes".to_owned())].into(),
        ..ContainerConfig::default()
    };
    both("scratch", "acme/scratch", settings, |subject| {
        isolator(subject, &config).unwrap()
    });
    assert_eq!(
        root.path().read_dir().unwrap().count(),
        0,
        "the isolator leaves nothing behind"
    );
}

#[test]
fn an_allocator_that_offers_too_much_fails_its_suite() {
    let subject = Subject::file(library("tepui_bad_misbehaving"), "bad/greedy", json!({}));
    let error = format!("{:#}", allocator(&subject).unwrap_err());
    assert!(error.contains("more than is free"), "{error}");
}
