//! Nginx's configuration, as far as it decides which site answers and where that site passes to.
//!
//! Owns: the syntax (words, quotes, comments, blocks), `include`, and the few directives that matter.
//! Never: reads a file. Files come in with their paths; a file that an `include` names and that is not among them is
//! left out. Sources: nginx.org/en/docs, "Core functionality", "ngx_http_core_module", "Server names".

use super::facts::File;

/// Blocks are not followed deeper than this.
const MAX_DEPTH: usize = 16;
/// No more directives than this are looked at, in all files together.
const MAX_DIRECTIVES: usize = 50_000;

/// A directive: its words, and the block behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Self>,
    /// The file, where its links lead, and the line, counted from 1.
    pub(super) file: String,
    pub(super) line: usize,
}

impl Directive {
    fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn value(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }
}

/// Where a site listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    /// `80`, `[::]:80`, `127.0.0.1:8080`, `unix:/run/x`.
    pub(super) address: String,
    pub(super) default: bool,
    /// All words behind the address: `ssl`, `http2`.
    pub(super) options: Vec<String>,
    pub(super) file: String,
    pub(super) line: usize,
}

/// Where a location passes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    /// `proxy_pass`, `uwsgi_pass`, `fastcgi_pass`, `scgi_pass`, `grpc_pass`.
    pub(super) directive: String,
    /// The address as it is written there, or in the `server` line of the upstream block.
    pub(super) written: String,
    /// `/run/gunicorn.sock` or `127.0.0.1:8000`.
    pub(super) address: String,
    pub(super) file: String,
    pub(super) line: usize,
}

impl Pass {
    /// `FILE:LINE`.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Files that Nginx serves itself: a `root` or an `alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// The prefix of the `location`; empty for the whole server and for a regular expression.
    pub(super) location: String,
    /// As it is written.
    pub(super) path: String,
    /// `alias`: the prefix is no part of the files' path.
    pub(super) alias: bool,
    pub(super) file: String,
    pub(super) line: usize,
}

impl Root {
    /// The directory whose files have the location's names.
    pub(super) fn directory(&self) -> String {
        let path = self.path.trim_end_matches('/');
        let below = if self.alias { "" } else { self.location.trim_end_matches('/') };
        format!("{path}{below}")
    }
}

/// A `server` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) names: Vec<String>,
    /// The file and line of `server_name`, if there is one.
    pub(super) names_at: Option<(String, usize)>,
    pub(super) listens: Vec<Listen>,
    pub(super) passes: Vec<Pass>,
    /// `root` and `alias` of the block and its locations.
    pub(super) roots: Vec<Root>,
    pub(super) file: String,
    pub(super) line: usize,
}

impl Server {
    /// `FILE:LINE`.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// The sites, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) servers: Vec<Server>,
    /// The user of the workers; empty when none is written.
    pub(super) user: String,
    pub(super) error_logs: Vec<String>,
}

/// Reads the configuration that begins in the first of these files.
pub(super) fn read(files: &[File]) -> Configuration {
    let Some(main) = files.first() else { return Configuration::default() };
    collect(&directives(main, files, 0, &mut 0))
}

/// Reads one file of sites by itself, as it would be read inside `http`.
pub(super) fn read_site(file: &File) -> Configuration {
    collect(&directives(file, &[], 0, &mut 0))
}

/// The patterns of every `include` in a file.
pub(super) fn includes(file: &File) -> Vec<String> {
    fn walk(list: &[Directive], found: &mut Vec<String>) {
        for directive in list {
            if directive.name() == "include" {
                found.push(directive.value().to_owned());
            }
            walk(&directive.block, found);
        }
    }
    let mut found = Vec::new();
    walk(&directives(file, &[], 0, &mut 0), &mut found);
    found
}

