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
