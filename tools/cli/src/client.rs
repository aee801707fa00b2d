//! What the commands ask a master and its agents.

use anyhow::{Context, Result, bail};
use tepui_http::Client;
use tepui_proto::v1::master::response::get_agents::Agent as RegisteredAgent;
use tepui_proto::v1::{self, master};

/// Where the master is.
#[derive(clap::Args, Clone)]
pub(crate) struct MasterArg {
    /// Address of the master
    #[arg(
        long,
        env = "TEPUI_MASTER",
        default_value = "127.0.0.1:5050",
        value_name = "HOST:PORT"
    )]
    pub(crate) master: String,
}

impl MasterArg {
    /// A client for it.
    pub(crate) fn client(&self) -> Result<Master> {
        Master::at(&self.master)
    }
}

/// A client of a master's operator API.
#[derive(Clone)]
pub(crate) struct Master {
    client: Client,
}

impl Master {
    /// For `host:port`; 5050 if there is no port.
    pub(crate) fn at(address: &str) -> Result<Self> {
        let plain = address.trim_start_matches("http://").trim_end_matches('/');
        let whole = if plain.contains(':') {
            plain.to_owned()
        } else {
            format!("{plain}:5050")
        };
        let client = Client::new(&whole).with_context(|| format!("--master {address}"))?;
        Ok(Self { client })
    }

    /// The HTTP client.
    pub(crate) fn http(&self) -> &Client {
        &self.client
    }

    /// Calls the operator API.
    pub(crate) async fn call(&self, call: &master::Call) -> Result<master::Response> {
        let name = call.r#type().as_str_name();
        self.client
            .call("/api/v1", call)
            .await
            .with_context(|| format!("{name} at the master {}", self.client.authority()))
    }

    /// A call without arguments.
    pub(crate) async fn ask(&self, kind: master::call::Type) -> Result<master::Response> {
        self.call(&master::Call {
            r#type: Some(kind.into()),
            ..Default::default()
        })
        .await
    }