/// Whether a path is meant by the pattern of an `include`: `*` and `?` in the last part alone.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let (Some((directory, pattern)), Some((parent, name))) = (pattern.rsplit_once('/'), path.rsplit_once('/')) else {
        return false;
    };
    // A glob does not find hidden files.
    directory == parent && glob(pattern.as_bytes(), name.as_bytes()) && (!name.starts_with('.') || pattern == name)
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|at| glob(rest, &name[at..])),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((letter, rest)), Some((other, tail))) => letter == other && glob(rest, tail),
        (Some(_) | None, _) => false,
    }
}

/// The directives of a file, with those of included files in the place of `include` when they are known.
fn directives(file: &File, all: &[File], depth: usize, count: &mut usize) -> Vec<Directive> {
    let mut tokens = Tokens { text: file.text.chars().peekable(), line: 1 };
    let name = if file.real.is_empty() { &file.path } else { &file.real };
    block(&mut tokens, name, all, depth, count)
}

fn block(tokens: &mut Tokens<'_>, file: &str, all: &[File], depth: usize, count: &mut usize) -> Vec<Directive> {
    let mut list = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut line = 0;
    while let Some((token, at)) = tokens.next() {
        *count += 1;
        if *count > MAX_DIRECTIVES || depth > MAX_DEPTH {
            break;
        }
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    line = at;
                }
                words.push(word);
            }
            Token::Semicolon => {
                let words = std::mem::take(&mut words);
                let included = words.first().is_some_and(|name| name == "include") && !all.is_empty();
                if let (true, Some(pattern)) = (included, words.get(1)) {
                    let pattern = absolute(pattern, all);
                    for found in all.iter().filter(|found| matches(&pattern, &found.path)) {
                        list.extend(directives(found, all, depth + 1, count));
                    }
                } else if !words.is_empty() {
                    list.push(Directive { words, block: Vec::new(), file: file.to_owned(), line });
                }
            }
            Token::Open => {
                let words = std::mem::take(&mut words);
                let block = block(tokens, file, all, depth + 1, count);
                list.push(Directive { words, block, file: file.to_owned(), line });
            }
            Token::Close => break,
        }
    }
    list
}

/// An `include` is relative to the directory of the main file.
pub(super) fn absolute(pattern: &str, all: &[File]) -> String {
    let directory = all.first().and_then(|main| main.path.rsplit_once('/')).map_or("", |(directory, _)| directory);
    if pattern.starts_with('/') { pattern.to_owned() } else { format!("{directory}/{pattern}") }
}

enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
}

struct Tokens<'a> {
    text: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Tokens<'_> {
    fn letter(&mut self) -> Option<char> {
        let letter = self.text.next()?;
        self.line += usize::from(letter == '\n');
        Some(letter)
    }
}

impl Iterator for Tokens<'_> {
    type Item = (Token, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.line;
            match self.letter()? {
                ';' => return Some((Token::Semicolon, line)),
                '{' => return Some((Token::Open, line)),
                '}' => return Some((Token::Close, line)),
                '#' => {
                    while self.text.peek().is_some_and(|&letter| letter != '\n') {
                        self.letter();
                    }
                }
                letter if letter.is_whitespace() => {}
                quote @ ('"' | '\'') => {
                    let mut word = String::new();
                    while let Some(letter) = self.letter().filter(|&letter| letter != quote) {
                        word.push(if letter == '\\' { self.letter().unwrap_or('\\') } else { letter });
                    }
                    return Some((Token::Word(word), line));
                }
                first => {
                    let mut word = String::from(first);
                    while let Some(&letter) = self.text.peek() {
                        // `${name}` is a variable, no block.
                        let ends = matches!(letter, ';' | '}') && !word.contains("${") || letter.is_whitespace();
                        if ends || (letter == '{' && !word.ends_with('$')) {
                            break;
                        }
                        word.push(letter);
                        self.letter();
                        if letter == '\\' {
                            word.extend(self.letter());
                        } else if letter == '}' {
                            word = word.replace("${", "$");
                        }
                    }
                    return Some((Token::Word(word), line));
                }
            }
        }
    }
}

