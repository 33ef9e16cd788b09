//! The message ids of the journal: one for each kind of event, for `journalctl MESSAGE_ID=…` and for catalogs.
//!
//! Owns: the ids. Each is a random 128-bit number, written as systemd's journal wants it (systemd.journal-fields(7),
//! MESSAGE_ID=): 32 lower-case hexadecimal digits. Made once, never changed, never used for another kind.
//! Never: says anything about when an event is written; that is who writes it.

macro_rules! ids {
    ($($(#[$documentation:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$documentation])* pub const $name: &str = $id;)*
        /// Every id with its name, in the order of this file.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $id)),*];
    };
}

ids! {
    /// The first worker is ready: the application serves.
    SERVING = "eda40ac97811d33c7eb905b7f6ec2784";
    /// Everything is prepared; the first connection starts the first worker.
    WAITING = "428cc772da50deb62f9e794ffe0b7b1e";
    /// A worker was started. SOCKD_PID is its process id.
    WORKER_STARTED = "cc4588cf4c177b93e7bc122f18032c6a";
    /// A worker proved itself and accepts connections.
    WORKER_READY = "9d63b0f8af2c03ca0c78e12343f9aa78";
    /// A worker was asked to finish its requests and accept no more.
    WORKER_DRAINING = "f3c6bc47eed38eefab8e08dc28d90106";
    /// A worker ended as it was asked to.
    WORKER_EXITED = "15b672d095abde20574d4a8d521b4e18";
    /// A worker ended that nobody had asked to.
    WORKER_DIED = "7dd4da8d097c6ab70e7ddf08588fee22";
    /// A worker was not ready within start-timeout, or could not be started at all.
    WORKER_NOT_READY = "e0633d242cf1413fd7bf714486163d82";
    /// A worker gave no sign of life in time and is taken away.
    WORKER_HUNG = "a618c2a1531e2df23e077edd353c4bfe";
    /// A worker fails its probes; its successor is started first.
    WORKER_UNHEALTHY = "18f05ea87aff476886f06e6c2d0aa89f";
    /// A worker that failed its probes answers them again.
    WORKER_RECOVERED = "3f932baa7f7f4501a5519197dbcf3c96";
    /// A worker did not end within its stop-timeout and was sent SIGKILL.
    WORKER_KILLED = "8c7f61f89e002ec6181509590fd7f533";
    /// The kernel killed a process that a worker had started, because memory ran out; the worker lives on.
    OUT_OF_MEMORY = "8dd4a3c99eb8f401d3dd1d00cbd7966e";
    /// A worker too old, too big or with its number of requests served is being replaced by plan.
    WORKER_REPLACED = "dd42905c72633f507c329be38c85f706";
    /// A slot's workers keep dying; the next attempt waits. SOCKD_RETRY_MS says how long.
    SLOT_BACK_OFF = "e10738fa32ea1d3bd6842eb0421dd88b";
    /// No worker can be started; sockd itself answers 503.
    ANSWERING_503 = "5c6afb7ac141edaa3eb155c7e55699a7";
    /// A worker serves again; sockd itself answers no more.
    ANSWERING_503_ENDED = "350cb9d94b8f187213b228371c42c3dc";
    /// Workers are made by a copy of the template that has answered requests.
    TEMPLATE_WARM = "8e89421c9be4c04baae4145f26eed681";
    /// There is no such copy, or no more.
    TEMPLATE_NOT_WARM = "ee410aa6a5a097d2283534b0a31b964f";
    /// A reload has begun. SOCKD_GENERATION is the new generation.
    RELOAD_BEGUN = "beb9dd5251157552a10307836fe881d5";
    /// Visitors try a new generation on a few workers.
    TRIAL_BEGUN = "e28e1e61bf784a7d8d198544d6643865";
    /// They have tried it, and nothing speaks against it.
    TRIAL_FINISHED = "91a4e36661c449ffaa7834eea00b27f2";
    /// A reload is complete: the new generation serves alone.
    RELOAD_FINISHED = "b5cdc7d24015b5cf8bac681fb33c303e";
    /// A reload was given up; the old generation never stopped.
    RELOAD_REFUSED = "ffb85c1ac822ea2118b5a2bc55eb109b";
    /// The supervisor was asked to stop and drains its workers.
    STOPPING = "8ca121ea9a6cc9ea23480ab4a39c2364";
    /// The last worker is gone; the supervisor ends.
    STOPPED = "ff33a5cac38772db763d45922836e498";
    /// A line that a worker wrote to its stderr or stdout.
    STDERR_LINE = "8f86f7cae8a791453ecc0386c91a5b47";
    /// The configuration is wrong; the message is the diagnostic.
    CONFIGURATION_REFUSED = "60f30ec7d79d120a91b84fdd16e31eab";
    /// A listening socket was received or bound.
    LISTENER_TAKEN = "b8b584921467c87da8d3afc2250c0068";
    /// The queue of a listener is half full or fuller. SOCKD_WAITING of SOCKD_BACKLOG connections wait.
    QUEUE_LONG = "7a74e5886fb27d85a2a6e26cff2ec93d";
    /// A queue that was half full is as good as empty.
    QUEUE_DRAINED = "bfc574bf1fa1eed64db49dee03859706";
    /// The path of a unix socket leads to it no longer.
    PATH_LOST = "0b09baf96fcc974c26eddfaaf4dd2d5e";
    /// A path that was lost leads to a socket of ours again.
    PATH_RESTORED = "bcc3d640d3f121c2b34306daa2f3a75c";
    /// The workers finish their requests and leave, and visitors wait in the queue.
    PAUSE_BEGUN = "6aca6a13cad0461c9b55e055cb08cf46";
    /// Workers start again after a pause.
    PAUSE_ENDED = "817e60a8dd7e4176a398519babdee7b3";
    /// Visitors are answered 503 until somebody ends that.
    MAINTENANCE_BEGUN = "a2f16e5883e24631b46fb4b4ebfe1e47";
    /// Workers start again after maintenance.
    MAINTENANCE_ENDED = "e7251e51ec304333aaa31a1503992e28";
    /// A request is served for longer than requests.slow. SOCKD_REQUEST is its method and path.
    SLOW_REQUEST = "74ba96f40bc34ea6965cc0cf23fda486";
    /// Something happened inside sockd that its authors held impossible.
    INTERNAL_ERROR = "69e5a3c1bfb1a56c099fc5d4c7394831";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_well_formed_and_unique() {
        for (name, id) in ALL {
            assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{name}: {id}");
        }
        let unique: BTreeSet<_> = ALL.iter().map(|(_, id)| id).collect();
        assert_eq!(unique.len(), ALL.len());
        assert!(ALL.len() > 10, "the macro lost some");
    }
}
