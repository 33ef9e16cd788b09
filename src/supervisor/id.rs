//! Names of things. A number once given is never given again, so a late event cannot hit the wrong one.

use std::fmt;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// One process, from the decision to make it to the end of its reaping.
    WorkerId(u64)
}
id! {
    /// A place in the pool, counted from 0.
    SlotId(u32)
}
id! {
    /// The workers of one configuration, counted from 1.
    GenerationId(u32)
}
id! {
    /// Somebody's wish to reload or to replace a worker: the daemon numbers them and gets one answer for each.
    RequestId(u64)
}

id! {
    /// A listener's socket, by its inode (st_ino of fstat(2)).
    SocketId(u64)
}
id! {
    /// A release that served before: the daemon numbers those that it knows.
    ReleaseId(u64)
}

/// Where a worker belongs, as notices and snapshots say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRef {
    /// The process.
    pub worker: WorkerId,
    /// Its slot; a canary has none, unless it proves what a dead worker's successor is made from.
    pub slot: Option<SlotId>,
    /// Its generation.
    pub generation: GenerationId,
}
