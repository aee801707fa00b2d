//! Registries as sites have them: with tokens, behind mirrors, with credential helpers; and pulls that are cut off.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::sys::signal::Signal;
use serde_json::json;
use tepui_e2e::images::{
    Registry, add_noise, available, last_layer, layout, of_image, one_layer, rewrite, run, stdout,
    walk,
};
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::stall::StallingProxy;
use tepui_e2e::tokens::{IDENTITY, PASSWORD, TokenServer, USER};
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{Secret, TaskInfo, TaskState, secret};

const ISOLATION: &str = "--isolation=filesystem/linux,docker/runtime,namespaces/pid";

/// A task of an image that comes with credentials.
fn with_credentials(id: &str, image: &str, config: &serde_json::Value) -> TaskInfo {
    let mut task = of_image(id, image, None);
    let container = task.container.as_mut().expect("set");
    let image = container
        .mesos
        .as_mut()
        .and_then(|mesos| mesos.image.as_mut());
    let docker = image.expect("set").docker.as_mut().expect("set");
    docker.config = Some(Secret {
        r#type: Some(secret::Type::Value.into()),
        value: Some(secret::Value {
            data: config.to_string().into_bytes().into(),
        }),
        reference: None,
    });
    task
}

/// A credential helper in `dir` that knows one registry, and notes what it was asked.
fn helper(dir: &Path, registry: &str) {
    fs::create_dir(dir).expect("a folder");
    let told = json!({ "ServerURL": registry, "Username": "<token>", "Secret": IDENTITY });
    let text = format!(
        "#!/bin/sh\nread asked\necho \"$1 $asked\" >> {}\nif [ \"$asked\" = {registry} ]; then echo '{told}'; \
         else echo credentials not found in native keychain; exit 1; fi\n",
        dir.join("asked").display()
    );
    let program = dir.join("docker-credential-tests");
    fs::write(&program, text).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("own file");
}

#[test]
fn tokens_mirrors_and_helpers_are_used_as_configured() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let tokens = TokenServer::start(scratch.path());
    let registry = Registry::start(&scratch.path().join("registry"), &tokens.config());
    let layout = layout(scratch.path(), "box");
    let credentials = format!("--dest-creds={USER}:{PASSWORD}");
    for name in ["mine/box:1", "open/box:1", "library/box:1"] {
        registry.push(&layout, name, &["--dest-tls-verify=false", &credentials]);
    }
    let at = registry.address.as_str();
    let by_name = at.replace("127.0.0.1", "localhost");
    let programs = scratch.path().join("bin");
    helper(&programs, at);
    // The registry's own mirror is down; that of Docker Hub is the registry.
    let config = scratch.path().join("agent.toml");
    let mirrors = format!(
        "mirrors = {{ {at:?} = \"http://127.0.0.1:1\", \"docker.io\" = \"http://{at}\" }}\n"
    );
    fs::write(
        &config,
        format!("[modules.docker]\n{mirrors}[modules.oci]\n{mirrors}"),
    )
    .expect("a file");
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER,OCI",
        "--resources=cpus:8;mem:4096;disk:4096",
        &format!("--docker_registry=http://{at}/"),
        &format!("--docker_config={}", json!({ "credsStore": "tests" })),
        &format!("--config={}", config.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let mut command = Daemon::agent_command(0, scratch.path(), "agent", master.address, &flags);
    let path = std::env::var("PATH").expect("a path");
    command.env("PATH", format!("{}:{path}", programs.display()));
    let agent = Daemon::run("agent", command, scratch.path());
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let password = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    scheduler.launch(vec![
        of_image("helper", "mine/box:1", None),
        of_image("oci", &format!("oci://{at}/mine/box:1"), None),
        of_image("hub", "docker.io/box:1", None),
        of_image("anybody", &format!("{by_name}/open/box:1"), None),
        with_credentials(
            "password",
            &format!("{by_name}/mine/box:1"),
            &json!({ "auths": { by_name.as_str(): { "auth": password } } }),
        ),
        of_image("nobody", &format!("{by_name}/mine/box:1"), None),
    ]);
    for id in ["helper", "oci", "hub", "anybody", "password"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
        assert!(
            stdout(&scratch, "agent", id).contains("top of box\n"),
            "{id}"
        );
    }
    let nobody = scheduler.wait_state("nobody", TaskState::TaskFailed);
    assert!(
        nobody.message().contains("401 Unauthorized"),
        "{}",
        nobody.message()
    );
    let asked = tokens.asked();
    for who in ["identity", "password", "nobody"] {
        assert!(asked.contains(&who), "{who} in {asked:?}");
    }
    let asked = fs::read_to_string(programs.join("asked")).expect("the helper's notes");
    assert!(
        asked.lines().any(|line| line == format!("get {at}")),
        "{asked}"
    );
    let log = agent.log();
    for secret in [IDENTITY, PASSWORD, password.as_str()] {
        assert!(!log.contains(secret), "{log}");
    }
    agent.stop(Signal::SIGUSR1);
    drop(registry);
    wait_clean(scratch.path());
}

