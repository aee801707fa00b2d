//! From a profile to the kernel's instructions.
//!
//! A filter of `seccompiler` has one action for what it matches. A profile has several, so consecutive rules of one
//! action are one filter each, joined: what a filter does not match goes on to the next.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use tepui_module_sdk::prelude::*;

use crate::profile::{Action, Argument, Compare, Machine, Profile, Rule};

/// The kernel takes no more instructions.
const MOST_INSTRUCTIONS: usize = 4096;
/// Instructions of the kernel's filters: see `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
/// System calls of the x32 variant of x86_64 are the others with this bit: a list of numbers would not catch them.
const X32: u32 = 0x4000_0000;

/// Rules of one action: tests of arguments by system call.
struct Part {
    action: SeccompAction,
    rules: BTreeMap<i64, Vec<SeccompRule>>,
}

/// The instructions of a profile's filter, as bytes.
pub(crate) fn compile(profile: &Profile, machine: &Machine) -> Result<Vec<u8>> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|error| Failure::invalid(format!("no seccomp on this machine: {error}")))?;
    let default = action(profile.default_action, profile.default_errno_ret);
    let parts = parts(profile, machine, &default)?;
    let mut program = prologue(architecture);
    for part in parts {
        let mut next = compile_part(part, &default, architecture)?;
        let end = next.len();
        let unmatched = u32::from(default.clone());
        for (at, instruction) in next.iter_mut().enumerate() {
            if instruction.code == RETURN && instruction.k == unmatched {
                *instruction = statement(JUMP, (end - at - 1) as u32);
            }
        }
        program.append(&mut next);
    }
    program.push(statement(RETURN, default.into()));
    if program.len() > MOST_INSTRUCTIONS {
        return Err(Failure::invalid(format!(
            "the filter has {} instructions, and the kernel takes {MOST_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(program.iter().flat_map(bytes).collect())
}

fn parts(profile: &Profile, machine: &Machine, default: &SeccompAction) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for rule in profile.syscalls.iter().filter(|rule| rule.counts(machine)) {
        let action = action(rule.action, rule.errno_ret);
        if action == *default {
            continue;
        }
        if parts.last().is_none_or(|part| part.action != action) {
            let rules = BTreeMap::new();
            parts.push(Part {
                action: action.clone(),
                rules,
            });
        }
        let part = parts.last_mut().expect("one was pushed");
        add(rule, profile, &mut part.rules)?;
    }
    Ok(parts)
}

fn add(rule: &Rule, profile: &Profile, rules: &mut BTreeMap<i64, Vec<SeccompRule>>) -> Result<()> {
    for name in rule.names() {
        let Ok(known) = name.parse::<syscalls::Sysno>() else {
            // Profiles name the system calls of all architectures.
            if profile.default_action == Action::Allow {
                warn!(
                    name,
                    "a seccomp profile denies a system call that is unknown here"
                );
            }
            continue;
        };
        let arguments = rule.arguments();
        let tests = arguments.iter().map(|all| test(all));
        let mut tests = tests.collect::<Result<Vec<_>>>()?;
        let before = rules.get(&i64::from(known.id()));
        match before {
            // No test at all matches whatever the arguments are.
            Some(before) if before.is_empty() => {}
            Some(_) if !tests.is_empty() => {
                let all = rules.entry(i64::from(known.id())).or_default();
                all.append(&mut tests);
            }
            _ => {
                rules.insert(i64::from(known.id()), tests);
            }
        }
    }
    Ok(())
}

fn test(all: &[Argument]) -> Result<SeccompRule> {
    let invalid = |error: seccompiler::BackendError| Failure::invalid(error.to_string());
    let conditions = all.iter().map(|argument| {
        let (compare, value) = match argument.op {
            Compare::Equal => (SeccompCmpOp::Eq, argument.value),
            Compare::NotEqual => (SeccompCmpOp::Ne, argument.value),
            Compare::Less => (SeccompCmpOp::Lt, argument.value),
            Compare::LessOrEqual => (SeccompCmpOp::Le, argument.value),
            Compare::Greater => (SeccompCmpOp::Gt, argument.value),
            Compare::GreaterOrEqual => (SeccompCmpOp::Ge, argument.value),
            Compare::MaskedEqual => (SeccompCmpOp::MaskedEq(argument.value), argument.value_two),
        };
        SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, compare, value)
    });
    let conditions = conditions.collect::<Result<_, _>>().map_err(invalid)?;
    SeccompRule::new(conditions).map_err(invalid)
}

fn compile_part(
    part: Part,
    default: &SeccompAction,
    architecture: TargetArch,
) -> Result<BpfProgram> {
    SeccompFilter::new(part.rules, default.clone(), part.action, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(|error| Failure::invalid(error.to_string()))
}

fn action(action: Action, errno: Option<u32>) -> SeccompAction {
    const EPERM: u32 = 1;
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Errno => SeccompAction::Errno(errno.unwrap_or(EPERM)),
        Action::KillThread => SeccompAction::KillThread,
        Action::KillProcess => SeccompAction::KillProcess,
        Action::Log => SeccompAction::Log,
        Action::Trace => SeccompAction::Trace(errno.unwrap_or(EPERM)),
        Action::Trap => SeccompAction::Trap,
    }
}

fn prologue(architecture: TargetArch) -> BpfProgram {
    if architecture != TargetArch::x86_64 {
        return Vec::new();
    }
    vec![
        // The number of the system call.
        statement(LOAD_WORD, 0),
        sock_filter {
            code: JUMP_IF_AT_LEAST,
            jt: 0,
            jf: 1,
            k: X32,
        },
        statement(RETURN, SeccompAction::KillProcess.into()),
    ]
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// As the kernel has it in memory.
fn bytes(instruction: &sock_filter) -> [u8; 8] {
    let [a, b] = instruction.code.to_ne_bytes();
    let [k0, k1, k2, k3] = instruction.k.to_ne_bytes();
    [a, b, instruction.jt, instruction.jf, k0, k1, k2, k3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    const KILLED: u32 = 0x8000_0000;

    /// What the kernel would answer: the few instructions that filters are made of.
    fn answer(program: &[u8], number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = number.to_ne_bytes().to_vec();
        let architecture: u32 = match std::env::consts::ARCH {
            "x86_64" => 0xc000_003e,
            "aarch64" => 0xc000_00b7,
            _ => 0xc000_00f3,
        };
        data.extend(architecture.to_ne_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (instructions, _) = program.as_chunks::<8>();
        let (mut at, mut word) = (0, 0u32);
        loop {
            let [a, b, jt, jf, k @ ..] = instructions[at];
            let k = u32::from_ne_bytes(k);
            let jump = |yes: bool| usize::from(if yes { jt } else { jf });
            at += 1;
            match u16::from_ne_bytes([a, b]) {
                LOAD_WORD => {
                    let from = k as usize;
                    word = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                0x54 => word &= k,
                JUMP => at += k as usize,
                0x15 => at += jump(word == k),
                0x25 => at += jump(word > k),
                JUMP_IF_AT_LEAST => at += jump(word >= k),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn compiled(json: serde_json::Value, capabilities: u64) -> impl Fn(&str, [u64; 6]) -> u32 {
        let profile: Profile = serde_json::from_value(json).unwrap();
        let program = compile(&profile, &Machine::new(capabilities)).unwrap();
        move |name, arguments| {
            let number = name.parse::<syscalls::Sysno>().unwrap().id();
            answer(&program, number as u32, arguments)
        }
    }

    #[test]
    fn the_filter_answers_what_the_profile_says() {
        let ask = compiled(
            serde_json::json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [
                    { "names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW", "args": null },
                    { "name": "write", "action": "SCMP_ACT_ALLOW",
                      "args": [{ "index": 0, "value": 2, "op": "SCMP_CMP_LE" },
                               { "index": 2, "value": 1u64 << 33, "op": "SCMP_CMP_LT" }] },
                    { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                    { "names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS" },
                    { "names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
                    { "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                      "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" },
                               { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
                    { "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                      "args": [{ "index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
                ],
            }),
            0,
        );
        let first = |value| [value, 0, 0, 0, 0, 0];
        assert_eq!(ask("read", first(9)), ALLOWED);
        assert_eq!(ask("write", first(1)), ALLOWED);
        assert_eq!(ask("write", first(3)), ERRNO | 1);
        assert_eq!(ask("write", [1, 0, 1 << 33, 0, 0, 0]), ERRNO | 1);
        assert_eq!(ask("write", [1, 0, (1 << 33) - 1, 0, 0, 0]), ALLOWED);
        assert_eq!(ask("clone3", first(0)), ERRNO | 38);
        assert_eq!(ask("ptrace", first(0)), KILLED);
        assert_eq!(ask("close", first(0)), ERRNO | 1);
        assert_eq!(ask("mount", first(0)), ERRNO | 1);
        assert_eq!(
            [0, 8, 9].map(|value| ask("personality", first(value))),
            [ALLOWED, ALLOWED, ERRNO | 1]
        );
        assert_eq!(ask("clone", first(0x0100_0011)), ALLOWED);
        assert_eq!(ask("clone", first(0x1000_0000)), ERRNO | 1);
    }

    #[test]
    fn rules_depend_on_capabilities_architecture_and_kernel() {
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                { "names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["reboot"], "action": "SCMP_ACT_KILL", "includes": { "caps": ["CAP_SYS_BOOT"] } },
                { "names": ["read"], "action": "SCMP_ACT_TRAP", "includes": { "arches": ["s390x"] } },
                { "names": ["write"], "action": "SCMP_ACT_LOG", "includes": { "minKernel": "4.8" } },
                { "names": ["close"], "action": "SCMP_ACT_LOG", "includes": { "minKernel": "99.0" } },
            ],
        });
        let names = ["mount", "reboot", "read", "write", "close"];
        let log = 0x7ffc_0000;
        let without = compiled(profile.clone(), 0);
        assert_eq!(
            names.map(|name| without(name, [0; 6])),
            [ERRNO | 1, ALLOWED, ALLOWED, log, ALLOWED]
        );
        let with = compiled(profile, 1 << 21 | 1 << 22);
        assert_eq!(
            names.map(|name| with(name, [0; 6])),
            [ALLOWED, 0, ALLOWED, log, ALLOWED]
        );
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn system_calls_of_the_x32_variant_do_not_slip_through() {
        let profile = serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mount"], "action": "SCMP_ACT_ERRNO" }],
        }));
        let program = compile(&profile.unwrap(), &Machine::new(0)).unwrap();
        assert_eq!(answer(&program, X32 | 165, [0; 6]), KILLED);
        assert_eq!(answer(&program, 165, [0; 6]), ERRNO | 1);
    }

    #[test]
    fn bad_profiles_are_refused_in_words() {
        let read = |json: serde_json::Value| {
            serde_json::from_value::<Profile>(json)
                .map_err(|error| error.to_string())
                .and_then(|profile| {
                    compile(&profile, &Machine::new(0)).map_err(|failure| failure.to_string())
                })
                .unwrap_err()
        };
        let said = read(serde_json::json!({}));
        assert!(said.contains("defaultAction"), "{said}");
        let said = read(serde_json::json!({ "defaultAction": "SCMP_ACT_NOTIFY" }));
        assert!(said.contains("SCMP_ACT_NOTIFY"), "{said}");
        let said = read(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW",
                           "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }],
        }));
        assert!(said.contains("invalid argument index"), "{said}");
    }
}