fn collect(list: &[Directive]) -> Configuration {
    let mut found = Configuration::default();
    let mut upstreams = Vec::new();
    let mut servers = Vec::new();
    sort(list, &mut found, &mut upstreams, &mut servers);
    found.servers = servers.into_iter().map(|directive| server(directive, &upstreams, &mut found.error_logs)).collect();
    found
}

fn sort<'a>(
    list: &'a [Directive],
    found: &mut Configuration,
    upstreams: &mut Vec<&'a Directive>,
    servers: &mut Vec<&'a Directive>,
) {
    for directive in list {
        match directive.name() {
            "http" => sort(&directive.block, found, upstreams, servers),
            "server" => servers.push(directive),
            "upstream" => upstreams.push(directive),
            "user" => found.user = directive.value().to_owned(),
            "error_log" => found.error_logs.push(directive.value().to_owned()),
            _ => {}
        }
    }
}

fn server(directive: &Directive, upstreams: &[&Directive], error_logs: &mut Vec<String>) -> Server {
    let mut server = Server {
        names: Vec::new(),
        names_at: None,
        listens: Vec::new(),
        passes: Vec::new(),
        roots: Vec::new(),
        file: directive.file.clone(),
        line: directive.line,
    };
    for inner in &directive.block {
        match inner.name() {
            "server_name" => {
                server.names.extend(inner.words[1..].iter().map(|name| name.to_lowercase()));
                server.names_at = Some((inner.file.clone(), inner.line));
            }
            "listen" => server.listens.push(Listen {
                address: inner.value().to_owned(),
                options: inner.words.iter().skip(2).cloned().collect(),
                file: inner.file.clone(),
                line: inner.line,
                default: inner.words[1..].iter().any(|word| word == "default_server" || word == "default"),
            }),
            _ => {}
        }
    }
    locations(&directive.block, "", upstreams, &mut server, error_logs);
    if server.listens.is_empty() {
        // What Nginx started by root does without a `listen`.
        server.listens.push(Listen {
            address: "80".to_owned(),
            default: false,
            options: Vec::new(),
            file: directive.file.clone(),
            line: directive.line,
        });
    }
    server
}

fn locations(
    list: &[Directive],
    prefix: &str,
    upstreams: &[&Directive],
    server: &mut Server,
    error_logs: &mut Vec<String>,
) {
    for directive in list {
        match directive.name() {
            "proxy_pass" | "uwsgi_pass" | "fastcgi_pass" | "scgi_pass" | "grpc_pass" => {
                server.passes.extend(passes(directive, upstreams));
            }
            "root" | "alias" => server.roots.push(Root {
                location: prefix.to_owned(),
                path: directive.value().to_owned(),
                alias: directive.name() == "alias",
                file: directive.file.clone(),
                line: directive.line,
            }),
            "error_log" => error_logs.push(directive.value().to_owned()),
            _ => {}
        }
        // `location /static/`, `location = /x`, `location ^~ /media/`; `~` begins a regular expression.
        let inner = match (directive.name(), directive.words.as_slice()) {
            ("location", [_, path]) if path.starts_with('/') => path,
            ("location", [_, sign, path]) if matches!(sign.as_str(), "=" | "^~") => path,
            ("location", _) => "",
            _ => prefix,
        };
        locations(&directive.block, inner, upstreams, server, error_logs);
    }
}

/// Where a directive passes to, through an upstream block or not. Nothing for one with a variable in it.
fn passes(directive: &Directive, upstreams: &[&Directive]) -> Vec<Pass> {
    let value = directive.value();
    let pass = |at: &Directive, written: &str| Pass {
        directive: directive.name().to_owned(),
        written: written.to_owned(),
        address: address(written),
        file: at.file.clone(),
        line: at.line,
    };
    if value.contains('$') {
        return Vec::new();
    }
    let name = address(value);
    let plain = name.split([':', '/']).next().unwrap_or_default();
    match upstreams.iter().find(|upstream| upstream.value() == name || (upstream.value() == plain && !plain.is_empty()))
    {
        Some(upstream) => {
            let lines = upstream.block.iter().filter(|line| line.name() == "server");
            lines.map(|line| pass(line, line.value())).collect()
        }
        None => vec![pass(directive, value)],
    }
}

