//! Binding addresses ourselves.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sockd::app::Address;
use sockd::listener::{AtPath, BindError, Listener, Permissions, bind};
use sockd::queue;

use crate::directory::{Directory, umask_lock};

fn unix(path: &Path) -> Result<Listener, BindError> {
    let _umask = umask_lock();
    bind(&Address::Unix(path.to_owned()), Some(0), None, 64)
}

fn is_at_its_path(listener: &Listener) -> bool {
    matches!(listener.file().at_path(), AtPath::Ours(_))
}

fn tcp(address: &str) -> Result<Listener, BindError> {
    bind(&address.parse().expect("an address"), None, None, 64)
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("a socket file").permissions().mode() & 0o777
}

#[test]
fn the_permissions_are_those_that_were_asked_for() {
    let directory = Directory::new();
    let _umask = umask_lock();
    for (number, (umask, wanted, found)) in
        [(Some(0), None, 0o777), (Some(0o027), None, 0o750), (Some(0), Some(0o660), 0o660), (None, Some(0o666), 0o666)]
            .into_iter()
            .enumerate()
    {
        let path = directory.join(&number.to_string());
        let listener = bind(&Address::Unix(path.clone()), umask, wanted, 5).expect("a listener");
        assert_eq!(mode(&path), found, "umask {umask:?}, mode {wanted:?}");
        assert!(fcntl_getfd(&listener).expect("flags").contains(FdFlags::CLOEXEC));
        assert!(!rustix::fs::fcntl_getfl(&listener).expect("flags").contains(OFlags::NONBLOCK));
        assert_eq!(listener.name, format!("unix:{}", path.display()));
        UnixStream::connect(&path).expect("a connection");
    }
    // The umask of the process is what it was: a file shows it.
    let probe = directory.join("probe");
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o022));
    std::fs::write(&probe, "").expect("a file");
    bind(&Address::Unix(directory.join("y")), Some(0o077), None, 5).expect("a listener");
    std::fs::write(directory.join("probe2"), "").expect("a file");
    rustix::process::umask(before);
    assert_eq!(mode(&probe), mode(&directory.join("probe2")));
}

#[test]
fn a_stale_socket_file_is_removed() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    drop(UnixListener::bind(&path).expect("a listener"));
    let listener = unix(&path).expect("the stale file is no hindrance");
    UnixStream::connect(&path).expect("a connection");
    assert!(is_at_its_path(&listener) && listener.is_bound_here());
}

#[test]
fn a_live_socket_is_left_and_its_owner_named() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    let other = UnixListener::bind(&path).expect("a listener");
    let error = unix(&path).expect_err("somebody listens").to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())) && error.contains("listens there"), "{error}");
    other.accept().expect("the connection that tried");
    UnixStream::connect(&path).expect("the other one still listens");
}

#[tokio::test]
async fn the_owner_is_named_from_within_a_runtime_too() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    let _other = UnixListener::bind(&path).expect("a listener");
    let error = unix(&path).expect_err("somebody listens").to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
}

#[test]
fn a_live_socket_with_a_full_queue_is_left() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    let other = UnixListener::bind(&path).expect("a listener");
    rustix::net::listen(&other, 0).expect("the shortest backlog");
    let address = SocketAddrUnix::new(&path).expect("an address");
    let mut clients = Vec::new();
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket");
        match rustix::net::connect(&client, &address) {
            Ok(()) => clients.push(client),
            Err(errno) => break assert_eq!(errno, rustix::io::Errno::AGAIN),
        }
    }
    let error = unix(&path).expect_err("somebody listens").to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    assert!(path.exists());
}

#[test]
fn a_datagram_socket_at_the_path_is_somebodys_too() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    let _other = UnixDatagram::bind(&path).expect("a socket");
    let error = unix(&path).expect_err("somebody is there").to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
}

#[test]
fn what_is_no_socket_is_never_touched() {
    let directory = Directory::new();
    std::fs::write(directory.join("file"), "precious").expect("a file");
    std::fs::create_dir(directory.join("directory")).expect("a directory");
    drop(UnixListener::bind(directory.join("stale")).expect("a listener"));
    std::os::unix::fs::symlink(directory.join("stale"), directory.join("link")).expect("a link");
    for (name, what) in [("file", "a regular file"), ("directory", "a directory"), ("link", "a symbolic link")] {
        let before = directory.join(name).symlink_metadata().expect("it").ino();
        let error = unix(&directory.join(name)).expect_err("it is in the way").to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(directory.join(name).symlink_metadata().expect("it").ino(), before);
    }
    assert_eq!(std::fs::read_to_string(directory.join("file")).expect("the file"), "precious");
}

#[test]
fn a_missing_directory_is_reported() {
    let directory = Directory::new();
    let error = unix(&directory.join("no/x.sock")).expect_err("no directory").to_string();
    assert!(error.contains("No such file or directory"), "{error}");
}

