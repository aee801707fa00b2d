//! Supervisors of an earlier release that run on under an agent of this one.

mod common;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use common::{shell, wait_for};
use tepui_containerizer::{ContainerConfig, Exit};
use tepui_init::{EXIT_FILE, LOCK_FILE, Request, SOCKET_FILE};
use tepui_proto::v1::{ContainerInfo, TtyInfo};

/// What a supervisor of protocol 3, the last one before there was a launcher, has said and heard: recorded.
mod protocol_3 {
    pub(crate) const HELLO: &[u8] = b"\x0f\0\0\0\x40\x03\0\0\0\x58\x4d\0\0\x01\x01\0\0\0c";
    pub(crate) const INPUT: &[u8] = b"\x07\0\0\0\x10typed\n";
    pub(crate) const INPUT_TAKEN: &[u8] = b"\x01\0\0\0\x50";
    pub(crate) const TERMINATE: &[u8] = b"\x05\0\0\0\x03\x0f\0\0\0";
    pub(crate) const EXITED: &[u8] = b"\x01\0\0\0\x42";
    pub(crate) const EXIT: &str = "status 15\n";
}

fn hear(agent: &mut UnixStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    agent.read_exact(&mut heard).unwrap();
    assert_eq!(heard, expected);
}

/// Launches it by an agent that is gone afterwards, with all that it had begun.
fn launch_and_go(at: &Path, config: &ContainerConfig) {
    let (at, config) = (at.to_owned(), config.clone());
    let agent = std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let containerizer = common::containerizer(&at, Vec::new());
            containerizer.recover(BTreeSet::new()).await.unwrap();
            containerizer.launch(config).await.unwrap();
        });
    });
    agent.join().unwrap();
}

/// Ends a container's supervisor without a word of it.
async fn end_supervisor(directory: &Path) {
    let mut supervisor = UnixStream::connect(directory.join(SOCKET_FILE)).unwrap();
    supervisor.write_all(&Request::Kill.encode()).unwrap();
    wait_for("the end of the supervisor", || {
        let lock = File::options().write(true).open(directory.join(LOCK_FILE));
        lock.unwrap().try_lock().is_ok()
    })
    .await;
    fs::remove_file(directory.join(EXIT_FILE)).unwrap();
}

/// In the place of that supervisor: an older one.
fn supervise(directory: PathBuf) -> std::thread::JoinHandle<()> {
    let lock = File::options().write(true).open(directory.join(LOCK_FILE));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    let listener = UnixListener::bind(directory.join(SOCKET_FILE)).unwrap();
    std::thread::spawn(move || {
        let (mut agent, _) = listener.accept().unwrap();
        agent.write_all(protocol_3::HELLO).unwrap();
        hear(&mut agent, protocol_3::INPUT);
        agent.write_all(protocol_3::INPUT_TAKEN).unwrap();
        hear(&mut agent, protocol_3::TERMINATE);
        fs::write(directory.join(EXIT_FILE), protocol_3::EXIT).unwrap();
        fs::remove_file(directory.join(SOCKET_FILE)).unwrap();
        agent.write_all(protocol_3::EXITED).unwrap();
        // Of later ones the conversation ends first.
        drop(lock);
        drop(listener);
        drop(agent);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn supervisors_from_before_the_launcher_are_taken_over() {
    let at = tempfile::tempdir().unwrap();
    let mut config = shell(at.path(), "c", "exec sleep 1000");
    // Somebody may type.
    config.container = Some(ContainerInfo {
        tty_info: Some(TtyInfo::default()),
        ..ContainerInfo::default()
    });
    launch_and_go(at.path(), &config);
    let directory = at.path().join("run/c");
    end_supervisor(&directory).await;
    let older = supervise(directory);

    let containerizer = common::containerizer(at.path(), Vec::new());
    let known = BTreeSet::from([config.id.clone()]);
    let recovered = containerizer.recover(known).await.unwrap();
    let running: Vec<_> = recovered.running.iter().map(|one| one.pid).collect();
    assert_eq!(running, [0x4d58]);
    let typed = containerizer.input(&config.id, b"typed\n".to_vec());
    typed.await.unwrap();
    containerizer.kill(&config.id, libc::SIGTERM).unwrap();
    let ended = containerizer.wait(&config.id).await.unwrap();
    assert_eq!(ended.exit, Exit::Status(libc::SIGTERM));
    containerizer.forget(&config.id).unwrap();
    older.join().unwrap();
    assert!(!at.path().join("meta/c").exists() && !at.path().join("run/c").exists());
}
