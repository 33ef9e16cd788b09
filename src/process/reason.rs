//! The reason in a traceback: which line of a process's stderr says why it ended, by the habits of its language.
//!
//! Python names the error behind its last frame, whatever it is called, Ruby first, Node above the stack, Java in its last
//! "Caused by", Rust in the line after "panicked at", Go in the last of its panics, above the goroutines. Of a group of
//! Python's exceptions the first counts that is none. One line is held at a time, and as long as only its own stack follows,
//! however long that is.
//!
//! Pure.

/// A line is forgotten as a reason after so many that are no part of its report.
const FORGOTTEN_AFTER: usize = 50;

/// The reason so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Reason {
    named: Option<String>,
    /// How many lines followed that are no stack.
    since: usize,
    last: Kind,
    /// In a traceback of Python's, whose error may have any name.
    in_traceback: bool,
    /// In the stacks of Go's goroutines, whose functions are not indented.
    in_goroutines: bool,
    /// In the report of a group of Python's exceptions.
    group: Option<Group>,
    /// So many lines that follow are a part of the error.
    details: usize,
}

/// A group of Python's exceptions: each stands behind a margin, below a line of dashes.
#[derive(Clone, Debug)]
struct Group {
    /// The one whose report is being read; first that of the group itself.
    exception: Box<Reason>,
    /// Whether one is named that is no group.
    found: bool,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// It names an error.
    Names,
    /// It names an error in Ruby's way: what follows its stack are the causes.
    NamesFirst,
    /// The next line names the error.
    Announces,
    /// The first line behind the frames that follow names the error.
    AnnouncesFrames,
    /// A part of a stack.
    Frame,
    #[default]
    Other,
}

impl Reason {
    /// Takes note of a line.
    pub(super) fn push(&mut self, line: &str) {
        let line = without_time(line);
        let bare = line.trim_start();
        if let Some(group) = &mut self.group {
            if let Some(line) = bare.strip_prefix('|') {
                group.exception.push(line.strip_prefix(' ').unwrap_or(line));
                return;
            }
            self.end_exception();
            if bare.starts_with("+-") {
                return;
            }
            self.group = None;
        }
        // Behind whatever the server says of it.
        if line.ends_with("+ Exception Group Traceback (most recent call last):") {
            self.group = Some(Group { exception: Self::in_traceback(), found: false });
            (self.last, self.in_traceback) = (Kind::Frame, false);
            return;
        }
        if bare.is_empty() {
            self.details = 0;
        }
        if self.details > 0
            && let Some(named) = &mut self.named
        {
            self.details -= 1;
            let colon = if named.ends_with(':') { "" } else { ":" };
            named.push_str(&format!("{colon} {bare}"));
            return;
        }
        let kind = match (self.last, kind(line)) {
            (Kind::Announces, Kind::Other | Kind::Frame) if !line.trim().is_empty() => Kind::Names,
            (_, Kind::Other) if self.in_traceback && !line.is_empty() => Kind::Names,
            // Ruby's causes, behind the stack of what they caused.
            (Kind::Frame, Kind::NamesFirst) if self.named.is_some() => Kind::Frame,
            // Go's panics that came of the one above.
            (Kind::Names, Kind::Frame) if bare.starts_with("panic: ") => Kind::Names,
            (_, Kind::Other) if self.in_goroutines && is_of_goroutines(line) => Kind::Frame,
            (_, kind) => kind,
        };
        match kind {
            Kind::Names => (self.named, self.since) = (Some(line.trim().to_owned()), 0),
            Kind::NamesFirst => (self.named, self.since) = (Some(mistake_in_ruby(line.trim()).to_owned()), 0),
            Kind::Announces | Kind::AnnouncesFrames | Kind::Frame => {}
            Kind::Other => self.since += 1,
        }
        if kind == Kind::Names {
            self.details = if counts(line) { 2 } else { usize::from(is_heading_in_go(line)) };
        }
        if self.since > FORGOTTEN_AFTER {
            self.named = None;
        }
        self.in_goroutines = kind == Kind::Frame && (self.in_goroutines || begins_goroutines(line));
        self.in_traceback = kind == Kind::AnnouncesFrames || self.in_traceback && kind == Kind::Frame;
        self.last = kind;
    }

