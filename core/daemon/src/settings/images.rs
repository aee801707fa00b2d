//! Images: which stores there are, and the flags that are settings of theirs.

use std::time::Duration;

use serde_json::Value as Json;

use super::{set_in_module, together};
use crate::flags::{FlagError, Values};

/// Settings of images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    /// Names of the image store modules.
    pub stores: Vec<String>,
    /// The back end, where one is asked for.
    pub backend: Option<String>,
    /// When images are removed by themselves, if ever.
    pub collection: Option<Collection>,
}

/// Removal of images that nobody uses (`--image_gc_config`).
#[derive(Debug, Clone, PartialEq)]
pub struct Collection {
    /// Share of the disk that is to be free.
    pub headroom: f64,
    /// How often the disk is looked at.
    pub interval: Duration,
    /// mesos.v1.Image, each: these stay.
    pub keep: Vec<Json>,
}

/// Flags of Mesos that are settings of the module `docker`, under the same name; `oci` has the credentials, too.
const OF_DOCKER: [&str; 4] = [
    "docker_config",
    "docker_registry",
    "docker_store_dir",
    "hadoop_home",
];

/// The same of the module `appc`.
const OF_APPC: [&str; 2] = ["appc_simple_discovery_uri_prefix", "appc_store_dir"];

pub(super) fn images(values: &mut Values) -> Result<Images, FlagError> {
    let stores: Vec<String> = values.list("image_providers");
    let mut names = Vec::new();
    for store in stores {
        match store.as_str() {
            "APPC" | "DOCKER" | "OCI" => names.push(store.to_ascii_lowercase()),
            // The name of a module of the site's own.
            own if own.contains(char::is_lowercase) => names.push(store),
            _ => {
                return Err(together(&format!(
                    "'image_providers': '{store}' is neither APPC, DOCKER, OCI nor the name of a module, which has lower case letters"
                )));
            }
        }
    }
    // Where the modules keep them, so that `/flags` says it.
    for (store, flag) in [("appc", "appc_store_dir"), ("docker", "docker_store_dir")] {
        let dir = values.path("work_dir");
        if let Some(dir) = dir.filter(|_| names.iter().any(|name| name == store)) {
            let own = dir.join("modules").join(store).display().to_string();
            values.set_default(flag, own);
        }
    }
    for flag in OF_APPC {
        if let Some(text) = values.text(flag).filter(|_| values.given(flag)) {
            let text = Json::String(text.into());
            set_in_module(values, flag, "appc", flag, text);
        }
    }
    for flag in OF_DOCKER {
        let Some(text) = values.text(flag).filter(|_| values.given(flag)) else {
            continue;
        };
        let value = match flag {
            "docker_config" => serde_json::from_str(text).expect("checked when read"),
            _ => Json::String(text.into()),
        };
        if flag == "docker_config" && names.iter().any(|name| name == "oci") {
            set_in_module(values, flag, "oci", flag, value.clone());
        }
        set_in_module(values, flag, "docker", flag, value);
    }
    Ok(Images {
        stores: names,
        backend: values.text("image_provisioner_backend").map(String::from),
        collection: values.text("image_gc_config").map(collection).transpose()?,
    })
}

fn collection(text: &str) -> Result<Collection, FlagError> {
    let config: Json = serde_json::from_str(text).expect("checked when read");
    let bad = |what: &str| together(&format!("'image_gc_config': {what}"));
    let headroom = config["image_disk_headroom"].as_f64();
    let headroom = headroom
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| bad("'image_disk_headroom' must be a number from 0 to 1"))?;
    let nanoseconds = config["image_disk_watch_interval"]["nanoseconds"].as_u64();
    let interval = nanoseconds
        .filter(|interval| *interval > 0)
        .map(Duration::from_nanos)
        .ok_or_else(|| bad("'image_disk_watch_interval.nanoseconds' must be a number above 0"))?;
    let keep = match &config["excluded_images"] {
        Json::Null => Vec::new(),
        Json::Array(images) => images.clone(),
        _ => return Err(bad("'excluded_images' must be a list of images")),
    };
    Ok(Collection {
        headroom,
        interval,
        keep,
    })
}
