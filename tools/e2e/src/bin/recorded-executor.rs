//! An executor that behaves as the one in the recordings did: a task's data says what becomes of it.
//!
//! `run` runs until killed, `finish` ends at once, `finish-only` without a TASK_RUNNING before,
//! `fail` fails, `sh COMMAND` runs a command. A message is sent back.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tepui_e2e::replay::{Next, Request, Stream, ask};

fn main() -> anyhow::Result<()> {
    let executor = Executor {
        agent: agent()?,
        framework: std::env::var("MESOS_FRAMEWORK_ID")?,
        executor: std::env::var("MESOS_EXECUTOR_ID")?,
    };
    let subscribe = json!({ "unacknowledged_tasks": [], "unacknowledged_updates": [] });
    let request = executor.request("SUBSCRIBE", "subscribe", subscribe);
    let stream = Stream::open(executor.agent, &request)?;
    loop {
        match stream.next(Duration::MAX) {
            Next::Record(record) => {
                let event: Value = serde_json::from_slice(&record.bytes)?;
                if event["type"] == "SHUTDOWN" {
                    return Ok(());
                }
                executor.event(&event)?;
            }
            Next::Nothing => {}
            Next::Ended => return Ok(()),
            Next::Broken(problem) => bail!("the agent is away: {problem}"),
        }
    }
}

fn agent() -> anyhow::Result<SocketAddr> {
    let endpoint = std::env::var("MESOS_AGENT_ENDPOINT")?;
    endpoint
        .to_socket_addrs()?
        .next()
        .with_context(|| endpoint.clone())
}

struct Executor {
    agent: SocketAddr,
    framework: String,
    executor: String,
}

impl Executor {
    fn request(&self, kind: &str, key: &str, body: Value) -> Request {
        let call = json!({
            "framework_id": { "value": self.framework },
            "executor_id": { "value": self.executor },
            "type": kind,
            key: body,
        });
        Request::post_json("/slave(1)/api/v1/executor", call.to_string())
    }

    fn call(&self, kind: &str, key: &str, body: Value) -> anyhow::Result<()> {
        let answer = ask(self.agent, &self.request(kind, key, body), false)?;
        if answer.status != 202 {
            bail!(
                "{kind}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(())
    }

    fn event(&self, event: &Value) -> anyhow::Result<()> {
        match event["type"].as_str() {
            Some("LAUNCH") => self.launch(&event["launch"]["task"]),
            Some("LAUNCH_GROUP") => {
                let tasks = event["launch_group"]["task_group"]["tasks"].as_array();
                tasks
                    .into_iter()
                    .flatten()
                    .try_for_each(|task| self.launch(task))
            }
            Some("KILL") => self.update(&event["kill"]["task_id"], "TASK_KILLED", None),
            Some("MESSAGE") => self.call(
                "MESSAGE",
                "message",
                json!({ "data": event["message"]["data"] }),
            ),
            _ => Ok(()),
        }
    }

    fn launch(&self, task: &Value) -> anyhow::Result<()> {
        let id = &task["task_id"];
        let data = STANDARD.decode(task["data"].as_str().unwrap_or_default())?;
        let data = String::from_utf8(data)?;
        if data != "finish-only" {
            self.update(id, "TASK_RUNNING", None)?;
        }
        match data.as_str() {
            "finish" | "finish-only" => self.update(id, "TASK_FINISHED", None),
            "fail" => self.update(id, "TASK_FAILED", Some("told to fail".to_owned())),
            other => match other.strip_prefix("sh ") {
                Some(command) => {
                    let status = Command::new("sh").args(["-c", command]).status()?;
                    let state = if status.success() {
                        "TASK_FINISHED"
                    } else {
                        "TASK_FAILED"
                    };
                    let code = status.code().unwrap_or_default();
                    self.update(id, state, Some(format!("exit {code}")))
                }
                None => Ok(()),
            },
        }
    }

    fn update(&self, task: &Value, state: &str, message: Option<String>) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let mut status = json!({
            "task_id": task,
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "executor_id": { "value": self.executor },
            "timestamp": now.as_secs_f64(),
            "uuid": STANDARD.encode(uuid::Uuid::new_v4().as_bytes()),
        });
        if let Some(message) = message {
            status["message"] = message.into();
        }
        self.call("UPDATE", "update", json!({ "status": status }))
    }
}
