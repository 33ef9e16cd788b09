//! A listening socket as the kernel describes it.

/// A listening socket as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The socket's inode, as in `/proc/PID/fd` (`socket:[INODE]`).
    pub inode: u64,
    /// Connections made and not yet accepted.
    pub waiting: u32,
    /// The most the queue holds: what listen(2) asked for, cut to net.core.somaxconn.
    pub limit: u32,
    /// The file a unix socket was bound to.
    pub file: Option<BoundFile>,
}

/// The file a unix socket is bound to. Both numbers are the kernel's own: the inode's lower 32 bits, and the device
/// as `major << 20 | minor` of the file system, which stat(2) shows differently on btrfs and overlayfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundFile {
    /// The lower 32 bits of the inode.
    pub inode: u32,
    /// `major << 20 | minor` of the file system.
    pub device: u32,
}
