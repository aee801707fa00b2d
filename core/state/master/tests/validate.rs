//! What is refused, and with which words: against what Mesos was recorded to say.

use serde_json::Value;
use tepui_model::Resources;
use tepui_proto::v1::scheduler::Call;
use tepui_proto::v1::{self, ExecutorInfo, TaskInfo};
use tepui_proto::{Message as _, json};
use tepui_state_master::validate;

fn message<M: tepui_proto::descriptor::Described>(value: &Value) -> M {
    json::to_message(value.to_string().as_bytes()).expect("a message")
}

fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("cases")
}

#[test]
fn tasks_are_refused_with_the_recorded_words() {
    // These need what the state knows.
    let with_state = ["too-much", "duplicate", "two-executors", "unknown-role"];
    let cases = cases(include_str!("golden/tasks.json"));
    let agents = cases
        .iter()
        .map(|case| case["task"]["agent_id"]["value"].as_str().expect("an id"));
    let agent = agents
        .clone()
        .find(|id| id.ends_with("S1"))
        .expect("the agent of the offers");
    let mut checked = 0;
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        let task: TaskInfo = message(&case["task"]);
        let said = validate::task(&task, agent).err();
        if with_state.contains(&name) {
            assert_eq!(said, None, "{name}");
        } else {
            assert_eq!(said.as_deref(), case["message"].as_str(), "{name}");
            checked += 1;
        }
    }
    assert!(checked > 14, "{checked} cases");
}

#[test]
fn an_executor_that_changed_is_shown_as_recorded() {
    let cases = cases(include_str!("golden/tasks.json"));
    let of = |name: &str| {
        let case = cases.iter().find(|case| case["name"] == name).expect(name);
        // What the state fills in: the owner, and the role of the offer.
        let mut info: ExecutorInfo = message(&case["task"]["executor"]);
        info.framework_id = Some(v1::FrameworkId {
            value: "2bb699ce-5753-4d4d-ad59-74064e38038a-0000".into(),
        });
        let all = tepui_proto::convert::resources(&info.resources).expect("resources");
        info.resources = tepui_proto::convert::to_proto(&Resources::allocate(&all, &"peer".into()));
        (info.encode_to_vec(), case["message"].clone())
    };
    let ((running, _), (wanted, expected)) = (of("zero"), of("two-executors"));
    assert_eq!(validate::incompatible_executor(&running, &wanted), expected);
}

#[test]
fn frameworks_are_refused_with_the_recorded_words() {
    let cases = cases(include_str!("golden/subscribe.json"));
    assert!(cases.len() > 15, "{} cases", cases.len());
    for case in &cases {
        let call: Call = message(&case["call"]);
        let subscribe = call.subscribe.expect("a SUBSCRIBE");
        let info = &subscribe.framework_info;
        let id = info.id.as_ref();
        let said = id
            .map_or(Ok(()), |id| validate::framework_id(&id.value))
            .and_then(|()| validate::framework_info(info))
            .and_then(|()| validate::suppressed_roles(info, &subscribe.suppressed_roles))
            .and_then(|()| match &subscribe.offer_constraints {
                Some(constraints) => validate::offer_constraints(constraints),
                None => Ok(()),
            });
        assert_eq!(
            said.err().as_deref(),
            case["message"].as_str(),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn what_is_not_there_yet_is_named() {
    let task = |more: &str| -> TaskInfo {
        let text = format!(
            r#"{{"name":"t","task_id":{{"value":"t"}},"agent_id":{{"value":"a"}},
            "resources":[{{"name":"cpus","type":"SCALAR","scalar":{{"value":1}}}}]{more}}}"#
        );
        json::to_message(text.as_bytes()).expect("a task")
    };
    let fine = task(
        r#","command":{"value":"true","environment":{"variables":[{"name":"A","value":"b"}]},"uris":[{"value":"http://x"}]},"check":{"type":"TCP","tcp":{"port":1}},"health_check":{"type":"TCP","tcp":{"port":1}},
        "container":{"type":"MESOS","linux_info":{"ipc_mode":"PRIVATE"},"rlimit_info":{}},"kill_policy":{"grace_period":{"nanoseconds":1}},
        "max_completion_time":{"nanoseconds":5},"limits":{"cpus":{"value":2}}"#,
    );
    assert_eq!(validate::task(&fine, "a"), Ok(()));
    assert_eq!(validate::unsupported(&fine), Ok(()));
    let command = r#","command":{"value":"true"}"#;
    for (more, field) in [
        (r#","command":{}"#, "command without a value"),
        (
            r#","command":{"value":"x","environment":{"variables":[{"name":"A","type":"SECRET",
            "secret":{"type":"REFERENCE","reference":{"name":"x"}}}]}}"#,
            "command.environment.variables.secret.reference",
        ),
        (
            &format!(r#"{command},"container":{{"type":"DOCKER","docker":{{"image":"x"}}}}"#),
            "container.docker",
        ),
    ] {
        let task = task(more);
        assert_eq!(validate::task(&task, "a"), Ok(()), "{field}");
        let said = validate::unsupported(&task).expect_err(field);
        assert_eq!(
            said,
            format!("Task uses '{field}', which is not supported yet")
        );
    }
}