    /// The answer as JSON, for `--json`.
    pub(crate) async fn ask_json(&self, kind: master::call::Type) -> Result<String> {
        let body = format!(r#"{{"type":"{}"}}"#, kind.as_str_name());
        Ok(self
            .client
            .post_json("/api/v1", body)
            .await?
            .success()?
            .text())
    }

    /// All registered agents.
    pub(crate) async fn agents(&self) -> Result<Vec<RegisteredAgent>> {
        Ok(self
            .ask(master::call::Type::GetAgents)
            .await?
            .get_agents
            .unwrap_or_default()
            .agents)
    }

    /// All frameworks, running and completed.
    pub(crate) async fn frameworks(&self) -> Result<master::response::GetFrameworks> {
        Ok(self
            .ask(master::call::Type::GetFrameworks)
            .await?
            .get_frameworks
            .unwrap_or_default())
    }

    /// All tasks, running and ended.
    pub(crate) async fn tasks(&self) -> Result<master::response::GetTasks> {
        Ok(self
            .ask(master::call::Type::GetTasks)
            .await?
            .get_tasks
            .unwrap_or_default())
    }

    /// The task with this id: a running one before one that has ended.
    pub(crate) async fn task(&self, id: &str) -> Result<v1::Task> {
        let tasks = self.tasks().await?;
        let mut all = tasks
            .tasks
            .into_iter()
            .chain(tasks.unreachable_tasks)
            .chain(tasks.completed_tasks);
        match all.find(|task| task.task_id.value == id) {
            Some(task) => Ok(task),
            None => bail!("no task {id:?} at this master: `tepui tasks --all` lists them"),
        }
    }

    /// The registered agent that is meant: by its id or the end of it, its host name or its address.
    pub(crate) async fn find_agent(&self, wanted: &str) -> Result<RegisteredAgent> {
        let mut agents = self.agents().await?;
        let at = find_agent(&agents, wanted)?;
        Ok(agents.swap_remove(at))
    }

    /// The id of the agent that is meant. A whole id need not be of a registered agent: the master
    /// knows of those that are away, too.
    pub(crate) async fn agent_id(&self, wanted: &str) -> Result<v1::AgentId> {
        if is_whole_id(wanted) {
            return Ok(v1::AgentId {
                value: wanted.to_owned(),
            });
        }
        let agent = self.find_agent(wanted).await?;
        agent
            .agent_info
            .id
            .context("a registered agent without an id")
    }

    /// A client of the agent with this id.
    pub(crate) async fn agent(&self, id: &v1::AgentId) -> Result<Agent> {
        let agents = self.agents().await?;
        let found = agents
            .iter()
            .find(|agent| agent.agent_info.id.as_ref() == Some(id));
        let Some(agent) = found else {
            bail!("agent {} is not registered any more", id.value)
        };
        Agent::of(agent)
    }
}

/// Where an agent listens: `127.0.0.1:5051` of `slave(1)@127.0.0.1:5051`, as Mesos writes it.
pub(crate) fn address_of(agent: &RegisteredAgent) -> &str {
    let pid = agent.pid();
    pid.split_once('@').map_or(pid, |(_, address)| address)
}

/// An agent's id as text.
pub(crate) fn id_of(agent: &RegisteredAgent) -> String {
    let id = agent.agent_info.id.as_ref();
    id.map_or_else(String::new, |id| id.value.clone())
}

/// Whether it is an agent's id, or what follows its last dash.
pub(crate) fn is_named(id: &str, wanted: &str) -> bool {
    id == wanted
        || id
            .rsplit_once('-')
            .is_some_and(|(_, number)| number == wanted)
}

/// Ids are the master's id, which is a UUID, and a number: `2bb699ce-5753-4d4d-ad59-74064e38038a-S0`.
fn is_whole_id(text: &str) -> bool {
    text.rsplit_once("-S").is_some_and(|(master, number)| {
        master.len() == 36 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn find_agent(agents: &[RegisteredAgent], wanted: &str) -> Result<usize> {
    let matches = |agent: &&RegisteredAgent| {
        is_named(&id_of(agent), wanted)
            || agent.agent_info.hostname == wanted
            || address_of(agent) == wanted
    };
    let found: Vec<usize> = (0..agents.len())
        .filter(|at| matches(&&agents[*at]))
        .collect();
    match found[..] {
        [one] => Ok(one),
        [] => bail!("no agent {wanted:?} is registered: `tepui agents` lists them"),
        _ => {
            let ids: Vec<String> = found.iter().map(|at| id_of(&agents[*at])).collect();
            bail!("{wanted:?} is one of several agents: {}", ids.join(", "))
        }
    }
}

/// A client of one agent.
#[derive(Clone)]
pub(crate) struct Agent {
    client: Client,
}

impl Agent {
    fn of(agent: &RegisteredAgent) -> Result<Self> {
        let address = address_of(agent);
        Ok(Self {
            client: Client::new(address)
                .with_context(|| format!("address of the agent, {address:?}"))?,
        })
    }

    /// Its address.
    pub(crate) fn authority(&self) -> &str {
        self.client.authority()
    }

    /// Calls its operator API.
    pub(crate) async fn call(
        &self,
        call: &tepui_proto::v1::agent::Call,
    ) -> Result<tepui_proto::v1::agent::Response> {
        Ok(self.client.call("/api/v1", call).await?)
    }

    /// Reads a part of a file in an executor's newest sandbox; empty at its end or before it exists.
    pub(crate) async fn read(
        &self,
        sandbox: &Sandbox,
        file: &str,
        offset: u64,
    ) -> Result<bytes::Bytes> {
        use tepui_proto::v1::agent;
        let call = agent::Call {
            r#type: Some(agent::call::Type::ReadFile.into()),
            read_file: Some(agent::call::ReadFile {
                path: format!(
                    "/frameworks/{}/executors/{}/runs/latest/{file}",
                    sandbox.framework, sandbox.executor
                ),
                offset,
                length: None,
            }),
            ..Default::default()
        };
        match self
            .client
            .call::<_, agent::Response>("/api/v1", &call)
            .await
        {
            Ok(response) => Ok(response.read_file.map(|read| read.data).unwrap_or_default()),
            Err(tepui_http::ClientError::Refused { status, .. })
                if status == tepui_http::StatusCode::NOT_FOUND =>
            {
                Ok(bytes::Bytes::new())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Names an executor's sandbox on its agent.
#[derive(Clone)]
pub(crate) struct Sandbox {
    /// Framework id.
    pub(crate) framework: String,
    /// Executor id; of a command task, the task's id.
    pub(crate) executor: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_found_by_id_host_and_address() {
        const MASTER: &str = "2bb699ce-5753-4d4d-ad59-74064e38038a";
        let agent = |n: u32, hostname: &str| RegisteredAgent {
            agent_info: v1::AgentInfo {
                hostname: hostname.to_owned(),
                id: Some(v1::AgentId {
                    value: format!("{MASTER}-S{n}"),
                }),
                ..Default::default()
            },
            pid: Some(format!("slave(1)@10.0.0.{n}:5051")),
            ..Default::default()
        };
        let agents = [agent(1, "a"), agent(11, "b"), agent(2, "b")];
        let find = |wanted: &str| find_agent(&agents, wanted).map_err(|error| error.to_string());
        assert_eq!(find("S1"), Ok(0), "not the end of S11");
        assert_eq!(find(&format!("{MASTER}-S2")), Ok(2));
        assert_eq!(find("a"), Ok(0));
        assert_eq!(find("10.0.0.11:5051"), Ok(1));
        assert!(find("b").is_err_and(|text| text.contains("-S11, ")));
        assert!(find("1").is_err_and(|text| text.contains("`tepui agents`")));
        assert!(is_whole_id(&format!("{MASTER}-S0")));
        assert!(!is_whole_id("host-S0"));
    }
}
