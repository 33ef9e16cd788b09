//! Commands that start a server for development, or another server behind a command of their own: they take no socket
//! that they are given, and no worker of theirs could be watched.
//!
//! Owns: which those are, and the server's command that is meant. No IO: the caller tells what there is.

use std::ffi::OsString;
use std::path::Path;

use super::declared_sockets::values;
use super::python::is_python;

/// A command that sockd cannot supervise, and the one to write in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instead {
    /// What it is, for a message: `manage.py runserver is Django's server for development`.
    pub why: String,
    /// The words to write.
    pub command: Vec<String>,
}

/// What to write in the place of a command. `django` is the module of the project's WSGI application, if there is one:
/// `myproject.wsgi`. `None`: it is none of these commands.
pub fn instead(command: &[OsString], django: Option<&str>) -> Option<Instead> {
    let words: Vec<&str> = command.iter().filter_map(|word| word.to_str()).collect();
    let (program, rest) = words.split_first()?;
    // `python -m flask run` is `flask run`; a server is looked for beside the Python.
    let (name, rest) = match rest.split_first() {
        Some((&"-m", [module, rest @ ..])) if is_python(command.first()?) => (*module, rest),
        Some((script, rest)) if is_python(command.first()?) => (base(script), rest),
        _ => (base(program), rest),
    };
    match name {
        "manage.py" | "django-admin" if rest.contains(&"runserver") => Some(Instead {
            why: format!("{name} runserver is Django's server for development"),
            command: vec![beside(program, "gunicorn"), format!("{}:application", django.unwrap_or("myproject.wsgi"))],
        }),
        "flask" if rest.contains(&"run") => {
            let named = values(rest.iter(), &["--app", "-A"]).pop();
            let application = with_name(&named.unwrap_or_else(|| "app".to_owned()), "app");
            let why = "flask run is Flask's server for development".to_owned();
            let mut command = vec![beside(program, "gunicorn")];
            command.extend(bind(rest).map(|address| vec!["--bind".to_owned(), address]).unwrap_or_default());
            command.push(application);
            Some(Instead { why, command })
        }
        "fastapi" if matches!(rest.first(), Some(&"run" | &"dev")) => {
            let file = rest.get(1).filter(|word| !word.starts_with('-')).map_or("main.py", |word| *word);
            let module = file.trim_end_matches(".py").trim_matches(['.', '/']).replace('/', ".");
            let object = values(rest.iter(), &["--app"]).pop().unwrap_or_else(|| "app".to_owned());
            let mut command = vec![beside(program, "uvicorn")];
            for option in ["--host", "--port", "--workers", "--root-path"] {
                let value = values(rest.iter(), &[option]).pop();
                command.extend(value.map(|value| vec![option.to_owned(), value]).unwrap_or_default());
            }
            command.push(format!("{module}:{object}"));
            Some(Instead { why: format!("fastapi {} starts a uvicorn of its own", rest[0]), command })
        }
        _ => None,
    }
}

/// `HOST:PORT`, where the options of `flask run` say one of them.
fn bind(words: &[&str]) -> Option<String> {
    let value = |long, short| values(words.iter(), &[long, short]).pop();
    let (host, port) = (value("--host", "-h"), value("--port", "-p"));
    (host.is_some() || port.is_some())
        .then(|| format!("{}:{}", host.as_deref().unwrap_or("127.0.0.1"), port.as_deref().unwrap_or("5000")))
}

/// `app` is `app:app`; what names its object stays.
fn with_name(application: &str, object: &str) -> String {
    let module = application.trim_end_matches(".py");
    if module.contains(':') { module.to_owned() } else { format!("{module}:{object}") }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The server beside a program of the same environment.
fn beside(program: &str, server: &str) -> String {
    match Path::new(program).parent() {
        Some(directory) if program.contains('/') && !base(program).ends_with(".py") => {
            directory.join(server).display().to_string()
        }
        _ => server.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_that_are_meant_are_named() {
        for (line, meant) in [
            ("fastapi run main.py --port 8000", "uvicorn --port 8000 main:app"),
            ("/v/bin/fastapi run app/main.py --app site --workers 4", "/v/bin/uvicorn --workers 4 app.main:site"),
            ("fastapi dev", "uvicorn main:app"),
            (
                "venv/bin/flask --app shop:create_app() run -h 0.0.0.0",
                "venv/bin/gunicorn --bind 0.0.0.0:5000 shop:create_app()",
            ),
            ("python -m flask run", "gunicorn app:app"),
            ("flask --app hello.py run", "gunicorn hello:app"),
            ("/v/bin/python manage.py runserver 0.0.0.0:8000", "/v/bin/gunicorn shop.wsgi:application"),
            ("./manage.py runserver", "gunicorn shop.wsgi:application"),
            ("django-admin runserver --settings x", "gunicorn shop.wsgi:application"),
        ] {
            let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let found = instead(&command, Some("shop.wsgi")).expect(line);
            assert_eq!(found.command.join(" "), meant, "{line}");
        }
        for line in [
            "gunicorn run:app",
            "flask routes",
            "python manage.py migrate",
            "fastapi",
            "uvicorn fastapi:run",
            "python run.py",
            "",
        ] {
            let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(instead(&command, None), None, "{line}");
        }
    }
}
