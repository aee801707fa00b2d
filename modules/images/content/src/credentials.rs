//! Credentials for registries, from configuration files of Docker.

use std::{
    collections::BTreeMap,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tepui_fetcher_base::Group;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::error::{Error, Result};
use crate::registry::{DOCKER_HUB, canonical};

/// How to prove who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Name and password.
    Password(String, String),
    /// A token that a server of tokens exchanges.
    Identity(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credential(..)")
    }
}

/// A configuration file of Docker (`config.json`), as far as it is about registries.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
    /// Whether programs that it names may be run.
    #[serde(skip)]
    trusted: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<&String> = self.auths.keys().collect();
        write!(formatter, "DockerConfig({hosts:?})")
    }
}

/// What a credential helper says that has nothing for a registry.
const NOTHING: &str = "credentials not found";
/// Longest answer of one that is read.
const ANSWER: u64 = 64 << 10;
/// How long a credential helper may take.
const HELPER: Duration = Duration::from_secs(30);

impl DockerConfig {
    /// Reads a configuration, in the form of today or of the older `.dockercfg`. Only that of a site is `trusted` to
    /// name credential helpers, which are programs of the agent's machine.
    ///
    /// # Errors
    ///
    /// When it is none. The content is not repeated.
    pub fn read(text: &[u8], trusted: bool) -> Result<Self> {
        let bad = |error: serde_json::Error| {
            Error::Refused(format!(
                "the Docker configuration is not valid JSON of that form (line {}, column {})",
                error.line(),
                error.column()
            ))
        };
        let value: serde_json::Value = serde_json::from_slice(text).map_err(bad)?;
        let is_today = ["auths", "credHelpers", "credsStore"]
            .iter()
            .any(|key| value.get(key).is_some());
        let mut config = match is_today {
            true => serde_json::from_value::<Self>(value).map_err(bad)?,
            false => Self {
                // Other settings of Docker's may stand beside.
                auths: value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(host, auth)| {
                        Some((host.clone(), serde_json::from_value(auth.clone()).ok()?))
                    })
                    .collect(),
                ..Self::default()
            },
        };
        config.trusted = trusted;
        Ok(config)
    }

    /// What there is for a registry (`HOST` or `HOST:PORT`).
    ///
    /// # Errors
    ///
    /// When a helper fails or an entry cannot be read.
    pub async fn find(&self, registry: &str) -> Result<Option<Credential>> {
        let wanted = host_of(registry);
        let helper = self
            .cred_helpers
            .iter()
            .find(|(host, _)| host_of(host) == wanted);
        if let Some((_, helper)) = helper {
            return self.ask(helper, registry).await;
        }
        if let Some((_, auth)) = self.auths.iter().find(|(host, _)| host_of(host) == wanted)
            && let Some(credential) = auth.credential(registry)?
        {
            return Ok(Some(credential));
        }
        match &self.creds_store {
            Some(helper) if self.trusted => self.ask(helper, registry).await,
            _ => Ok(None),
        }
    }

    /// Runs `docker-credential-NAME get`.
    async fn ask(&self, helper: &str, registry: &str) -> Result<Option<Credential>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Told {
            username: String,
            secret: String,
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !self.trusted || helper.is_empty() || !helper.bytes().all(is_name) {
            return Err(Error::Refused(format!(
                "the credential helper '{helper}' is not run: only the agent's own Docker configuration may name one"
            )));
        }
        let program = format!("docker-credential-{helper}");
        // What Docker calls its own registry when it stores credentials.
        let server = match host_of(registry) {
            DOCKER_HUB => "https://index.docker.io/v1/",
            _ => registry,
        };
        let failed = |why: String| {
            Error::Unavailable(format!("the credential helper '{program}' failed: {why}"))
        };
        let (status, said) = tokio::time::timeout(HELPER, run(&program, server))
            .await
            .map_err(|_| failed(format!("it took more than {} seconds", HELPER.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        if said.len() as u64 > ANSWER {
            return Err(failed(format!("its answer has more than {ANSWER} bytes")));
        }
        if !status.success() {
            // Its words on standard output are the only sign that it just has nothing; anything else may hold secrets.
            return match String::from_utf8_lossy(&said).contains(NOTHING) {
                true => Ok(None),
                false => Err(failed(status.to_string())),
            };
        }
        let told: Told = serde_json::from_slice(&said)
            .map_err(|_| failed("its answer cannot be read".to_owned()))?;
        Ok(Some(match told.username.as_str() {
            "<token>" => Credential::Identity(told.secret),
            _ => Credential::Password(told.username, told.secret),
        }))
    }
}

impl Auth {
    fn credential(&self, registry: &str) -> Result<Option<Credential>> {
        if let Some(token) = self
            .identitytoken
            .as_ref()
            .filter(|token| !token.is_empty())
        {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let (Some(name), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credential::Password(name.clone(), password.clone())));
        }
        let Some(encoded) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else {
            return Ok(None);
        };
        let decoded = STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
        let (name, password) = pair.ok_or_else(|| {
            Error::Refused(format!("the 'auth' of '{registry}' in the Docker configuration is not base64 of NAME:PASSWORD"))
        })?;
        // Docker pads it with zeros.
        let password = password.trim_end_matches('\0');
        Ok(Some(Credential::Password(
            name.to_owned(),
            password.to_owned(),
        )))
    }
}

/// Runs a credential helper; answers how it ended and the beginning of what it said. A caller that goes away ends it, and
/// all that it has started.
async fn run(program: &str, server: &str) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let _group = Group::of(child.id());
    let mut stdin = child.stdin.take().expect("is piped");
    match stdin.write_all(server.as_bytes()).await {
        // It knows what to say without.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    drop(stdin);
    let mut said = Vec::new();
    let mut stdout = child.stdout.take().expect("is piped").take(ANSWER + 1);
    stdout.read_to_end(&mut said).await?;
    // Who has more to say than is read finds nobody who listens.
    drop(stdout);
    Ok((child.wait().await?, said))
}

/// The host of a registry, however it is written.
fn host_of(registry: &str) -> &str {
    let rest = registry
        .split_once("://")
        .map_or(registry, |(_, rest)| rest);
    canonical(rest.split('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_are_found_in_every_form() {
        let text = br#"{ "auths": {
            "https://index.docker.io/v1/": { "auth": "bmFtZTpwYXNzOndvcmQ=" },
            "r.io:5000": { "username": "u", "password": "p" },
            "token.io": { "identitytoken": "t" },
            "bad.io": { "auth": "-" } } }"#;
        let config = DockerConfig::read(text, true).unwrap();
        let password = |name: &str, password: &str| {
            Some(Credential::Password(name.to_owned(), password.to_owned()))
        };
        assert_eq!(
            config.find("registry-1.docker.io").await.unwrap(),
            password("name", "pass:word")
        );
        assert_eq!(config.find("r.io:5000").await.unwrap(), password("u", "p"));
        assert_eq!(config.find("r.io").await.unwrap(), None);
        assert_eq!(
            config.find("token.io").await.unwrap(),
            Some(Credential::Identity("t".to_owned()))
        );
        assert!(config.find("bad.io").await.is_err());
        let old = DockerConfig::read(br#"{ "r.io": { "auth": "dTpw" } }"#, false).unwrap();
        assert_eq!(old.find("r.io").await.unwrap(), password("u", "p"));
        let of_framework =
            DockerConfig::read(br#"{ "credHelpers": { "r.io": "x" } }"#, false).unwrap();
        let said = of_framework.find("r.io").await.unwrap_err().to_string();
        assert!(said.contains("is not run"), "{said}");
        let said = DockerConfig::read(b"{ secret", true)
            .unwrap_err()
            .to_string();
        assert!(!said.contains("secret"), "{said}");
    }
}
