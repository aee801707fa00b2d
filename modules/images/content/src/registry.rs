//! Registries, as the distribution specification (and Docker's registry API version 2) describes them.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use tepui_fetcher_base::Pace;
use tokio::{sync::Mutex, time};
use url::Url;

use crate::credentials::Credential;
use crate::error::{Error, Result};
use crate::manifest::ACCEPTED;

/// Docker Hub, by the name of what answers for it.
pub(crate) const DOCKER_HUB: &str = "registry-1.docker.io";

/// How often a server is asked again that is busy.
const TRIES: u32 = 3;
/// The wait before the first of them, where the server does not say how long it should be; each is twice as long as the
/// one before.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(30);

/// A registry's `HOST` or `HOST:PORT`; Docker Hub has several.
pub(crate) fn canonical(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => DOCKER_HUB,
        host => host,
    }
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Certificates (PEM) that are trusted beside the system's.
    pub certificates: Option<PathBuf>,
    /// Registries (`HOST` or `HOST:PORT`) that may be asked without TLS; those on this machine may always.
    pub insecure: Vec<String>,
    /// How long a registry may be silent.
    pub stall: Duration,
}

impl Access {
    /// A client that all registries share.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be read.
    pub fn client(&self) -> Result<Client> {
        let mut builder = Client::builder()
            .user_agent(concat!("tepui/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(30))
            .read_timeout(self.stall);
        if let Some(path) = &self.certificates {
            let failed = |error: String| {
                Error::Disk(format!("the certificates '{}': {error}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        builder
            .build()
            .map_err(|error| Error::Disk(format!("no client for registries can be made: {error}")))
    }

    /// Where a registry is, by its `HOST:PORT`. TLS comes first; one that may be without is asked whether it speaks it.
    pub async fn base(&self, client: &Client, host: &str) -> Result<Url> {
        let host = canonical(host);
        let at = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|error| Error::Refused(format!("'{host}' is no registry: {error}")))
        };
        let secure = at("https")?;
        let is_local = match secure.host() {
            Some(url::Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
            Some(url::Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if !is_local && !self.insecure.iter().any(|insecure| insecure == host) {
            return Ok(secure);
        }
        match client.get(secure.join("v2/").expect("a path")).send().await {
            // A certificate that is not trusted is no reason to do without.
            Err(error) if error.is_connect() && !with_causes(&error).contains("certificate") => {
                at("http")
            }
            _ => Ok(secure),
        }
    }
}

/// One repository of a registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    base: Url,
    repository: String,
    credential: Option<Credential>,
    stall: Duration,
    /// The header that the registry has accepted.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    /// The repository at a registry, whose answers may stall for so long.
    pub fn new(
        (client, stall): (Client, Duration),
        base: Url,
        repository: String,
        credential: Option<Credential>,
    ) -> Self {
        Self {
            client,
            base,
            repository,
            credential,
            stall,
            authorization: Mutex::new(None),
        }
    }

    /// A manifest by tag or digest, at most this long.
    pub(crate) async fn manifest(&self, which: &str, limit: u64) -> Result<Vec<u8>> {
        let response = self.get(&format!("manifests/{which}"), 0).await?;
        self.body(response, limit).await
    }

    /// Some small content by digest.
    pub(crate) async fn content(&self, digest: &str, limit: u64) -> Result<Vec<u8>> {
        let response = self.get(&format!("blobs/{digest}"), 0).await?;
        self.body(response, limit).await
    }

    /// Content by digest, to be read piece by piece, from the byte `from` on where the registry can do so; else from
    /// its beginning. Answers how many bytes come that were not asked for.
    pub(crate) async fn blob(&self, digest: &str, from: u64) -> Result<(Response, u64)> {
        let response = self.get(&format!("blobs/{digest}"), from).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((response, from));
        }
        let range = response.headers().get(header::CONTENT_RANGE);
        let range = range.and_then(|range| range.to_str().ok()).unwrap_or("");
        match range.starts_with(&format!("bytes {from}-")) {
            true => Ok((response, 0)),
            false => Err(Error::Unavailable(format!(
                "the registry '{}' was asked for {digest} from byte {from} on, and answers with '{range}'",
                self.name()
            ))),
        }
    }

    /// How fast an answer comes that begins now.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.stall)
    }

    /// An answer that is not [`Pace::came`] any more.
    pub(crate) fn stalled(&self) -> Error {
        Error::Unavailable(format!(
            "the registry '{}' sends less than a byte a second for {} seconds, the stall timeout",
            self.name(),
            self.stall.as_secs()
        ))
    }

    /// What went wrong between us, for people. Without the URL: that of a server that the registry leads to may hold a
    /// signature.
    pub(crate) fn broken(&self, error: reqwest::Error) -> Error {
        let why = with_causes(&error.without_url());
        Error::Unavailable(format!("the registry '{}' failed: {why}", self.name()))
    }

    fn name(&self) -> &str {
        self.base[url::Position::BeforeHost..url::Position::AfterPort].trim_end_matches('/')
    }

    async fn body(&self, mut response: Response, limit: u64) -> Result<Vec<u8>> {
        let (mut body, mut pace) = (Vec::new(), self.pace());
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(error))? {
            if !pace.came(piece.len()) {
                return Err(self.stalled());
            }
            if (body.len() + piece.len()) as u64 > limit {
                return Err(Error::Refused(format!(
                    "the registry '{}' answers with more than {limit} bytes where a manifest or a configuration was asked for",
                    self.name()
                )));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn get(&self, path: &str, from: u64) -> Result<Response> {
        let url = self
            .base
            .join(&format!("v2/{}/{path}", self.repository))
            .map_err(|error| Error::Refused(format!("'{path}': {error}")))?;
        let known = self.authorization.lock().await.clone();
        let response = self.send(&url, known.as_deref(), from).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.checked(response, path).await;
        }
        let authorization = self.authorize(&response, known).await?;
        let response = self.send(&url, authorization.as_deref(), from).await?;
        self.checked(response, path).await
    }

    async fn send(&self, url: &Url, authorization: Option<&str>, from: u64) -> Result<Response> {
        let mut request = self
            .client
            .get(url.clone())
            .header(header::ACCEPT, ACCEPTED);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        self.patiently(request).await
    }

    /// Sends a request, and again where the server is too busy to answer it.
    async fn patiently(&self, request: RequestBuilder) -> Result<Response> {
        let mut pause = PAUSE;
        for _ in 0..TRIES {
            let again = request.try_clone().expect("no body is a stream");
            let response = again.send().await.map_err(|error| self.broken(error))?;
            let wait = match is_busy(response.status()) {
                true => asked_to_wait(&response).unwrap_or(pause),
                false => return Ok(response),
            };
            if wait > LONGEST {
                return Ok(response);
            }
            time::sleep(wait).await;
            pause *= 2;
        }
        request.send().await.map_err(|error| self.broken(error))
    }

    async fn checked(&self, response: Response, path: &str) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let name = self.name();
        let repository = &self.repository;
        let wait = asked_to_wait(&response).filter(|wait| !wait.is_zero());
        let wait = wait.map_or_else(String::new, |wait| {
            format!(" (to be asked again after {} seconds)", wait.as_secs())
        });
        // The registry's own words, as far as they are few.
        let said = self.body(response, 4096).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let message = format!(
            "the registry '{name}' answers {status} to {path} of '{repository}'{wait}: {}",
            said.trim()
        );
        Err(match status {
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Missing(message)
            }
            _ => Error::Unavailable(message),
        })
    }

    /// Does what the registry asks for; remembers the header. One call at a time.
    async fn authorize(&self, refused: &Response, tried: Option<String>) -> Result<Option<String>> {
        let mut authorization = self.authorization.lock().await;
        if *authorization != tried {
            // Another call was quicker.
            return Ok(authorization.clone());
        }
        let challenges = refused.headers().get_all(header::WWW_AUTHENTICATE);
        let mut challenges = challenges.iter().filter_map(|value| value.to_str().ok());
        let found = challenges.find_map(|challenge| {
            let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
            let is_known = ["bearer", "basic"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known));
            is_known.then(|| (scheme.to_ascii_lowercase(), rest.to_owned()))
        });
        *authorization = match found {
            Some((scheme, _)) if scheme == "basic" => self.credential.as_ref().and_then(basic),
            Some((_, rest)) => Some(format!("Bearer {}", self.token(&rest).await?)),
            None => None,
        };
        Ok(authorization.clone())
    }

    /// Gets a token where the registry says.
    async fn token(&self, challenge: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let refused = |why: &str| {
            Error::Refused(format!(
                "the registry '{}' names no server of tokens: {why}",
                self.name()
            ))
        };
        let realm = parameter(challenge, "realm").ok_or_else(|| refused("no realm"))?;
        let mut realm = Url::parse(&realm).map_err(|error| refused(&error.to_string()))?;
        if self.base.scheme() == "https" && realm.scheme() != "https" {
            return Err(refused("it would be asked without TLS"));
        }
        let scope = format!("repository:{}:pull", self.repository);
        let service = parameter(challenge, "service");
        let request = match &self.credential {
            Some(Credential::Identity(token)) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("refresh_token", token)
                    .append_pair("client_id", "tepui")
                    .append_pair("scope", &scope)
                    .append_pair("service", service.as_deref().unwrap_or_default());
                self.client
                    .post(realm)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.finish())
            }
            credential => {
                realm.query_pairs_mut().append_pair("scope", &scope);
                if let Some(service) = &service {
                    realm.query_pairs_mut().append_pair("service", service);
                }
                let request = self.client.get(realm);
                match credential.as_ref().and_then(basic) {
                    Some(value) => request.header(header::AUTHORIZATION, value),
                    None => request,
                }
            }
        };
        let response = self.patiently(request).await?;
        let response = self.checked(response, "a token").await?;
        let body = self.body(response, 1 << 20).await?;
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        token
            .and_then(|token| token.token.or(token.access_token))
            .ok_or_else(|| refused("its answer has no token"))
    }
}

/// Whether a later answer may be another one.
fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// How long a server wants to be left alone, in whole seconds. Dates, the other form, are not read.
fn asked_to_wait(response: &Response) -> Option<Duration> {
    let after = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    after.trim().parse().ok().map(Duration::from_secs)
}

pub(crate) fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn basic(credential: &Credential) -> Option<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    match credential {
        Credential::Password(name, password) => Some(format!(
            "Basic {}",
            STANDARD.encode(format!("{name}:{password}"))
        )),
        Credential::Identity(_) => None,
    }
}

/// A parameter of a challenge: `realm="..."`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([',', ' ']);
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let challenge =
            r#"realm="https://auth.io/token?a=b,c",service=r.io, scope="repository:x:pull""#;
        assert_eq!(
            parameter(challenge, "realm").as_deref(),
            Some("https://auth.io/token?a=b,c")
        );
        assert_eq!(parameter(challenge, "service").as_deref(), Some("r.io"));
        assert_eq!(
            parameter(challenge, "scope").as_deref(),
            Some("repository:x:pull")
        );
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("", "realm"), None);
    }
}
