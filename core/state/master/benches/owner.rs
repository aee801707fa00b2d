//! Cost of the master's state alone: `cargo bench -p tepui-state-master`.
//!
//! `tasks` is what one owner thread can do of P5 (ACCEPT -> RUNNING -> FINISHED, each acknowledged) with
//! nothing else on it; `publish` is what a reader costs the owner at 400,000 tasks; `growth` is P10, what
//! an event costs in a small and in a large cluster.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{Scheduler, World, framework, task};
use tepui_proto::v1::{Task, TaskState};
use tepui_proto::{Message as _, link};
use tepui_state_master::SessionKey;

const BIG: &str = "cpus:1000;mem:1000000";

fn cluster(agents: u64) -> (World, Scheduler, Vec<String>) {
    let mut world = World::new();
    world.checked = false;
    world.keep_effects = false;
    let ids = (1..=agents)
        .map(|session| world.agent(session, BIG))
        .collect();
    let scheduler = world.subscribe(framework("bench", "bench"));
    (world, scheduler, ids)
}

/// Agent of an offer by its number in the id: `<master>-S<n>`.
fn number(agent: &str) -> u64 {
    let digits = agent.rsplit_once("-S").expect("an agent id").1;
    digits.parse().expect("an agent id")
}

fn tasks() {
    let (mut world, scheduler, _) = cluster(10);
    let (mut done, mut events) = (0_u64, 0_u64);
    let before = world.state.version();
    let started = cpu();
    while cpu() - started < Duration::from_secs(5) {
        let offers = world.take_offers(&scheduler);
        if offers.is_empty() {
            world.wait(Duration::from_secs(1));
            continue;
        }
        for offer in offers {
            let agent = offer.agent_id.value;
            let session = number(&agent) + 1;
            let ids: Vec<String> = (0..100).map(|n| format!("task-{}-{n}", done)).collect();
            let infos = ids
                .iter()
                .map(|id| task(id, &agent, "cpus:0.1;mem:32"))
                .collect();
            world.accept(&scheduler, &[&offer.id.value], infos);
            for id in &ids {
                for (state, uuid) in [(TaskState::TaskRunning, 1), (TaskState::TaskFinished, 2)] {
                    world.update(session, &scheduler, &agent, id, state, uuid);
                    world.acknowledge(&scheduler, &agent, id, uuid);
                }
            }
            done += 100;
            world.frames.clear();
            world.replies.clear();
        }
        events = world.state.version() - before;
    }
    let seconds = (cpu() - started).as_secs_f64();
    println!(
        "tasks: {:.0} tasks/s of processor time, {:.0} events/s ({done} tasks, one framework, 10 agents)",
        done as f64 / seconds,
        events as f64 / seconds
    );
}

fn publish() {
    const AGENTS: u64 = 1_000;
    const EACH: u64 = 400;
    let (mut world, scheduler, _) = cluster(AGENTS);
    let offers = world.take_offers(&scheduler);
    let empty = resident();
    let started = cpu();
    for offer in offers {
        let agent = offer.agent_id.value;
        let infos = (0..EACH)
            .map(|n| {
                task(
                    &format!("{}-{n}", number(&agent)),
                    &agent,
                    "cpus:0.1;mem:32",
                )
            })
            .collect();
        world.accept(&scheduler, &[&offer.id.value], infos);
        world.frames.clear();
        world.replies.clear();
    }
    println!(
        "publish: {} tasks launched in {:.1?}, {} bytes a task",
        AGENTS * EACH,
        cpu() - started,
        (resident() - empty) / (AGENTS * EACH)
    );
    let agent = format!("{}-S0", support::MASTER);
    let mut best = [Duration::MAX; 3];
    for round in 0..20_u8 {
        // One task changes; the view is taken; the next change meets shared chunks.
        let state = [TaskState::TaskRunning, TaskState::TaskStarting][usize::from(round) % 2];
        let update = Instant::now();
        world.update(1, &scheduler, &agent, "0-7", state, round);
        let update = update.elapsed();
        let first = Instant::now();
        let view = world.state.view();
        let first = first.elapsed();
        let again = Instant::now();
        let same = world.state.view();
        let again = again.elapsed();
        assert_eq!(view.frameworks[0].tasks.len(), (AGENTS * EACH) as usize);
        assert_eq!(view.version, same.version);
        for (best, time) in best.iter_mut().zip([update, first, again]) {
            *best = (*best).min(time);
        }
    }
    println!(
        "publish: view after one change {:.1?}, unchanged {:.1?}; the update itself {:.1?}",
        best[1], best[2], best[0]
    );
}

