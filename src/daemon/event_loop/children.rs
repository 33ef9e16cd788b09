//! Reaping: whose end it was, and what else ends with it.

use super::EventLoop;
use crate::process::{self, Ended, reap};
use crate::supervisor::{Event, WorkerId};
use rustix::process::getpid;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between the core's end and ours: what descendants are left get this long to be killed and reaped.
const SWEEP: Duration = Duration::from_secs(5);

impl EventLoop {
    pub(super) fn reap_all(&mut self) {
        while let Some(ended) = reap() {
            self.exits.orphans.forget(ended.pid);
            if let Some(worker) = self.children.workers.claim(ended) {
                self.finish_exit(worker, ended);
            } else if let Some(template) = self.children.templates.exited(ended) {
                self.finish_template_exit(template);
            } else if !self.children.fallback.ended(ended, &mut self.outbox)
                && !self.children.health_commands.ended(ended, &mut self.outbox)
                && !self.children.checks.ended(ended, &mut self.outbox)
                && !self.children.after_reload.ended(ended, &self.outbox)
            {
                self.exits.unclaimed.remember(Instant::now(), ended);
            }
        }
    }

    /// A worker has ended.
    pub(super) fn finish_exit(&mut self, id: WorkerId, ended: Ended) {
        let Some(gone) = self.children.workers.finish_exit(id, ended, &mut self.exits.repeats, &mut self.outbox) else {
            return;
        };
        self.counts.worker_ended(id, gone.ending);
        self.observers.recorder.worker_ended(id, gone.ending);
        if let Some((template, role, process)) = gone.forked {
            self.children.templates.worker_exited(Some(template), role, process);
        }
        if let Some(leader) = gone.leader {
            self.exits.orphans.look_for(id, leader);
        }
    }

    /// Ends what workers have left behind that have just ended.
    pub(super) fn end_orphans(&mut self) {
        self.exits.orphans.end(&self.children, &self.outbox);
    }

    /// A template has ended, or will say no more; once both are so, nothing more will come of it.
    pub(super) fn finish_template_exit(&mut self, template: u64) {
        let Some(lost) = self.children.templates.forget_if_over(template, &mut self.exits.repeats) else { return };
        for worker in lost.ordered {
            self.children.workers.not_made(worker, format!("its template ended ({})", lost.why), &mut self.outbox);
        }
        if let Some(generation) = self.generations.ready.get_mut(&lost.generation) {
            generation.template = None;
        }
        self.outbox.event(if lost.said_hello {
            Event::PreparationLost { generation: lost.generation, why: format!("the template ended: {}", lost.why) }
        } else {
            Event::PrepareFailed { generation: lost.generation, why: lost.why }
        });
    }

    /// Kills and reaps whatever descends from us and is not known: a worker's children that outlived it.
    pub(super) async fn sweep(&mut self) {
        let end = Instant::now() + SWEEP;
        while Instant::now() < end {
            while reap().is_some() {}
            let left = process::descendants(getpid());
            if left.is_empty() {
                return;
            }
            // The helper that answers 503 finishes by itself; everything else has had its time.
            if !self.children.fallback.is_leaving() {
                left.into_iter().for_each(process::kill_descendant);
            }
            tokio::select! {
                _ = self.inputs.signals.next() => {}
                () = sleep(Duration::from_millis(100)) => {}
            }
            self.children.fallback.forget_if_gone();
        }
        tracing::warn!("some processes could not be killed; the service manager will try");
    }
}
