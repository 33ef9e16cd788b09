//! Which workers are asked of their requests: for `sockd status` and metrics all that serve, and each before it drains.
//!
//! Never: asks without a reason: an idle worker is not woken.

use super::Workers;
use super::server_stats::{Question, ServerStats};
use crate::server_stats::Stats;
use crate::supervisor::{Role, WorkerId};

impl Workers {
    /// What is to be asked for a status; nothing, where no worker that serves has such an interface.
    pub(in crate::daemon) fn questions(&self) -> Vec<Question> {
        // Of a canary no visitor has asked anything.
        let serving = self.all.iter().filter(|(_, worker)| worker.role == Role::Serving);
        serving.filter_map(|(id, worker)| Some(worker.server_stats.as_ref()?.question(*id))).collect()
    }

    /// Whether some worker says what it has served only when it is asked.
    pub(super) fn some_are_asked(&self) -> bool {
        self.all.values().any(|worker| worker.server_stats.is_some())
    }

    /// What is to be asked before this worker drains; nothing the second time.
    pub(in crate::daemon) fn question_before_drain(&mut self, id: WorkerId) -> Option<Question> {
        let worker = self.all.get_mut(&id).filter(|worker| worker.role == Role::Serving && worker.child.is_some())?;
        worker.server_stats.as_mut()?.question_before_drain(id)
    }

    /// This is what workers have said.
    pub(in crate::daemon) fn take_stats(&mut self, heard: &[(WorkerId, Stats)]) {
        self.drop_old_samples();
        for (id, stats) in heard {
            let Some(worker) = self.all.get_mut(id) else { continue };
            let ours = worker.probes.iter().fold(0, |sum: u64, socket| sum.saturating_add(socket.answers().total()));
            worker.server_stats.iter_mut().for_each(|own| own.take(stats.clone(), ours));
        }
    }

    /// The status is made for which they were asked. What they served is of that moment alone; how much they had finished is
    /// for those to come.
    pub(in crate::daemon) fn status_made(&mut self) {
        self.sample_stats();
        self.forget_served();
    }

    /// What workers served when they were asked is not what they serve.
    pub(in crate::daemon) fn forget_served(&mut self) {
        self.all.values_mut().filter_map(|worker| worker.server_stats.as_mut()).for_each(ServerStats::forget_now);
    }
}