    /// What follows is the report of an error of Python's.
    fn in_traceback() -> Box<Self> {
        Box::new(Self { in_traceback: true, ..Self::default() })
    }

    /// The report of one exception of the group is complete.
    fn end_exception(&mut self) {
        let Some(group) = &mut self.group else { return };
        let exception = std::mem::replace(&mut group.exception, Self::in_traceback());
        if let Some(named) = exception.named.filter(|_| !group.found) {
            group.found = ![" sub-exception)", " sub-exceptions)"].iter().any(|end| named.ends_with(end));
            (self.named, self.since) = (Some(named), 0);
        }
    }

    /// The line that names the error.
    pub(super) fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }
}

/// Of the last lines, oldest first, the one to quote where none names an error: the last one that is neither a detail of
/// what stands above it nor advice, or else the last that says anything.
pub(super) fn last_word<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let speaks = || lines.clone().rev().filter(|line| says_something(line));
    speaks()
        .find(|line| !is_frame(line) && !is_advice(line))
        .or_else(|| speaks().next())
        .map(|line| without_time(line).trim())
}

/// Whether a line may be quoted: it has a word in it, and is not, in its writer's own words, of no concern.
fn says_something(line: &str) -> bool {
    // As gunicorn and many others mark their lines: "[2026-11-23 13:00:00 +0000] [7] [INFO] Booting worker"; Ruby's
    // Logger: "I, [2026-11-23T13:00:00.000000 #7]  INFO -- : master process ready"; and what PHP-FPM says behind every
    // error.
    const NO_CONCERN: [&str; 7] = [
        "] [INFO] ",
        "] [DEBUG] ",
        "]  INFO -- ",
        "] DEBUG -- ",
        "] NOTICE: ",
        "] ERROR: failed to load configuration file ",
        "] ERROR: FPM initialization failed",
    ];
    const ENDS: [&str; 5] = ["Node.js v", "note: ", "BEGIN failed--", "exit status ", "(Use `node --trace-"];
    let no_concern = NO_CONCERN.iter().any(|mark| line.contains(mark));
    let ends = ENDS.iter().any(|end| line.starts_with(end));
    line.contains(char::is_alphanumeric) && !no_concern && !ends
}

/// How to start a program, which it says when it was started wrongly.
fn is_advice(line: &str) -> bool {
    ["Usage", "usage", "Try ", "For more information"].iter().any(|beginning| line.starts_with(beginning))
}

/// pydantic counts what is wrong: the first field, and what is wrong with it, are the next two lines.
fn counts(line: &str) -> bool {
    [" validation error for ", " validation errors for "].iter().any(|words| line.contains(words))
}

/// A panic of several lines, the first of which only says that more follow.
fn is_heading_in_go(line: &str) -> bool {
    line.trim_start().starts_with("panic: ") && line.ends_with(':')
}

fn begins_goroutines(line: &str) -> bool {
    line.starts_with("goroutine ") || line == "runtime stack:"
}

/// A function, or what stands between the stacks.
fn is_of_goroutines(line: &str) -> bool {
    let function = line.ends_with(')') || line.starts_with("created by ") || line.starts_with("...");
    line.trim().is_empty() || function
}

