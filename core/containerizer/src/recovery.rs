//! What a new agent process does with what an earlier one left.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tepui_init::Request;
use tepui_model::id::ContainerId;
use tepui_module_proto::isolator as messages;
use tepui_state_container::Mark;

use crate::{
    Class, Containerizer, Error, Isolator, Recovered, RunningContainer,
    containerizer::{Container, GREETING, list},
    driver::{Command, Driver, Parts},
    nested,
    os::{self, Found},
    records::{History, LaunchRecord, is_volume},
    requests::{self, decode_share},
};

/// A container with its records and what was found of its supervisor.
struct Left {
    id: ContainerId,
    launch: LaunchRecord,
    history: History,
    /// None for a container of an earlier boot.
    found: Option<Found>,
}

impl Left {
    fn is_over(&self) -> bool {
        self.history
            .marks
            .iter()
            .any(|mark| matches!(mark, Mark::Terminated(_)))
    }

    /// What isolators are told of it: with its root, and what it was given last.
    fn config(&self, sandbox_directory: &Path) -> messages::ContainerConfig {
        let mut config = self.launch.config.clone();
        requests::tell_of_root(&mut config, &self.history.plan, sandbox_directory);
        if let Some(update) = &self.history.update {
            config.resources.clone_from(&update.resources);
            config.limits.clone_from(&update.limits);
        }
        config
    }

    /// The persistent volumes that it had once and has no more.
    fn former_volumes(&self) -> Vec<Vec<u8>> {
        let Some(update) = &self.history.update else {
            return Vec::new();
        };
        let first = self.launch.config.resources.iter();
        let first = first.filter(|resource| is_volume(resource));
        let former = first.chain(&self.history.volumes);
        let former = former.filter(|volume| !update.resources.contains(volume));
        former.cloned().collect()
    }

    fn pid(&self) -> Option<u32> {
        match &self.found {
            Some(Found::Alive { pid, .. }) => Some(*pid),
            Some(Found::Ended { .. }) | None => None,
        }
    }
}

pub(crate) async fn recover(
    containerizer: &Containerizer,
    known: BTreeSet<ContainerId>,
) -> Result<Recovered, Error> {
    let settings = &containerizer.inner.context.settings;
    let mut recovered = Recovered::default();
    let mut left = Vec::new();
    for name in list(&settings.meta_dir)? {
        match read(containerizer, parse_id(&name)).await {
            Ok(found) => left.extend(found),
            Err(error @ Error::Record { .. }) if !settings.strict => {
                // Its supervisor is a stray now, and is ended as such.
                let damaged = settings.meta_dir.with_file_name("damaged");
                let kept = containerizer
                    .records(&parse_id(&name))
                    .set_aside(&damaged)?;
                let kept = kept.display();
                tracing::error!(container = name, %error, %kept, "the container is lost and is ended");
            }
            Err(error) => return Err(error),
        }
    }
    let strays = stray_supervisors(containerizer, &left).await?;
    recover_isolators(containerizer, &left, &strays).await?;
    recover_logger(containerizer, &left).await?;
    containerizer.watch_limits();
    for name in &strays {
        for isolator in containerizer.inner.isolators.iter().rev() {
            if let Err(error) = isolator.cleanup(name.clone()).await {
                tracing::warn!(
                    container = name,
                    isolator = isolator.name(),
                    error,
                    "a stray container is not cleaned up"
                );
            }
        }
        let _ = std::fs::remove_dir_all(containerizer.directory(name));
        recovered.orphans.push(parse_id(name));
    }
    let found: BTreeSet<ContainerId> = left.iter().map(|left| left.id.clone()).collect();
    recovered.missing = known.difference(&found).cloned().collect();

    // All are there before any goes on: what ends first ends what is nested in it.
    left.sort_by(|one, other| one.id.cmp(&other.id));
    let mut adopted = Vec::new();
    for left in left {
        adopted.push((left.id.clone(), adopt(containerizer, left)));
    }
    let mut waiting = Vec::new();
    for (id, adopted) in adopted {
        let container = adopted.container.clone();
        let has_parent = id.parent.is_none() || adopted.parts.parent.is_some();
        let is_known = has_parent
            && match nested::class_of(&container.config) {
                Class::Task => known.contains(id.root()),
                Class::Standalone => true,
                Class::Debug => false,
            };
        tokio::spawn(adopted.drive());
        if !is_known {
            container.tell(Command::Destroy);
        }
        waiting.push((id, is_known, container));
    }
    // What is nested in a container is forgotten before it.
    for (id, is_known, container) in waiting.into_iter().rev() {
        let mut view = container.view();
        let settled = view
            .wait_for(|view| view.termination.is_some() || (is_known && view.launched.is_some()))
            .await;
        let view = match settled {
            Ok(view) => view.clone(),
            // The driver is gone without a word: only at shutdown.
            Err(_) => continue,
        };
        match (is_known, view.termination) {
            (true, Some(termination)) => recovered.ended.push((id, termination)),
            (true, None) => recovered.running.push(RunningContainer {
                id,
                pid: view.pid.unwrap_or_default(),
            }),
            (false, _) => {
                containerizer.forget(&id)?;
                recovered.orphans.push(id);
            }
        }
    }
    Ok(recovered)
}

