//! Waiting for a connection without taking it.

use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use sockd::app::Address;
use sockd::listener::{Listener, bind, wait_readable};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::directory::Directory;

/// A unix and a TCP listener.
fn listeners(directory: &Directory) -> ([Listener; 2], PathBuf) {
    let path = directory.join("x.sock");
    let tcp = bind(&"127.0.0.1:0".parse().expect("an address"), None, None, 9).expect("a listener");
    ([bind(&Address::Unix(path.clone()), None, None, 9).expect("a listener"), tcp], path)
}

fn connect_tcp(listener: &Listener) -> TcpStream {
    let Address::Tcp(address) = listener.address else { panic!("{:?}", listener.address) };
    TcpStream::connect(address).expect("a connection")
}

fn a_connection_waits(listener: &Listener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") == 1
}

/// Long enough for the runtime to look at its sockets, which it does every 61 turns.
async fn turns() {
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_waited_before_is_reported_again_and_again() {
    let directory = Directory::new();
    let (listeners, _path) = listeners(&directory);
    let _client = connect_tcp(&listeners[1]);
    for _ in 0..3 {
        assert_eq!(wait_readable(&listeners).await.expect("a connection"), 1);
    }
    // It was not accepted.
    assert!(a_connection_waits(&listeners[1]));
    for listener in &listeners {
        assert!(!rustix::fs::fcntl_getfl(listener).expect("flags").contains(OFlags::NONBLOCK));
    }
}

#[tokio::test]
async fn a_connection_that_comes_later_is_reported() {
    let directory = Directory::new();
    let (listeners, path) = listeners(&directory);
    let client = async {
        turns().await;
        UnixStream::connect(path).expect("a connection")
    };
    let (found, _client) = tokio::join!(wait_readable(&listeners), client);
    assert_eq!(found.expect("a connection"), 0);
}

#[tokio::test]
async fn a_connection_that_a_worker_took_is_not_reported() {
    let directory = Directory::new();
    let (listeners, path) = listeners(&directory);
    let waiter = async {
        let found = wait_readable(&listeners).await.expect("a connection");
        assert!(a_connection_waits(&listeners[found]), "reported, but nobody waits");
        found
    };
    // The worker hears of the connection in the same turn of the runtime as the waiter, and is asked first.
    let worker = listeners[0].as_fd().try_clone_to_owned().expect("a duplicate");
    let worker = watch(worker);
    let client = async {
        let taken = UnixStream::connect(&path).expect("a connection");
        worker.readable().await.expect("a connection").retain_ready();
        drop(rustix::net::accept(&listeners[0]).expect("the connection"));
        turns().await;
        (taken, UnixStream::connect(&path).expect("a connection"))
    };
    let (_clients, found) = tokio::join!(biased; client, waiter);
    assert_eq!(found, 0);
}

#[expect(deprecated, reason = "its replacement is unsafe; an OwnedFd is what that demands")]
fn watch(fd: OwnedFd) -> AsyncFd<OwnedFd> {
    AsyncFd::with_interest(fd, Interest::READABLE).expect("a place in epoll")
}

#[tokio::test]
async fn a_socket_that_was_shut_down_is_an_error() {
    let directory = Directory::new();
    let (listeners, _path) = listeners(&directory);
    rustix::net::shutdown(&listeners[0], rustix::net::Shutdown::Both).expect("a shutdown");
    let error = wait_readable(&listeners).await.expect_err("nothing will ever come");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
}
