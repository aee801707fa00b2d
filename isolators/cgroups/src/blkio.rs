//! Subsystem `blkio`: what containers read from and write to block devices. Mirrors `subsystems/blkio.cpp`.

use std::collections::BTreeMap;

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::mesos::cgroup_info::blkio::{Operation, Statistics, Value, cfq, throttling};
use tepui_module_sdk::mesos::device::Number;

/// Major and minor number; none for all devices together.
type Device = Option<(u64, u64)>;

/// The numbers of one file by device.
type Numbers = BTreeMap<Device, Vec<(Operation, u64)>>;

/// What the kernel has counted. Files that it does not have are left out: which there are depends on its version and
/// on the schedulers of the devices.
pub(crate) fn usage(cgroup: &Cgroup) -> Statistics {
    Statistics {
        cfq: proportional(cgroup, ""),
        cfq_recursive: proportional(cgroup, "_recursive"),
        throttling: throttled(cgroup),
    }
}

/// The same in version 2, in the fields for what any scheduler counts; Mesos tells nothing of it.
pub(crate) fn usage_unified(cgroup: &Cgroup) -> Statistics {
    let text = cgroup.read("io.stat").unwrap_or_default();
    Statistics {
        throttling: text.lines().filter_map(device_unified).collect(),
        ..Statistics::default()
    }
}

/// A line `8:0 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn device_unified(line: &str) -> Option<throttling::Statistics> {
    let mut fields = line.split_ascii_whitespace();
    let device = parse_device(fields.next()?);
    let counters: BTreeMap<&str, u64> = fields
        .filter_map(|field| field.split_once('='))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    let values = |names: [&str; 3]| {
        let operations = [Operation::Read, Operation::Write, Operation::Discard];
        let values = operations.into_iter().zip(names);
        let values = values.filter_map(|(operation, name)| {
            Some(Value {
                op: Some(operation.into()),
                value: Some(*counters.get(name)?),
            })
        });
        values.collect()
    };
    Some(throttling::Statistics {
        device: number(device),
        io_serviced: values(["rios", "wios", "dios"]),
        io_service_bytes: values(["rbytes", "wbytes", "dbytes"]),
    })
}

fn throttled(cgroup: &Cgroup) -> Vec<throttling::Statistics> {
    let mut devices = BTreeMap::new();
    gather(
        cgroup,
        "blkio.throttle.io_serviced",
        &mut devices,
        |device: &mut throttling::Statistics, values| device.io_serviced = values,
    );
    gather(
        cgroup,
        "blkio.throttle.io_service_bytes",
        &mut devices,
        |device, values| device.io_service_bytes = values,
    );
    let named = devices.into_iter().map(|(device, statistics)| {
        let device = number(device);
        throttling::Statistics {
            device,
            ..statistics
        }
    });
    named.collect()
}

/// Counters of the scheduler that shares devices by weight. Newer kernels have BFQ in CFQ's place.
fn proportional(cgroup: &Cgroup, suffix: &str) -> Vec<cfq::Statistics> {
    let mut devices: BTreeMap<Device, cfq::Statistics> = BTreeMap::new();
    for scheduler in ["", "bfq."] {
        let file = |name: &str| format!("blkio.{scheduler}{name}{suffix}");
        let mut counters = |name: &str, set: fn(&mut cfq::Statistics, Vec<Value>)| {
            gather(cgroup, &file(name), &mut devices, set);
        };
        counters("io_serviced", |device, values| device.io_serviced = values);
        counters("io_service_bytes", |device, values| {
            device.io_service_bytes = values;
        });
        counters("io_service_time", |device, values| {
            device.io_service_time = values;
        });
        counters("io_wait_time", |device, values| {
            device.io_wait_time = values;
        });
        counters("io_merged", |device, values| device.io_merged = values);
        counters("io_queued", |device, values| device.io_queued = values);
        counters("time", |device, values| device.time = only(&values));
        counters("sectors", |device, values| device.sectors = only(&values));
    }
    let named = devices.into_iter().map(|(device, statistics)| {
        let device = number(device);
        cfq::Statistics {
            device,
            ..statistics
        }
    });
    named.collect()
}

