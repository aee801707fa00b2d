//! Loses power between any two writes of the store and looks at what is left.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redb::StorageBackend;

use crate::store::{Batch, Store, builder, open_error};
use crate::thread::guarded;
use crate::{Op, Snapshot};

/// What the store did to its file, in order.
#[derive(Clone, Debug)]
enum Deed {
    Resize(u64),
    Write(u64, Vec<u8>),
    Sync,
}

/// A file in memory that remembers each deed, or fails from one deed on.
#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    deeds: Vec<Deed>,
    fails_after: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Backend(Arc<Mutex<Disk>>);

impl Backend {
    fn with(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            bytes,
            ..Disk::default()
        })))
    }

    fn deeds(&self) -> usize {
        self.0.lock().unwrap().deeds.len()
    }

    fn act(&self, deed: Deed) -> std::io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk
            .fails_after
            .is_some_and(|limit| disk.deeds.len() >= limit)
        {
            return Err(std::io::Error::other("disk is broken"));
        }
        apply(&mut disk.bytes, &deed);
        disk.deeds.push(deed);
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, deed: &Deed) {
    match deed {
        Deed::Resize(length) => bytes.resize(*length as usize, 0),
        Deed::Write(offset, data) => {
            let start = *offset as usize;
            // A write that went to a part which a lost resize would have made is lost too.
            if let Some(room) = bytes.get_mut(start..start + data.len()) {
                room.copy_from_slice(data);
            }
        }
        Deed::Sync => {}
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let disk = self.0.lock().unwrap();
        let start = offset as usize;
        let bytes = disk.bytes.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.act(Deed::Resize(length))
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.act(Deed::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.act(Deed::Write(offset, data.to_vec()))
    }
}

fn open(backend: Backend) -> Store {
    try_open(backend).unwrap()
}

fn try_open(backend: Backend) -> Result<Store, crate::RegistryError> {
    let path = Path::new("memory");
    let database = builder().create_with_backend(backend);
    Store::prepare(database.map_err(|error| open_error(path, error))?, path)
}

fn batch(number: u64) -> Vec<Op> {
    let value = Bytes::from(number.to_string().repeat(40));
    let mut ops: Vec<Op> = (0..10)
        .map(|k| Op::Put {
            key: format!("k{}", (number + k) % 25),
            value: value.clone(),
        })
        .collect();
    ops.push(Op::Delete {
        key: format!("k{}", (number + 17) % 25),
    });
    ops
}

/// Runs the same work on a disk; returns the states after each step and the deeds done by then.
fn work(backend: &Backend) -> Vec<(usize, Snapshot)> {
    let store = open(backend.clone());
    let mut states = vec![(backend.deeds(), store.load().unwrap())];
    let epoch = store.begin_epoch().unwrap();
    states.push((backend.deeds(), store.load().unwrap()));
    for number in 0..12 {
        store
            .store(&[Batch {
                epoch,
                ops: &batch(number),
            }])
            .unwrap()[0]
            .as_ref()
            .unwrap();
        states.push((backend.deeds(), store.load().unwrap()));
    }
    states
}

#[test]
fn power_lost_anywhere_leaves_a_state_between_two_batches() {
    let backend = Backend::default();
    let states = work(&backend);
    let deeds = backend.0.lock().unwrap().deeds.clone();
    let mut random = 99_u64;
    for crash in states[0].0..=states.last().unwrap().0 {
        // Up to the last sync all is on the disk, after it any part of the writes may be.
        let synced = deeds[..crash]
            .iter()
            .rposition(|d| matches!(d, Deed::Sync))
            .unwrap_or(0);
        let mut bytes = Vec::new();
        for (place, deed) in deeds[..crash].iter().enumerate() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if place <= synced || random >> 63 == 0 {
                apply(&mut bytes, deed);
            }
        }
        let found = open(Backend::with(bytes)).load().unwrap();
        let acknowledged = states.iter().rposition(|(done, _)| *done <= crash).unwrap();
        let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
        assert!(
            allowed.iter().any(|(_, state)| *state == found),
            "after {crash} of {} deeds: {found:?}",
            deeds.len()
        );
    }
}

#[test]
fn a_failing_disk_is_an_error_and_loses_nothing_acknowledged() {
    let backend = Backend::default();
    let states = work(&backend);
    let deeds = backend.deeds();
    for limit in (states[0].0..deeds).step_by(3) {
        let backend = Backend::default();
        backend.0.lock().unwrap().fails_after = Some(limit);
        let store = open(backend.clone());
        let epoch = store.begin_epoch();
        let mut acknowledged = usize::from(epoch.is_ok());
        if let Ok(epoch) = epoch {
            for number in 0..12 {
                match store.store(&[Batch {
                    epoch,
                    ops: &batch(number),
                }]) {
                    Ok(_) => acknowledged += 1,
                    Err(_) => break,
                }
            }
        }
        drop(store);
        let bytes = backend.0.lock().unwrap().bytes.clone();
        let found = open(Backend::with(bytes)).load().unwrap();
        let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
        assert!(
            allowed
                .iter()
                .any(|(_, s)| s.entries == found.entries && s.epoch == found.epoch),
            "failing after {limit} deeds: {acknowledged} acknowledged, {found:?}"
        );
    }
}

/// What a master finds in a file, or why it does not start.
fn found(bytes: Vec<u8>) -> Result<Snapshot, crate::RegistryError> {
    let work = || try_open(Backend::with(bytes))?.load();
    guarded(Path::new("memory"), work)
}

#[test]
fn an_altered_file_is_refused_or_says_what_was_written() {
    let backend = Backend::default();
    let states = work(&backend);
    let written = &states.last().unwrap().1;
    let bytes = backend.0.lock().unwrap().bytes.clone();
    assert_eq!(found(bytes.clone()).unwrap(), *written);
    // All that is not empty, and some of the rest.
    let used = |at: &usize| bytes[at / 512 * 512..][..512].iter().any(|byte| *byte != 0);
    let (mut refused, mut unharmed) = (0, 0);
    for at in (0..bytes.len()).filter(|at| used(at) && (*at < 512 || at % 13 == 0)) {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        match found(altered) {
            Ok(found) => {
                assert_eq!(found, *written, "byte {at}");
                unharmed += 1;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("memory"), "byte {at}: {text}");
                refused += 1;
            }
        }
    }
    assert!(
        refused > 100 && unharmed > 0,
        "{refused} refused, {unharmed} unharmed"
    );
    for length in (0..bytes.len()).step_by(4099) {
        match found(bytes[..length].to_vec()) {
            // An empty file is a new registry.
            Ok(found) => assert!(
                found == *written || length == 0,
                "{length} bytes: {found:?}"
            ),
            Err(error) => assert!(
                error.to_string().contains("memory"),
                "{length} bytes: {error}"
            ),
        }
    }
}
