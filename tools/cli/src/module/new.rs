//! `tepui module new`: a module that builds, passes its kind's suite and loads, to start from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::json;

/// Write a new module project
#[derive(clap::Args)]
pub(super) struct Args {
    /// What it decides or does
    kind: Kind,
    /// Its name in the configuration: acme-group or acme/group
    name: String,
    /// Where to write it [default: a folder of its name, here]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Checkout of Tepui that has the SDK [default: the one this executable came from]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Allocator,
    Authorizer,
    ContainerLogger,
    Exporter,
    Fetcher,
    ImageStore,
    Isolator,
    Leader,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Allocator => "allocator",
            Kind::Authorizer => "authorizer",
            Kind::ContainerLogger => "container_logger",
            Kind::Exporter => "exporter",
            Kind::Fetcher => "fetcher",
            Kind::ImageStore => "image_store",
            Kind::Isolator => "isolator",
            Kind::Leader => "leader",
        }
    }

    fn module(self) -> &'static str {
        match self {
            Kind::Allocator => include_str!("../../templates/allocator.rs"),
            Kind::Authorizer => include_str!("../../templates/authorizer.rs"),
            Kind::ContainerLogger => include_str!("../../templates/container_logger.rs"),
            Kind::Exporter => include_str!("../../templates/exporter.rs"),
            Kind::Fetcher => include_str!("../../templates/fetcher.rs"),
            Kind::ImageStore => include_str!("../../templates/image_store.rs"),
            Kind::Isolator => include_str!("../../templates/isolator.rs"),
            Kind::Leader => include_str!("../../templates/leader.rs"),
        }
    }

    /// The lines that use it.
    fn selection(self, name: &str) -> String {
        match self {
            Kind::Allocator => format!("allocator = \"{name}\""),
            Kind::Authorizer => format!("authorizers = [\"{name}\"]"),
            Kind::ContainerLogger => format!("container_logger = \"{name}\""),
            Kind::Exporter => format!("exporters = [\"{name}\"]"),
            Kind::Fetcher => format!("fetcher = \"{name}\""),
            Kind::ImageStore => format!("image_providers = [\"{name}\"]"),
            Kind::Isolator => format!("isolation = [\"{name}\"]"),
            Kind::Leader => format!("master_contender = \"{name}\"\nmaster_detector = \"{name}\""),
        }
    }

    /// Settings that its template needs, as JSON.
    fn settings(self) -> serde_json::Value {
        match self {
            Kind::Allocator => json!({"most_per_round": 0}),
            Kind::Authorizer => json!({"users": ["www-data"]}),
            Kind::ContainerLogger => json!({"keep": true}),
            Kind::Exporter => json!({"path": "/values"}),
            Kind::Fetcher => json!({"dir": "/srv/share"}),
            Kind::ImageStore => json!({"dir": "/srv/images"}),
            Kind::Isolator => json!({"variable": "GREETING", "value": "hello"}),
            Kind::Leader => json!({}),
        }
    }

    /// What its suite needs besides the module: an isolator gets a container it has something to do for.
    fn suite_arguments(self) -> &'static str {
        match self {
            Kind::Isolator => ", &Default::default()",
            Kind::Fetcher | Kind::ImageStore => ", None",
            _ => "",
        }
    }

    /// The module of this kind, complete. The templates are modules themselves, tested as such; only what
    /// makes a library of them is not in them.
    fn source(self, name: &str) -> String {
        let module = self
            .module()
            .replace("AcmeModule", &type_name(name))
            .replace("acme/module", name);
        let kind = self.word();
        let of_library = format!(
            "\nexport!({kind}: {});\n\n#[cfg(test)]\nmod tests;\n",
            type_name(name)
        );
        module.trim_end().to_owned() + "\n" + &of_library
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_name(&args.name)?;
    let package = args.name.replace('/', "-").to_lowercase();
    let sdk = sdk(args.sdk.as_deref())?;
    let path = match &args.path {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_dir()?.join(&package),
    };
    let empty = |path: &Path| fs::read_dir(path).map(|mut entries| entries.next().is_none());
    ensure!(
        !path.exists() || empty(&path)?,
        "{} is there already, and not empty",
        path.display()
    );

    let fill = |template: &str| {
        template
            .replace("{{name}}", &args.name)
            .replace("{{package}}", &package)
            .replace("{{Type}}", &type_name(&args.name))
            .replace("{{kind}}", args.kind.word())
            .replace("{{sdk}}", &sdk.display().to_string())
            .replace(
                "{{settings}}",
                toml::to_string(&args.kind.settings())
                    .unwrap_or_default()
                    .trim_end(),
            )
            .replace("{{json}}", &args.kind.settings().to_string())
            .replace("{{more}}", args.kind.suite_arguments())
            .replace("{{selection}}", &args.kind.selection(&args.name))
            .replace(
                "{{library}}",
                &format!("lib{}.so", package.replace('-', "_")),
            )
    };
    fs::create_dir_all(path.join("src")).with_context(|| path.display().to_string())?;
    let write = |name: &str, text: &str| {
        let file = path.join(name);
        fs::write(&file, fill(text)).with_context(|| file.display().to_string())
    };
    write("Cargo.toml", include_str!("../../templates/manifest.toml"))?;
    write("README.md", include_str!("../../templates/README.md"))?;
    write("example.toml", include_str!("../../templates/example.toml"))?;
    write(".gitignore", "/target\n")?;
    write("src/lib.rs", &args.kind.source(&args.name))?;
    write("src/tests.rs", include_str!("../../templates/tests.rs"))?;
    // The versions that the SDK was tested with.
    if let Ok(lock) = fs::read(sdk.join("Cargo.lock")) {
        fs::write(path.join("Cargo.lock"), lock)?;
    }
    say!(
        "Wrote the {} module {} to {}. Next:",
        args.kind.word(),
        args.name,
        path.display()
    );
    say!("  cd {}", path.display());
    say!("  cargo test                  # its own tests and the suite of its kind");
    say!("  cargo build --release");
    say!(
        "  tepui module check target/release/lib{}.so --config example.toml",
        package.replace('-', "_")
    );
    Ok(ExitCode::SUCCESS)
}

