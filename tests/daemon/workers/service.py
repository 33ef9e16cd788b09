"""A worker that behaves as a good systemd service, unless its arguments say otherwise.

It serves HTTP on every inherited socket: / says "hello from PID", /facts tells what it was given, /slow?N answers
after N seconds. How it may behave is read below: wants("NAME") for an argument NAME or NAME=VALUE.
"""
import os
import select
import signal
import socket
import sys
import threading
import time



def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            # The directory itself.
            pass
    return found


# Before it has opened anything.
INHERITED = descriptors()
BEHAVIOUR = {}
for argument in sys.argv[1:]:
    name, _, value = argument.partition("=")
    BEHAVIOUR.setdefault(name, []).append(value)


def wants(name):
    return name in BEHAVIOUR


def read(name):
    """What the file holds that this behaviour names."""
    if wants(name) and os.path.exists(BEHAVIOUR[name][0]):
        with open(BEHAVIOUR[name][0]) as file:
            return file.read()
    return ""


# What it speaks: http, banner (it greets and closes), close (at once) or silent (it waits for the other side).
PROTOCOL = read("protocol") or "http"


def notify_socket():
    address = os.environ["NOTIFY_SOCKET"]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.connect("\0" + address[1:] if address.startswith("@") else address)
    return manager


def say(text):
    if "NOTIFY_SOCKET" in os.environ:
        with notify_socket() as manager:
            manager.send(text if isinstance(text, bytes) else text.encode())


def barrier():
    """Wait until the manager has dealt with all that was said (sd_notify_barrier(3))."""
    read, write = os.pipe()
    with notify_socket() as manager:
        socket.send_fds(manager, [b"BARRIER=1"], [write])
    os.close(write)
    poll = select.poll()
    poll.register(read, 0)
    if not poll.poll(5000):
        print("nobody closes the barrier", flush=True)
        return
    os.close(read)
    print("the barrier is closed", flush=True)


def send_descriptors(count):
    with notify_socket() as manager:
        for number in range(count):
            socket.send_fds(manager, [b"FDSTORE=1\nFDNAME=stored"], [0, 1, 2])
    barrier()
    with notify_socket() as manager:
        socket.send_fds(manager, [b"FDSTORE=1"], [lingering()])
    print("the last one takes an hour to close", flush=True)


def say_nonsense(count):
    with notify_socket() as manager:
        for _ in range(count):
            manager.send(b"nonsense")
    barrier()
    print("the nonsense ends", flush=True)


def lingering():
    """A connection with unsent data."""
    import struct
    listener = socket.create_server(("127.0.0.1", 0))
    connection = socket.create_connection(listener.getsockname())
    lingering.other = listener.accept()[0]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    connection.setblocking(False)
    try:
        while True:
            connection.send(bytes(65536))
    except BlockingIOError:
        pass
    return connection.detach()


def facts():
    import json
    return json.dumps({"pid": os.getpid(), "ppid": os.getppid(), "environment": dict(os.environ),
                       "descriptors": INHERITED, "arguments": sys.argv, "directory": os.getcwd()})


