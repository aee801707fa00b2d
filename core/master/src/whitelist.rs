//! `--whitelist`: a file with the names of the hosts that may be offered from, one a line, read again and again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tepui_state_master::Event;

use crate::owner::Owner;

/// As often as Mesos reads it.
const INTERVAL: Duration = Duration::from_secs(5);

/// Tells the owner what the file says, each time that is something else. While it cannot be read what it said before
/// stays; before it was ever read, nothing is offered.
pub(crate) async fn run(path: PathBuf, owner: Owner) {
    let mut told = BTreeSet::new();
    let hostnames = Some(told.clone());
    owner.event(Event::Whitelist { hostnames }).await;
    let mut failed = false;
    loop {
        match read(&path).await {
            Ok(hostnames) => {
                failed = false;
                if hostnames != told {
                    tracing::info!(hosts = hostnames.len(), "whitelist read");
                    told.clone_from(&hostnames);
                    let hostnames = Some(hostnames);
                    owner.event(Event::Whitelist { hostnames }).await;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::error!(path = %path.display(), %error, "whitelist not read: what it said before stays");
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn read(path: &Path) -> std::io::Result<BTreeSet<String>> {
    let text = tokio::fs::read_to_string(path).await?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use tepui_state_master::Event;

    use super::run;
    use crate::owner;

    #[tokio::test(start_paused = true)]
    async fn the_file_is_told_when_it_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hosts");
        let (owner, mut inbox) = owner::inbox();
        let reading = tokio::spawn(run(path.clone(), owner));
        let mut told = async || match inbox.next_event().await {
            Event::Whitelist { hostnames } => hostnames.expect("a list"),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            told().await,
            BTreeSet::new(),
            "nothing while there is no file"
        );
        fs::write(&path, "a\n\n b \n").expect("space");
        assert_eq!(told().await, BTreeSet::from(["a".into(), "b".into()]));
        // Gone for a while: what it said stays.
        fs::remove_file(&path).expect("it is there");
        tokio::time::sleep(super::INTERVAL * 3).await;
        fs::write(&path, "c\n").expect("space");
        assert_eq!(told().await, BTreeSet::from(["c".into()]));
        reading.abort();
    }
}
