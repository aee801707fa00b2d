//! The registry through its public calls, on real files.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use tepui_registry::{Op, Registry, RegistryError, key};

fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delete(key: &str) -> Op {
    Op::Delete {
        key: key.to_owned(),
    }
}

async fn reopen(registry: Registry, path: &Path) -> Registry {
    registry.close().await;
    Registry::open(path).unwrap()
}

#[tokio::test]
async fn entries_epochs_and_the_cluster_id_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/registry");
    let registry = Registry::open(&path).unwrap();
    let fresh = registry.load().await.unwrap();
    assert_eq!(
        (fresh.epoch, fresh.entries.len(), fresh.cluster_id.len()),
        (0, 0, 36)
    );

    assert_eq!(registry.begin_epoch().await.unwrap(), 1);
    let (a, b) = (key::agent("S1"), key::agent("S0"));
    registry
        .store(1, vec![put(&a, "one"), put(&b, "two"), put("x", "y")])
        .await
        .unwrap();
    registry
        .store(1, vec![delete("x"), put(&a, "three"), delete("absent")])
        .await
        .unwrap();

    let registry = reopen(registry, &path).await;
    assert_eq!(registry.begin_epoch().await.unwrap(), 2);
    let again = registry.load().await.unwrap();
    assert_eq!((again.epoch, &again.cluster_id), (2, &fresh.cluster_id));
    let expected = [
        (b, Bytes::from_static(b"two")),
        (a, Bytes::from_static(b"three")),
    ];
    assert_eq!(again.entries, expected);
}

#[tokio::test]
async fn an_older_epoch_is_refused_wholly_and_alone() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    let old = registry.begin_epoch().await.unwrap();
    let new = registry.begin_epoch().await.unwrap();
    let (refused, unborn, stored) = tokio::join!(
        registry.store(old, vec![put("a", "old"), put("b", "old")]),
        registry.store(new + 1, vec![put("a", "unborn")]),
        registry.store(new, vec![put("b", "new")]),
    );
    for (refused, epoch) in [(refused, old), (unborn, new + 1)] {
        match refused.unwrap_err() {
            RegistryError::Fenced { epoch: e, newest } => assert_eq!((e, newest), (epoch, new)),
            other => panic!("{other}"),
        }
    }
    stored.unwrap();
    assert_eq!(
        registry.load().await.unwrap().entries,
        [("b".to_owned(), Bytes::from_static(b"new"))]
    );
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    let epoch = registry.begin_epoch().await.unwrap();
    let value = Bytes::from(vec![7; 800]);
    let started = std::time::Instant::now();
    let mut stores = tokio::task::JoinSet::new();
    for i in 0..5_000 {
        let (registry, value) = (registry.clone(), value.clone());
        stores.spawn(async move {
            registry
                .store(
                    epoch,
                    vec![Op::Put {
                        key: key::agent(&format!("S{i:05}")),
                        value,
                    }],
                )
                .await
        });
    }
    while let Some(stored) = stores.join_next().await {
        stored.unwrap().unwrap();
    }
    let elapsed = started.elapsed();
    assert_eq!(registry.load().await.unwrap().entries.len(), 5_000);
    // One synced commit each would take some seconds even on the fastest disks.
    println!("5000 stores took {elapsed:?}");
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_registry_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry");
    let first = Registry::open(&path).unwrap();
    let error = Registry::open(&path).unwrap_err();
    assert!(matches!(error, RegistryError::InUse { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "registry '{}' is in use by another process; is a master running with the same work \
             directory?",
            path.display()
        )
    );
    reopen(first, &path).await;
}