class Service:
    def __init__(self):
        count = int(os.environ.get("LISTEN_FDS", "0"))
        if os.environ.get("LISTEN_PID") != str(os.getpid()):
            count = 0
        self.listeners = [socket.socket(fileno=fd) for fd in range(3, 3 + count)]
        self.in_flight = 0
        self.lock = threading.Lock()
        self.wake, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno())
        self.stopping = False

    def accept_without_flags(self):
        """A thread for each listener blocks in accept: no flag of a shared socket is touched."""
        def accept(listener):
            while True:
                self.take(listener.accept()[0])
        for listener in self.listeners:
            threading.Thread(target=accept, args=(listener,), daemon=True).start()
        while not self.stopping:
            self.wake.recv(1)

    def accept(self):
        """As most servers do. On TERM it accepts no more, and what it accepted is answered."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        by_descriptor = {listener.fileno(): listener for listener in self.listeners}
        for listener in self.listeners:
            listener.setblocking(False)
            poll.register(listener, select.POLLIN)
        while not self.stopping:
            for descriptor, _ in poll.poll():
                if descriptor == self.wake.fileno():
                    self.wake.recv(1)
                    continue
                try:
                    connection, _ = by_descriptor[descriptor].accept()
                except BlockingIOError:
                    continue
                connection.setblocking(True)
                self.take(connection)

    def take(self, connection):
        with self.lock:
            self.in_flight += 1
        threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def stop(self, *_):
        self.stopping = True

    def answer(self, connection):
        try:
            if PROTOCOL == "banner":
                connection.sendall(b"* OK ready\r\n")
            if PROTOCOL == "silent":
                # Until the other side closes.
                while connection.recv(4096):
                    pass
            if PROTOCOL != "http":
                return
            request = b""
            while b"\r\n\r\n" not in request:
                chunk = connection.recv(4096)
                if not chunk:
                    return
                request += chunk
            path, _, query = request.split(b" ")[1].decode().partition("?")
            body = self.body(path, query).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            pass
        finally:
            connection.close()
            with self.lock:
                self.in_flight -= 1

    def body(self, path, query):
        if path == "/facts":
            return facts()
        if path == "/slow":
            print("answering slowly", flush=True)
            time.sleep(float(query))
        return "hello from %d" % os.getpid()

    def run(self):
        print("worker %d runs" % os.getpid(), flush=True)
        # Python runs signal handlers in the main thread.
        if wants("ignore-term"):
            signal.signal(signal.SIGTERM, lambda *_: print("TERM? no", flush=True))
        else:
            signal.signal(signal.SIGTERM, self.stop)
        misbehave(self)
        if wants("backlog"):
            for listener in self.listeners:
                listener.listen(int(BEHAVIOUR["backlog"][0]))
        muted = wants("silent") or wants("silent-if") and os.path.exists(BEHAVIOUR["silent-if"][0])
        if wants("child-speaks"):
            if os.fork() == 0:
                say("READY=1")
                os._exit(0)
            os.wait()
        elif not muted:
            say("READY=1")
        for text in BEHAVIOUR.get("notify", []):
            say(text.replace("\\n", "\n").encode("latin-1"))
        afterwards()
        if wants("blocking"):
            self.accept_without_flags()
        else:
            self.accept()
        while self.in_flight:
            time.sleep(0.005)
        print("worker %d leaves" % os.getpid(), flush=True)


def misbehave(service):
    """Before it serves."""
    if wants("side-port") and os.path.exists(BEHAVIOUR["side-port"][0]):
        # As for metrics.
        service.side_port = socket.create_server(("127.0.0.1", 0))
        print("worker %d opens a side port" % os.getpid(), flush=True)
    # As long as the file says, in seconds.
    time.sleep(float(read("imports") or 0))
    if wants("exit"):
        print("cannot work like this", file=sys.stderr, flush=True)
        os._exit(int(BEHAVIOUR["exit"][0]))
    if wants("exit-if"):
        # As long as this file is there.
        if os.path.exists(BEHAVIOUR["exit-if"][0]):
            raise RuntimeError("broken while %s is there" % BEHAVIOUR["exit-if"][0])
    if wants("ignore-abort"):
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
    if wants("hang-if") and os.path.exists(BEHAVIOUR["hang-if"][0]) or wants("never-ready"):
        if not wants("ignore-term"):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("worker %d hangs" % os.getpid(), flush=True)
        while True:
            signal.pause()
    if wants("daemon") and os.fork() != 0:
        # It goes to the background, as programs once did.
        os._exit(0)
    if wants("close-stderr"):
        os.close(2)
    if wants("close"):
        for listener in service.listeners:
            listener.close()
        service.listeners = []
    if wants("elsewhere"):
        for listener in service.listeners:
            listener.close()
        service.listeners = [socket.create_server(("127.0.0.1", 0))]
    if wants("gate"):
        # Until somebody opens the gate: a named pipe that is opened for writing.
        print("worker %d waits at the gate" % os.getpid(), flush=True)
        open(BEHAVIOUR["gate"][0]).close()


def afterwards():
    """Once it said READY=1."""
    if wants("exit-after-ready"):
        os._exit(0)
    if wants("barrier"):
        barrier()
    if wants("descriptors"):
        send_descriptors(int(BEHAVIOUR["descriptors"][0]))
    if wants("nonsense"):
        say_nonsense(int(BEHAVIOUR["nonsense"][0]))
    if wants("grandchildren"):
        grandchildren()
    if wants("subprocess"):
        subprocess_of_its_own()
    if wants("long-notification"):
        say(b"STATUS=" + b"x" * 65536)
    if wants("long-line"):
        os.write(2, b"y" * 500_000)
        os.write(2, b"y" * 500_000)
        os.write(2, b"\nthe long line ends\n")
    if wants("flood"):
        threading.Thread(target=flood, args=(int(BEHAVIOUR["flood"][0]),), daemon=True).start()


def flood(megabytes):
    lines = (b"z" * 999 + b"\n") * 50
    for megabyte in range(megabytes):
        for _ in range(20):
            os.write(2, lines)
        os.write(2, b"flood, megabyte %d.\n" % (megabyte + 1))
    # And what costs most for its size.
    for _ in range(200):
        os.write(2, b"z\n" * 100)
    os.write(2, b"the flood ends\n")


def subprocess_of_its_own():
    """A process as applications start them, with a child of its own; both ignore TERM."""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        print("subprocess %d of %d" % (os.getpid(), os.getsid(0)), flush=True)
        while True:
            signal.pause()


def grandchildren():
    """A process in a session of its own that ignores TERM, and its child, whose parent has left."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            if os.fork() != 0:
                os._exit(0)
        print("grandchild %d lives" % os.getpid(), flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    Service().run()
