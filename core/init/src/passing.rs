//! How an agent asks the launcher for supervisors: one byte a supervisor, with the socket that it is to have.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// Asks a launcher for a supervisor that talks to its agent over this socket.
///
/// # Errors
///
/// When the launcher is gone, or, on a socket that does not block, has too much to do.
pub fn ask_for_supervisor(
    launcher: BorrowedFd<'_>,
    conversation: BorrowedFd<'_>,
) -> io::Result<()> {
    let passed = [conversation.as_raw_fd()];
    sendmsg::<()>(
        launcher.as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&passed)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Waits until the agent asks; the socket of the supervisor it wants. None when the agent is gone.
///
/// # Errors
///
/// When it cannot be understood.
pub fn next_supervisor(agent: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(agent.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control
            && let [fd] = received[..]
        {
            // SAFETY: the kernel has just opened it for us.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}
