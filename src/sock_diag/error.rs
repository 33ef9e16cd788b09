//! Why the kernel gave no answer about a socket.

use rustix::io::Errno;

/// Why the kernel gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not open netlink sockets (EAFNOSUPPORT).
    #[error("AF_NETLINK is not allowed here (RestrictAddressFamilies= of the unit leaves it out)")]
    NotAllowed,
    /// The kernel knows no such socket in this network name space.
    #[error("the kernel does not know the socket in this network name space (PrivateNetwork= of the unit?)")]
    Elsewhere,
    /// The kernel has no part that answers (the modules unix_diag, inet_diag and tcp_diag).
    #[error("this kernel has no sock_diag for the socket's family")]
    NotBuilt,
    /// Another failure of a system call.
    #[error("sock_diag: {0}")]
    System(Errno),
    /// The kernel sent what is no answer to the question.
    #[error("sock_diag sent an answer that makes no sense")]
    Garbled,
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            Error::NotAllowed | Error::NotBuilt => ErrorKind::Unsupported,
            Error::Elsewhere => ErrorKind::NotFound,
            Error::System(errno) => errno.kind(),
            Error::Garbled => ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
