//! The frameworks of the ASGI guides, each under a server of theirs.

use std::io::{Read, Write};

use super::http::{Address, Connection};
use super::instance::{Builder, Instance};
use super::python::{Hammer, bin};
use super::transcript::PATIENCE;

const FASTAPI: &str = r#"
import os
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    print("begins", flush=True)
    yield
    print("ends", flush=True)

application = FastAPI(lifespan=lifespan)

@application.get("/")
async def hello():
    return {"says": "hello from", "pid": os.getpid()}
"#;

const STARLETTE: &str = r#"
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

async def hello(request):
    return PlainTextResponse("hello from %d" % os.getpid())

async def echo(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)

application = Starlette(routes=[Route("/", hello), WebSocketRoute("/echo", echo)])
"#;

/// One file in place of a project: settings, a page, and a consumer as in Channels' tutorial.
const CHANNELS: &str = r#"
import os
from django.conf import settings
settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for a test",
                   INSTALLED_APPS=["daphne", "channels"])
from django.core.asgi import get_asgi_application
django = get_asgi_application()
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.http import HttpResponse
from django.urls import path

def hello(request):
    return HttpResponse("hello from %d" % os.getpid())

class Echo(WebsocketConsumer):
    def receive(self, text_data):
        self.send(text_data=text_data)

urlpatterns = [path("", hello)]
application = ProtocolTypeRouter({
    "http": django,
    "websocket": URLRouter([path("echo", Echo.as_asgi())]),
})
"#;

const QUICK: &str =
    "[workers]\ncount = 2\ndrain-timeout = \"60s\"\nstop-timeout = \"10s\"\n[reload]\nsoak = \"200ms\"\n";

/// Just enough of RFC 6455 to send short texts and read short frames.
struct WebSocket(Box<dyn Connection>);

impl WebSocket {
    fn open(address: &Address) -> Self {
        let mut connection = address.connect(PATIENCE).expect("connected");
        let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        connection.write_all(request.as_bytes()).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).expect("a whole head");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(connection)
    }

    /// The first byte of the next frame, which tells its kind, and what it holds.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let mut body = vec![0; head[1].into()];
        self.0.read_exact(&mut body).expect("a whole frame");
        (head[0], body)
    }

    fn echoes(&mut self, text: &str) {
        // A mask of zeros leaves the text as it is.
        let length = u8::try_from(text.len()).expect("short");
        self.0.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()).expect("sent");
        assert_eq!(self.frame(), (0x81, text.as_bytes().to_vec()));
    }
}

fn start(builder: Builder, source: &str, server: &str, arguments: &[&str]) -> Instance {
    let script = bin(server);
    let command = [&[script.as_str()], arguments, &["myproject:application"]].concat();
    let web = builder.config(QUICK).file("myproject.py", source).command(&command);
    assert!(web.get("/").body.contains("hello from"), "{}", web.get("/").body);
    web.status("serving, 2 of 2 workers, generation 1");
    web
}

/// A reload under load: nothing fails, and a WebSocket of the old generation lives on, until the service ends.
fn outlives_a_reload(web: Instance, source: &str) {
    let mut socket = WebSocket::open(&web.addresses[0]);
    socket.echoes("before");
    let hammer = Hammer::start(&web.addresses[0], 2);
    web.write("myproject.py", &source.replace("hello from", "new words from"));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    web.until("only one old worker is left", || (web.workers().len() == 3).then_some(()));
    let answers = hammer.finish(&web);
    assert!(answers.iter().flatten().any(|body| body.contains("new words from")));
    socket.echoes("after");
    web.stop();
    let (kind, body) = socket.frame();
    assert_eq!((kind, &body[..2]), (0x88, &1012u16.to_be_bytes()[..]), "no word at the end");
}

/// The framework writes its errors, a group of them here, and the server its own last word below.
#[test]
fn why_a_lifespan_does_not_begin_is_the_reason_of_a_refused_reload() {
    let broken =
        FASTAPI.replace("yield", "raise ExceptionGroup('in a task group', [RuntimeError('no redis')])\n    yield");
    for (server, arguments) in [("uvicorn", &[][..]), ("hypercorn", &[]), ("granian", &["--interface", "asgi"])] {
        let web = start(Instance::on_unix(), FASTAPI, server, arguments);
        web.write("myproject.py", &broken);
        let (_, outcome) = web.reload();
        assert!(!outcome.ok && outcome.message.ends_with(": RuntimeError: no redis"), "{server}: {outcome:?}");
        web.stop();
    }
}

#[test]
fn fastapi_under_uvicorn_begins_and_ends_its_lifespan() {
    let web = start(Instance::on_unix().tcp4(), FASTAPI, "uvicorn", &["--workers", "2"]);
    assert!(web.get_at(1, "/").body.contains("\"says\":\"hello from\""));
    web.status("serving, 2 of 2 workers, generation 1");
    let begun = || web.logged(super::transcript::START, "Application startup complete").len();
    web.until("both have begun", || (begun() >= 2).then_some(()));
    let transcript = web.stop();
    let lines = transcript.all(super::transcript::START, super::transcript::Source::Output);
    assert_eq!(lines.iter().filter(|line| line.text == "ends").count(), 2);
}

#[test]
fn a_websocket_of_starlette_under_uvicorn_outlives_a_reload() {
    let web = start(Instance::on_unix(), STARLETTE, "uvicorn", &["--workers", "2"]);
    outlives_a_reload(web, STARLETTE);
}

#[test]
fn a_websocket_of_starlette_under_hypercorn_outlives_a_reload() {
    let web = start(Instance::on_unix(), STARLETTE, "hypercorn", &["--workers", "2"]);
    outlives_a_reload(web, STARLETTE);
}

#[test]
fn a_websocket_of_starlette_under_granian_outlives_a_reload() {
    let web = start(Instance::on_unix(), STARLETTE, "granian", &["--interface", "asgi", "--workers", "2"]);
    outlives_a_reload(web, STARLETTE);
}

#[test]
fn a_websocket_of_channels_under_daphne_outlives_a_reload() {
    outlives_a_reload(start(Instance::on_unix(), CHANNELS, "daphne", &[]), CHANNELS);
}

#[test]
fn channels_is_preloaded_with_the_reactor_that_its_import_has_made() {
    let web = start(Instance::on_unix().options("--preload"), CHANNELS, "daphne", &[]);
    WebSocket::open(&web.addresses[0]).echoes("from memory");
    web.stop();
}
