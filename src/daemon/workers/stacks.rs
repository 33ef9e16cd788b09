//! The stacks of a worker's threads: by its own word, or else where the kernel says that they wait.

use super::{Worker, Workers, by_number};
use crate::control::message;
use crate::process::{Thread, handles_signal, threads};
use crate::scoreboard::{Scoreboard, ThreadStack};
use crate::supervisor::WorkerId;
use std::num::NonZeroU64;
use std::sync::Arc;

impl Workers {
    /// Asks a worker for the stacks of its threads, which goes on meanwhile. They are there within two seconds.
    ///
    /// # Errors
    /// In one line, why it cannot be asked.
    pub(in crate::daemon) fn stacks(
        &self,
        id: WorkerId,
    ) -> Result<impl Future<Output = Vec<ThreadStack>> + Send + use<>, String> {
        let worker = self.all.get(&id).ok_or_else(|| format!("there is no worker {id}"))?;
        let pid = worker.pid().ok_or_else(|| format!("worker {id} has no process yet"))?;
        let writing = worker.write_stacks()?;
        Ok(async move {
            let written = match writing {
                Some(scoreboard) => scoreboard.written_stacks().await,
                None => Vec::new(),
            };
            // Nor does a worker write any that waits for a disk.
            if written.is_empty() { threads(pid).into_iter().map(waiting).collect() } else { written }
        })
    }
}

impl Worker {
    /// Has it write its stacks. None: it does not do that.
    fn write_stacks(&self) -> Result<Option<Arc<Scoreboard>>, String> {
        let (Some(child), Some(scoreboard)) = (&self.child, &self.scoreboard) else { return Ok(None) };
        // It is the worker's word, and where it is not true the signal would be the worker's end.
        let signal = scoreboard.read().stack_signal.filter(|signal| handles_signal(child.pid(), *signal));
        let Some(signal) = signal else { return Ok(None) };
        if Arc::strong_count(scoreboard) > 1 {
            return Err("its stacks are being written for somebody else".to_owned());
        }
        let asked = scoreboard.clear_stacks().and_then(|()| child.signal(by_number(signal)));
        asked.map_err(|error| format!("it cannot be asked for its stacks: {error}"))?;
        Ok(Some(Arc::clone(scoreboard)))
    }
}

/// Stacks, for who asked for them.
pub(in crate::daemon) fn document(stacks: Vec<ThreadStack>) -> message::Stacks {
    let thread = |stack: ThreadStack| message::ThreadStack { thread: stack.thread.map(u64::from), lines: stack.lines };
    message::Stacks { threads: stacks.into_iter().map(thread).collect() }
}

fn waiting(thread: Thread) -> ThreadStack {
    let does = match thread.state {
        'R' => "runs",
        'D' => "waits for a disk or another part of the kernel",
        'T' | 't' => "is stopped",
        'Z' | 'X' => "has ended",
        _ => "waits",
    };
    let place = thread.waits_in.map(|function| format!(" in {function}()")).unwrap_or_default();
    let name: String = thread.name.chars().filter(|letter| !letter.is_control()).collect();
    let lines = vec![format!("Thread {} [{name}]:", thread.id), format!("  {does}{place}")];
    ThreadStack { thread: NonZeroU64::new(thread.id), lines }
}