#[tokio::test]
async fn damaged_files_are_named_and_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry");
    let registry = Registry::open(&path).unwrap();
    let epoch = registry.begin_epoch().await.unwrap();
    let ops = (0..500)
        .map(|i| put(&format!("agents/{i}"), &"v".repeat(300)))
        .collect();
    registry.store(epoch, ops).await.unwrap();
    registry.close().await;
    let whole = std::fs::read(&path).unwrap();

    let mut damaged: Vec<Vec<u8>> = vec![
        b"this is a text file, not a registry".to_vec(),
        vec![0; 1 << 20],
        whole[..whole.len() / 3].to_vec(),
        whole[..100].to_vec(),
    ];
    let mut state = 7_u64;
    for _ in 0..40 {
        let mut copy = whole.clone();
        for _ in 0..64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let place = (state >> 33) as usize % copy.len();
            copy[place] ^= (state >> 20) as u8 | 1;
        }
        damaged.push(copy);
    }
    let mut refused = 0;
    for (case, bytes) in damaged.iter().enumerate() {
        let path = folder.path().join(format!("damaged-{case}"));
        std::fs::write(&path, bytes).unwrap();
        let error = match Registry::open(&path) {
            Ok(registry) => match registry.load().await {
                // Some flips hit pages that hold nothing.
                Ok(_) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        refused += 1;
    }
    assert!(refused >= 4, "{refused}");
    let error = Registry::open(folder.path().join("damaged-0")).unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error:?}");
}

/// Sets a value of the table that describes the file.
fn describe(path: &Path, key: &str, value: Option<&str>) {
    let meta = redb::TableDefinition::<&str, &str>::new("meta");
    let database = redb::Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(meta).unwrap();
        match value {
            Some(value) => drop(meta.insert(key, value).unwrap()),
            None => drop(meta.remove(key).unwrap()),
        }
    }
    write.commit().unwrap();
}

#[tokio::test]
async fn files_of_other_releases_are_read_or_refused_but_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry");
    let registry = Registry::open(&path).unwrap();
    let epoch = registry.begin_epoch().await.unwrap();
    registry.store(epoch, vec![put("a", "b")]).await.unwrap();
    registry.close().await;

    // What a later release of the same format adds is left alone.
    describe(&path, "added_later", Some("x"));
    let registry = Registry::open(&path).unwrap();
    assert_eq!(registry.load().await.unwrap().entries.len(), 1);
    registry.close().await;

    describe(&path, "format", Some("2"));
    let error = Registry::open(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("has format 2; this release reads up to format 1"),
        "{error}"
    );
    describe(&path, "format", Some("1"));
    assert_eq!(
        Registry::open(&path)
            .unwrap()
            .load()
            .await
            .unwrap()
            .entries
            .len(),
        1
    );
}

#[tokio::test]
async fn a_file_without_its_epoch_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry");
    Registry::open(&path).unwrap().close().await;
    describe(&path, "epoch", None);
    let registry = Registry::open(&path).unwrap();
    for error in [
        registry.load().await.unwrap_err(),
        registry.store(1, vec![]).await.unwrap_err(),
    ] {
        assert!(
            error
                .to_string()
                .contains("is damaged or not a registry (it has no epoch)")
        );
    }
    // A failed write ends the registry.
    let error = registry.load().await.unwrap_err();
    assert!(matches!(error, RegistryError::Stopped { .. }), "{error:?}");
}

#[test]
fn a_path_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Registry::open(file.join("registry")).unwrap_err();
    assert!(matches!(error, RegistryError::Storage { .. }), "{error:?}");
}

const CHILD: &str = "TEPUI_REGISTRY_TEST_CHILD";

/// Not a test by itself: the process that `killed_writer_leaves_whole_batches` kills.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let registry = Registry::open(Path::new(&path)).unwrap();
        let epoch = registry.begin_epoch().await.unwrap();
        for i in 0_u64.. {
            let text = i.to_string();
            let ops = (0..20).map(|k| put(&format!("k{k}"), &text)).collect();
            registry.store(epoch, ops).await.unwrap();
            println!("\nstored {i}");
        }
    });
}

#[tokio::test]
async fn killed_writer_leaves_whole_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry");
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut last = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let Some(number) = line.unwrap().strip_prefix("stored ").map(str::to_owned) else {
                continue;
            };
            last = Some(number.parse::<u64>().unwrap());
            if last == Some(30 * round) {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();

        let registry = Registry::open(&path).unwrap();
        let snapshot = registry.load().await.unwrap();
        assert_eq!(snapshot.epoch, round);
        let values: Vec<u64> = snapshot
            .entries
            .iter()
            .map(|(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap())
            .collect();
        assert_eq!(values.len(), 20);
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        assert!(values[0] >= last.unwrap(), "{} < {last:?}", values[0]);
        registry.close().await;
    }
}