fn gather<S: Default>(
    cgroup: &Cgroup,
    file: &str,
    devices: &mut BTreeMap<Device, S>,
    set: impl Fn(&mut S, Vec<Value>),
) {
    let Ok(text) = cgroup.read(file) else { return };
    for (device, values) in parse(&text) {
        let values = values.into_iter().map(|(operation, value)| Value {
            op: Some(operation.into()),
            value: Some(value),
        });
        set(devices.entry(device).or_default(), values.collect());
    }
}

/// Lines `8:0 Read 5`, `8:0 5` and `Total 5`.
fn parse(text: &str) -> Numbers {
    let mut found = Numbers::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let parsed = match fields.as_slice() {
            [device, operation, value] => (parse_device(device), operation_of(operation), value),
            [device, value] if device.contains(':') => {
                (parse_device(device), Operation::Total, value)
            }
            [operation, value] => (None, operation_of(operation), value),
            _ => continue,
        };
        let (device, operation, value) = parsed;
        if let Ok(value) = value.parse() {
            found.entry(device).or_default().push((operation, value));
        }
    }
    found
}

fn parse_device(text: &str) -> Device {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn operation_of(text: &str) -> Operation {
    Operation::from_str_name(&text.to_ascii_uppercase()).unwrap_or(Operation::Unknown)
}

fn number(device: Device) -> Option<Number> {
    device.map(|(major_number, minor_number)| Number {
        major_number,
        minor_number,
    })
}

fn only(values: &[Value]) -> Option<u64> {
    values.first().and_then(|value| value.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_counts_reads_writes_and_discards_of_each_device() {
        let at = tempfile::tempdir().unwrap();
        let line = "8:16 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0 cost.usage=7\n";
        std::fs::write(at.path().join("io.stat"), line).unwrap();
        let statistics = usage_unified(&Cgroup::at(at.path()));
        let [device] = &statistics.throttling[..] else {
            panic!("{statistics:?}")
        };
        let minor = device.device.as_ref().map(|number| number.minor_number);
        assert_eq!(minor, Some(16));
        let of = |values: &[Value]| -> Vec<_> {
            let pairs = values.iter().map(|value| (value.op(), value.value()));
            pairs.collect()
        };
        use Operation::{Discard, Read, Write};
        assert_eq!(
            of(&device.io_serviced),
            [(Read, 1), (Write, 2), (Discard, 0)]
        );
        assert_eq!(
            of(&device.io_service_bytes),
            [(Read, 512), (Write, 1024), (Discard, 0)]
        );
        assert!(statistics.cfq.is_empty());
    }

    #[test]
    fn counters_are_joined_by_device() {
        let at = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(at.path().join(file), text).unwrap();
        write(
            "blkio.throttle.io_serviced",
            "8:0 Read 1\n8:0 Discard 2\n8:16 Total 3\nTotal 6\n",
        );
        write(
            "blkio.throttle.io_service_bytes",
            "8:0 Read 512\nTotal 512\n",
        );
        write("blkio.bfq.io_serviced", "8:0 Sync 4\nTotal 4\n");
        write("blkio.time", "8:0 70\n");
        let statistics = usage(&Cgroup::at(at.path()));
        let devices: Vec<_> = statistics
            .throttling
            .iter()
            .map(|device| {
                let number = device.device.as_ref().map(|number| number.minor_number);
                let of = |values: &[Value]| {
                    let pairs = values.iter().map(|value| (value.op(), value.value()));
                    pairs.collect::<Vec<_>>()
                };
                (
                    number,
                    of(&device.io_serviced),
                    of(&device.io_service_bytes),
                )
            })
            .collect();
        use Operation::{Discard, Read, Total};
        assert_eq!(
            devices,
            [
                (None, vec![(Total, 6)], vec![(Total, 512)]),
                (Some(0), vec![(Read, 1), (Discard, 2)], vec![(Read, 512)]),
                (Some(16), vec![(Total, 3)], vec![]),
            ]
        );
        assert_eq!(statistics.cfq[1].time, Some(70));
        assert_eq!(statistics.cfq[1].io_serviced[0].value(), 4);
        assert!(statistics.cfq_recursive.is_empty());
    }
}
