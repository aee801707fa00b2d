//! The threads that enter `start`: a module that blocks there loses a thread, not the daemon an I/O worker.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of one instance, so that a hung module takes none from another. They come when needed and
/// end when idle. A few come at once; more only help where calls wait for something else, and so come
/// when none gets on: a thread takes a good deal of memory.
#[derive(Clone)]
pub(crate) struct Threads(Arc<Shared>);

struct Shared {
    name: String,
    few: usize,
    most: usize,
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    all: usize,
    /// Jobs that were begun, in all and when it was last looked.
    begun: u64,
    seen: u64,
}

const IDLE: Duration = Duration::from_secs(10);

impl Threads {
    /// Threads that come at once, and at most; these need [`Threads::watch`].
    pub(crate) fn new(name: &str, few: usize, most: usize) -> Self {
        let name = format!("module {name}");
        Threads(Arc::new(Shared {
            name,
            few,
            most,
            queue: Mutex::default(),
            more: Condvar::new(),
        }))
    }

    /// Runs a job soon; when all threads are busy it waits.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.queue();
        queue.jobs.push_back(Box::new(job));
        if queue.idle >= queue.jobs.len() {
            self.0.more.notify_one();
        } else if queue.all < self.0.few {
            self.add(&mut queue);
        }
    }

    /// Called now and then: adds a thread where jobs wait and none was begun since the last time.
    pub(crate) fn watch(&self) {
        let mut queue = self.0.queue();
        let is_stuck = !queue.jobs.is_empty() && queue.begun == queue.seen;
        queue.seen = queue.begun;
        if is_stuck && queue.all < self.0.most {
            self.add(&mut queue);
        }
    }

    fn add(&self, queue: &mut Queue) {
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

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.begun += 1;
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn jobs_that_hang_hold_up_others_until_it_is_seen() {
        let few = 3;
        let threads = Threads::new("test", few, 16);
        let (hang, hung) = sync_channel::<()>(0);
        let hung = Arc::new(Mutex::new(hung));
        for _ in 0..few {
            let hung = Arc::clone(&hung);
            threads.run(move || {
                let _ = hung.lock().map(|hung| hung.recv());
            });
        }
        let (done, is_done) = sync_channel(8);
        threads.run(move || done.send(()).expect("the test waits"));
        assert_eq!(threads.0.queue().all, few, "no more than few come at once");
        while is_done.recv_timeout(Duration::from_millis(1)).is_err() {
            threads.watch();
            assert!(threads.0.queue().all <= 16);
        }
        for _ in 0..few {
            hang.send(()).expect("a job waits");
        }
    }
}
