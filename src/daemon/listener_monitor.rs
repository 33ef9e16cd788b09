//! The listeners, and watching them while they are served: queue, backlog, and whether the path of a unix socket still
//! leads to it.
//!
//! Owns: the listeners, what was seen of each, and what was said of it.
//! Never: looks while nobody serves, so that an instance that waits for its first connection sleeps.
//!
//! A path is lost when somebody removes the socket file. Some servers do so when they end: gunicorn with `-b fd://N`,
//! daphne, uWSGI with `vacuum`. Those who are connected stay so, and nobody else comes. A socket that sockd bound itself
//! it binds again, and a reload brings it to every worker; one that systemd bound only systemd can bind again.

use super::message::Message;
use super::outbox::Outbox;
use super::path_alarm::{self, PathAlarm, socket_unit};
use super::timerfd::Timerfd;
use crate::journal::message_id;
use crate::listener::{AtPath, Listener, Permissions, SocketFile, wait_readable};
use crate::process::listening;
use crate::queue::{self, Depth};
use crate::supervisor::{Event, MAX_REBINDS, Overview, SocketId};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two warnings about the same queue.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// So many addresses are named where workers listen elsewhere.
const MAX_PLACES: usize = 4;

#[derive(Debug)]
pub(super) struct ListenerMonitor {
    /// What is served; none yet where only the template knows what to bind.
    listeners: Arc<Vec<Listener>>,
    /// The systemd unit, if there is one.
    unit: Option<String>,
    /// A line for people that is printed once everything listens.
    greeting: Option<String>,
    /// The core wants to know of the first connection, and nothing listens yet.
    watch_wanted: bool,
    /// Changes with what the status says of listeners.
    revision: u64,
    pub(super) ticker: Timerfd,
    /// By the socket's inode.
    seen: BTreeMap<u64, Seen>,
    /// A thread looks at the paths.
    looking: bool,
}

#[derive(Debug, Default)]
struct Seen {
    backlog_pressure: BacklogPressure,
    /// The limit of the queue.
    limit: Option<u32>,
    /// That the kernel tells nothing of its queue was said.
    blind: bool,
    permissions: Option<Permissions>,
    /// What is wrong with its path, and what to do about it.
    alarm: Option<String>,
    /// How many connections waited, where nobody had accepted any.
    unaccepted: u32,
    /// Where the workers listen instead, while nobody accepts here.
    elsewhere: Option<String>,
    /// What stood at its path at the last look, where that was not its file.
    lost: Option<AtPath>,
}

/// The processes behind the listeners.
#[derive(Debug)]
pub(super) struct Serving {
    /// The inodes of all sockets that only one worker was given.
    pub(super) private: BTreeSet<u64>,
    /// The workers that should serve by now, and of which nobody knows that they have. A canary has never held a public
    /// socket, wherever it listens; it is refused for that by itself.
    pub(super) pids: Vec<Pid>,
}

impl ListenerMonitor {
    /// Must be called within a tokio runtime.
    pub(super) fn new(unit: Option<String>, greeting: Option<String>) -> io::Result<Self> {
        Ok(Self {
            listeners: Arc::default(),
            unit,
            greeting,
            watch_wanted: false,
            revision: 0,
            ticker: Timerfd::new()?,
            seen: BTreeMap::new(),
            looking: false,
        })
    }

    /// Takes the listeners, and says so.
    pub(super) fn take(&mut self, listeners: Vec<Listener>, outbox: &Outbox) {
        self.listeners = Arc::new(listeners);
        self.revision += 1;
        for listener in self.listeners.iter() {
            let how = if listener.is_bound_here() { "listening on" } else { "inherited" };
            tracing::info!(MESSAGE_ID = message_id::LISTENER_TAKEN, SOCKD_EVENT = "listener-taken", "{how} {listener}");
        }
        if let Some(greeting) = self.greeting.as_ref().filter(|_| !self.listeners.is_empty()) {
            eprintln!("{greeting}");
        }
        self.look_at_paths(outbox);
        if std::mem::take(&mut self.watch_wanted) {
            self.watch(outbox);
        }
    }

