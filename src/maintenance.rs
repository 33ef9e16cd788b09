//! The maintenance of an instance, as it is kept over a restart: that it is on, and what visitors read.
//!
//! Owns: the file and its bounds. Never: has a site serve because the file cannot be read: that it is there is the switch.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::state_file;

/// Its name in the state directory of the unit.
pub const FILE_NAME: &str = "sockd-maintenance";
/// No more is read of it, in bytes.
const LARGEST: u64 = 16 << 10;
/// The longest message, in characters.
const LONGEST_MESSAGE: usize = 300;
/// Visitors are asked to come again after so long, unless somebody says otherwise.
const RETRY_AFTER_SECONDS: u32 = 300;
/// The longest time after which visitors are asked to come again, in seconds.
const LONGEST_RETRY_AFTER: u32 = 86_400;

/// What visitors read, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Maintenance {
    /// In place of the usual words.
    pub message: Option<String>,
    /// When they may come again, in seconds: 1 to 86,400.
    pub retry_after: u32,
    /// When it began, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { message: None, retry_after: RETRY_AFTER_SECONDS, since_unix_ms: 0 }
    }
}

impl Maintenance {
    /// The same within its bounds.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn checked(self) -> Result<Self, String> {
        if let Some(message) = &self.message {
            if message.chars().count() > LONGEST_MESSAGE {
                return Err(format!("the message is longer than {LONGEST_MESSAGE} characters"));
            }
            if message.chars().any(char::is_control) || message.trim().is_empty() {
                return Err("the message is one line of text, without control characters".to_owned());
            }
        }
        match self.retry_after {
            1..=LONGEST_RETRY_AFTER => Ok(self),
            _ => Err("visitors come again after a second to a day".to_owned()),
        }
    }
}

/// Reads whether maintenance is on. What the file holds decides nothing but the words; where it cannot be used, the second
/// value says why.
pub fn read(directory: &Path) -> (Option<Maintenance>, Option<String>) {
    let problem =
        |why: &dyn std::fmt::Display| Some(format!("cannot use {}: {why}", directory.join(FILE_NAME).display()));
    match state_file::read(directory, FILE_NAME, LARGEST) {
        Ok(bytes) => match serde_json::from_slice::<Maintenance>(&bytes).map_err(|error| error.to_string()) {
            Ok(kept) => match kept.checked() {
                Ok(kept) => (Some(kept), None),
                Err(why) => (Some(Maintenance::default()), problem(&why)),
            },
            Err(why) => (Some(Maintenance::default()), problem(&why)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
        Err(error) => (None, problem(&error)),
    }
}

/// Keeps that it is on, or that it is not.
///
/// # Errors
/// Why the directory cannot be written to.
pub fn write(directory: &Path, maintenance: Option<&Maintenance>) -> Result<(), String> {
    let written = match maintenance {
        // These types hold text and numbers: there is no map whose keys could fail to be written.
        Some(on) => state_file::replace(directory, FILE_NAME, &serde_json::to_vec(on).unwrap_or_default()),
        None => state_file::remove(directory, FILE_NAME),
    };
    written.map_err(|error| format!("cannot write {}: {error}", directory.join(FILE_NAME).display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn room(name: &str) -> PathBuf {
        let room = std::env::temp_dir().join(format!("sockd-maintenance-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&room);
        std::fs::create_dir_all(&room).expect("a directory");
        room
    }

    #[test]
    fn it_is_kept_and_ended() {
        let room = room("kept");
        assert_eq!(read(&room), (None, None));
        let on = Maintenance { message: Some("Zurück um acht".to_owned()), retry_after: 60, since_unix_ms: 7 };
        write(&room, Some(&on)).expect("written");
        assert_eq!(read(&room), (Some(on), None));
        write(&room, None).expect("removed");
        write(&room, None).expect("nothing to remove");
        assert_eq!(read(&room), (None, None));
        std::fs::remove_dir_all(room).expect("removed");
    }

    #[test]
    fn what_cannot_be_read_has_no_site_serve_and_a_strangers_file_no_site_away() {
        let room = room("bad");
        for text in ["", "{", "7", "{\"retry_after\":0}", "{\"message\":\"a\\nb\"}", "{\"retry_after\":-1}"] {
            std::fs::write(room.join(FILE_NAME), text).expect("written");
            let (on, problem) = read(&room);
            assert_eq!(on, Some(Maintenance::default()), "{text}");
            assert!(problem.is_some_and(|why| why.contains(FILE_NAME)), "{text}");
        }
        std::fs::remove_file(room.join(FILE_NAME)).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", room.join(FILE_NAME)).expect("linked");
        let (on, problem) = read(&room);
        assert!(on.is_none() && problem.is_some(), "{on:?}");
        std::fs::remove_dir_all(room).expect("removed");
    }
}
