//! Calls on nested and standalone containers.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{start_with, surroundings, task, wait_until, welcomed};
use tepui_containerizer::{Class, Exit};
use tepui_core_agent::{Containers as _, Settings};
use tepui_http::Media;
use tepui_model::id::ContainerId;

fn call(kind: &str, id: Value, more: Value) -> String {
    let part = kind.to_lowercase();
    let mut body = json!({ "container_id": id });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    json!({ "type": kind, part: body }).to_string()
}

fn shell(text: &str) -> Value {
    json!({ "command": { "value": text } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_launched_waited_for_killed_and_removed() {
    let (dir, mut master, containers, running) = welcomed().await;
    master.runs(task("t"), true).await;
    let root = containers.only();
    let around = json!({ "value": root.value });
    let inner = json!({ "value": "inner", "parent": around });
    let alone = json!({ "value": "alone" });
    let empty = |status: u16| (status, String::new());

    // The same twice is as good as once.
    let launch = call("LAUNCH_NESTED_CONTAINER", inner.clone(), shell("exit 7"));
    assert_eq!(running.call(&launch).await, empty(200));
    assert_eq!(running.call(&launch).await, empty(202));
    let config = |id: &ContainerId| {
        let configs = containers.configs.lock().expect("no panic under it");
        configs
            .iter()
            .rfind(|c| c.id == *id)
            .expect("launched")
            .clone()
    };
    let (nested, around) = (config(&root.child("inner")), config(&root));
    assert_eq!(nested.sandbox, around.sandbox.join("containers/inner"));
    assert!(nested.checkpoint && nested.share_cgroups && nested.class == Class::Task);
    let launch = call("LAUNCH_CONTAINER", alone.clone(), shell("sleep 100"));
    assert_eq!(running.call(&launch).await, empty(200));
    let standalone = config(&ContainerId::new("alone"));
    assert_eq!(standalone.sandbox, dir.path().join("containers/alone"));
    assert_eq!(standalone.class, Class::Standalone);

    // Nested ones are shown by their own name alone, as in Mesos.
    for (nested, standalone, expected) in [
        (false, false, vec![&*root.value]),
        (true, false, vec![&*root.value, "inner"]),
        (false, true, vec![&*root.value, "alone"]),
        (true, true, vec![&*root.value, "alone", "inner"]),
    ] {
        let asked = json!({
            "type": "GET_CONTAINERS",
            "get_containers": { "show_nested": nested, "show_standalone": standalone },
        });
        let answer = running.call(&asked.to_string()).await.1;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let shown = answer["get_containers"]["containers"]
            .as_array()
            .expect("a list");
        let shown: Vec<_> = shown
            .iter()
            .map(|c| c["container_id"]["value"].as_str())
            .collect();
        assert_eq!(shown, expected.into_iter().map(Some).collect::<Vec<_>>());
    }

    let running_still = running
        .call(&call("REMOVE_CONTAINER", alone.clone(), json!({})))
        .await;
    assert_eq!(running_still.0, 500);
    let signaled = call("KILL_CONTAINER", alone.clone(), json!({ "signal": 15 }));
    assert_eq!(running.call(&signaled).await, empty(200));
    assert_eq!(running.call(&signaled).await.0, 404, "is over");
    let waited = running
        .call(&call("WAIT_CONTAINER", alone.clone(), json!({})))
        .await;
    let expected = r#"{"type":"WAIT_CONTAINER","wait_container":{"exit_status":15}}"#;
    assert_eq!(waited, (200, expected.to_owned()));
    assert!(standalone.sandbox.exists());
    let removed = running
        .call(&call("REMOVE_CONTAINER", alone.clone(), json!({})))
        .await;
    assert_eq!(removed, empty(200));
    assert!(!standalone.sandbox.exists());
    let waited = running
        .call(&call("WAIT_CONTAINER", alone, json!({})))
        .await;
    assert_eq!(waited, (404, "Container alone cannot be found".to_owned()));

    containers.end(&root.child("inner"), Exit::Status(7 << 8));
    let waited = running
        .call(&call("WAIT_NESTED_CONTAINER", inner.clone(), json!({})))
        .await;
    let expected =
        r#"{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":1792}}"#;
    assert_eq!(waited, (200, expected.to_owned()));
    for _ in 0..2 {
        let removed = running
            .call(&call("REMOVE_NESTED_CONTAINER", inner.clone(), json!({})))
            .await;
        assert_eq!(removed, empty(200), "as well when there is nothing left");
    }

    // One of an image without a command runs what the image says, in cgroups of its own if that is asked for.
    let image = json!({ "type": "DOCKER", "docker": { "name": "box" } });
    let own = json!({ "container": {
        "type": "MESOS", "mesos": { "image": image }, "linux_info": { "share_cgroups": false },
    } });
    let id = json!({ "value": "image", "parent": { "value": root.value } });
    let launch = call("LAUNCH_CONTAINER", id, own);
    assert_eq!(running.call(&launch).await, empty(200));
    assert!(!config(&root.child("image")).share_cgroups);
    let orphan = json!({ "value": "x", "parent": { "value": "none" } });
    let launch = call("LAUNCH_NESTED_CONTAINER", orphan, shell("true"));
    let (status, text) = running.call(&launch).await;
    assert_eq!(
        (status, &*text),
        (400, "Parent container none does not exist")
    );
    running.stop().await;
}

/// Texts of `slave/http.cpp` and `slave/validation.cpp`, few of which were recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_is_refused_unless_it_begins_with_a_container_that_is_there() {
    let (_dir, mut master, containers, running) = welcomed().await;
    master.runs(task("t"), true).await;
    let input =
        |more: Value| json!({ "type": "ATTACH_CONTAINER_INPUT", "attach_container_input": more });
    let record = |call: Value| {
        let call = call.to_string();
        format!("{}\n{call}", call.len())
    };
    let of = |id: Value| input(json!({ "type": "CONTAINER_ID", "container_id": id }));
    let data = json!({ "type": "DATA", "data": { "type": "STDIN", "data": "eA==" } });
    let there = json!({ "value": containers.only().value });
    let part = "Failed to validate agent::Call: ";
    let part = |text: &str| format!("{part}{text}");
    let url = format!("http://{}/api/v1", running.server.local_addr());
    let client = reqwest::Client::new();
    for (body, status, says) in [
        (
            record(of(json!({ "value": "none" }))),
            404,
            "Container none cannot be found".to_owned(),
        ),
        (
            record(of(json!({ "value": "a b" }))),
            400,
            part(
                "'attach_container_input.container_id' is invalid: 'ContainerID.value' 'a b' contains invalid characters",
            ),
        ),
        (
            record(input(json!({ "container_id": there }))),
            400,
            part("Expecting 'attach_container_input.type' to be present"),
        ),
        (
            record(input(json!({ "type": "PROCESS_IO", "process_io": data }))),
            400,
            "Expecting 'attach_container_input.type' to be CONTAINER_ID".to_owned(),
        ),
        (
            record(json!({ "type": "GET_HEALTH" })),
            415,
            "Streaming 'Content-Type' application/recordio is not supported for GET_HEALTH call"
                .to_owned(),
        ),
        (record(of(there)), 200, String::new()),
    ] {
        let sent = client
            .post(&url)
            .header("Content-Type", "application/recordio")
            .header("Message-Content-Type", "application/json")
            .body(body.clone())
            .send();
        let answer = sent.await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{body}");
        assert_eq!(answer.text().await.expect("a text"), says, "{body}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_go_in_time_where_that_is_asked_for_and_readers_get_signs_of_life() {
    let (dir, mut master, containers) = surroundings().await;
    let running = start_with(dir.path(), &master, &containers, |settings| {
        settings.gc_non_executor_container_sandboxes = true;
        settings.gc_delay = Duration::from_millis(1);
        settings.http_heartbeat_interval = Duration::from_millis(20);
    })
    .await;
    master.welcome().await;
    master.runs(task("t"), true).await;
    let root = containers.only();
    let attach = call(
        "ATTACH_CONTAINER_OUTPUT",
        json!({ "value": root.value }),
        json!({}),
    );
    let path = "/slave(1)/api/v1";
    let client = running.client.clone();
    let output = client.stream(path, Media::Json, &[], attach.into_bytes());
    let mut output = output.await.expect("a stream");
    for _ in 0..2 {
        let record = output.next().await.expect("it goes on").expect("a record");
        let said: Value = serde_json::from_slice(&record).expect("JSON");
        let sign = json!({ "type": "HEARTBEAT", "heartbeat": { "interval": { "nanoseconds": 20_000_000 } } });
        assert_eq!(said["control"], sign, "{said}");
    }

    let inner = json!({ "value": "inner", "parent": { "value": root.value } });
    let nested = call("LAUNCH_NESTED_CONTAINER", inner, shell("exit 7"));
    let alone = call(
        "LAUNCH_CONTAINER",
        json!({ "value": "alone" }),
        shell("exit 7"),
    );
    for launch in [nested, alone] {
        assert_eq!(running.call(&launch).await.0, 200);
    }
    for id in [root.child("inner"), ContainerId::new("alone")] {
        let sandbox = containers.sandbox(&id).expect("launched").path();
        assert!(sandbox.is_dir());
        containers.end(&id, Exit::Status(0));
        wait_until("its sandbox is gone", async || !sandbox.exists()).await;
    }
    assert!(containers.sandbox(&root).expect("it runs").path().is_dir());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_sandboxes_of_an_earlier_agent_go_in_time() {
    let (dir, mut master, containers) = surroundings().await;
    let change = |settings: &mut Settings| {
        settings.gc_non_executor_container_sandboxes = true;
        settings.gc_delay = Duration::from_millis(1);
    };
    let running = start_with(dir.path(), &master, &containers, change).await;
    master.welcome().await;
    let ids = ["over", "runs"].map(ContainerId::new);
    for id in &ids {
        let launch = call(
            "LAUNCH_CONTAINER",
            json!({ "value": id.value }),
            shell("exit 7"),
        );
        assert_eq!(running.call(&launch).await.0, 200);
    }
    let [over, runs] = ids.map(|id| (containers.sandbox(&id).expect("launched").path(), id));
    running.stop().await;
    // One is over and forgotten before the next agent comes, the other is not.
    containers.end(&over.1, Exit::Status(0));
    containers.forget(&over.1).expect("it is over");
    let running = start_with(dir.path(), &master, &containers, change).await;
    wait_until("the sandbox of what was over is gone", async || {
        !over.0.exists()
    })
    .await;
    assert!(runs.0.is_dir());
    containers.end(&runs.1, Exit::Status(0));
    wait_until("the sandbox of what runs is gone", async || {
        !runs.0.exists()
    })
    .await;
    running.stop().await;
}