    /// The one with this socket.
    pub(super) fn get(&self, socket: SocketId) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.inode == socket.0)
    }

    /// What is served.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Changes with what the status says of listeners.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Effect::WatchListeners: waits for a connection without accepting it.
    pub(super) fn watch(&mut self, outbox: &Outbox) {
        if self.listeners.is_empty() {
            self.watch_wanted = true;
            return;
        }
        let listeners = Arc::clone(&self.listeners);
        outbox.later(async move {
            if let Err(error) = wait_readable(&listeners).await {
                tracing::error!("cannot wait for connections: {error}; starting the workers at once");
            }
            Some(Message::Core(Event::ConnectionWaiting))
        });
    }

    /// Effect::RestoreBacklogs: each server that starts sets its own on the shared sockets; daphne 4.2 cuts it to 50
    /// (measured).
    pub(super) fn restore_backlogs(&self) {
        for listener in self.listeners.iter() {
            if let Err(error) = listener.restore_backlog() {
                tracing::warn!(
                    MESSAGE_ID = message_id::INTERNAL_ERROR,
                    "cannot restore the backlog of {listener}: {error}, ignoring"
                );
            }
        }
    }

    /// The queue that is fullest for its size; an empty one where the kernel tells of none.
    pub(super) fn fullest_queue(&self) -> Depth {
        let depths = self.listeners.iter().filter_map(|l| queue::depth(&l.address, l.inode).ok());
        let share = |depth: &Depth| u64::from(depth.waiting) * 1_000 / u64::from(depth.limit.max(1));
        depths.max_by_key(share).unwrap_or(Depth { waiting: 0, limit: 0 })
    }

    /// Gives the unix sockets that we have bound for the server the owner and the mode that it would give them.
    pub(super) fn hand_over(&self, permissions: Permissions) {
        for listener in self.listeners.iter() {
            if let Err(error) = listener.hand_over(permissions) {
                tracing::warn!("cannot give {listener} its owner and mode: {error}, ignoring");
            }
        }
    }

    /// At the end: removes the files of what was bound here.
    pub(super) fn unlink(&self) {
        for listener in self.listeners.iter() {
            if let Err(error) = listener.unlink_if_bound_here() {
                tracing::warn!("cannot remove {}: {error}, ignoring", listener.address);
            }
        }
    }

    /// Goes on looking, or stops.
    pub(super) fn plan(&mut self, overview: &Overview) {
        let somebody = overview.living > 0 || overview.fallback;
        let looks = somebody && !overview.waiting && !overview.stopping && overview.pause.is_none();
        self.ticker.every(looks.then_some(PERIOD));
    }

    /// The status line, behind whatever is wrong with a path.
    pub(super) fn status_line(&self, line: String, overview: &Overview) -> String {
        self.alarm(overview).map_or_else(|| line.clone(), |alarm| format!("{alarm} ({line})"))
    }

    /// Whatever is wrong with a path.
    pub(super) fn alarm(&self, overview: &Overview) -> Option<String> {
        let unserved = overview.unserved.and_then(|socket| self.get(socket)).map(path_alarm::unserved);
        let seen = self.seen.values().flat_map(|seen| seen.elsewhere.iter().chain(&seen.alarm)).cloned();
        let alarms: Vec<_> = seen.chain(unserved).collect();
        (!alarms.is_empty()).then(|| alarms.join("; "))
    }
}

/// A time in which a queue was found half full or fuller.
#[derive(Debug, Default)]
struct BacklogPressure {
    reported_at: Option<Instant>,
    /// Its end is to be reported.
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    HalfFull,
    Drained,
}

impl BacklogPressure {
    fn news(&mut self, now: Instant, depth: Depth) -> Option<News> {
        let full = depth.waiting > 0 && depth.waiting >= depth.limit.div_ceil(2);
        if full && self.reported_at.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            self.reported_at = Some(now);
            self.open = true;
            return Some(News::HalfFull);
        }
        // Not at every swing around the half.
        if self.open && depth.waiting <= depth.limit / 10 {
            self.open = false;
            return Some(News::Drained);
        }
        None
    }
}

