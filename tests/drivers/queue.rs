//! The kernel's counts of real connections.

use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use sockd::app::Address;
use sockd::listener::{Listener, bind};
use sockd::queue::{self, Depth};

use crate::descriptors::child_test;
use crate::directory::{Directory, eventually};

fn listener(address: &Address) -> Listener {
    bind(address, None, None, 5).expect("a listener")
}

/// One of each family; the numbers keep tests apart.
fn addresses(directory: &Directory, test: u32) -> [Address; 5] {
    [
        Address::Unix(directory.join("x.sock")),
        Address::Abstract(format!("sockd-queue-{test}-{}", std::process::id())),
        "127.0.0.1:0".parse().expect("an address"),
        "[::1]:0".parse().expect("an address"),
        "[::]:0".parse().expect("an address"),
    ]
}

fn connect(address: &Address) -> OwnedFd {
    match address {
        Address::Unix(path) => UnixStream::connect(path).expect("a connection").into(),
        Address::Abstract(name) => {
            let address = SocketAddr::from_abstract_name(name).expect("a name");
            UnixStream::connect_addr(&address).expect("a connection").into()
        }
        // [::] is tried over IPv4: such a connection belongs to the listener all the same.
        Address::Tcp(address) if address.ip().is_unspecified() => {
            TcpStream::connect(("127.0.0.1", address.port())).expect("a connection").into()
        }
        Address::Tcp(address) => TcpStream::connect(address).expect("a connection").into(),
    }
}

fn waits(listener: &Listener, waiting: u32) {
    eventually(&format!("{waiting} wait on {listener}"), || {
        let depth = queue::depth(&listener.address, listener.inode).expect("a queue");
        assert_eq!(depth.limit, 5);
        (depth.waiting == waiting).then_some(())
    });
}

fn flies(listener: &Listener, connections: u32) {
    eventually(&format!("{connections} in flight on {listener}"), || {
        let found = queue::in_flight(&listener.address).expect("a count");
        assert!(found.complete);
        (found.connections == connections).then_some(())
    });
}

#[test]
fn waiting_and_accepted_connections_are_distinguished() {
    let directory = Directory::new();
    for address in addresses(&directory, 1) {
        let listener = listener(&address);
        waits(&listener, 0);
        let mut clients: Vec<_> = (0..3).map(|_| connect(&listener.address)).collect();
        waits(&listener, 3);
        flies(&listener, 0);
        let first = rustix::net::accept(&listener).expect("a connection");
        let second = rustix::net::accept(&listener).expect("a connection");
        waits(&listener, 1);
        flies(&listener, 2);
        drop(second);
        flies(&listener, 1);
        // A client that went away leaves its request with the worker.
        clients.clear();
        flies(&listener, 1);
        drop(first);
        flies(&listener, 0);
    }
}

#[test]
fn a_half_closed_connection_is_in_flight() {
    let listener = listener(&"127.0.0.1:0".parse().expect("an address"));
    let Address::Tcp(address) = listener.address else { panic!("{:?}", listener.address) };
    let client = TcpStream::connect(address).expect("a connection");
    let _worker = rustix::net::accept(&listener).expect("the connection");
    client.shutdown(Shutdown::Write).expect("half a close");
    flies(&listener, 1);
}

#[test]
fn neighbours_are_not_counted() {
    let directory = Directory::new();
    let [unix, ..] = addresses(&directory, 2);
    let (ours, neighbour) = (listener(&unix), listener(&Address::Unix(directory.join("x.sock2"))));
    let _client = connect(&neighbour.address);
    let _accepted = rustix::net::accept(&neighbour).expect("a connection");
    flies(&neighbour, 1);
    flies(&ours, 0);
}

#[test]
fn a_socket_that_does_not_exist_is_an_error() {
    let directory = Directory::new();
    for address in addresses(&directory, 3) {
        let listener = listener(&address);
        let (address, inode) = (listener.address.clone(), listener.inode);
        drop(listener);
        let error = queue::depth(&address, inode).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    }
    let absurd = queue::depth(&Address::Abstract("x".to_owned()), u64::MAX).expect_err("no inode is that large");
    assert_eq!(absurd.kind(), std::io::ErrorKind::NotFound);
}

/// Runs in the child: the queue of the listener at stdin.
#[test]
#[ignore = "a child of the other tests"]
fn child() {
    let address: Address = std::env::var("ADDRESS").expect("ADDRESS").parse().expect("an address");
    let inode = rustix::fs::fstat(std::io::stdin().as_fd()).expect("fstat").st_ino;
    match (queue::depth(&address, inode), queue::in_flight(&address)) {
        (Ok(depth), Ok(flight)) => {
            eprintln!("uid {} {depth:?} {flight:?}", rustix::process::getuid().as_raw());
        }
        (depth, flight) => eprintln!("{:?}; {flight:?}", depth.map_err(|error| (error.kind(), error.to_string()))),
    }
}

fn child_says(mut command: Command, listener: &Listener) -> String {
    command.args(child_test("queue::child")).env("ADDRESS", listener.address.to_string());
    command.stdin(listener.as_fd().try_clone_to_owned().expect("a duplicate"));
    let output = command.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn no_privilege_is_needed() {
    let directory = Directory::new();
    for address in addresses(&directory, 4) {
        let listener = listener(&address);
        let _clients: Vec<_> = (0..4).map(|_| connect(&listener.address)).collect();
        let _accepted = rustix::net::accept(&listener).expect("a connection");
        waits(&listener, 3);
        // Not by its path, which may lie where others cannot go.
        let mut command = Command::new("/proc/self/exe");
        if rustix::process::getuid().is_root() {
            command.uid(65534).gid(65534);
        }
        let text = child_says(command, &listener);
        assert!(!text.contains("uid 0 "), "{text}");
        let depth = Depth { waiting: 3, limit: 5 };
        assert!(text.contains(&format!("{depth:?}")) && text.contains("connections: 1,"), "{address}: {text}");
    }
}

#[test]
fn another_network_name_space_is_reported_and_not_taken_for_an_empty_queue() {
    let directory = Directory::new();
    for address in addresses(&directory, 5) {
        let listener = listener(&address);
        let _client = connect(&listener.address);
        waits(&listener, 1);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]).arg(std::env::current_exe().expect("our own path"));
        let text = child_says(command, &listener);
        assert!(text.contains("NotFound") && text.contains("PrivateNetwork="), "{address}: {text}");
    }
}