/// Waits until the pull of an image is so far, and has brought so many MiB.
fn wait_progress(agent: &Daemon, layers: &str, mebibytes: f64) {
    let begins = "Pulling image 'some/box:1': ";
    wait_for(layers, || {
        let debug = agent.get("/containerizer/debug");
        let pending = debug["pending"].as_array().into_iter().flatten();
        let mut pulls = pending.filter(|call| call["operation"] == "docker::pull");
        let is_there = pulls.any(|call| {
            let progress = call["args"]["progress"].as_str().unwrap_or_default();
            let brought = progress
                .strip_prefix(begins)
                .filter(|rest| rest.ends_with(layers));
            let brought = brought.and_then(|rest| rest.split_once(' ')?.0.parse::<f64>().ok());
            brought.is_some_and(|brought| brought >= mebibytes)
        });
        if is_there { Ok(()) } else { Err(debug) }
    });
}

/// What the agent's store has in its folders `staging`, `layers` and `images`.
fn in_store(scratch: &Scratch) -> (usize, usize, usize) {
    let store = scratch.path().join("agent/modules/docker");
    let count = |dir: &str| fs::read_dir(store.join(dir)).expect("a folder").count();
    (count("staging"), count("layers"), count("images"))
}

#[test]
fn a_registry_that_is_killed_in_the_middle_of_a_pull_leaves_nothing_partial() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let of_registry = scratch.path().join("registry");
    let registry = Registry::start(&of_registry, "");
    let layout = layout(scratch.path(), "box");
    add_noise(&layout, 48 << 20);
    registry.push(&layout, "some/box:1", &["--dest-tls-verify=false"]);
    // Of the layers only the noise is longer. It does not fit what sockets hold, so the registry is not done with it.
    let proxy = StallingProxy::start(&registry.address, 4 << 20);
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        &format!("--docker_registry=http://{}", proxy.address),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let look = "cat /etc/layer; ls -l /noise";
    scheduler.launch(vec![of_image("first", "some/box:1", Some(look))]);
    wait_progress(&agent, "3 of 4 layers", 4.0);
    assert_eq!(in_store(&scratch), (1, 3, 0));
    let noise = format!("GET /v2/some/box/blobs/{}", last_layer(&layout));
    assert_eq!(registry.answered(&noise), 0);
    registry.kill();
    proxy.go_on();
    let failed = scheduler.wait_state("first", TaskState::TaskFailed);
    let said = failed.message();
    for words in [
        "Failed to pull the image 'some/box:1'",
        " broke off after ",
        &last_layer(&layout),
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    // Whole layers stay; of the other one nothing does.
    assert_eq!(in_store(&scratch), (0, 3, 0));

    // The registry is back with what it had, and the next pull breaks off just once: it goes on where it was.
    let registry = Registry::start(&of_registry, "");
    proxy.lead_to(&registry.address);
    proxy.break_off();
    scheduler.launch(vec![of_image("second", "some/box:1", Some(look))]);
    scheduler.wait_state("second", TaskState::TaskFinished);
    let said = stdout(&scratch, "agent", "second");
    assert!(said.contains("top of box\n"), "{said}");
    assert!(said.contains(&(48 << 20).to_string()), "{said}");
    assert_eq!(in_store(&scratch), (0, 4, 1));
    assert_eq!(registry.answered(&format!("{noise} HTTP/1.1\" 206")), 1);
    // Of what was there already nothing was asked for again.
    assert_eq!(
        registry.answered("GET /v2/some/box/blobs/"),
        registry.answered(&noise) + 1
    );
    agent.stop(Signal::SIGUSR1);
    drop(registry);
    wait_clean(scratch.path());
}