/// Reads the records of a container and looks for its supervisor. None when no launch was recorded: nothing was done.
async fn read(containerizer: &Containerizer, id: ContainerId) -> Result<Option<Left>, Error> {
    let mut records = containerizer.records(&id);
    let Some(launch) = records.launch()? else {
        records.remove()?;
        return Ok(None);
    };
    let history = records.history()?;
    let directory = containerizer.directory(&launch.container);
    let found = if launch.boot_id == containerizer.inner.context.boot_id {
        let found = os::find(&directory, GREETING).await;
        Some(found.map_err(|source| Error::Io {
            what: "find the supervisor of",
            path: directory,
            source,
        })?)
    } else {
        None
    };
    Ok(Some(Left {
        id,
        launch,
        history,
        found,
    }))
}

/// Ends supervisors that no record speaks of (the work directory was wiped) and names their containers.
async fn stray_supervisors(
    containerizer: &Containerizer,
    left: &[Left],
) -> Result<Vec<String>, Error> {
    let recorded: BTreeSet<&str> = left
        .iter()
        .map(|left| left.launch.container.as_str())
        .collect();
    let mut strays = Vec::new();
    for name in list(&containerizer.inner.context.settings.runtime_dir)? {
        if recorded.contains(name.as_str()) {
            continue;
        }
        let directory = containerizer.directory(&name);
        if !directory.join(tepui_init::LOCK_FILE).exists() {
            // Not a supervisor's: an agent keeps other things beside them, or one never began.
            continue;
        }
        let error = |source| Error::Io {
            what: "end the supervisor of",
            path: directory.clone(),
            source,
        };
        if let Found::Alive { mut supervisor, .. } =
            os::find(&directory, GREETING).await.map_err(error)?
        {
            tracing::warn!(container = name, "destroying a container without records");
            let _ = supervisor.send(&Request::Kill).await;
            supervisor.ended().await.map_err(error)?;
        }
        strays.push(name);
    }
    Ok(strays)
}

async fn recover_logger(containerizer: &Containerizer, left: &[Left]) -> Result<(), Error> {
    let Some(logger) = &containerizer.inner.context.settings.logger else {
        return Ok(());
    };
    let running = left.iter().filter(|left| left.pid().is_some());
    let running = running.map(|left| left.launch.container.clone());
    let recovered = logger.recover(running.collect()).await;
    recovered.map_err(Error::Logger)
}

async fn recover_isolators(
    containerizer: &Containerizer,
    left: &[Left],
    strays: &[String],
) -> Result<(), Error> {
    let sandbox_directory = &containerizer.inner.context.settings.sandbox_directory;
    for isolator in &containerizer.inner.isolators {
        let takes_part = |left: &&Left| {
            left.launch
                .isolators
                .iter()
                .any(|name| name == isolator.name())
        };
        let mut request = messages::RecoverRequest {
            orphans: strays.to_vec(),
            ..Default::default()
        };
        for left in left.iter().filter(takes_part) {
            match left.pid() {
                Some(pid) => request.running.push(messages::RunningContainer {
                    config: Some(left.config(sandbox_directory)),
                    pid,
                    plan: Some(left.history.plan.clone()),
                    former_volumes: left.former_volumes(),
                }),
                // Whatever is left of it is removed by its own cleanup, which follows.
                None if left.is_over() => {}
                None => request.orphans.push(left.launch.container.clone()),
            }
        }
        isolator
            .recover(request)
            .await
            .map_err(|message| Error::Isolator {
                name: isolator.name().to_owned(),
                message,
            })?;
    }
    Ok(())
}

/// A container with what it goes on with.
struct Adopted {
    container: Arc<Container>,
    parts: Parts,
    history: History,
    found: Option<Found>,
}

impl Adopted {
    fn drive(self) -> impl Future<Output = ()> {
        Driver::recover(
            self.parts,
            self.history.plan,
            self.history.marks,
            self.found,
        )
    }
}

fn adopt(containerizer: &Containerizer, left: Left) -> Adopted {
    let share = match &left.history.update {
        Some(update) => decode_share(&update.resources, &update.limits),
        None => decode_share(&left.launch.config.resources, &left.launch.config.limits),
    };
    let isolators = isolators_of(containerizer, &left.launch);
    let (container, parts) = containerizer
        .admit(&left.id, left.launch, isolators, share, false)
        .expect("records are directories, so no id is there twice, and nothing was launched before the recovery");
    Adopted {
        container,
        parts,
        history: left.history,
        found: left.found,
    }
}

/// The isolators that took part when the container was launched, as far as they are still configured.
fn isolators_of(containerizer: &Containerizer, launch: &LaunchRecord) -> Vec<Arc<dyn Isolator>> {
    let mut found = Vec::new();
    for name in &launch.isolators {
        match containerizer
            .inner
            .isolators
            .iter()
            .find(|isolator| isolator.name() == name)
        {
            Some(isolator) => found.push(isolator.clone()),
            None => tracing::warn!(
                container = launch.container,
                isolator = name,
                "is not configured any more: what it made for the container stays"
            ),
        }
    }
    found
}

/// The id of a directory's name: values from the root to the container, joined by periods, which no value contains.
fn parse_id(name: &str) -> ContainerId {
    let mut parts = name.split('.');
    let root = ContainerId::new(parts.next().unwrap_or_default());
    parts.fold(root, |id, value| id.child(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_name_nested_containers() {
        let id = ContainerId::new("a").child("b").child("c");
        assert_eq!(parse_id(&id.to_string()), id);
    }
}
