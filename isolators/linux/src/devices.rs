//! Which devices a cgroup may use: rules in the words of v1, and the BPF program that decides by them in v2.

use std::{
    fmt, fs, io,
    os::fd::{AsFd, OwnedFd},
};

use crate::bpf::{self, Instruction, Register};
use crate::{Cgroup, CgroupError};

/// What kind a device node is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Disks and the like.
    Block,
    /// All others.
    Character,
}

/// Ways to use a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Opening it for reading.
    pub read: bool,
    /// Opening it for writing.
    pub write: bool,
    /// Making its node.
    pub mknod: bool,
}

/// Devices that may be used, and how. Shown as a line of v1's `devices.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// The kind of the devices.
    pub kind: DeviceKind,
    /// Their major number; none for all.
    pub major: Option<u32>,
    /// Their minor number; none for all.
    pub minor: Option<u32>,
    /// What may be done with them.
    pub access: DeviceAccess,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| {
            number.map_or_else(|| "*".to_owned(), |number| number.to_string())
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let DeviceAccess { read, write, mknod } = self.access;
        for (allowed, letter) in [(read, "r"), (write, "w"), (mknod, "m")] {
            if allowed {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// A program in the kernel that refuses all devices but those of some rules. It is there as long as this value, or a
/// cgroup that it is attached to.
#[derive(Debug)]
pub struct DeviceFilter {
    program: OwnedFd,
}

impl DeviceFilter {
    /// Gives the program to the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not take it: this user may not (`CAP_BPF` and `CAP_NET_ADMIN`, or root), or it was built
    /// without `CONFIG_CGROUP_BPF`.
    pub fn load(rules: &[DeviceRule]) -> io::Result<Self> {
        let program = bpf::load_device_program(&instructions(rules))?;
        Ok(Self { program })
    }

    /// Lets it decide for a cgroup of v2 and all below it, from now on and until the cgroup is removed. Programs of the
    /// cgroups above go on deciding too, and each can refuse.
    ///
    /// # Errors
    ///
    /// When there is no such cgroup, or one above has a program that admits no other.
    pub fn attach(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        let attached = fs::File::open(cgroup.path()).and_then(|directory| {
            bpf::attach_device_program(self.program.as_fd(), directory.as_fd())
        });
        attached.map_err(|source| cgroup.error("attach the device program to", "", source))
    }

    /// The same in the place of those that were attached to this cgroup. For a moment all of them decide, so that
    /// nothing is allowed that was not before or is not afterwards.
    ///
    /// # Errors
    ///
    /// As for [`Self::attach`]; and when the kernel does not tell which there are, which it does since Linux 4.15.
    pub fn replace(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        let replaced = fs::File::open(cgroup.path()).and_then(|directory| {
            let before = bpf::device_programs(directory.as_fd())?;
            bpf::attach_device_program(self.program.as_fd(), directory.as_fd())?;
            for program in before {
                bpf::detach_device_program(program.as_fd(), directory.as_fd())?;
            }
            Ok(())
        });
        replaced.map_err(|source| cgroup.error("replace the device program of", "", source))
    }
}

// `struct bpf_cgroup_dev_ctx`, and what its first field is made of.
const ACCESS_AND_KIND: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
const KIND_BITS: i32 = 0xffff;
const ACCESS_SHIFT: i32 = 16;

impl DeviceKind {
    /// `BPF_DEVCG_DEV_*`.
    fn code(self) -> i32 {
        match self {
            Self::Block => 1,
            Self::Character => 2,
        }
    }
}

impl DeviceAccess {
    /// `BPF_DEVCG_ACC_*`.
    fn bits(self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

/// The program: whoever wants what one rule allows may, nobody else. As in v1, one rule has to allow all that is wanted
/// at once, such as reading and writing.
fn instructions(rules: &[DeviceRule]) -> Vec<Instruction> {
    // The context is in R1 at first; what is kept of it comes in these.
    let (access, kind, major, minor) = (Register::R2, Register::R3, Register::R4, Register::R5);
    let scratch = Register::R1;
    let mut program = vec![
        Instruction::load_u32(access, Register::R1, ACCESS_AND_KIND),
        Instruction::copy(kind, access),
        Instruction::and(kind, KIND_BITS),
        Instruction::shift_right(access, ACCESS_SHIFT),
        Instruction::load_u32(major, Register::R1, MAJOR),
        Instruction::load_u32(minor, Register::R1, MINOR),
    ];
    for rule in rules {
        // Each jumps beyond the rule where it does not apply.
        let mut rest = vec![
            Instruction::copy(scratch, access),
            Instruction::and(scratch, !rule.access.bits()),
        ];
        let mut tests = vec![(kind, rule.kind.code())];
        tests.extend(rule.major.map(|number| (major, number.cast_signed())));
        tests.extend(rule.minor.map(|number| (minor, number.cast_signed())));
        tests.push((scratch, 0));
        let answer = [Instruction::set(Register::R0, 1), Instruction::exit()];
        let mut left = tests.len() + answer.len();
        for (register, value) in tests {
            left -= 1;
            let beyond = i16::try_from(left).expect("a rule has a handful of instructions");
            rest.push(Instruction::jump_unless(register, value, beyond));
        }
        program.extend(rest);
        program.extend(answer);
    }
    program.extend([Instruction::set(Register::R0, 0), Instruction::exit()]);
    program
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;
    use crate::Hierarchies;

    fn rule(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, letters: &str) -> DeviceRule {
        let access = DeviceAccess {
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        };
        DeviceRule {
            kind,
            major,
            minor,
            access,
        }
    }

    #[test]
    fn rules_are_shown_as_lines_of_version_1() {
        use DeviceKind::{Block, Character};
        for (rule, text) in [
            (rule(Block, None, None, "m"), "b *:* m"),
            (rule(Character, Some(136), None, "rwm"), "c 136:* rwm"),
            (rule(Character, Some(1), Some(11), "r"), "c 1:11 r"),
        ] {
            assert_eq!(rule.to_string(), text);
        }
    }

    /// What the kernel decides by two rules, for processes of a cgroup and of one below it.
    #[test]
    fn the_kernel_refuses_what_no_rule_allows() {
        let hierarchies = Hierarchies::detect().unwrap();
        let (Some(mount), true) = (hierarchies.v2, nix::unistd::geteuid().is_root()) else {
            eprintln!("not run: needs root and a mounted cgroup2 hierarchy");
            return;
        };
        let name = format!("tepui-test-devices-{}", std::process::id());
        let cgroup = Cgroup::at(mount.join(name));
        let below = Cgroup::at(cgroup.path().join("below"));
        let at = tempfile::tempdir().unwrap();
        let rules = [
            rule(DeviceKind::Block, None, None, "m"),
            rule(DeviceKind::Character, Some(1), Some(3), "rw"),
            rule(DeviceKind::Character, Some(1), Some(5), "r"),
            rule(DeviceKind::Character, Some(1), Some(5), "w"),
        ];
        cgroup.create().unwrap();
        below.create().unwrap();
        let filter = DeviceFilter::load(&rules).unwrap();
        filter.attach(&cgroup).unwrap();
        // The cgroup keeps it. One that decided otherwise before has no say any more.
        let stricter = DeviceFilter::load(&rules[..1]).unwrap();
        stricter.replace(&cgroup).unwrap();
        let strict = tries(&cgroup, at.path());
        filter.replace(&cgroup).unwrap();
        drop((stricter, filter));
        let said: Vec<String> = [&cgroup, &below]
            .map(|inside| tries(inside, at.path()))
            .into();
        below.remove().unwrap();
        cgroup.remove().unwrap();
        assert!(strict.starts_with("null no\nread zero no\n"), "{strict}");
        // Both at once are allowed by no rule, though each of them is.
        let expected = "null yes\nread zero yes\nwrite zero yes\nboth zero no\nfull no\nblock node yes\nblock no\nnode no\n";
        assert_eq!(said, [expected, expected]);
    }

    /// What a shell of a cgroup may do with some devices.
    fn tries(cgroup: &Cgroup, at: &Path) -> String {
        let script = r#"
            echo 0 > "$1/cgroup.procs"
            cd "$2"; rm -f disk char
            try() { what=$1; shift; if (eval "$@") 2>&-; then echo "$what yes"; else echo "$what no"; fi; }
            try null 'true <> /dev/null'
            try 'read zero' 'true < /dev/zero'
            try 'write zero' 'true > /dev/zero'
            try 'both zero' 'true <> /dev/zero'
            try full 'true < /dev/full'
            try 'block node' 'mknod disk b 7 200'
            try block 'true < disk'
            try node 'mknod char c 1 3'
        "#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(cgroup.path()).arg(at);
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    }
}