/// A task of agent `a` with a cpu and 32 MB, changed by the fields of an object.
fn changed(more: Value) -> TaskInfo {
    let scalar = |name, value| serde_json::json!({ "name": name, "type": "SCALAR", "scalar": { "value": value } });
    let mut task = serde_json::json!({
        "name": "t", "task_id": { "value": "t" }, "agent_id": { "value": "a" },
        "command": { "value": "true" }, "resources": [scalar("cpus", 1), scalar("mem", 32)],
    });
    for (name, value) in more.as_object().expect("fields") {
        task[name] = value.clone();
    }
    message(&task)
}

/// Texts of `common/validation.cpp` and `master/validation.cpp`, which no recording has.
#[test]
fn commands_containers_and_limits_of_tasks_are_refused_in_the_words_of_mesos() {
    use serde_json::json;
    let variable = |one: Value| json!({ "command": { "value": "true", "environment": { "variables": [one] } } });
    let volume = |mut one: Value| {
        one["container_path"] = json!("d");
        one["mode"] = json!("RW");
        json!({ "container": { "type": "MESOS", "volumes": [one] } })
    };
    let limits = |name: &str, limit: f64| json!({ "limits": { name: { "value": limit } } });
    let in_command = "Task's `CommandInfo` is invalid: Environment variable 'A' ";
    let in_volume = "Task's `ContainerInfo` is invalid: Invalid volume: ";
    for (more, start, end) in [
        (
            variable(json!({ "name": "A" })),
            in_command,
            "of type 'VALUE' must have a value set",
        ),
        (
            variable(json!({ "name": "A", "type": "SECRET", "secret": { "type": "VALUE" } })),
            in_command,
            "specifies an invalid secret: Secret of type VALUE must have the 'value' field set",
        ),
        (
            variable(json!({ "name": "A", "type": "SECRET",
                "secret": { "type": "VALUE", "value": { "data": "YQBi" } } })),
            in_command,
            "specifies a secret containing null bytes, which is not allowed in the environment",
        ),
        (
            volume(json!({})),
            in_volume,
            "Only one of them should be set: 'host_path', 'image' and 'source'",
        ),
        (
            volume(json!({ "host_path": "/a", "source": { "type": "SANDBOX_PATH" } })),
            in_volume,
            "Only one of them should be set: 'host_path', 'image' and 'source'",
        ),
        (
            volume(json!({ "source": { "type": "SANDBOX_PATH" } })),
            in_volume,
            "'source.sandbox_path' is not set for SANDBOX_PATH volume",
        ),
        (
            volume(json!({ "source": {} })),
            in_volume,
            "'source.type' is unknown",
        ),
        (
            limits("disk", 9.0),
            "Only cpus and mem may be included in a task's resource limits",
            "",
        ),
        (
            limits("mem", 8.0),
            "The memory limit must be greater than or equal to the memory request",
            "",
        ),
        (
            json!({ "limits": { "mem": { "value": 64 } },
                "resources": [{ "name": "cpus", "type": "SCALAR", "scalar": { "value": 1 } }] }),
            "When a memory limit is specified, a memory request must also be specified",
            "",
        ),
        (
            json!({ "container": { "type": "MESOS", "linux_info": { "share_cgroups": false } } }),
            "Only tasks in a task group may have 'share_cgroups' set to 'false'",
            "",
        ),
    ] {
        let said = validate::task(&changed(more.clone()), "a");
        assert_eq!(said, Err(format!("{start}{end}")), "{more}");
    }
}