/// `http://unix:/run/a.sock:/path` is `/run/a.sock`, `http://127.0.0.1:8000/x` is `127.0.0.1:8000`.
fn address(written: &str) -> String {
    let (scheme, rest) = match written.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", written),
    };
    if let Some(path) = rest.strip_prefix("unix:") {
        return path.split(':').next().unwrap_or_default().to_owned();
    }
    let host = rest.split('/').next().unwrap_or_default().replace("localhost", "127.0.0.1");
    let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match scheme {
        "http" | "grpc" if !port => format!("{host}:80"),
        "https" | "grpcs" if !port => format!("{host}:443"),
        _ => host,
    }
}

impl Configuration {
    /// The server that answers a name on a port, as ngx_http_server_names chooses it: the exact name, the longest
    /// wildcard at the start, at the end, then the default one. Regular expressions are not tried.
    pub(super) fn answering(&self, host: &str, port: u16) -> Option<&Server> {
        let host = host.to_lowercase();
        let on_port = || self.servers.iter().filter(|server| server.listens.iter().any(|listen| listen.port() == port));
        let named = |accepts: &dyn Fn(&str) -> bool| {
            let best = |server: &&Server| {
                let names = server.names.iter().filter(|name| accepts(name));
                names.map(String::len).max()
            };
            // Of two servers with the same name the first one counts.
            on_port().filter(|server| best(server).is_some()).fold(None, |found: Option<&Server>, server| match found {
                Some(found) if best(&found) >= best(&server) => Some(found),
                Some(_) | None => Some(server),
            })
        };
        let exact = named(&|name| name == host || name.strip_prefix('.') == Some(&host));
        let start = || named(&|name| wildcard_start(name).is_some_and(|end| host.ends_with(end)));
        let end = || named(&|name| name.strip_suffix(".*").is_some_and(|start| host.starts_with(&format!("{start}."))));
        exact.or_else(start).or_else(end).or_else(|| self.default_server(port))
    }

    /// The server that answers every name that none has.
    pub(super) fn default_server(&self, port: u16) -> Option<&Server> {
        self.default_of(|listen| listen.port() == port)
    }

    /// The default server of one address, as [`Listen::socket`] writes it.
    pub(super) fn default_of_socket(&self, socket: &str) -> Option<&Server> {
        self.default_of(|listen| listen.socket() == socket)
    }

    fn default_of(&self, is: impl Fn(&Listen) -> bool) -> Option<&Server> {
        let listening = || self.servers.iter().filter(|server| server.listens.iter().any(&is));
        let marked = |server: &&Server| server.listens.iter().any(|listen| listen.default && is(listen));
        listening().find(marked).or_else(|| listening().next())
    }
}

/// `*.example.com` and `.example.com` end in `.example.com`.
fn wildcard_start(name: &str) -> Option<&str> {
    name.strip_prefix('*').or_else(|| name.starts_with('.').then_some(name))
}

impl Listen {
    /// The address in one way of writing: `0.0.0.0:80` for `80`, `*:80` and no `listen` at all.
    pub(super) fn socket(&self) -> String {
        let host = match self.address.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ if self.address.parse::<u16>().is_ok() => "*",
            _ => self.address.as_str(),
        };
        let host = if host == "*" { "0.0.0.0" } else { host };
        format!("{host}:{}", self.port())
    }

    /// The port; 0 for a unix socket.
    pub(super) fn port(&self) -> u16 {
        if self.address.starts_with("unix:") {
            return 0;
        }
        let last = self.address.rsplit(':').next().unwrap_or_default();
        last.parse().unwrap_or(80)
    }
}

#[cfg(test)]
mod tests;
