//! Tasks of images: of a real registry, of `docker save`, of an image layout.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;
use tepui_e2e::images::{
    Registry, available, certificate, docker, last_layer, layout, of_image, run, stdout,
};
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, tepui, wait_for};
use tepui_proto::v1::{self, TaskState};

const ISOLATION: &str = "--isolation=filesystem/linux,docker/runtime,namespaces/pid";

#[test]
fn images_run_wherever_they_come_from_and_are_pulled_once() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let images = scratch.path().join("images");
    fs::create_dir(&images).expect("a folder");
    let layout = layout(&images, "box");
    let registry = Registry::start(&scratch.path().join("registry"), "");
    registry.push(
        &layout,
        "some/box:1",
        &["--dest-tls-verify=false", "--format=v2s2"],
    );
    let config = scratch.path().join("agent.toml");
    fs::write(
        &config,
        format!(
            "[modules.oci]\nlayouts_dir = {:?}\n",
            images.display().to_string()
        ),
    )
    .expect("a file");
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER,OCI",
        &format!("--docker_registry=http://{}", registry.address),
        &format!("--config={}", config.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let look = "pwd; ls / ; cat /etc/layer; echo $FROM $BOTH $MESOS_SANDBOX; touch /etc/new $MESOS_SANDBOX/made; \
                ls /volume/etc; id -u";
    let mut shell = of_image("shell", "some/box:1", Some(look));
    let command = shell.command.as_mut().expect("set");
    command.environment = Some(v1::Environment {
        variables: vec![v1::environment::Variable {
            name: "BOTH".to_owned(),
            value: Some("task".to_owned()),
            ..Default::default()
        }],
    });
    let container = shell.container.as_mut().expect("set");
    container.volumes.push(v1::Volume {
        mode: v1::volume::Mode::Ro.into(),
        container_path: "/volume".to_owned(),
        image: Some(docker("oci:box")),
        ..Default::default()
    });
    scheduler.launch(vec![
        of_image("entry", "some/box:1", None),
        shell,
        of_image("layout", "oci:box:latest", None),
        of_image("absent", "some/other:1", None),
        of_image("named", "Not A Name", None),
    ]);
    for id in ["entry", "shell", "layout"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    assert!(stdout(&scratch, "agent", "entry").contains("top of box\n"));
    assert!(stdout(&scratch, "agent", "layout").contains("top of box\n"));
    let said = stdout(&scratch, "agent", "shell");
    let expected = "/etc\nbin\ndev\netc\nmnt\nproc\nsys\nvolume\ntop of box\nimage task /mnt/mesos/sandbox\nlayer\n0\n";
    assert!(said.contains(expected), "{said}");
    // Two tasks of one image, at the same time, pulled it once.
    assert_eq!(
        registry.answered(&format!("GET /v2/some/box/blobs/{}", last_layer(&layout))),
        1
    );
    let absent = scheduler.wait_state("absent", TaskState::TaskFailed);
    assert!(
        absent
            .message()
            .contains("Failed to pull the image 'some/other:1'"),
        "{}",
        absent.message()
    );
    assert!(absent.message().contains("404"), "{}", absent.message());
    assert_eq!(
        absent.reason(),
        v1::task_status::Reason::ContainerLaunchFailed
    );
    let named = scheduler.wait_state("named", TaskState::TaskFailed);
    assert!(
        named
            .message()
            .contains("'Not A Name' is no name of an image"),
        "{}",
        named.message()
    );

    // Images that nobody uses go when that is asked for, but those to keep.
    let layers = |module: &str| {
        let dir = scratch
            .path()
            .join("agent/modules")
            .join(module)
            .join("layers");
        fs::read_dir(&dir)
            .map(Iterator::count)
            .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
    };
    assert_eq!((layers("docker"), layers("oci")), (3, 3));
    let prune = |more: &[&str]| {
        let at = agent.address.to_string();
        let args = [&["agent", "images", "prune", "--agent", &at][..], more].concat();
        let output = tepui(master.address, &args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let said = prune(&["--keep", "some/box:1", "--dry-run"]);
    for line in [
        "would remove oci:box\n",
        "would remove oci:box:latest\n",
        "would remove 2 images: 3 layers, ",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!((layers("docker"), layers("oci")), (3, 3));
    prune(&["--keep", "some/box:1"]);
    assert_eq!((layers("docker"), layers("oci")), (3, 0));
    let said = prune(&[]);
    assert!(said.contains("removing some/box:1\n"), "{said}");
    assert_eq!((layers("docker"), layers("oci")), (0, 0));
    let store = agent.get("/flags")["flags"]["docker_store_dir"].clone();
    assert_eq!(
        store,
        scratch
            .path()
            .join("agent/modules/docker")
            .display()
            .to_string()
    );
    let pulled = &agent.get("/metrics/snapshot")["containerizer/mesos/provisioner/docker_store/image_pull_ms"];
    assert!(pulled.as_f64().is_some_and(|took| took > 0.0), "{pulled}");
    agent.stop(Signal::SIGUSR1);
    drop(registry);
    wait_clean(scratch.path());
}

#[test]
fn private_registries_want_credentials_and_have_certificates() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let layout = layout(scratch.path(), "box");
    let (certificate, key) = certificate(scratch.path(), "registry");
    let password = std::process::Command::new("htpasswd")
        .args(["-Bbn", "me", "pass-phrase"])
        .output();
    let password = password
        .expect("htpasswd, of Debian's apache2-utils")
        .stdout;
    fs::write(at("htpasswd"), password).expect("a file");
    let more = format!(
        "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: here, path: {}}}}}",
        certificate.display(),
        key.display(),
        at("htpasswd")
    );
    let registry = Registry::start(&scratch.path().join("registry"), &more);
    registry.push(
        &layout,
        "mine/box:1",
        &["--dest-tls-verify=false", "--dest-creds=me:pass-phrase"],
    );
    let saved = scratch.path().join("saved");
    fs::create_dir(&saved).expect("a folder");
    let archive = format!("docker-archive:{}:box:1", saved.join("box:1.tar").display());
    let layout = format!("oci:{}:latest", layout.display());
    run(
        "skopeo",
        &[
            "copy",
            "--quiet",
            &layout,
            &archive.replace("box:1.tar", "box.tar"),
        ],
    );
    let config = scratch.path().join("agent.toml");
    fs::write(
        &config,
        format!("[modules.docker]\ncertificates = {certificate:?}\n"),
    )
    .expect("a file");
    // Names without a registry are archives of `docker save`; the copying back end this time.
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        "--image_provisioner_backend=copy",
        &format!("--docker_registry={}", saved.display()),
        &format!("--config={}", config.display()),
    ];
    let credentials = |password: &str| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let auth = STANDARD.encode(format!("me:{password}"));
        json!({ "auths": { registry.address.as_str(): { "auth": auth } } }).to_string()
    };
    let name = format!("{}/mine/box:1", registry.address);
    let with = |id: &str, config: Option<String>| {
        let mut task = of_image(id, &name, None);
        let mesos = task
            .container
            .as_mut()
            .and_then(|container| container.mesos.as_mut());
        let image = mesos.and_then(|mesos| mesos.image.as_mut()).expect("set");
        image.cached = Some(false);
        image.docker.as_mut().expect("set").config = config.map(|text| v1::Secret {
            r#type: Some(v1::secret::Type::Value.into()),
            value: Some(v1::secret::Value {
                data: text.into_bytes().into(),
            }),
            reference: None,
        });
        task
    };
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    scheduler.launch(vec![
        of_image("saved", "box:1", Some("ls /; cat /etc/layer")),
        with("nobody", None),
        with("wrong", Some(credentials("guess"))),
        with("right", Some(credentials("pass-phrase"))),
    ]);
    for id in ["saved", "right"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
        assert!(stdout(&scratch, "agent", id).contains("top of box\n"));
    }
    assert!(!stdout(&scratch, "agent", "saved").contains("gone"));
    for id in ["nobody", "wrong"] {
        let failed = scheduler.wait_state(id, TaskState::TaskFailed);
        assert!(
            failed.message().contains("401 Unauthorized"),
            "{}",
            failed.message()
        );
    }
    agent.stop(Signal::SIGUSR1);
    // The agent's own credentials serve everybody.
    let own = format!("--docker_config={}", credentials("pass-phrase"));
    let collection = json!({
        "image_disk_headroom": 1.0, "image_disk_watch_interval": { "nanoseconds": 100_000_000 },
    });
    let collection = format!("--image_gc_config={collection}");
    let agent = Daemon::agent(
        scratch.path(),
        "other",
        master.address,
        &[&flags[..], &[&own, &collection]].concat(),
    );
    let offer = loop {
        // Those of the first agent came before it left.
        let offer = scheduler.offer();
        if offer.agent_id.value.ends_with("S1") {
            break offer;
        }
    };
    let mut own = with("own", None);
    own.agent_id = offer.agent_id.clone();
    scheduler.accept(&offer, vec![own]);
    scheduler.wait_state("own", TaskState::TaskFinished);
    // This agent is told that the disk is never free enough, so the image goes once nobody uses it.
    let layers = scratch.path().join("other/modules/docker/layers");
    wait_for("the removal of the image", || {
        let left = fs::read_dir(&layers)
            .map_err(|error| error.to_string())?
            .count();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} layers"))
        }
    });
    assert!(!agent.log().contains("pass-phrase"), "{}", agent.log());
    agent.stop(Signal::SIGUSR1);
    drop(registry);
    wait_clean(scratch.path());
}
