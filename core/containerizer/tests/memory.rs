//! What is kept in memory of a container that runs: bytes asked of the heap, which is the same on every machine, where
//! resident memory is not.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{Notes, shell};
use tepui_module_proto::isolator::LaunchPlan;

struct Counting;

static KEPT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        KEPT.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        KEPT.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_is_kept_of_a_container_that_runs() {
    const CONTAINERS: usize = 40;
    const MOST: usize = 24 << 10;
    let at = tempfile::tempdir().unwrap();
    let isolator = Arc::new(Notes {
        name: "notes",
        plan: (0..10).fold(LaunchPlan::none(), |plan, number| {
            plan.env(format!("PLANNED_{number}"), "as isolators plan it")
        }),
        ..Notes::default()
    });
    let containerizer = common::containerizer(at.path(), vec![isolator]);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let mut ids = Vec::new();
    let mut before = 0;
    // The first ones bring what all others share.
    for number in 0..2 * CONTAINERS {
        if number == CONTAINERS {
            before = KEPT.load(Ordering::Relaxed);
        }
        let config = shell(at.path(), &format!("c{number}"), "exec sleep 1000");
        ids.push(config.id.clone());
        containerizer.launch(config).await.unwrap();
    }
    let each = KEPT.load(Ordering::Relaxed).saturating_sub(before) / CONTAINERS;
    println!("{each} bytes a container");
    for id in ids {
        containerizer.destroy(&id).await.unwrap();
    }
    assert!(each < MOST, "{each} bytes a container, at most {MOST}");
}