/// The looks.
impl ListenerMonitor {
    /// Looks at every listener.
    pub(super) fn look(&mut self, overview: &Overview, serving: impl Fn() -> Serving, outbox: &Outbox) {
        for index in 0..self.listeners.len() {
            self.look_at_queue(index, overview, &serving);
        }
        self.look_at_paths(outbox);
    }

    fn look_at_queue(&mut self, index: usize, overview: &Overview, serving: impl Fn() -> Serving) {
        let listener = &self.listeners[index];
        let ask = || queue::depth(&listener.address, listener.inode);
        let seen = self.seen.entry(listener.inode).or_default();
        let mut depth = match ask() {
            Ok(depth) => depth,
            Err(error) => {
                if !std::mem::replace(&mut seen.blind, true) {
                    tracing::info!("the queue of {listener} cannot be watched: {error}");
                }
                return;
            }
        };
        // Some servers call listen(2) only after they were taken to be ready. The kernel may allow less than is
        // wanted (net.core.somaxconn): then one attempt is enough. That it is not allowed at all is said elsewhere.
        if depth.limit < listener.backlog() && seen.limit != Some(depth.limit) && listener.restore_backlog().is_ok() {
            depth = ask().unwrap_or(depth);
        }
        seen.limit = Some(depth.limit);
        // What the 503 helper accepts says nothing of the workers.
        if !overview.fallback {
            self.look_elsewhere(index, depth, serving);
        }
        let listener = &self.listeners[index];
        let Some(seen) = self.seen.get_mut(&listener.inode) else { return };
        let Some(news) = seen.backlog_pressure.news(Instant::now(), depth) else { return };
        tell_of_queue(listener, depth, news, overview);
    }

    /// A worker may hold the socket and serve another one. Where connections have waited since the last look and nobody
    /// has accepted any, the kernel knows where the workers listen instead.
    fn look_elsewhere(&mut self, index: usize, depth: Depth, serving: impl Fn() -> Serving) {
        let listener = &self.listeners[index];
        let Some(seen) = self.seen.get_mut(&listener.inode) else { return };
        let before = std::mem::replace(&mut seen.unaccepted, depth.waiting);
        let accepted = || queue::in_flight(&listener.address).map_or(u32::MAX, |in_flight| in_flight.connections);
        if depth.waiting == 0 || depth.waiting < before || accepted() > 0 {
            if seen.elsewhere.take().is_some() {
                self.revision += 1;
                tracing::info!(SOCKD_EVENT = "accepted-again", "the workers accept from {listener}");
            }
            return;
        }
        if before == 0 || seen.elsewhere.is_some() {
            return;
        }
        let Serving { mut private, pids } = serving();
        private.extend(self.listeners.iter().map(|listener| listener.inode));
        let found: BTreeSet<String> = pids.into_iter().flat_map(|pid| listening(pid, &private)).collect();
        if found.is_empty() {
            return;
        }
        let places: Vec<String> = found.into_iter().take(MAX_PLACES).collect();
        let alarm = format!(
            "nobody accepts from {listener}, where connections wait: the workers listen on {} instead; have the server take \
             the socket that it is given (LISTEN_FDS) and no address of its own, and write its own line, without a shell",
            places.join(" and ")
        );
        tracing::error!(
            MESSAGE_ID = message_id::PATH_LOST,
            SOCKD_EVENT = "listens-elsewhere",
            SOCKD_LISTENER = %listener.name,
            "{alarm}"
        );
        seen.elsewhere = Some(alarm);
        self.revision += 1;
    }

