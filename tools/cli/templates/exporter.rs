//! Exporter `acme/module`: one line for each metric, its name and its value.
use std::fmt::Write as _;

use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::exporter::Sample;

/// Settings, as the configuration file has them in `[modules."acme/module"]`.
#[config]
pub struct Config {
    /// Where the daemon answers with the lines.
    path: String,
}

/// The module.
pub struct AcmeModule(Config);

impl Module for AcmeModule {
    type Config = Config;
    const NAME: &'static str = "acme/module";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Exporter for AcmeModule {
    fn path(&self) -> String {
        self.0.path.clone()
    }

    async fn export(&self, samples: Vec<Sample>, _accept: &str) -> Result<Exported> {
        let mut text = String::new();
        for sample in samples {
            let _ = writeln!(text, "{} {}", sample.name, sample.value);
        }
        Ok(Exported {
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: text.into_bytes(),
        })
    }
}