#[test]
fn only_our_own_file_is_removed() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    let listener = unix(&path).expect("a listener");
    assert!(is_at_its_path(&listener));
    std::fs::rename(&path, directory.join("moved")).expect("a move");
    assert!(!is_at_its_path(&listener), "nothing is there");
    let _other = UnixListener::bind(&path).expect("another one");
    assert!(!is_at_its_path(&listener), "another one is there");
    assert!(!listener.unlink_if_bound_here().expect("no error"));
    assert!(path.exists());
    std::fs::rename(directory.join("moved"), &path).expect("a move");
    assert!(listener.unlink_if_bound_here().expect("no error"));
    assert!(!path.exists() && !is_at_its_path(&listener));
    assert!(!listener.unlink_if_bound_here().expect("no error"));
}

#[test]
fn a_socket_that_is_bound_again_is_what_it_was() {
    let directory = Directory::new();
    let path = directory.join("x.sock");
    let first = unix(&path).expect("a listener");
    let _umask = umask_lock();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    let root = rustix::process::getuid().is_root();
    if root {
        std::os::unix::fs::lchown(&path, Some(65534), Some(4242)).expect("an owner");
    }
    let AtPath::Ours(Some(permissions)) = first.file().at_path() else { panic!("{:?}", first.file().at_path()) };
    let error = first.bind_again(permissions).expect_err("we listen ourselves").to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(first.file().at_path(), AtPath::Nothing);
    let (second, refused) = first.bind_again(permissions).expect("bound again");
    assert!(refused.is_none(), "{refused:?}");
    assert_eq!(second.file().at_path(), AtPath::Ours(Some(permissions)));
    assert_eq!(first.file().at_path(), AtPath::Another);
    assert_eq!((permissions.mode, root), (0o640, permissions.user == 65534 && permissions.group == 4242));
    assert_eq!((second.to_string(), second.backlog()), (first.to_string(), first.backlog()));
    assert_ne!(second.inode, first.inode);
    UnixStream::connect(&path).expect("a connection");
    // To give a file away is root's right; the socket is bound all the same.
    if !root {
        std::fs::remove_file(&path).expect("removed");
        let strange = Permissions { user: 0, ..permissions };
        let (third, refused) = second.bind_again(strange).expect("bound again");
        assert!(refused.is_some() && is_at_its_path(&third));
    }
}

#[test]
fn a_tcp_address_in_use_names_its_holder() {
    for (held, wanted) in [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
        let first = tcp(held).expect("a listener");
        let Address::Tcp(address) = first.address else { panic!("{:?}", first.address) };
        assert_ne!(address.port(), 0);
        let error = tcp(&format!("{wanted}:{}", address.port())).expect_err("it is in use").to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{held}: {error}");
        first.unlink_if_bound_here().expect("there is no file");
        assert!(is_at_its_path(&first));
    }
}

#[test]
fn an_abstract_name_in_use_names_its_holder() {
    let address: Address = format!("@sockd-bind-{}", std::process::id()).parse().expect("an address");
    let first = bind(&address, None, None, 5).expect("a listener");
    let error = bind(&address, None, None, 5).expect_err("it is in use").to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    assert!(is_at_its_path(&first) && !first.unlink_if_bound_here().expect("there is no file"));
}

#[test]
fn a_port_can_be_bound_again_at_once() {
    let first = tcp("127.0.0.1:0").expect("a listener");
    let Address::Tcp(address) = first.address else { panic!("{:?}", first.address) };
    let mut client = TcpStream::connect(address).expect("a connection");
    // The side that closes first keeps the port in TIME_WAIT.
    drop(rustix::net::accept(&first).expect("the connection"));
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    drop(client);
    drop(first);
    tcp(&address.to_string()).expect("the port again");
}

#[test]
fn all_addresses_of_ipv6_take_ipv4_too() {
    let only = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").expect("IPv6").trim() == "1";
    let listener = tcp("[::]:0").expect("a listener");
    let Address::Tcp(address) = listener.address else { panic!("{:?}", listener.address) };
    assert_eq!(TcpStream::connect(("127.0.0.1", address.port())).is_ok(), !only);
}

#[test]
fn the_backlog_is_restored() {
    let directory = Directory::new();
    let unix_address = Address::Unix(directory.join("x.sock"));
    let _umask = umask_lock();
    for address in [unix_address, "127.0.0.1:0".parse().expect("an address"), "[::1]:0".parse().expect("an address")] {
        let listener = bind(&address, None, None, 77).expect("a listener");
        let limit = || queue::depth(&listener.address, listener.inode).expect("a queue").limit;
        assert_eq!((limit(), listener.backlog()), (77, 77));
        rustix::net::listen(&listener, 5).expect("another backlog");
        assert_eq!(limit(), 5);
        listener.restore_backlog().expect("the backlog");
        assert_eq!(limit(), 77, "{address}");
    }
    let greatest = bind(&"127.0.0.1:0".parse().expect("an address"), None, None, u32::MAX).expect("a listener");
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a number");
    let limit = queue::depth(&greatest.address, greatest.inode).expect("a queue").limit;
    assert_eq!(limit.to_string(), somaxconn.trim());
}
