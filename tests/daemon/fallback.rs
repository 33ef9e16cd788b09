//! What visitors get while no worker can serve.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;

use super::chromium::Chromium;
use super::http::{self, Address, Response};
use super::instance::{Builder, Instance};
use super::transcript::{PATIENCE, START};

/// An instance on TCP whose application is broken as long as the file `broken` is there.
fn broken(builder: Builder) -> Instance {
    let web = builder.tcp4().file("broken", "").worker("service.py", &["exit-if=broken"]);
    assert_eq!(web.get("/").status, 503);
    web
}

fn page(web: &Instance, path: &str) -> Response {
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n").expect("sent");
    http::read_response(&mut connection).expect("answered")
}

fn url(web: &Instance, path: &str) -> String {
    let Address::Tcp(address) = &web.addresses[0] else { panic!("a TCP socket") };
    format!("http://{address}{path}")
}

#[test]
fn a_page_for_people_tells_nothing_of_the_inside_and_ends_with_the_first_proven_worker() {
    let web = broken(Instance::builder());
    let response = page(&web, "/");
    assert_eq!((response.status, response.header("Content-Type")), (503, Some("text/html; charset=utf-8")));
    for secret in ["RuntimeError", "broken", "service.py", "sockd", web.path().to_str().expect("UTF-8")] {
        assert!(!response.body.contains(secret), "{secret} is in the page:\n{}", response.body);
    }
    let retry: u32 = response.header("Retry-After").expect("it has one").parse().expect("seconds");
    let (_, refresh) = response.body.split_once("http-equiv=\"refresh\" content=\"").expect("it comes back");
    let refresh: u32 = refresh.split_once('"').expect("a number").0.parse().expect("seconds");
    assert!(refresh >= retry, "it comes back after {refresh} s, before the {retry} s of Retry-After");
    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    web.until("a visitor is served", || (page(&web, "/").status == 200).then_some(()));
    web.log("a worker serves, no more 503");
    for _ in 0..20 {
        assert_eq!(page(&web, "/").status, 200);
    }
    web.stop();
}

#[test]
fn an_operators_own_page_is_read_each_time_and_does_without_when_it_is_of_no_use() {
    let builder = Instance::builder();
    let own = builder.path().join("own.html");
    let builder = builder.file("own.html", "<p>one</p>").config(&format!("[fallback]\npage = {own:?}\n"));
    let web = broken(builder);
    assert_eq!(page(&web, "/").body, "<p>one</p>");

    let fixed = |since| {
        std::fs::remove_file(web.path().join("broken")).expect("fixed");
        web.until("a visitor is served", || (page(&web, "/").status == 200).then_some(()));
        web.log_since(since, "a worker serves, no more 503").mark()
    };
    let break_again = || {
        web.write("broken", "");
        super::processes::signal(web.ready_worker(), rustix::process::Signal::KILL);
        web.until("a visitor is turned away", || (page(&web, "/").status == 503).then_some(()));
    };
    let mark = fixed(START);
    web.write("own.html", "<p>two</p>");
    break_again();
    assert_eq!(page(&web, "/").body, "<p>two</p>");

    let mark = fixed(mark);
    std::fs::remove_file(&own).expect("removed");
    break_again();
    let warning = web.log_since(mark, "sockd fallback: cannot use");
    assert!(warning.text.ends_with("showing the built-in page"), "{}", warning.text);
    assert!(page(&web, "/").body.contains("right back"));
    web.stop();
}

#[test]
fn a_browser_shows_the_page_on_every_screen() {
    let web = broken(Instance::builder());
    let Some(chromium) = Chromium::find("the page of the 503 in a browser", web.path()) else { return };
    let dom = chromium.dom(&url(&web, "/"));
    for part in ["<h1>We’ll be right back</h1>", "will be back in a moment", "tries again by itself", "</svg>"] {
        assert!(dom.contains(part), "{part}: {dom}");
    }
    let kept = |name: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("503-{name}.png"));
    for (name, size) in [("phone", (390, 844)), ("desktop", (1280, 800))] {
        let blank = chromium.picture("about:blank", size, false, &kept("blank"));
        let mut pictures = Vec::new();
        for (light, night) in [("day", false), ("night", true)] {
            let picture = chromium.picture(&url(&web, "/"), size, night, &kept(&format!("{name}-{light}")));
            assert_eq!((picture.width, picture.height), size, "{name}, {light}");
            // What nothing is drawn on takes next to no room as a PNG.
            let (found, nothing) = (picture.bytes.len(), blank.bytes.len());
            assert!(found > 3 * nothing, "{name}, {light}: {found} bytes, {nothing} when blank");
            pictures.push(picture.bytes);
        }
        assert_ne!(pictures[0], pictures[1], "{name}: night looks like day");
    }
    web.stop();
}

/// Passes requests on to an instance and tells the status of each answer.
fn relay(web: &Instance) -> (String, mpsc::Receiver<u16>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("its address"));
    let (sender, statuses) = mpsc::channel();
    let address = web.addresses[0].clone();
    std::thread::spawn(move || {
        for visitor in listener.incoming() {
            let (sender, address) = (sender.clone(), address.clone());
            // Browsers open connections that they may need later.
            std::thread::spawn(move || pass_on(visitor?, &address, &sender));
        }
    });
    (url, statuses)
}

fn pass_on(mut visitor: TcpStream, address: &Address, statuses: &mpsc::Sender<u16>) -> std::io::Result<()> {
    let mut request = [0; 8192];
    let length = visitor.read(&mut request)?;
    if length == 0 {
        return Ok(());
    }
    let mut site = address.connect(PATIENCE)?;
    site.write_all(&request[..length])?;
    let mut answer = Vec::new();
    site.read_to_end(&mut answer)?;
    visitor.write_all(&answer)?;
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok());
    // The test may have seen enough.
    let _ = statuses.send(status.unwrap_or_default());
    Ok(())
}

#[test]
fn a_browser_that_is_left_alone_arrives_once_the_application_is_fixed() {
    let web = broken(Instance::builder());
    let Some(chromium) = Chromium::find("a browser that comes back by itself", web.path()) else { return };
    let (url, statuses) = relay(&web);
    // Without a port for a debugger it would end at once.
    let mut browser = chromium.open(&["--remote-debugging-port=0".into()], &url);
    let first = statuses.recv_timeout(4 * PATIENCE);
    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    let last = std::iter::from_fn(|| statuses.recv_timeout(PATIENCE).ok()).find(|status| *status != 503);
    browser.kill().expect("killed");
    browser.wait().expect("reaped");
    assert_eq!((first, last), (Ok(503), Some(200)), "{}", web.transcript.show());
    web.stop();
}
