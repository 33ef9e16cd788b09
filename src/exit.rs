//! Exit codes, one place for all of them: scripts rely on these numbers.
//!
//! `sockd status` follows `systemctl status` (the LSB numbers); a broken configuration is EX_CONFIG of sysexits.h.

/// Everything went well.
pub const SUCCESS: u8 = 0;
/// The command failed; a message on stderr says why. `doctor`: a link is broken, and the findings are on stdout.
pub const FAILURE: u8 = 1;
/// The command line could not be understood (clap's number).
pub const USAGE: u8 = 2;
/// `status`: the unit exists and is not running.
pub const NOT_RUNNING: u8 = 3;
/// `status` and `doctor`: there is no such unit.
pub const NO_SUCH_UNIT: u8 = 4;
/// `status`: sockd runs, and no visitor gets a page: it answers 503 itself, or none of its sockets can be reached. Of the
/// LSB's numbers for a status those from 150 are for applications; systemctl has none of them.
pub const NOBODY_SERVED: u8 = 150;
/// The configuration is wrong (EX_CONFIG).
pub const CONFIG: u8 = 78;
