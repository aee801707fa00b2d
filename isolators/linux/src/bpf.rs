//! The few instructions and calls of BPF that a program on the use of devices needs.
//!
//! The crates for BPF load object files that a compiler made; such a program is a few comparisons, which are written here
//! for each list of rules. Numbers are those of `linux/bpf.h`.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// A register. R0 holds the answer at the end, R1 the context at the beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
}

/// `struct bpf_insn`. Arithmetic is on 32 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    value: i32,
}

const LOAD_MEMORY_U32: u8 = 0x61;
const AND_VALUE: u8 = 0x54;
const SHIFT_RIGHT_VALUE: u8 = 0x74;
const MOVE_VALUE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
/// On 64 bits, which all kernels with device programs have; with their upper halves zero it is as good.
const JUMP_UNLESS_EQUAL_VALUE: u8 = 0x55;
const EXIT: u8 = 0x95;

impl Instruction {
    const fn new(code: u8, to: Register, from: Register, offset: i16, value: i32) -> Self {
        let registers = to as u8 | (from as u8) << 4;
        Self {
            code,
            registers,
            offset,
            value,
        }
    }

    const fn with_value(code: u8, to: Register, value: i32) -> Self {
        Self::new(code, to, Register::R0, 0, value)
    }

    /// Loads four bytes at an offset from where `from` points.
    pub(crate) const fn load_u32(to: Register, from: Register, offset: i16) -> Self {
        Self::new(LOAD_MEMORY_U32, to, from, offset, 0)
    }

    pub(crate) const fn copy(to: Register, from: Register) -> Self {
        Self::new(MOVE_REGISTER, to, from, 0, 0)
    }

    pub(crate) const fn set(to: Register, value: i32) -> Self {
        Self::with_value(MOVE_VALUE, to, value)
    }

    pub(crate) const fn and(to: Register, value: i32) -> Self {
        Self::with_value(AND_VALUE, to, value)
    }

    pub(crate) const fn shift_right(to: Register, bits: i32) -> Self {
        Self::with_value(SHIFT_RIGHT_VALUE, to, bits)
    }

    /// Leaves out that many of the following instructions unless the register has the value, which is not negative.
    pub(crate) const fn jump_unless(register: Register, value: i32, beyond: i16) -> Self {
        Self::new(
            JUMP_UNLESS_EQUAL_VALUE,
            register,
            Register::R0,
            beyond,
            value,
        )
    }

    pub(crate) const fn exit() -> Self {
        Self::with_value(EXIT, Register::R0, 0)
    }
}

const PROGRAM_LOAD: libc::c_long = 5;
const PROGRAM_ATTACH: libc::c_long = 8;
const PROGRAM_DETACH: libc::c_long = 9;
const PROGRAM_BY_ID: libc::c_long = 13;
const PROGRAM_QUERY: libc::c_long = 16;
const PROGRAM_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
/// Cgroups below may have programs of their own besides this.
const ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing for zero.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: RawFd,
    program: RawFd,
    attach_type: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    target: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
}

/// How many programs of a cgroup itself are looked at; the kernel takes 64.
const MOST: usize = 64;

/// Gives a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` to the kernel, which checks it.
pub(crate) fn load_device_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        program_type: PROGRAM_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        // Asked for of every program; those that call no helpers may have any.
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the attributes are those of this command, and what they point to outlives the call.
    let descriptor = unsafe { bpf(PROGRAM_LOAD, &attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us, closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches a program to a cgroup, given by its directory.
pub(crate) fn attach_device_program(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the attributes are those of this command and hold descriptors that are open during the call.
    unsafe { bpf(PROGRAM_ATTACH, &attributes) }.map(drop)
}

/// The programs that are attached to a cgroup itself, given by its directory.
pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MOST];
    let mut attributes = Query {
        target: cgroup.as_raw_fd(),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
    };
    // SAFETY: the kernel writes at most `count` numbers to `ids`, and the answer's parts into the attributes, which both
    // are ours alone.
    unsafe { bpf_answering(PROGRAM_QUERY, &mut attributes) }?;
    let found = ids.iter().take(attributes.count as usize);
    let open = |id: &u32| {
        // SAFETY: the attributes are those of this command.
        let descriptor = unsafe { bpf(PROGRAM_BY_ID, &ById { id: *id }) }?;
        // SAFETY: the kernel has just made this descriptor for us, closed on exec.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    found.map(open).collect()
}

/// Takes a program away from a cgroup, given by its directory.
pub(crate) fn detach_device_program(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command and hold descriptors that are open during the call.
    unsafe { bpf(PROGRAM_DETACH, &attributes) }.map(drop)
}

/// `bpf(2)` where the kernel only reads, which libc has no function for.
///
/// # Safety
///
/// The attributes must be the beginning of `union bpf_attr` as the command reads it, with valid pointers.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> io::Result<RawFd> {
    // SAFETY: the rest is the caller's promise.
    unsafe { bpf_at(command, std::ptr::from_ref(attributes)) }
}

/// The same where the kernel writes an answer into the attributes.
///
/// # Safety
///
/// As for [`bpf`].
unsafe fn bpf_answering<A>(command: libc::c_long, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: the rest is the caller's promise.
    unsafe { bpf_at(command, std::ptr::from_mut(attributes)) }
}

/// # Safety
///
/// As for [`bpf`]; the pointer must be writable for commands that answer.
unsafe fn bpf_at<A>(command: libc::c_long, attributes: *const A) -> io::Result<RawFd> {
    // SAFETY: the kernel takes as many bytes as it is told there are; the rest is the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<A>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(answer).map_err(io::Error::other)
}
