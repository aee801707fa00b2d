//! Calls of isolators, and the start: one step each, but for updates, which come beside them.

use std::path::PathBuf;

use futures::{FutureExt, future::BoxFuture};
use tepui_module_proto::isolator::{IsolateRequest, PrepareRequest};
use tepui_state_container::Event;

use super::{Done, Driver, ground::start, limitation};
use crate::{Class, isolation::Isolator, nested, os, records::Entry};

impl Driver {
    pub(super) fn prepare(&self, number: u32) -> BoxFuture<'static, Done> {
        let isolator = self.isolators[number as usize].clone();
        let request = PrepareRequest {
            config: Some(self.launch.config.clone()),
            plan: Some(self.plan.clone()),
        };
        async move {
            match isolator.prepare(request).await {
                Ok(plan) => Done::Planned(number, Box::new(plan)),
                Err(message) => failed(&*isolator, &message),
            }
        }
        .boxed()
    }

    pub(super) fn end_nested(&self) -> BoxFuture<'static, Done> {
        let front = self.front.upgrade();
        let nested = front.map_or_else(Vec::new, |front| front.close(&self.id));
        async move {
            futures::future::join_all(nested.iter().map(|container| container.end())).await;
            Done::Event(Event::NestedEnded)
        }
        .boxed()
    }

    pub(super) fn start(&mut self) -> Result<BoxFuture<'static, Done>, String> {
        let config = self
            .config
            .clone()
            .ok_or("a recovered container is not started")?;
        let class = config.class;
        if let Some(parent) = &self.parent {
            let pid = parent
                .pid()
                .ok_or("the container around this one does not run")?;
            nested::enter(&mut self.plan, class, pid);
        }
        let of_parent = self.parent.as_ref().filter(|_| class == Class::Debug);
        let of_parent = of_parent.and_then(|parent| parent.plan.get());
        self.plan.working_directory = self
            .plan
            .working_directory
            .take()
            .or_else(|| of_parent?.working_directory.clone())
            .or_else(|| Some(self.launch.config.sandbox_inside.clone()));
        let _ = self.planned.set(self.plan.clone());
        self.records
            .append(&Entry::Plan(&self.plan))
            .map_err(|error| error.to_string())?;
        let (context, plan) = (self.context.clone(), self.plan.clone());
        let (ground, directory) = (self.ground.clone(), self.directory.clone());
        let inside = PathBuf::from(&self.launch.config.sandbox_inside);
        Ok(start(context, config, plan, ground, inside, directory)
            .map(Done::Started)
            .boxed())
    }

    pub(super) fn isolate(&self, number: u32) -> BoxFuture<'static, Done> {
        let isolator = self.isolators[number as usize].clone();
        let pid = self.state.pid().unwrap_or_default();
        let request = IsolateRequest {
            id: self.launch.container.clone(),
            pid,
            namespaces: os::namespaces(pid),
            devices: self.plan.devices.clone(),
        };
        async move {
            match isolator.isolate(request).await {
                Ok(()) => Done::Event(Event::Isolated { isolator: number }),
                Err(message) => failed(&*isolator, &message),
            }
        }
        .boxed()
    }

    pub(super) fn cleanup(&mut self, number: u32) -> BoxFuture<'static, Done> {
        let update = self.update.take();
        let isolator = self.isolators[number as usize].clone();
        let container = self.launch.container.clone();
        async move {
            if let Some(update) = update {
                update.await;
            }
            Done::Event(match isolator.cleanup(container).await {
                Ok(reply) => Event::Cleaned {
                    isolator: number,
                    limitation: reply.limitation.and_then(limitation),
                },
                Err(message) => Event::CleanupFailed {
                    isolator: number,
                    message: in_words(&*isolator, &message),
                },
            })
        }
        .boxed()
    }

    /// Updates follow one another and precede the cleanup.
    pub(super) fn begin_update(&mut self, update: u64) {
        let Some((request, answer)) = self.updates.remove(&update) else {
            return;
        };
        if let Err(error) = self.records.append(&Entry::Update(&request)) {
            let _ = answer.send(Err(error.to_string()));
            return;
        }
        self.records.rest();
        let before = self.update.take();
        let isolators = self.isolators.clone();
        self.update = Some(
            async move {
                if let Some(before) = before {
                    before.await;
                }
                let mut result = Ok(());
                for isolator in isolators {
                    result = isolator
                        .update(request.clone())
                        .await
                        .map_err(|error| in_words(&*isolator, &error));
                    if result.is_err() {
                        break;
                    }
                }
                let _ = answer.send(result);
            }
            .boxed(),
        );
    }
}

fn failed(isolator: &dyn Isolator, message: &str) -> Done {
    Done::Event(Event::StepFailed {
        message: in_words(isolator, message),
    })
}

fn in_words(isolator: &dyn Isolator, message: &str) -> String {
    format!("isolator {}: {message}", isolator.name())
}
