//! Tasks of App Container images, which the test makes as their specification says.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::images::{available, busybox, of_image, run, stdout};
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::server::{Page, PageServer};
use tepui_e2e::{Daemon, Scheduler, Scratch, tepui};
use tepui_proto::v1::{self, TaskInfo, TaskState, image};

/// Writes the archive of an image below `dir`, as simple discovery names it; `fill` makes its root file system.
fn aci(dir: &Path, name: &str, version: &str, more: &Value, fill: impl FnOnce(&Path)) {
    let at = dir.join("unpacked");
    fs::create_dir_all(at.join("rootfs")).expect("a folder");
    fill(&at.join("rootfs"));
    let mut manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name,
        "labels": [{ "name": "version", "value": version }, { "name": "os", "value": "linux" }],
    });
    let (all, more) = (manifest.as_object_mut(), more.as_object());
    all.expect("an object")
        .extend(more.expect("an object").clone());
    fs::write(at.join("manifest"), manifest.to_string()).expect("a file");
    let arch = if cfg!(target_arch = "aarch64") {
        "aarch64"
    } else {
        "amd64"
    };
    let archive = dir.join(format!("{name}-{version}-linux-{arch}.aci"));
    fs::create_dir_all(archive.parent().expect("a folder")).expect("a folder");
    let (archive, from) = (archive.display().to_string(), at.display().to_string());
    run(
        "tar",
        &["-czf", &archive, "-C", &from, "manifest", "rootfs"],
    );
    fs::remove_dir_all(at).expect("own folder");
}

/// A task of such an image; without a command, what the image says.
fn of_appc(
    id: &str,
    name: &str,
    version: &str,
    image_id: Option<String>,
    command: Option<&str>,
) -> TaskInfo {
    let mut task = of_image(id, "", command);
    let container = task.container.as_mut().expect("set");
    container.mesos.as_mut().expect("set").image = Some(v1::Image {
        r#type: image::Type::Appc.into(),
        appc: Some(image::Appc {
            name: name.to_owned(),
            id: image_id,
            labels: Some(v1::Labels {
                labels: vec![v1::Label {
                    key: "version".to_owned(),
                    value: Some(version.to_owned()),
                }],
            }),
        }),
        ..Default::default()
    });
    task
}

/// The id of an archive: of what is in it before it was packed.
fn id_of(archive: &Path) -> String {
    let pack = format!("gzip -dc {} | sha512sum", archive.display());
    let output = Command::new("sh").args(["-c", &pack]).output().expect("sh");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha512-{}", text.split(' ').next().expect("a digest"))
}

#[test]
fn images_of_app_containers_run_with_what_they_depend_on() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let images = scratch.path().join("images");
    fs::create_dir(&images).expect("a folder");
    aci(&images, "example.com/base", "1", &json!({}), |root| {
        for part in ["bin", "etc"] {
            fs::create_dir(root.join(part)).expect("a folder");
        }
        busybox(root);
        fs::write(root.join("etc/layer"), "of the base\n").expect("a file");
        fs::write(root.join("etc/base"), "").expect("a file");
    });
    let on_base = json!([{ "imageName": "example.com/base", "labels": [{ "name": "version", "value": "1" }] }]);
    let app = json!({
        "dependencies": on_base,
        "app": {
            "exec": ["/bin/sh", "-c", "cat layer; echo $FROM $0"], "user": "0", "group": "0",
            "environment": [{ "name": "FROM", "value": "image" }], "workingDirectory": "/etc",
        },
    });
    aci(&images, "example.com/app", "2.0", &app, |root| {
        fs::create_dir(root.join("etc")).expect("a folder");
        fs::write(root.join("etc/layer"), "of the app\n").expect("a file");
    });
    let on_itself = json!({ "dependencies": [{ "imageName": "loop", "labels": [{ "name": "version", "value": "1" }] }] });
    aci(&images, "loop", "1", &on_itself, |_| {});
    // What it says of itself is not what it was found by.
    aci(&images, "other", "1", &json!({ "name": "false" }), |_| {});
    let page = |name: &str| -> (String, Page) {
        let file = fs::read(images.join(&name[1..])).expect("an archive");
        (name.to_owned(), Page::Whole("200 OK", file))
    };
    let names: Vec<String> = walk(&images)
        .iter()
        .map(|path| format!("/{path}"))
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let pages: Vec<(String, Page)> = names.iter().map(|name| page(name)).collect();
    let pages: [(&str, Page); 4] = std::array::from_fn(|number| {
        let (name, page) = &pages[number];
        (name.as_str(), page.clone())
    });
    let server = PageServer::start(pages);
    let master = Daemon::master(scratch.path(), &[]);
    let app_archive = names.iter().find(|name| name.contains("app")).expect("it");
    let id = id_of(&images.join(&app_archive[1..]));
    for (name, prefix) in [
        ("by-file", format!("{}/", images.display())),
        ("by-http", server.url("/")),
    ] {
        let flags = [
            "--isolation=filesystem/linux,docker/runtime,appc/runtime,namespaces/pid",
            "--image_providers=APPC",
            "--resources=cpus:4;mem:2048",
            &format!("--appc_simple_discovery_uri_prefix={prefix}"),
        ];
        let agent = Daemon::agent(scratch.path(), name, master.address, &flags);
        let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
        let wrong = format!("sha512-{}", "0".repeat(128));
        scheduler.launch(vec![
            of_appc("app", "example.com/app", "2.0", None, None),
            of_appc(
                "id",
                "example.com/app",
                "2.0",
                Some(id.clone()),
                Some("ls /etc/base; cat /etc/layer"),
            ),
            of_appc("wrong", "example.com/app", "2.0", Some(wrong), None),
            of_appc("none", "example.com/none", "1", None, None),
            of_appc("loop", "loop", "1", None, None),
            of_appc("other", "other", "1", None, None),
        ]);
        scheduler.wait_state("app", TaskState::TaskFinished);
        assert!(stdout(&scratch, name, "app").ends_with("of the app\nimage /bin/sh\n"));
        scheduler.wait_state("id", TaskState::TaskFinished);
        assert!(stdout(&scratch, name, "id").ends_with("/etc/base\nof the app\n"));
        for (id, words) in [
            ("wrong", "was asked for, and sha512-"),
            ("none", "/example.com/none-1-linux-"),
            ("loop", "depend on one another"),
            ("other", "it is 'false' with other labels or another name"),
        ] {
            let failed = scheduler.wait_state(id, TaskState::TaskFailed);
            assert!(
                failed.message().contains(words),
                "{id}: {}",
                failed.message()
            );
        }
        let store = scratch.path().join(name).join("modules/appc");
        let count = |dir: &str| fs::read_dir(store.join(dir)).expect("a folder").count();
        assert_eq!((count("images"), count("staging")), (2, 0));
        let at = agent.address.to_string();
        let pruned = tepui(
            master.address,
            &["agent", "images", "prune", "--agent", &at],
        );
        assert!(pruned.status.success(), "{pruned:?}");
        assert_eq!(
            (count("images"), count("layers"), count("staging")),
            (0, 0, 0)
        );
        agent.stop(Signal::SIGUSR1);
    }
    wait_clean(scratch.path());
}

/// Paths of all files below a folder, relative to it.
fn walk(dir: &Path) -> Vec<String> {
    let output = Command::new("find")
        .args([".", "-type", "f"])
        .current_dir(dir)
        .output();
    let text = String::from_utf8(output.expect("find").stdout).expect("text");
    text.lines().map(|line| line[2..].to_owned()).collect()
}