    /// Has a thread look where the paths of unix sockets lead: they may be on a disk that does not answer.
    fn look_at_paths(&mut self, outbox: &Outbox) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let files: Vec<(u64, SocketFile)> = self.listeners.iter().map(|l| (l.inode, l.file().clone())).collect();
        let look = move || files.into_iter().map(|(inode, file)| (inode, file.at_path())).collect();
        let looking = tokio::task::spawn_blocking(look);
        outbox.later(async move { Some(Message::Paths(looking.await.unwrap_or_default())) });
    }

    /// This is where the paths lead, by the inodes of their sockets.
    pub(super) fn paths_seen(&mut self, all: &BTreeMap<u64, AtPath>, outbox: &mut Outbox) {
        self.looking = false;
        for index in 0..self.listeners.len() {
            // One that came meanwhile is looked at the next time.
            let Some(&found) = all.get(&self.listeners[index].inode) else { continue };
            let listener = &self.listeners[index];
            let seen = self.seen.entry(listener.inode).or_default();
            match found {
                AtPath::Ours(permissions) => {
                    seen.permissions = permissions;
                    if seen.alarm.take().is_some() {
                        tracing::info!(
                            MESSAGE_ID = message_id::PATH_RESTORED,
                            SOCKD_EVENT = "path-restored",
                            SOCKD_LISTENER = %listener.name,
                            "the path of {listener} leads here again"
                        );
                    }
                    continue;
                }
                AtPath::Unknown => continue,
                AtPath::Nothing | AtPath::Another => {}
            }
            seen.lost = Some(found);
            if listener.is_bound_here() {
                let (socket, is_taken) = (SocketId(listener.inode), found == AtPath::Another);
                outbox.event(Event::PathLost { socket, is_taken });
            } else {
                self.raise_alarm(index, None);
            }
        }
        // What is wrong with a path is part of the status.
        self.revision += 1;
        let listeners = &self.listeners;
        self.seen.retain(|inode, _| listeners.iter().any(|listener| listener.inode == *inode));
    }

    /// What is known to be wrong with a listener's path, or what would be said if something were: for `sockd status`,
    /// which is asked at any time.
    pub(super) fn path_alarm(&self, listener: &Listener) -> (Option<String>, PathAlarm) {
        let seen = self.seen.get(&listener.inode);
        let lost = seen.and_then(|seen| seen.elsewhere.clone().or_else(|| seen.alarm.clone()));
        (lost, PathAlarm::new(listener, self.unit.as_deref()))
    }

    fn raise_alarm(&mut self, index: usize, refusal: Option<&str>) {
        let listener = &self.listeners[index];
        let seen = self.seen.entry(listener.inode).or_default();
        let alarm = seen.lost.and_then(|found| PathAlarm::new(listener, self.unit.as_deref()).text(found, refusal));
        let Some(alarm) = alarm else { return };
        if seen.alarm.as_ref() == Some(&alarm) {
            return;
        }
        tracing::error!(
            MESSAGE_ID = message_id::PATH_LOST,
            SOCKD_EVENT = "path-lost",
            SOCKD_LISTENER = %listener.name,
            "{alarm} (some servers remove the socket file when they end: uWSGI with vacuum, gunicorn with -b fd://)"
        );
        seen.alarm = Some(alarm);
    }

    /// Effect::Rebind. Whether it was done: then the 503 helper wants the new socket.
    pub(super) fn rebind(&mut self, socket: SocketId, outbox: &mut Outbox) -> bool {
        // It may be another one by now.
        let Some(index) = self.listeners.iter().position(|listener| listener.inode == socket.0) else { return false };
        match self.bind_again(index) {
            Ok(to) => outbox.event(Event::Rebound { from: socket, to }),
            Err(why) => {
                self.raise_alarm(index, Some(&why));
                return false;
            }
        }
        true
    }

    /// Effect::LeaveUnbound.
    pub(super) fn leave_unbound(&mut self, socket: SocketId) {
        if let Some(index) = self.listeners.iter().position(|listener| listener.inode == socket.0) {
            let why = format!("that was done {MAX_REBINDS} times within ten minutes, and it was removed each time");
            self.raise_alarm(index, Some(&why));
        }
    }

    /// Binds a socket again that we bound before.
    fn bind_again(&mut self, index: usize) -> Result<SocketId, String> {
        let seen = self.seen.get(&self.listeners[index].inode);
        let permissions = seen.and_then(|seen| seen.permissions).ok_or("its permissions are not known")?;
        // What waits for a first connection on the old one would wait in vain; nobody looks in that state.
        let listeners = Arc::get_mut(&mut self.listeners).ok_or("it is being waited on")?;
        let (listener, refused) = listeners[index].bind_again(permissions).map_err(|error| error.to_string())?;
        tracing::warn!(
            MESSAGE_ID = message_id::PATH_RESTORED,
            SOCKD_EVENT = "path-rebound",
            SOCKD_LISTENER = %listener.name,
            "somebody removed the file of {listener}: bound it again; a reload brings the new socket to the workers"
        );
        if let Some(error) = refused {
            tracing::warn!("cannot give {listener} its former owner and group: {error}, ignoring");
        }
        let inode = listener.inode;
        self.seen.insert(inode, Seen { permissions: Some(permissions), ..Seen::default() });
        listeners[index] = listener;
        Ok(SocketId(inode))
    }
}

