//! How fast the transcoder is. By name, optimized:
//! `cargo test --release -p tepui-proto --test speed -- --ignored --nocapture`

use std::time::Instant;

use tepui_proto::descriptor::Described;
use tepui_proto::v1::master::{self, response::GetTasks};
use tepui_proto::{Message, decode, json};

/// Runs `work` a few times and prints the best time.
fn measure<T>(what: &str, bytes: usize, mut work: impl FnMut() -> T) {
    let best = (0..7)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(work());
            start.elapsed()
        })
        .min()
        .expect("seven runs");
    println!(
        "{what}: {best:.2?}, {:.0} MB/s",
        bytes as f64 / best.as_secs_f64() / 1e6
    );
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_tasks() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/master/master-busy-get-tasks.body"
    );
    let recorded: master::Response = json::to_message(&std::fs::read(path).unwrap()).unwrap();
    let tasks = recorded.get_tasks.unwrap();
    let recorded: Vec<_> = tasks
        .tasks
        .into_iter()
        .chain(tasks.completed_tasks)
        .collect();
    let tasks = recorded.iter().cycle().take(10_000).cloned().collect();
    let message = GetTasks {
        tasks,
        ..Default::default()
    };
    let wire = message.encode_to_vec();
    let text = json::from_message(&message);
    println!(
        "10,000 tasks: {} bytes of protobuf, {} of JSON",
        wire.len(),
        text.len()
    );

    measure("encode protobuf", wire.len(), || message.encode_to_vec());
    measure("decode protobuf, required checked", wire.len(), || {
        decode::<GetTasks>(&wire).unwrap()
    });
    let mut out = Vec::with_capacity(text.len());
    measure("protobuf to JSON", text.len(), || {
        out.clear();
        json::from_wire(GetTasks::DESCRIPTOR, &wire, &mut out).unwrap();
    });
    measure("message to JSON", text.len(), || {
        json::from_message(&message)
    });
    measure("JSON to message", text.len(), || {
        json::to_message::<GetTasks>(&text).unwrap()
    });
    measure("JSON to values", text.len(), || json::parse(&text).unwrap());
}