#[test]
fn groups_and_their_executors_are_refused_in_the_words_of_mesos() {
    use serde_json::json;
    let limited = json!({ "limits": { "cpus": { "value": 2 } } });
    assert_eq!(
        validate::group_task(&changed(limited.clone()), "a"),
        Err(
            "Resource limits may only be set for tasks within a task group when the \
             'share_cgroups' field is set to 'false'."
                .to_owned()
        )
    );
    let own = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } });
    let mut with_own = limited;
    with_own["container"] = own.clone();
    let with_own = changed(with_own);
    assert_eq!(validate::group_task(&with_own, "a"), Ok(()));

    let scalar =
        |name, value| json!({ "name": name, "type": "SCALAR", "scalar": { "value": value } });
    let all = [
        scalar("cpus", 0.1),
        scalar("mem", 32.0),
        scalar("disk", 1.0),
    ];
    let executor = |resources: &[Value], more: Value| -> ExecutorInfo {
        let mut info = json!({
            "type": "DEFAULT", "executor_id": { "value": "e" }, "framework_id": { "value": "f" },
            "resources": resources,
        });
        for (name, value) in more.as_object().expect("fields") {
            info[name] = value.clone();
        }
        message(&info)
    };
    let small = [scalar("cpus", 0.1), scalar("mem", 16.0)];
    for (info, tasks, says) in [
        (executor(&all, json!({})), vec![with_own.clone()], None),
        (
            executor(&all[1..], json!({})),
            vec![],
            Some("Executor 'e' uses less CPUs (None) than the minimum required (0.01)"),
        ),
        (
            executor(&small, json!({})),
            vec![],
            Some("Executor 'e' uses less memory (16MB) than the minimum required (32MB)"),
        ),
        (
            executor(&all[..2], json!({})),
            vec![],
            Some("Executor 'e' uses no disk"),
        ),
        (
            executor(
                &all,
                json!({ "container": { "type": "MESOS", "linux_info": { "share_cgroups": true } } }),
            ),
            vec![],
            Some("The 'share_cgroups' field cannot be set to 'true' on executor containers"),
        ),
        (
            executor(&all, json!({})),
            vec![with_own.clone(), changed(json!({}))],
            Some(
                "If set, the value of 'share_cgroups' must be the same for all tasks in each task \
                 group and under a single executor",
            ),
        ),
    ] {
        let said = validate::group_executor(&info, &tasks);
        assert_eq!(said.err().as_deref(), says);
    }
    // Its container is looked at as those of tasks are.
    let volume = json!({ "container_path": "d", "mode": "RW" });
    let wrong = executor(
        &all,
        json!({ "container": { "type": "MESOS", "volumes": [volume] } }),
    );
    let said = validate::executor(&wrong, "f").expect_err("a volume of nothing");
    assert!(
        said.starts_with("Executor's `ContainerInfo` is invalid: "),
        "{said}"
    );
}
