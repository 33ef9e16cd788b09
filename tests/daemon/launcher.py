"""Executes a program as systemd does: sockets at 3, 4, ..., and LISTEN_PID the program's own number.

On stdin it has one end of a socket pair; one message brings the order and the sockets.
"""
import fcntl
import json
import os
import resource
import signal
import socket

orders = socket.socket(fileno=os.dup(0))
message, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 253)
orders.close()
order = json.loads(message)
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100 + len(descriptors)) for fd in descriptors]
for target, fd in enumerate(high, 3):
    os.dup2(fd, target, inheritable=True)
os.closerange(3 + len(high), 1024)
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
os.closerange(3 + len(high), 1024)
os.chdir(order["directory"])
if order["most_descriptors"] is not None:
    # As LimitNOFILE=: the soft limit that most services have, below a hard one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = order["hard_limit_of_descriptors"] or hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (order["most_descriptors"], hard))
# Python ignores them; systemd does not.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
pid = str(os.getpid())
environment = {name: value.replace("{pid}", pid) for name, value in order["environment"].items()}
os.execve(order["program"], order["arguments"], environment)