/// Time that this thread has had a processor: other load does not count.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Resident memory in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

/// A new leader takes over all tasks of an agent in one event.
fn sync() {
    let mut world = World::new();
    world.checked = false;
    world.keep_effects = false;
    let tasks: Vec<Task> = (0..10)
        .map(|n| {
            let info = task(&format!("t{n}"), "", "cpus:0.1;mem:32");
            let mut resources = info.resources;
            for resource in &mut resources {
                resource.allocation_info = Some(tepui_proto::v1::resource::AllocationInfo {
                    role: Some("bench".into()),
                });
            }
            Task {
                name: info.name,
                task_id: info.task_id,
                framework_id: tepui_proto::v1::FrameworkId { value: "f".into() },
                state: TaskState::TaskRunning as i32,
                resources,
                ..Default::default()
            }
        })
        .collect();
    let mut info = framework("bench", "bench");
    info.id = Some(tepui_proto::v1::FrameworkId { value: "f".into() });
    let started = cpu();
    const AGENTS: u64 = 4_000;
    for session in 1..=AGENTS {
        world.hello(session, None, 1);
        world.take_frames(SessionKey(session));
        world.sync(
            session,
            "cpus:4;mem:4096",
            link::Sync {
                tasks: tasks
                    .iter()
                    .cloned()
                    .map(|mut task| {
                        let id = &mut task.task_id.value;
                        *id = format!("{id}-{session}");
                        link::SyncTask {
                            task: task.encode_to_vec().into(),
                        }
                    })
                    .collect(),
                frameworks: vec![link::SyncFramework {
                    info: Some(info.clone()),
                    completed: false,
                }],
                ..Default::default()
            },
        );
    }
    let seconds = (cpu() - started).as_secs_f64();
    println!(
        "sync: {AGENTS} agents with 10 tasks each registered in {seconds:.2} s of processor time, {:.1} us an agent",
        seconds * 1e6 / AGENTS as f64
    );
}

/// Events of the same kind with few agents and with many.
fn growth() {
    for agents in [1_000, 10_000, 50_000] {
        let per = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
        let started = cpu();
        let (mut world, scheduler, _) = cluster(agents);
        let registered = cpu() - started;
        let offers = world.take_offers(&scheduler);
        let started = cpu();
        let mut tasks = Vec::new();
        for offer in offers {
            let agent = offer.agent_id.value;
            let id = format!("task-{}", number(&agent));
            let info = task(&id, &agent, "cpus:0.1;mem:32");
            world.accept(&scheduler, &[&offer.id.value], vec![info]);
            tasks.push((agent, id));
        }
        let accepted = cpu() - started;
        world.frames.clear();
        world.replies.clear();
        world.take(&scheduler);
        let started = cpu();
        for (agent, id) in &tasks {
            let session = number(agent) + 1;
            world.update(session, &scheduler, agent, id, TaskState::TaskRunning, 1);
            world.acknowledge(&scheduler, agent, id, 1);
        }
        let updated = cpu() - started;
        const IDLE: u64 = 600;
        let started = cpu();
        world.wait(Duration::from_secs(IDLE));
        let idle = cpu() - started;
        println!(
            "growth: {agents} agents: {:.1} us to register one, {:.1} us an ACCEPT, {:.1} us an update with its \
             acknowledgement; idle {:.3} us a second and agent",
            per(registered, agents),
            per(accepted, agents),
            per(updated, agents),
            per(idle, agents) / IDLE as f64,
        );
    }
}

fn main() {
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let benches: [(&str, fn()); 4] = [
        ("tasks", tasks),
        ("publish", publish),
        ("sync", sync),
        ("growth", growth),
    ];
    for (name, bench) in benches {
        if only.as_deref().is_none_or(|only| only == name) {
            bench();
        }
    }
}