/// A name that is right in the configuration, in a note, and as a package.
fn check_name(name: &str) -> Result<()> {
    let parts: Vec<&str> = name.split('/').collect();
    let good = |part: &&str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    ensure!(
        parts.len() <= 2 && parts.iter().all(good),
        "{name:?} is not a module name: expected words of letters, digits, '-' and '_', such as acme-group or acme/group"
    );
    Ok(())
}

/// `acme/group` is `AcmeGroup`.
fn type_name(name: &str) -> String {
    name.split(['/', '-', '_'])
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|c| c.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect::<String>()
        })
        .collect()
}

/// The checkout with the SDK.
fn sdk(given: Option<&Path>) -> Result<PathBuf> {
    let has_sdk = |dir: &Path| dir.join("module-abi/sdk/Cargo.toml").is_file();
    if let Some(dir) = given {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("--sdk {}", dir.display()))?;
        ensure!(
            has_sdk(&dir),
            "--sdk {}: there is no module-abi/sdk in it",
            dir.display()
        );
        return Ok(dir);
    }
    let own = std::env::current_exe()?.canonicalize()?;
    match own.ancestors().find(|dir| has_sdk(dir)) {
        Some(dir) => Ok(dir.into()),
        None => bail!(
            "{} did not come from a checkout of Tepui: name one with --sdk DIR",
            own.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types_and_bad_ones_are_refused() {
        assert_eq!(type_name("acme/long-wait"), "AcmeLongWait");
        assert!(check_name("acme-group").is_ok() && check_name("acme/group").is_ok());
        for name in ["", "a/b/c", "a b", "/a", "1a", "ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_authorizer_is_at_most_forty_lines() {
        let source = Kind::Authorizer.source("acme/group");
        assert!(
            source.lines().count() <= 40 && source.contains("export!(authorizer: AcmeGroup);"),
            "{source}"
        );
    }
}