fn tell_of_queue(listener: &Listener, depth: Depth, news: News, overview: &Overview) {
    let Depth { waiting, limit } = depth;
    match news {
        News::HalfFull => {
            tracing::warn!(
                MESSAGE_ID = message_id::QUEUE_LONG,
                SOCKD_EVENT = "queue-long",
                SOCKD_LISTENER = %listener.name,
                SOCKD_WAITING = waiting,
                SOCKD_BACKLOG = limit,
                "{waiting} connections wait on {listener}, where {limit} may: {} of {} workers are ready and do not \
                 keep up; more workers help (count in [workers], or the server's --workers), in a short rush also a \
                 longer queue ({})",
                overview.ready,
                overview.wanted.unwrap_or(0),
                longer(listener, limit)
            );
        }
        News::Drained => tracing::info!(
            MESSAGE_ID = message_id::QUEUE_DRAINED,
            SOCKD_EVENT = "queue-drained",
            SOCKD_LISTENER = %listener.name,
            "the queue of {listener} has drained: {waiting} of {limit} wait"
        ),
    }
}

/// What makes a queue longer.
fn longer(listener: &Listener, limit: u32) -> String {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse().ok());
    if most.is_some_and(|most: u32| limit >= most) {
        return "the kernel's net.core.somaxconn is its limit".to_owned();
    }
    if listener.is_bound_here() {
        "backlog in [listen], or the server's --backlog".to_owned()
    } else {
        format!("Backlog= of {}", socket_unit(listener, None).unwrap_or_else(|| "the socket unit".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(waiting: u32) -> Depth {
        Depth { waiting, limit: 100 }
    }

    #[test]
    fn backlog_pressure_is_reported_once_a_minute_and_its_end_once() {
        let begin = Instant::now();
        let mut backlog_pressure = BacklogPressure::default();
        for (second, waiting, news) in [
            (0, 0, None),
            (5, 49, None),
            (10, 50, Some(News::HalfFull)),
            (15, 100, None),
            // It swings, which is no end.
            (20, 11, None),
            (25, 70, None),
            (70, 70, Some(News::HalfFull)),
            (75, 10, Some(News::Drained)),
            (80, 0, None),
            // Within the minute nothing is said of the next rush, nor of its end.
            (85, 90, None),
            (90, 0, None),
            (130, 90, Some(News::HalfFull)),
            (135, 0, Some(News::Drained)),
        ] {
            let now = begin + Duration::from_secs(second);
            assert_eq!(backlog_pressure.news(now, depth(waiting)), news, "{waiting} after {second} s");
        }
    }

    #[test]
    fn a_short_queue_is_half_full_with_one_and_never_with_none() {
        let now = Instant::now();
        assert_eq!(BacklogPressure::default().news(now, Depth { waiting: 0, limit: 0 }), None);
        assert_eq!(BacklogPressure::default().news(now, Depth { waiting: 1, limit: 1 }), Some(News::HalfFull));
        assert_eq!(BacklogPressure::default().news(now, Depth { waiting: 2, limit: 5 }), None);
    }
}