#[test]
fn an_agent_that_is_killed_while_it_pulls_leaves_nothing_partial() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch.path().join("registry"), "");
    let layout = layout(scratch.path(), "box");
    registry.push(&layout, "some/box:1", &["--dest-tls-verify=false"]);
    // Only busybox itself is longer.
    let proxy = StallingProxy::start(&registry.address, 100_000);
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        &format!("--docker_registry=http://{}", proxy.address),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let port = agent.address.port();
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    scheduler.launch(vec![of_image("first", "some/box:1", None)]);
    wait_progress(&agent, "2 of 3 layers", 0.1);
    assert_eq!(in_store(&scratch), (1, 2, 0));
    agent.kill();
    let agent = Daemon::agent_at(port, scratch.path(), "agent", master.address, &flags);
    // What was whole stays, what was not is gone.
    assert_eq!(in_store(&scratch), (0, 2, 0));
    scheduler.wait("the end of the first task", |scheduler| {
        let last = scheduler.updates.get("first")?.last()?.state();
        [TaskState::TaskFailed, TaskState::TaskLost]
            .contains(&last)
            .then_some(())
    });
    proxy.go_on();
    scheduler.launch(vec![of_image("second", "some/box:1", None)]);
    scheduler.wait_state("second", TaskState::TaskFinished);
    assert!(stdout(&scratch, "agent", "second").contains("top of box\n"));
    assert_eq!(in_store(&scratch), (0, 3, 1));
    agent.stop(Signal::SIGUSR1);
    drop(registry);
    wait_clean(scratch.path());
}

