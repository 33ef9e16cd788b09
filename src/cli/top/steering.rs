//! What each key does.
//!
//! Owns: the keys and their one list of explanations. Pure: it changes the model, and says what is to be done outside.
//! Never: does that itself. Nothing that changes an instance is done without a question before.

use super::keys::Key;
use super::model::{Command, Focus, Model, Question};

/// So many lines are a page.
const PAGE: isize = 10;

/// The keys and what they do, for people.
pub const KEYS: [(&str, &str); 11] = [
    ("Up Down j k", "choose an instance or a worker; PgUp, PgDn, Home, End"),
    ("Tab Enter", "go to the workers of the instance"),
    ("Tab Esc", "go back to the instances"),
    ("s", "sort by name, requests, queue, errors"),
    ("r", "reload the instance; asks"),
    ("e", "end the worker, once its successor is proven; asks"),
    ("t", "show where the threads of the worker stand; Esc hides that"),
    ("l", "show the journal; Ctrl-C comes back"),
    ("?", "show this"),
    ("q Ctrl-C", "leave"),
    ("y n", "answer a question"),
];

impl Model {
    /// Does what a key stands for; what is to be done outside, if anything.
    pub fn press(&mut self, key: Key) -> Option<Command> {
        if key == Key::Interrupt {
            return Some(Command::Quit);
        }
        if std::mem::take(&mut self.help) {
            return None;
        }
        if let Some(question) = self.question.take() {
            if matches!(key, Key::Letter('y' | 'Y')) {
                return Some(question.command);
            }
            self.say(vec!["nothing was done".to_owned()], false);
            return None;
        }
        self.said = None;
        match key {
            Key::Letter('q') => return Some(Command::Quit),
            Key::Letter('?' | 'h') => self.help = true,
            Key::Up | Key::Letter('k') => self.step(-1),
            Key::Down | Key::Letter('j') => self.step(1),
            Key::PageUp => self.step(-PAGE),
            Key::PageDown => self.step(PAGE),
            Key::Home => self.step(isize::MIN),
            Key::End => self.step(isize::MAX),
            Key::Tab if self.focus == Focus::Workers => self.focus = Focus::Instances,
            Key::Tab | Key::Enter | Key::Right => self.enter_workers(),
            Key::Escape if self.stacks().is_some() => self.hide_stacks(),
            Key::Escape | Key::Left => self.focus = Focus::Instances,
            Key::Letter('s') => self.cycle_sort(),
            Key::Letter('r') => self.ask_for_reload(),
            Key::Letter('e') => self.ask_for_replacement(),
            Key::Letter('t') => return self.ask_for_stacks(),
            Key::Letter('l') => return self.journal(),
            Key::Letter(_) | Key::Interrupt => {}
        }
        None
    }

    fn ask_for_reload(&mut self) {
        match self.target() {
            Ok(target) => {
                let text = format!("Reload {}? (y/n)", target.name);
                self.question = Some(Question { text, command: Command::Reload(target) });
            }
            Err(why) => self.say(vec![format!("cannot reload: {why}")], true),
        }
    }

    fn ask_for_replacement(&mut self) {
        let Some(worker) = self.worker().map(|worker| worker.id) else {
            return self.say(vec!["Tab or Enter goes to the workers: choose the one that shall end".to_owned()], true);
        };
        match self.target() {
            Ok(target) => {
                let text = format!("End worker {worker} of {}, once its successor is proven? (y/n)", target.name);
                self.question = Some(Question { text, command: Command::Replace(target, worker) });
            }
            Err(why) => self.say(vec![format!("cannot end it: {why}")], true),
        }
    }

    /// Asks for the stacks of the chosen worker. Asked again, they are the present ones.
    fn ask_for_stacks(&mut self) -> Option<Command> {
        let Some(worker) = self.worker().map(|worker| worker.id) else {
            self.say(vec!["Tab or Enter goes to the workers: choose the one whose stacks are wanted".to_owned()], true);
            return None;
        };
        match self.target() {
            Ok(target) => Some(Command::Stacks(target, worker)),
            Err(why) => {
                self.say(vec![format!("cannot ask for stacks: {why}")], true);
                None
            }
        }
    }

    fn journal(&mut self) -> Option<Command> {
        let worker = self.worker().map(|worker| worker.id);
        let entry = &self.instance()?.entry;
        match &entry.unit {
            Some(unit) => Some(Command::Journal { unit: unit.clone(), user: entry.user, worker }),
            None => {
                self.say(vec!["it is in no unit of the system: its log is where it was started".to_owned()], true);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::status::report::{Entry, StatusReport};
    use crate::control::Status;
    use crate::control::message::Worker;

    fn model() -> Model {
        let workers = [3, 4].map(|id| Worker { id, ..Worker::default() }).to_vec();
        let status = Status { pid: 7, workers, ..Status::default() };
        let entry = Entry { unit: Some("a.service".to_owned()), pid: Some(7), sockd: Some(status), ..Entry::default() };
        let mut model = Model::default();
        model.take(StatusReport { entries: vec![entry], ..StatusReport::default() }, Duration::ZERO);
        model
    }

    fn typed(model: &mut Model, keys: &str) -> Option<Command> {
        keys.chars()
            .map(|key| if key == '\t' { Key::Tab } else { Key::Letter(key) })
            .fold(None, |_, key| model.press(key))
    }

    #[test]
    fn nothing_is_changed_without_a_yes() {
        for (keys, question) in [("r", "Reload a.service?"), ("\tje", "End worker 4 of a.service")] {
            for no in ["n", "q", "r", "j", " "] {
                let mut model = model();
                assert_eq!(typed(&mut model, keys), None);
                assert!(model.question.as_ref().is_some_and(|asked| asked.text.starts_with(question)));
                assert_eq!(typed(&mut model, no), None);
                assert_eq!(model.question, None);
                assert!(model.said.is_some_and(|said| said.lines == ["nothing was done"]));
            }
        }
        let is = |command: &Option<Command>, worker| match command {
            Some(Command::Reload(target)) => target.pid == 7 && worker == 0,
            Some(Command::Replace(target, id)) => target.pid == 7 && *id == worker,
            _ => false,
        };
        assert!(is(&typed(&mut model(), "ry"), 0));
        assert!(is(&typed(&mut model(), "\tey"), 3));
        assert!(is(&typed(&mut model(), "\tjjeY"), 4));
    }

    #[test]
    fn who_ends_a_worker_has_chosen_one() {
        let mut model = model();
        assert_eq!(typed(&mut model, "ey"), None);
        assert!(model.question.is_none());
    }

    #[test]
    fn ctrl_c_leaves_from_everywhere() {
        for keys in ["", "?", "r", "\te"] {
            let mut model = model();
            typed(&mut model, keys);
            assert_eq!(model.press(Key::Interrupt), Some(Command::Quit), "{keys:?}");
        }
        assert_eq!(typed(&mut model(), "?q"), None, "any key closes the explanation");
        assert_eq!(typed(&mut model(), "?xq"), Some(Command::Quit));
    }

    #[test]
    fn the_journal_is_that_of_what_is_chosen() {
        let journal = |worker| Some(Command::Journal { unit: "a.service".to_owned(), user: false, worker });
        assert_eq!(typed(&mut model(), "l"), journal(None));
        assert_eq!(typed(&mut model(), "\tl"), journal(Some(3)));
        assert_eq!(typed(&mut model(), "\t\tl"), journal(None));
    }
}
