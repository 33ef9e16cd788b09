//! Configurations as people have them.

use super::*;

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), real: String::new(), text: text.to_owned(), ..File::default() }
}

/// Debian's main file and default site, and one of the guide's.
fn guide() -> Vec<File> {
    vec![
        file(
            "/etc/nginx/nginx.conf",
            "user www-data;\nerror_log /var/log/nginx/error.log;\nevents { worker_connections 768; }\n\
             http {\n\tgzip on; # on; }\n\tlog_format x '$a {\"b\"}; ';\n\tinclude conf.d/*.conf;\n\
             \tinclude /etc/nginx/sites-enabled/*;\n}\n",
        ),
        file(
            "/etc/nginx/sites-enabled/default",
            "server {\n listen 80 default_server;\n listen [::]:80 default_server;\n root /var/www/html;\n server_name _;\n\
             location / { try_files $uri $uri/ =404; }\n}\n",
        ),
        file(
            "/etc/nginx/sites-enabled/myproject",
            "server {\n    listen 80;\n    server_name Example.com www.example.com;\n\n    location /static/ {\n\
             root /home/sammy/myprojectdir;\n    }\n\n    location / {\n        include proxy_params;\n\
             proxy_pass http://unix:/run/gunicorn.sock;\n    }\n}\n",
        ),
        file(
            "/etc/nginx/conf.d/app.conf",
            "upstream app { server unix:/run/app.sock fail_timeout=0; server 127.0.0.1:8000; }\n\
             server { server_name *.app.test; location / { if ($x ~ \"a{2}\") { return 403; } proxy_pass http://app/x; } }\n\
             server { server_name api.app.test; location / { set $b http://h${x}:1; proxy_pass $b; } }\n",
        ),
    ]
}

#[test]
fn the_guides_sites_are_read() {
    let found = read(&guide());
    assert_eq!(
        (found.user.as_str(), found.error_logs.as_slice()),
        ("www-data", &["/var/log/nginx/error.log".into()][..])
    );
    let places: Vec<String> = found.servers.iter().map(Server::place).collect();
    assert_eq!(
        places,
        [
            "/etc/nginx/conf.d/app.conf:2",
            "/etc/nginx/conf.d/app.conf:3",
            "/etc/nginx/sites-enabled/default:1",
            "/etc/nginx/sites-enabled/myproject:1"
        ]
    );
    let site = &found.servers[3];
    assert_eq!(site.names, ["example.com", "www.example.com"]);
    assert_eq!(site.passes[0].address, "/run/gunicorn.sock");
    assert_eq!(site.passes[0].place(), "/etc/nginx/sites-enabled/myproject:11");
    assert_eq!(
        (site.roots[0].location.as_str(), site.roots[0].directory().as_str()),
        ("/static/", "/home/sammy/myprojectdir/static")
    );
    let through: Vec<&str> = found.servers[0].passes.iter().map(|pass| pass.address.as_str()).collect();
    assert_eq!(through, ["/run/app.sock", "127.0.0.1:8000"]);
    assert!(found.servers[1].passes.is_empty(), "a variable leads anywhere");
}

#[test]
fn names_choose_as_nginx_does() {
    let found = read(&guide());
    for (host, line) in [
        ("example.com", "myproject:1"),
        ("WWW.example.com", "myproject:1"),
        ("another.example", "default:1"),
        ("x.app.test", "app.conf:2"),
        ("api.app.test", "app.conf:3"),
    ] {
        assert!(found.answering(host, 80).expect("one answers").place().ends_with(line), "{host}");
    }
    assert!(found.answering("example.com", 443).is_none());
}

#[test]
fn addresses_are_taken_out() {
    for (written, plain) in [
        ("http://unix:/run/a.sock", "/run/a.sock"),
        ("http://unix:/run/a.sock:/x/", "/run/a.sock"),
        ("unix:/run/uwsgi/first.sock", "/run/uwsgi/first.sock"),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("http://localhost", "127.0.0.1:80"),
        ("127.0.0.1:3031", "127.0.0.1:3031"),
        ("https://[::1]:8443/x", "[::1]:8443"),
    ] {
        assert_eq!(address(written), plain, "{written}");
    }
}

#[test]
fn garbage_ends() {
    for text in
        ["{{{{{{", "}}}}", "server { listen", "'", "\\", "a ${", "# only", &"{".repeat(100_000), "include nginx.conf;"]
    {
        let main = [file("/etc/nginx/nginx.conf", text)];
        let _ = (read(&main), includes(&main[0]));
    }
}

#[test]
fn patterns_match_as_globs() {
    for (pattern, path, yes) in [
        ("/etc/nginx/sites-enabled/*", "/etc/nginx/sites-enabled/default", true),
        ("/etc/nginx/sites-enabled/*", "/etc/nginx/sites-enabled/.hidden", false),
        ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a.conf", true),
        ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a.conf.bak", false),
        ("/etc/nginx/proxy_params", "/etc/nginx/proxy_params", true),
        ("/etc/nginx/?", "/etc/nginx/ab", false),
    ] {
        assert_eq!(matches(pattern, path), yes, "{pattern} {path}");
    }
}
