//! What a server listens on: a TCP port, or a socket in the file system.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// One connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A listening socket.
pub(super) trait Socket: Send + 'static {
    type Stream: Stream;

    /// The next connection, and who is at its other end.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Socket for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.accept().await?;
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}

/// A socket in the file system, which is removed with it.
#[derive(Debug)]
pub(super) struct Unix {
    listener: UnixListener,
    path: PathBuf,
}

impl Unix {
    /// Listens, in the place of whoever left a socket there. Every user of the machine may connect, as
    /// to a port.
    pub(super) fn bind(path: &Path) -> io::Result<Unix> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Unix {
            listener,
            path: path.to_owned(),
        })
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // Whoever comes next removes it, too.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Socket for Unix {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, _) = self.listener.accept().await?;
        // Processes of this machine have no address there.
        Ok((stream, SocketAddr::from(([127, 0, 0, 1], 0))))
    }
}
