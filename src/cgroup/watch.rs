//! OOM kills: hearing of it when the kernel kills a process of a group for want of memory.

use super::group::Group;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for kills. It lives as long as somebody waits; a group that is removed is silent.
#[derive(Debug)]
pub struct OomWatch {
    events: AsyncFd<OwnedFd>,
    seen: u64,
}

impl OomWatch {
    /// Begins to listen to a group's `memory.events`.
    ///
    /// # Errors
    /// ENOENT without the memory controller, EMFILE when there are no descriptors left.
    pub fn new(group: &Group) -> io::Result<Self> {
        let mut watch = Self { events: watch(group.memory_events()?)?, seen: 0 };
        // The kernel signals a change since the last read.
        watch.seen = watch.count()?;
        Ok(watch)
    }

    /// How many processes the kernel has killed in all, once that has become more.
    ///
    /// # Errors
    /// ENODEV when the group is gone.
    pub async fn killed(&mut self) -> io::Result<u64> {
        loop {
            self.events.ready(Interest::PRIORITY).await?.clear_ready();
            // Also for memory.high and others, which are of no concern here.
            let count = self.count()?;
            if count > self.seen {
                self.seen = count;
                return Ok(count);
            }
        }
    }

    fn count(&self) -> io::Result<u64> {
        let mut text = [0; 1024];
        let length = rustix::io::pread(self.events.get_ref(), &mut text[..], 0)?;
        let text = String::from_utf8_lossy(&text[..length]);
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        Ok(count.unwrap_or(0))
    }
}

#[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, OwnedFd ensures")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::PRIORITY)
}
