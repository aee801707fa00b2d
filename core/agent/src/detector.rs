//! Which master leads, as a configured address or a leader-detector module says.

use futures::future::BoxFuture;
use tepui_host::kinds::leader::LeaderClient;
use tepui_proto::Message as _;
use tepui_proto::v1::MasterInfo;
use tokio::sync::Mutex;

/// Finds the leading master.
pub trait Detector: Send + Sync {
    /// `host:port` of the leader, as soon as it is another than `previous`; none while nobody leads.
    fn detect<'a>(
        &'a self,
        previous: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<String>, String>>;
}

impl std::fmt::Debug for dyn Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Detector")
    }
}

/// The master that is configured: `host:port`. Where it does not lead it names who does.
#[derive(Clone, Debug)]
pub struct Configured(pub String);

impl Detector for Configured {
    fn detect<'a>(
        &'a self,
        previous: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async move {
            if previous == Some(self.0.as_str()) {
                std::future::pending().await
            }
            Ok(Some(self.0.clone()))
        })
    }
}

/// A module of kind leader-detector.
#[derive(Debug)]
pub struct ModuleDetector {
    client: LeaderClient,
    /// What the module said last: a `mesos.v1.MasterInfo`.
    known: Mutex<Option<Vec<u8>>>,
}

impl ModuleDetector {
    /// The detector behind a client.
    pub fn new(client: LeaderClient) -> ModuleDetector {
        ModuleDetector {
            client,
            known: Mutex::default(),
        }
    }
}

impl Detector for ModuleDetector {
    fn detect<'a>(
        &'a self,
        previous: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async move {
            let mut known = self.known.lock().await;
            loop {
                let leader = self.client.detect(known.as_deref()).await;
                *known = leader.map_err(|error| error.to_string())?.master_info;
                let address = match known.as_deref().map(MasterInfo::decode) {
                    Some(Ok(info)) => Some(address(&info)),
                    Some(Err(error)) => return Err(format!("its MasterInfo is damaged: {error}")),
                    None => None,
                };
                // Another info of the same master, such as its next term.
                if address.as_deref() != previous {
                    return Ok(address);
                }
            }
        })
    }
}

/// `host:port` of a master: its IP address, which needs no name service, or its host name.
fn address(info: &MasterInfo) -> String {
    let told = info.address.as_ref();
    let ip = told.and_then(|told| told.ip.as_deref());
    let host = told
        .and_then(|told| told.hostname.as_deref())
        .or(info.hostname.as_deref());
    let host = ip.or(host).unwrap_or_default();
    let port = told.map_or(i64::from(info.port), |told| told.port.into());
    if host.contains(':') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}