/// A line without the time that Go's log puts before it: `2026/11/30 14:59:23.000001 no database`.
fn without_time(line: &str) -> &str {
    const TIME: &str = "0000/00/00 00:00:00";
    let is_alike = |(at, byte): (usize, u8)| match TIME.as_bytes()[at] {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    let Some((time, rest)) = line.split_at_checked(TIME.len()) else { return line };
    if !time.bytes().enumerate().all(is_alike) {
        return line;
    }
    let fraction = rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    fraction.strip_prefix(' ').unwrap_or(line)
}

/// What follows from an error that was named before it: uvicorn's last word on a start-up that has failed.
fn is_consequence(line: &str) -> bool {
    line.starts_with("ERROR: ") && line.ends_with(" Application startup failed. Exiting.")
}

fn kind(line: &str) -> Kind {
    // C++ says its exception below that it ends by one.
    if line.starts_with("  what():  ") {
        Kind::Names
    } else if is_frame(line) || is_consequence(line) {
        Kind::Frame
    } else if line.ends_with("Traceback (most recent call last):") {
        Kind::AnnouncesFrames
    } else if line.starts_with("thread '") && line.contains("panicked at") {
        // Before Rust 1.73 the message stands in the line itself.
        if line.ends_with(':') { Kind::Announces } else { Kind::Names }
    } else if names_in_ruby(line) {
        Kind::NamesFirst
    } else if names(line) || inspects_in_ruby(line) {
        Kind::Names
    } else {
        Kind::Other
    }
}

/// Ruby's `from`, `at` of Node and Java, PHP's `#0`, and whatever else is indented.
fn is_frame(line: &str) -> bool {
    let indented = line.starts_with([' ', '\t']);
    let php = line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    indented && !line.trim().is_empty() || php || line == "Stack trace:" || begins_goroutines(line)
}

fn names(line: &str) -> bool {
    const BEGINNINGS: [&str; 13] = [
        "ERROR: ",
        "FATAL: ",
        "Fatal: ",
        "fatal: ",
        "panic: ",
        "fatal error: ",
        "PHP Fatal error:",
        "PHP Parse error:",
        "Fatal error: ",
        "Parse error: ",
        "Exception in thread ",
        "Caused by: ",
        "! Unable to load application: ",
    ];
    // bash quotes the line below.
    if BEGINNINGS.iter().any(|beginning| line.starts_with(beginning)) || line.contains(": syntax error near ") {
        return true;
    }
    let word = line.trim_start_matches('[').split([':', ' ']).next().unwrap_or_default();
    let last = word.rsplit('.').next().unwrap_or_default();
    let endings = ["Error", "Exception", "UnhandledPromiseRejection"].iter().any(|ending| last.ends_with(ending));
    endings || last == "SystemExit" || last == "error"
}

/// `… Rack app ("GET /" - (127.0.0.1)): #<ArgumentError: no such thing>`, as puma says what an application raised.
fn inspects_in_ruby(line: &str) -> bool {
    let Some((_, error)) = line.strip_suffix('>').and_then(|line| line.split_once(": #<")) else { return false };
    error.split_once(": ").is_some_and(|(class, _)| is_class_of_ruby(class))
}

/// `Errno::ENOENT`.
fn is_class_of_ruby(class: &str) -> bool {
    class.split("::").all(|part| {
        part.starts_with(|c: char| c.is_ascii_uppercase()) && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// `config.ru:1:in 'block in <main>': no database (RuntimeError)`.
fn names_in_ruby(line: &str) -> bool {
    let Some((before, class)) = line.strip_suffix(')').and_then(|line| line.rsplit_once(" (")) else { return false };
    // Somewhere before the message: a file, the number of a line.
    let placed = before.match_indices(':').any(|(at, _)| before[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    is_class_of_ruby(class) && placed
}

/// The message in a line of Ruby's Logger: `E, [2026-11-23T13:00:00.000000 #7] ERROR -- : no database (IOError)`.
fn logged_in_ruby(line: &str) -> Option<&str> {
    let (_, message) = line.split_once("] ERROR -- ").or_else(|| line.split_once("] FATAL -- "))?;
    message.split_once(": ").map(|(_, message)| message)
}

/// What names the mistake where Ruby raises an error for somebody else's: a syntax error says itself in which file it is,
/// and what cannot be loaded is missing, whichever of Ruby's own files looked for it.
fn mistake_in_ruby(line: &str) -> &str {
    let line = logged_in_ruby(line).unwrap_or(line);
    let of_another = line.ends_with(" (SyntaxError)") || line.ends_with(" (LoadError)");
    let behind_place = || line.split_once(":in ")?.1.split_once("': ");
    behind_place().filter(|_| of_another).map_or(line, |(_, mistake)| mistake)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> Option<String> {
        let mut reason = Reason::default();
        text.lines().for_each(|line| reason.push(line));
        reason.named().or_else(|| last_word(text.lines())).map(str::to_owned)
    }

    /// Captured, and shortened, from Ruby 3.1 with puma 5.6, Node 20, Go 1.19, OpenJDK 17, rustc 1.95, dash, bash, perl 5.36, g++ 12
    /// and PHP-FPM 8.4; the others as the languages' manuals have them.
    const CAPTURED: [(&str, &str); 46] = [
        (
            "[2026-11-23 13:00:00 +0000] [7] [ERROR] Exception in worker process\nTraceback (most recent call last):\n  \
             File \"x.py\", line 1, in <module>\nModuleNotFoundError: No module named 'myproject'\n[2026-11-23 13:00:00 \
             +0000] [7] [INFO] Worker exiting (pid: 7)\n",
            "ModuleNotFoundError: No module named 'myproject'",
        ),
        (
            "Traceback (most recent call last):\n  File \"x.py\", line 2, in <module>\nKeyError: 'a'\n\nDuring handling of \
             the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"x.py\", line \
             4, in <module>\ndjango.core.exceptions.ImproperlyConfigured.SettingsError: no SECRET_KEY\n",
            "django.core.exceptions.ImproperlyConfigured.SettingsError: no SECRET_KEY",
        ),
        (
            "Traceback (most recent call last):\n  File \"/venv/django/conf/__init__.py\", line 230, in __init__\n    raise \
             ImproperlyConfigured(\"The SECRET_KEY setting must not be empty.\")\n    \
             ^^^^\ndjango.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.\nThe SECRET_KEY \
             setting must not be empty.\n",
            "django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.",
        ),
        (
            "[ERROR] Exception in worker process\n  + Exception Group Traceback (most recent call last):\n  |   File \"x.py\", \
             line 1, in <module>\n  |     raise ExceptionGroup('two things', [ValueError('no DATABASE_URL'), \
             TypeError('bad')])\n  | ExceptionGroup: two things (2 sub-exceptions)\n  +-+---------------- 1 \
             ----------------\n    | ValueError: no DATABASE_URL\n    +---------------- 2 ----------------\n    | \
             TypeError: bad\n    +------------------------------------\n\ntwo things (2 sub-exceptions)\n",
            "ValueError: no DATABASE_URL",
        ),
        (
            "  + Exception Group Traceback (most recent call last):\n  |   File \"x.py\", line 9, in <module>\n  | \
             x.Many: unhandled errors in a TaskGroup (1 sub-exception)\n  +-+---------------- 1 ----------------\n    | \
             Exception Group Traceback (most recent call last):\n    |   File \"x.py\", line 5, in g\n    | x.Many: inner \
             (1 sub-exception)\n    +-+---------------- 1 ----------------\n      | Traceback (most recent call \
             last):\n      |   File \"x.py\", line 3, in f\n      | KeyError: 'a'\n      | \n      | During handling of \
             the above exception, another exception occurred:\n      | \n      | Traceback (most recent call last):\n      \
             |   File \"x.py\", line 3, in f\n      | x.Oops: no database\n      \
             +------------------------------------\n",
            "x.Oops: no database",
        ),
        (
            "INFO:     Waiting for application startup.\nERROR:    Traceback (most recent call last):\n  File \"x.py\", line \
             7, in lifespan\n    raise RuntimeError('no redis at 6379')\nRuntimeError: no redis at 6379\n\nERROR:    \
             Application startup failed. Exiting.\n",
            "RuntimeError: no redis at 6379",
        ),
        (
            "INFO:     Waiting for application startup.\nERROR:    no migrations\nERROR:    Application startup failed. \
             Exiting.\n",
            "ERROR:    no migrations",
        ),
        (
            "hypercorn.utils.LifespanFailureError: Lifespan failure in startup. '  + Exception Group Traceback (most recent \
             call last):\n  |   File \"x.py\", line 7, in lifespan\n  | ExceptionGroup: unhandled errors in a TaskGroup (1 \
             sub-exception)\n  +-+---------------- 1 ----------------\n    | ConnectionError: no redis\n    \
             +------------------------------------\n'\n",
            "ConnectionError: no redis",
        ),
        (
            "Traceback (most recent call last):\n  File \"x.py\", line 4, in <module>\n    settings = Settings()\n\
             pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings\nDATABASE_URL\n  Field required \
             [type=missing, input_value={}, input_type=dict]\n    For further information visit \
             https://errors.pydantic.dev/2.8/v/missing\nREDIS_URL\n  Field required [type=missing, input_value={}, \
             input_type=dict]\n    For further information visit https://errors.pydantic.dev/2.8/v/missing\n",
            "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings: DATABASE_URL: Field required \
             [type=missing, input_value={}, input_type=dict]",
        ),
        (
            "Puma starting in single mode...\n! Unable to load application: RuntimeError: db is down\nconfig.ru:1:in `block \
             in <main>': db is down (RuntimeError)\n\tfrom /gems/puma-5.6.5/lib/puma/rack/builder.rb:186:in \
             `instance_eval'\n\tfrom /usr/bin/puma:25:in `<main>'\n",
            "config.ru:1:in `block in <main>': db is down (RuntimeError)",
        ),
        (
            "2026-11-28 20:40:29 +0000 Rack app (\"GET /\" - (127.0.0.1)): #<ArgumentError: bad view>\n- Gracefully stopping, \
             waiting for requests to finish\n",
            "2026-11-28 20:40:29 +0000 Rack app (\"GET /\" - (127.0.0.1)): #<ArgumentError: bad view>",
        ),
        (
            "<internal:/usr/lib/ruby/kernel_require.rb>:85:in `require': cannot load such file -- nonesuch \
             (LoadError)\n\tfrom <internal:/usr/lib/ruby/kernel_require.rb>:85:in `require'\n\tfrom -e:1:in `<main>'\n",
            "cannot load such file -- nonesuch (LoadError)",
        ),
        (
            "x.rb:4:in `rescue in f': cannot start (ArgumentError)\n\tfrom x.rb:1:in `f'\n\tfrom x.rb:6:in \
             `<main>'\nx.rb:2:in `f': no file (Errno::ENOENT)\n\tfrom x.rb:6:in `<main>'\n",
            "x.rb:4:in `rescue in f': cannot start (ArgumentError)",
        ),
        (
            "! Unable to load application: SyntaxError: c3.ru:3: syntax error, unexpected '}', expecting ')'\n}.to_app\n^\n",
            "! Unable to load application: SyntaxError: c3.ru:3: syntax error, unexpected '}', expecting ')'",
        ),
        (
            "I, [2026-12-01T03:31:04.930528 #9173]  INFO -- : worker=0 spawned pid=9173\nE, [2026-12-01T03:31:04.936018 \
             #9173] ERROR -- : no database (IOError)\nconfig.ru:3:in `open'\n/usr/lib/ruby/vendor_ruby/unicorn.rb:54:in \
             `eval'\n",
            "no database (IOError)",
        ),
        (
            "set DATABASE_URL\nI, [2026-12-01T03:31:04.930528 #9173]  INFO -- : master process ready\nD, \
             [2026-12-01T03:31:04.930528 #9173] DEBUG -- : waiting\n",
            "set DATABASE_URL",
        ),
        (
            "/usr/lib/ruby/vendor_ruby/puma/rack/builder.rb:183:in `eval': config.ru:2: syntax error, unexpected '}', \
             expecting ']' (SyntaxError)\n\tfrom /usr/lib/ruby/vendor_ruby/puma/rack/builder.rb:183:in `new_from_string'\n",
            "config.ru:2: syntax error, unexpected '}', expecting ']' (SyntaxError)",
        ),
        (
            "node:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module './nonesuch'\nRequire \
             stack:\n- /srv/a.js\n    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)\n    at \
             require (node:internal/modules/helpers:182:18) {\n  code: 'MODULE_NOT_FOUND',\n  requireStack: [ '/srv/a.js' \
             ]\n}\n\nNode.js v20.20.2\n",
            "Error: Cannot find module './nonesuch'",
        ),
        (
            "/srv/b.js:1\nthrow new TypeError(\"no such thing\")\n^\n\nTypeError: no such thing\n    at Object.<anonymous> \
             (/srv/b.js:1:7)\n\nNode.js v20.20.2\n",
            "TypeError: no such thing",
        ),
        (
            "node:internal/modules/esm/resolve:283\n    throw new ERR_MODULE_NOT_FOUND(\n          ^\n\nError \
             [ERR_MODULE_NOT_FOUND]: Cannot find module '/srv/gone.mjs' imported from /srv/g.mjs\n    at finalizeResolution \
             (node:internal/modules/esm/resolve:283:11) {\n  code: 'ERR_MODULE_NOT_FOUND'\n}\n\nNode.js v20.20.2\n",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/srv/gone.mjs' imported from /srv/g.mjs",
        ),
        ("\n/srv/e.js:1\nthrow {code:5}\n^\n{ code: 5 }\n\nNode.js v20.20.2\n", "{ code: 5 }"),
        (
            "\n/srv/t.js:1\nthrow 'boom'\n^\nboom\n(Use `node --trace-uncaught ...` to show where the exception was \
             thrown)\n\nNode.js v20.20.2\n",
            "boom",
        ),
        (
            "\n/srv/e.js:1\nthrow { code: 5, why: 'a long story' }\n^\n{\n  code: 5,\n  why: 'a long story'\n}\n\nNode.js \
             v20.20.2\n",
            "throw { code: 5, why: 'a long story' }",
        ),
        (
            "node:internal/process/promises:389\n      new UnhandledPromiseRejection(reason);\n      ^\n\n\
             UnhandledPromiseRejection: The promise rejected with the reason \"no\".\n    at process (node:internal:95:32) {\n  \
             code: 'ERR_UNHANDLED_REJECTION'\n}\n\nNode.js v20.20.2\n",
            "UnhandledPromiseRejection: The promise rejected with the reason \"no\".",
        ),
        (
            "Exception in thread \"main\" java.lang.RuntimeException: config broken\n\tat T.main(T.java:1)\nCaused by: \
             java.lang.IllegalStateException: inner\n\tat T.main(T.java:1)\n\t... 1 more\n",
            "Caused by: java.lang.IllegalStateException: inner",
        ),
        (
            "\nthread 'main' (12731) panicked at p.rs:1:67:\ncalled `Result::unwrap()` on an `Err` value: \"no \
             config\"\nstack backtrace:\n   0: __rustc::rust_begin_unwind\n             at \
             /rustc/59807/library/std/src/panicking.rs:689:5\nnote: Some details are omitted, run with \
             `RUST_BACKTRACE=full` for a verbose backtrace.\n",
            "called `Result::unwrap()` on an `Err` value: \"no config\"",
        ),
        (
            "panic: open config.yml: no such file or directory\n\ngoroutine 1 [running]:\nmain.main()\n\t/srv/main.go:9 \
             +0x27\nexit status 2\n",
            "panic: open config.yml: no such file or directory",
        ),
        ("2026/11/28 16:00:00 listen tcp :80: bind: permission denied\n", "listen tcp :80: bind: permission denied"),
        (
            "PHP Fatal error:  Uncaught Error: Call to undefined function x() in /srv/a.php:3\nStack trace:\n#0 {main}\n  \
             thrown in /srv/a.php on line 3\n",
            "PHP Fatal error:  Uncaught Error: Call to undefined function x() in /srv/a.php:3",
        ),
        (
            "[29-Nov-2026 00:10:29] ERROR: [/etc/php.conf:156] unknown entry 'pm.nonsense'\n[29-Nov-2026 00:10:29] ERROR: \
             failed to load configuration file '/etc/php.conf'\n[29-Nov-2026 00:10:29] ERROR: FPM initialization failed\n",
            "[29-Nov-2026 00:10:29] ERROR: [/etc/php.conf:156] unknown entry 'pm.nonsense'",
        ),
        (
            "terminate called after throwing an instance of 'std::runtime_error'\n  what():  no database\n",
            "what():  no database",
        ),
        (
            "flag provided but not defined: -prt\nUsage of ./server:\n  -port int\n    \twhere to listen (default 80)\n",
            "flag provided but not defined: -prt",
        ),
        (
            "2026/11/30 14:59:23 server 1.0 starts\n2026/11/30 14:59:23 DATABASE_URL is not set\n",
            "DATABASE_URL is not set",
        ),
        (
            "2026/11/30 14:59:23.000017 listen tcp :18080: bind: address already in use\nexit status 1\n",
            "listen tcp :18080: bind: address already in use",
        ),
        (
            "2026/11/30 14:59:23 cannot connect: connection refused\npanic: cannot connect: connection refused\n\ngoroutine 1 \
             [running]:\nlog.Panicf({0x6da7b9?, 0x4?}, {0xc0000d5ef8?, 0xc00003a6b0?, 0xb?})\n\t/go/src/log/log.go:395 \
             +0x67\nmain.main()\n\t/srv/server.go:49 +0x88e\n",
            "panic: cannot connect: connection refused",
        ),
        (
            "panic: no database [recovered]\n\tpanic: while loading: no database\n\ngoroutine 1 [running]:\n\
             main.main.func1()\n\t/srv/server.go:67 +0x74\npanic({0x685e60, 0x754020})\n\t/go/src/runtime/panic.go:884 \
             +0x212\nmain.main()\n\t/srv/server.go:70 +0xa65\n",
            "panic: while loading: no database",
        ),
        (
            "panic: the configuration is wrong:\nport: not a number\nname: missing\n\ngoroutine 1 [running]:\n\
             main.main()\n\t/srv/server.go:72 +0xb97\n",
            "panic: the configuration is wrong: port: not a number",
        ),
        (
            "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation \
             violation code=0x1 addr=0x0 pc=0x66816e]\n\ngoroutine 1 [running]:\nmain.main()\n\t/srv/server.go:52 \
             +0x12e\n",
            "panic: runtime error: invalid memory address or nil pointer dereference",
        ),
        (
            "./server: unrecognized option '--prt'\nUsage: ./server [--port PORT]\nTry './server --help' for more \
             information.\n",
            "./server: unrecognized option '--prt'",
        ),
        ("usage: server --port PORT\n", "usage: server --port PORT"),
        ("FATAL:  not the owner\nHINT:  The owner must start the server.\n", "FATAL:  not the owner"),
        (
            "s.sh: line 3: syntax error near unexpected token `fi'\ns.sh: line 3: `fi'\n",
            "s.sh: line 3: syntax error near unexpected token `fi'",
        ),
        ("sh: 1: nonesuch_cmd: not found\n", "sh: 1: nonesuch_cmd: not found"),
        ("s.sh: line 2: UNSET_VAR: unbound variable\n", "s.sh: line 2: UNSET_VAR: unbound variable"),
        ("cannot open config at -e line 1.\n", "cannot open config at -e line 1."),
        (
            "Can't locate Nonesuch.pm in @INC (you may need to install it) at -e line 1.\nBEGIN failed--compilation aborted \
             at -e line 1.\n",
            "Can't locate Nonesuch.pm in @INC (you may need to install it) at -e line 1.",
        ),
    ];

    #[test]
    fn each_language_has_its_own_habit() {
        for (text, expected) in CAPTURED {
            assert_eq!(reason(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_stack_of_any_length_does_not_hide_the_error_and_other_lines_do() {
        let head = "config.ru:1:in `<main>': no database (RuntimeError)";
        let stack = "\tfrom /gems/rails/a.rb:1:in `b'\n".repeat(500);
        assert_eq!(reason(&format!("{head}\n{stack}")).as_deref(), Some(head));
        let head = "fatal error: concurrent map writes";
        let stack = "\ngoroutine 25 [running]:\nmain.main.func2()\n\t/srv/server.go:85 +0x2e\ncreated by main.main\n\
                     \t/srv/server.go:83 +0xaec\n...additional frames elided...\n";
        let stacks = format!("{head}\n\nruntime stack:\n{}", stack.repeat(100));
        assert_eq!(reason(&stacks).as_deref(), Some(head));
        let head = "config.ru:1:in `<main>': no database (RuntimeError)";
        let talk = "all is well\n".repeat(FORGOTTEN_AFTER + 1);
        assert_eq!(reason(&format!("{head}\n{talk}")).as_deref(), Some("all is well"));
    }

    #[test]
    fn what_is_of_no_concern_is_no_reason() {
        assert_eq!(reason("[2026-11-23 13:00:00 +0000] [7] [INFO] Booting worker with pid: 7\n"), None);
        assert_eq!(
            reason("cannot go on\n[28-Nov-2026 16:00:00] NOTICE: exiting, bye-bye!\n").as_deref(),
            Some("cannot go on")
        );
    }
}
