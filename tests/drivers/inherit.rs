//! Taking over LISTEN_FDS, in a child that finds them as under systemd.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sockd::listener::AtPath;
use sockd::{listener, queue};

use crate::descriptors::{child_test, with_descriptors};
use crate::directory::Directory;

const OWN_PID: &str = "LISTEN_PID=$$; export LISTEN_PID";

/// Runs in the child: writes down what it inherited.
#[test]
#[ignore = "a child of the other tests"]
fn child() {
    let report = match listener::inherit() {
        Ok(listeners) => listeners.iter().map(describe).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("error: {error}"),
    };
    if !report.starts_with("error") {
        assert_eq!(std::env::var_os("LISTEN_FDS"), None, "a worker would find it");
        assert!(listener::inherit().expect("nothing is left to be wrong").is_empty(), "inherited twice");
    }
    std::fs::write(std::env::var_os("REPORT").expect("REPORT"), report).expect("a report");
}

fn describe(listener: &listener::Listener) -> String {
    let cloexec = fcntl_getfd(listener).expect("flags").contains(FdFlags::CLOEXEC);
    rustix::net::listen(listener, 2).expect("another backlog");
    listener.restore_backlog().expect("the backlog");
    let limit = queue::depth(&listener.address, listener.inode).expect("a queue").limit;
    format!(
        "{listener} cloexec={cloexec} limit={limit} intact={} inode={}",
        matches!(listener.file().at_path(), AtPath::Ours(_)),
        listener.inode
    )
}

fn inherited(descriptors: Vec<OwnedFd>, before: &str, variables: &[(&str, &str)]) -> String {
    let directory = Directory::new();
    let report = directory.join("report");
    let program = std::env::current_exe().expect("our own path");
    let mut line = vec![program.to_str().expect("a plain path")];
    line.extend(child_test("inherit::child"));
    let mut command = with_descriptors(descriptors, before, &line, &directory.join("log"));
    command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES").env("REPORT", &report);
    let status = command.envs(variables.iter().copied()).status().expect("a shell");
    let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    assert!(status.success(), "{log}");
    std::fs::read_to_string(report).expect("a report")
}

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).expect("fstat").st_ino
}

fn unix(directory: &Directory) -> UnixListener {
    let listener = UnixListener::bind(directory.join("x.sock")).expect("a unix listener");
    rustix::net::listen(&listener, 7).expect("a backlog");
    listener
}

