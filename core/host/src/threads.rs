//! The threads that enter `start`: a module that blocks there loses a thread, not the daemon an I/O worker.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of one instance, so that a hung module takes none from another. They come when needed and
/// end when idle.
#[derive(Clone)]
pub(crate) struct Threads(Arc<Shared>);

struct Shared {
    name: String,
    most: usize,
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    all: usize,
}

const IDLE: Duration = Duration::from_secs(10);

impl Threads {
    pub(crate) fn new(name: &str, most: usize) -> Self {
        let name = format!("module {name}");
        Threads(Arc::new(Shared {
            name,
            most,
            queue: Mutex::default(),
            more: Condvar::new(),
        }))
    }

    /// Runs a job soon; when all threads are busy and there are as many as may be, it waits.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.queue();
        queue.jobs.push_back(Box::new(job));
        if queue.idle >= queue.jobs.len() {
            self.0.more.notify_one();
        } else if queue.all < self.0.most {
            let shared = self.0.clone();
            let spawned = std::thread::Builder::new()
                .name(self.0.name.clone())
                .spawn(move || shared.work());
            match spawned {
                Ok(_) => queue.all += 1,
                Err(error) => tracing::error!(%error, "no thread for a module call"),
            }
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = self.queue();
                continue;
            }
            queue.idle += 1;
            let (back, timeout) = self
                .more
                .wait_timeout(queue, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            queue = back;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() {
                queue.all -= 1;
                return;
            }
        }
    }
}