#[test]
fn a_bound_root_cannot_be_written_and_what_images_say_may_be_ignored() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let saved = scratch.path().join("saved");
    fs::create_dir(&saved).expect("a folder");
    for (name, layout) in [
        ("one", one_layer(scratch.path(), "one")),
        ("three", layout(scratch.path(), "three")),
    ] {
        let from = format!("oci:{}:latest", layout.display());
        let archive = saved.join(format!("{name}.tar"));
        let to = format!("docker-archive:{}:{name}:latest", archive.display());
        run("skopeo", &["copy", "--quiet", &from, &to]);
    }
    let one = saved.join("one.tar");
    rewrite(&one, &saved.join("twice.tar"), |manifest, config| {
        manifest["RepoTags"] = json!(null);
        for list in [&mut manifest["Layers"], &mut config["rootfs"]["diff_ids"]] {
            let list = list.as_array_mut().expect("a list");
            list.extend(list.clone());
        }
    });
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        "--image_provisioner_backend=bind",
        "--docker_ignore_runtime",
        &format!("--docker_registry={}", saved.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let look = "touch /new || echo cannot; touch made && echo can; echo from:$FROM; pwd";
    scheduler.launch(vec![
        of_image("one", "one", Some(look)),
        of_image("twice", "twice", Some(look)),
        of_image("three", "three", Some(look)),
    ]);
    // A layer that is there twice is one.
    for id in ["one", "twice"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
        let said = stdout(&scratch, "agent", id);
        let expected = "cannot\ncan\nfrom:\n/mnt/mesos/sandbox\n";
        assert!(said.ends_with(expected), "{said}");
    }
    let three = scheduler.wait_state("three", TaskState::TaskFailed);
    assert!(
        three
            .message()
            .contains("'bind' takes images of one layer, and this one has 3"),
        "{}",
        three.message()
    );
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

/// A `hadoop` below `home` that has the files of `dir` as `hdfs://cluster/images`, and notes what it was asked. As the
/// real one it writes to another name first. What is called `half.tar` it never brings to an end.
fn hadoop(home: &Path, dir: &Path) {
    fs::create_dir_all(home.join("bin")).expect("a folder");
    let text = format!(
        "#!/bin/sh\necho \"$3\" >> {}\n\
         [ \"$1 $2 $#\" = 'fs -copyToLocal 4' ] || exit 255\n\
         from={}/${{3#hdfs://cluster/images/}}\n\
         [ -f \"$from\" ] || {{ echo \"copyToLocal: $3: No such file or directory\" >&2; exit 1; }}\n\
         case $3 in *half.tar) head -c 5000 \"$from\" > \"$4._COPYING_\"; kill -9 $$; esac\n\
         cp \"$from\" \"$4._COPYING_\" && mv \"$4._COPYING_\" \"$4\"\n",
        home.join("asked").display(),
        dir.display()
    );
    let program = home.join("bin/hadoop");
    fs::write(&program, text).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("own file");
}

#[test]
fn archives_of_hdfs_are_brought_by_hadoop() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let (home, saved) = (scratch.path().join("hadoop"), scratch.path().join("saved"));
    hadoop(&home, &saved);
    let layout = layout(scratch.path(), "box");
    for (file, name) in [("box", "box:latest"), ("some/box:1", "some/box:1")] {
        let archive = saved.join(format!("{file}.tar"));
        fs::create_dir_all(archive.parent().expect("a folder")).expect("a folder");
        let written = scratch.path().join("written.tar");
        let to = format!("docker-archive:{}:{name}", written.display());
        let from = format!("oci:{}:latest", layout.display());
        run("skopeo", &["copy", "--quiet", &from, &to]);
        fs::rename(written, archive).expect("a file");
    }
    fs::copy(saved.join("box.tar"), saved.join("half.tar")).expect("a file");
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        "--docker_registry=hdfs://cluster/images/",
        &format!("--hadoop_home={}", home.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    scheduler.launch(vec![
        of_image("plain", "box", None),
        of_image("again", "box:latest", None),
        of_image("tagged", "some/box:1", None),
        of_image("none", "none", None),
        of_image("half", "half", None),
        of_image("digest", &format!("box@sha256:{}", "0".repeat(64)), None),
    ]);
    for id in ["plain", "again", "tagged"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
        assert!(stdout(&scratch, "agent", id).contains("top of box\n"));
    }
    let none = scheduler.wait_state("none", TaskState::TaskFailed);
    for file in ["none.tar", "none:latest.tar"] {
        let words = format!("hdfs://cluster/images/{file}: No such file or directory");
        assert!(none.message().contains(&words), "{}", none.message());
    }
    let half = scheduler.wait_state("half", TaskState::TaskFailed);
    assert!(half.message().contains("SIGKILL"), "{}", half.message());
    let digest = scheduler.wait_state("digest", TaskState::TaskFailed);
    let words = "has no manifest to compare it with";
    assert!(digest.message().contains(words), "{}", digest.message());
    // Layers are shared; of the archives nothing stays.
    assert_eq!(in_store(&scratch), (0, 3, 2));
    let asked = fs::read_to_string(home.join("asked")).expect("its notes");
    let count = |end: &str| asked.lines().filter(|line| line.ends_with(end)).count();
    assert_eq!(
        (count("/images/box.tar"), count("some/box:1.tar")),
        (1, 1),
        "{asked}"
    );
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

#[test]
fn what_an_image_says_of_how_it_is_run_may_be_absurd() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let saved = scratch.path().join("saved");
    fs::create_dir(&saved).expect("a folder");
    let layout = one_layer(scratch.path(), "box");
    let good = scratch.path().join("good.tar");
    let from = format!("oci:{}:latest", layout.display());
    let to = format!("docker-archive:{}:box:latest", good.display());
    run("skopeo", &["copy", "--quiet", &from, &to]);
    let crowd: Vec<String> = (0..100_000)
        .map(|number| format!("V{number}=value of it"))
        .collect();
    let long = format!("LONG={}", "x".repeat(4 << 20));
    let shell = json!(["/bin/sh", "-c", "echo ran"]);
    let cases = [
        (
            "crowd",
            json!({ "Env": crowd, "Cmd": shell }),
            Err("exited with status 1"),
        ),
        (
            "long",
            json!({ "Env": [long], "Cmd": shell }),
            Err("exited with status 1"),
        ),
        (
            "nul",
            json!({ "Env": ["A=a\u{0}b"], "Cmd": shell }),
            Err("NUL character"),
        ),
        (
            "nul-in-cmd",
            json!({ "Cmd": ["/bin/echo", "a\u{0}b"] }),
            Err("NUL character"),
        ),
        (
            "text",
            json!({ "Cmd": "echo ran" }),
            Err("configuration cannot be read"),
        ),
        (
            "number",
            json!({ "Env": [1], "Cmd": shell }),
            Err("configuration cannot be read"),
        ),
        ("nothing", json!({}), Err("says what to run")),
        (
            "nameless",
            json!({ "Env": ["=a", "b", ""], "Cmd": shell, "WorkingDir": "not/absolute" }),
            Ok(()),
        ),
        (
            "null",
            json!({ "Env": null, "Entrypoint": null, "Cmd": shell, "User": "nobody:9" }),
            Ok(()),
        ),
    ];
    for (name, run, _) in &cases {
        let archive = saved.join(format!("{name}.tar"));
        rewrite(&good, &archive, |manifest, config| {
            manifest["RepoTags"] = json!([format!("{name}:latest")]);
            config["config"] = run.clone();
        });
    }
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        "--resources=cpus:4;mem:2048",
        &format!("--docker_registry={}", saved.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let tasks = cases.iter().map(|(name, _, _)| of_image(name, name, None));
    scheduler.launch(tasks.collect());
    for (name, _, expected) in cases {
        match expected {
            Ok(()) => {
                scheduler.wait_state(name, TaskState::TaskFinished);
                let said = stdout(&scratch, "agent", name);
                assert!(said.ends_with("ran\n"), "{name}: {said}");
            }
            Err(words) => {
                let failed = scheduler.wait_state(name, TaskState::TaskFailed);
                assert!(
                    failed.message().contains(words),
                    "{name}: {}",
                    failed.message()
                );
            }
        }
    }
    // More than the kernel takes: the command says so, as with any that cannot be executed.
    for name in ["crowd", "long"] {
        let slaves = scratch.path().join("agent/slaves");
        let stderr = walk(&slaves, &format!("executors/{name}/runs/latest/stderr"));
        let said = fs::read_to_string(stderr).expect("its output");
        assert!(said.contains("Argument list too long"), "{name}: {said}");
    }
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}