#[test]
fn all_are_taken_in_order_with_their_names() {
    let directory = Directory::new();
    let first = unix(&directory);
    let second = TcpListener::bind("127.0.0.1:0").expect("a TCP listener");
    let third = TcpListener::bind("[::1]:0").expect("a TCP listener");
    rustix::net::listen(&second, 9).expect("a backlog");
    rustix::net::listen(&third, 11).expect("a backlog");
    let wanted = format!(
        "web (unix:{}) cloexec=true limit=7 intact=true inode={}\n\
         api ({}) cloexec=true limit=9 intact=true inode={}\n\
         six ({}) cloexec=true limit=11 intact=true inode={}",
        directory.join("x.sock").display(),
        inode(&first),
        second.local_addr().expect("an address"),
        inode(&second),
        third.local_addr().expect("an address"),
        inode(&third),
    );
    let descriptors = vec![first.into(), second.into(), third.into()];
    let report = inherited(descriptors, OWN_PID, &[("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "web:api:six")]);
    assert_eq!(report, wanted);
}

#[test]
fn without_names_a_listener_is_called_by_its_address() {
    let name = format!("sockd-inherit-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("an abstract listener");
    let report = inherited(vec![listener.into()], OWN_PID, &[("LISTEN_FDS", "1")]);
    assert!(report.starts_with(&format!("unix:@{name} cloexec=true ")), "{report}");
}

#[test]
fn the_blocking_mode_stays_as_it_is() {
    let directory = Directory::new();
    let (blocking, nonblocking) = (unix(&directory), TcpListener::bind("127.0.0.1:0").expect("a listener"));
    nonblocking.set_nonblocking(true).expect("a flag");
    let ours = [blocking.as_fd(), nonblocking.as_fd()].map(|fd| fd.try_clone_to_owned().expect("a duplicate"));
    let report = inherited(vec![blocking.into(), nonblocking.into()], OWN_PID, &[("LISTEN_FDS", "2")]);
    assert_eq!(report.lines().count(), 2, "{report}");
    let flags = ours.map(|fd| rustix::fs::fcntl_getfl(fd).expect("flags").contains(OFlags::NONBLOCK));
    assert_eq!(flags, [false, true]);
}

#[test]
fn a_path_that_is_another_sockets_by_now_is_not_intact() {
    let directory = Directory::new();
    let listener = unix(&directory);
    std::fs::remove_file(directory.join("x.sock")).expect("the file");
    let _other = unix(&directory);
    let report = inherited(vec![listener.into()], OWN_PID, &[("LISTEN_FDS", "1")]);
    assert!(report.contains(" intact=false "), "{report}");
}

#[test]
fn what_is_not_for_us_is_left() {
    let directory = Directory::new();
    let listener = unix(&directory);
    let again = || vec![listener.as_fd().try_clone_to_owned().expect("a duplicate")];
    assert_eq!(inherited(again(), "", &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]), "");
    assert_eq!(inherited(again(), OWN_PID, &[("LISTEN_FDS", "0")]), "");
    assert_eq!(inherited(again(), OWN_PID, &[]), "");
    // A shell that hands over sockets by hand cannot always know the pid.
    assert_ne!(inherited(again(), "", &[("LISTEN_FDS", "1")]), "");
    assert_ne!(inherited(again(), "", &[("LISTEN_FDS", "1"), ("LISTEN_PID", "")]), "");
}

#[test]
fn numbers_that_lie_are_named() {
    let directory = Directory::new();
    let listener = unix(&directory);
    let report_of = |before: &str, variables: &[(&str, &str)]| {
        inherited(vec![listener.as_fd().try_clone_to_owned().expect("a duplicate")], before, variables)
    };
    for (before, variables, wanted) in [
        (OWN_PID, &[("LISTEN_FDS", "two")][..], "LISTEN_FDS=\"two\" is not a number"),
        (OWN_PID, &[("LISTEN_FDS", "-1")], "LISTEN_FDS=\"-1\" is not a number"),
        (OWN_PID, &[("LISTEN_FDS", "99999999999999999999")], "is not a number"),
        ("", &[("LISTEN_FDS", "1"), ("LISTEN_PID", "me")], "LISTEN_PID=\"me\" is not a number"),
        (OWN_PID, &[("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "0")], "LISTEN_FDS_FIRST_FD=\"0\""),
        (OWN_PID, &[("LISTEN_FDS", "2")], "descriptor 4 (number 2 of LISTEN_FDS) is closed"),
        ("ulimit -n 64; LISTEN_PID=$$; export LISTEN_PID", &[("LISTEN_FDS", "100000")], "at most 64 descriptors"),
        (OWN_PID, &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")], "LISTEN_FDNAMES has 2 names"),
    ] {
        let report = report_of(before, variables);
        assert!(report.starts_with("error: ") && report.contains(wanted), "{variables:?}: {report}");
    }
}

#[test]
fn what_is_no_listener_is_named_with_a_remedy() {
    let directory = Directory::new();
    let path = directory.join("file");
    std::fs::write(&path, "").expect("a file");
    let file = std::fs::File::open(&path).expect("a file");
    let fifo = directory.join("fifo");
    rustix::fs::mkfifoat(CWD, &fifo, Mode::from_bits_truncate(0o600)).expect("a FIFO");
    let fifo = std::fs::File::options().read(true).write(true).open(fifo).expect("a FIFO");
    let bound = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let packets = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
    let server = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let connected = TcpStream::connect(server.local_addr().expect("an address")).expect("a connection");
    let cases: [(OwnedFd, &str, &str); 9] = [
        (UnixDatagram::unbound().expect("a socket").into(), "a datagram socket", "ListenDatagram=; use ListenStream="),
        (UdpSocket::bind("127.0.0.1:0").expect("a socket").into(), "a datagram socket", "use ListenStream="),
        (packets.expect("a socket"), "a sequential-packet socket", "ListenSequentialPacket=; use ListenStream="),
        (UnixStream::pair().expect("a pair").0.into(), "a connected socket", "use Accept=no"),
        (connected.into(), "a connected socket", "use Accept=no"),
        (bound.expect("a socket"), "a socket that does not listen", "listen(2)"),
        (fifo.into(), "a FIFO", "ListenFIFO=; use ListenStream="),
        (file.into(), "the file ", "use ListenStream="),
        (event, "anon_inode:[eventfd]", "ListenStream="),
    ];
    for (descriptor, kind, remedy) in cases {
        let good = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let variables = [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "web:odd")];
        let report = inherited(vec![good.into(), descriptor], OWN_PID, &variables);
        assert!(
            report.starts_with("error: cannot take over the sockets: descriptor 4 (number 2 of LISTEN_FDS, \"odd\")")
        );
        assert!(report.contains(kind) && report.contains(remedy), "{kind}: {report}");
    }
}

#[test]
fn all_that_is_wrong_is_reported_at_once() {
    let datagram = UnixDatagram::unbound().expect("a socket");
    let (one, _other) = UnixStream::pair().expect("a pair");
    let report = inherited(vec![datagram.into(), one.into()], OWN_PID, &[("LISTEN_FDS", "2")]);
    assert!(report.contains("a datagram socket") && report.contains("a connected socket"), "{report}");
}
