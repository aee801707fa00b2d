//! Every file of an agent's records, altered and cut short at every place: refused with its name, or read as it was
//! written.

use std::fs;
use std::path::{Path, PathBuf};

use tepui_executor::Record as PlayedRecord;
use tepui_model::Resources;
use tepui_model::id::ContainerId;
use tepui_proto::disk::AgentRecord;
use tepui_proto::{Wire, v1};
use tepui_state_agent::{ExecutorKind, RecordBody, ResourceRecord};

use super::{Store, StoreError};
use crate::paths::Paths;

/// A boot id as the system gives them.
const BOOT: &str = "0f5ad6ce-6a3a-4c05-9d5f-3b5e2d1f6a77";

/// All that is read when an agent starts, as text.
fn read_all(dir: &Path, strict: bool) -> Result<String, StoreError> {
    let mut store = Store::open(Paths::new(dir.to_owned()))?;
    let agent = store.agent(strict)?;
    let resources = store.resources(strict)?;
    let mut recorded = store.load(strict)?;
    let rebooted = store.rebooted(BOOT, &mut recorded, strict)?;
    Ok(format!("{agent:?} {resources:?} {recorded:?} {rebooted:?}"))
}

fn write_all(dir: &Path) {
    let mut store = Store::open(Paths::new(dir.to_owned())).expect("a store");
    store.rebooted(BOOT, &mut [], true).expect("space");
    let agent = AgentRecord {
        agent_id: "S1".into(),
        cluster_id: "cluster".into(),
        epoch: 3,
        ..AgentRecord::default()
    };
    store.set_agent(agent).expect("space");
    let text = "disk(reservations: [(DYNAMIC,a,p)])[v:d]:5";
    let resources = ResourceRecord {
        made: Resources::parse(text, "*").expect("resources"),
        operations: vec![Wire(v1::Operation::default())],
        removed: Vec::new(),
    };
    store.set_resources(&resources).expect("space");
    let container = ContainerId::new("c");
    let launch = RecordBody::Launch {
        framework: Wire(v1::FrameworkInfo {
            name: "framework".into(),
            ..Default::default()
        }),
        executor: Wire(v1::ExecutorInfo::default()),
        kind: ExecutorKind::Generated,
    };
    let task = v1::TaskInfo {
        name: "task".into(),
        ..Default::default()
    };
    for body in [launch, RecordBody::Task(Wire(task))] {
        store.record(&container, &body).expect("space");
    }
    store
        .played(&container, &PlayedRecord::default())
        .expect("space");
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.file_name().is_some_and(|name| name != "lock") {
            found.push(path);
        }
    }
}

/// A directory as `write_all` makes it, and what is read of it.
fn written() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    write_all(dir.path());
    let text = read_all(dir.path(), true).expect("it was just written");
    (dir, text)
}

#[test]
fn altered_records_are_refused_or_read_as_they_were_written() {
    let (dir, whole) = written();
    let mut paths = Vec::new();
    files(dir.path(), &mut paths);
    assert_eq!(paths.len(), 6, "{paths:?}");
    for path in paths {
        let name = path.to_string_lossy().into_owned();
        let bytes = fs::read(&path).expect("it was written");
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &altered).expect("space");
            match read_all(dir.path(), true) {
                Ok(read) => assert_eq!(read, whole, "{name} bit {bit}"),
                Err(error) => {
                    assert!(error.to_string().contains(&name), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > bytes.len(), "{name}: {refused} refused");
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).expect("space");
            match read_all(dir.path(), true) {
                // A log says less, as it does when the agent was killed before it wrote the rest.
                Ok(read) => assert!(
                    read == whole || name.ends_with("events.log"),
                    "{name} cut at {cut}"
                ),
                Err(error) => assert!(error.to_string().contains(&name), "{error}"),
            }
        }
        fs::write(&path, &bytes).expect("space");
    }
    assert_eq!(read_all(dir.path(), true).expect("as it was"), whole);
}

#[test]
fn who_is_not_strict_sets_altered_records_aside() {
    for name in [
        "agent.pb",
        "resources.pb",
        "boot_id",
        "executors/c/executor.pb",
    ] {
        let (dir, whole) = written();
        let path = dir.path().join("meta").join(name);
        let mut bytes = fs::read(&path).expect("it was written");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(&path, &bytes).expect("space");
        let read = read_all(dir.path(), false).expect("it goes on");
        // The boot is taken for the one that was noted.
        assert_eq!(read == whole, name == "boot_id", "{name}: {read}");
        let kept = fs::read_dir(dir.path().join("meta/damaged")).expect("it is kept");
        assert!(kept.count() > 0, "{name}");
        let again = read_all(dir.path(), true).expect("nothing damaged is left");
        assert_eq!(again, read, "{name}");
    }
}
