"""The near tier on real servers, with threads and with tasks: coherence, and every way to lose a server."""
import asyncio
import gc
import math
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing

import pytest
import redis
import redis.asyncio
from hot_keys import fleet, staleness
from redis.cluster import LoadBalancingStrategy
from servers import HOST, Sentinels, Wire, free_port, paused, redis_binary, until

from adaptcache.near import AsyncNear, Near, NearCache
from adaptcache.near.topology import slot_of

WINDOW = 1.0
OPTIONS = {"maxsize": 1000, "heartbeat": 0.02, "window": WINDOW}


class Tasks:
    """An AsyncNear in a loop of its own thread, with the calls of a Near."""

    def __init__(self, make, options, prefixes=()):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

        async def start():
            self.client = make()
            near = AsyncNear(self.client, options, prefixes)
            await near.start()
            return near

        self.near = self.await_(start())

    def await_(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def __getattr__(self, name):
        return getattr(self.near, name)

    def close(self):
        async def end():
            await self.near.aclose()
            await self.client.aclose()

        self.await_(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


class Threads(Near):
    def __init__(self, make, options, prefixes=()):
        self.client = make()
        super().__init__(self.client, options, prefixes)

    def close(self):
        super().close()
        self.client.close()


def opened(kind, port, prefixes=(), options=None, **client):
    """A near tier of a kind for a server, ready."""
    settings = NearCache(**OPTIONS | (options or {}))
    if kind == "threads":
        near = Threads(lambda: redis.Redis(host=HOST, port=port, **client), settings, prefixes)
    else:
        near = Tasks(lambda: redis.asyncio.Redis(host=HOST, port=port, **client), settings, prefixes)
    return near


@pytest.fixture(params=["threads", "tasks"])
def kind(request):
    return request.param


@pytest.fixture
def server(request):
    """The shared Valkey for threads; for tasks Debian's redis-server where it is installed. Both servers, and both kinds, in turn."""
    tasks = "kind" in request.fixturenames and request.getfixturevalue("kind") == "tasks"
    shared = (request.getfixturevalue("_debian") if tasks else None) or request.getfixturevalue("_valkey")
    with shared.client() as client:
        client.flushall()
    return shared


@pytest.fixture
def near(kind, server):
    with closing(opened(kind, server.port)) as made:
        ready(made)
        yield made


@pytest.fixture
def writer(server):
    with server.client() as client:
        yield client


def ready(near):
    until(lambda: near.ready, "the server has answered")


def fetch(near, client, key):
    """Read through the tier."""
    value = near.get(key)
    if value is None:
        ticket = near.begin(key)
        value = client.get(key)
        near.put(ticket, value)
    return value


def hold(near, client, key):
    """Read a key into the tier, once the invalidations of earlier writes have come."""
    now = time.monotonic()
    until(lambda: (lease := near._tier.lease_of(key)).until > now + WINDOW or lease.until == math.inf, "a question of after now was answered")
    assert fetch(near, client, key) is not None
    assert near.get(key) is not None


def last_served(near, key, value):
    """Wait until a value is not served any more; when it was last asked for with success."""
    last = 0.0

    def gone():
        nonlocal last
        now = time.monotonic()
        if near.get(key) != value:
            return True
        last = now
        return False

    until(gone, f"{value!r} is not served any more")
    return last


def test_a_write_by_anybody_drops_the_value(near, writer):
    writer.set("a", 1)
    hold(near, writer, b"a")
    assert near.get(b"a") == b"1"
    pipeline = writer.pipeline()
    pipeline.incr("a")
    pipeline.execute()
    until(lambda: near.get(b"a") is None, "the invalidation has come")
    assert fetch(near, writer, b"a") == b"2"


@pytest.mark.parametrize("command", [
    ("DEL", "a"), ("UNLINK", "a"), ("APPEND", "a", "x"), ("RENAME", "a", "b"), ("PEXPIRE", "a", "1000000"), ("PEXPIRE", "a", "-1"),
    ("EVAL", "redis.call('SET', KEYS[1], 'x')", "1", "a"), ("MSET", "z", "1", "a", "2"), ("COPY", "z", "a", "REPLACE"), ("MOVE", "a", "1"),
    ("FLUSHDB",), ("FLUSHALL", "ASYNC"),
], ids=lambda words: " ".join(words[:1]))
def test_every_kind_of_write_drops_the_value(near, writer, command):
    writer.mset({"a": 1, "z": 0})
    hold(near, writer, b"a")
    writer.execute_command(*command)
    until(lambda: near.get(b"a") is None, "the invalidation has come")


def test_a_value_read_before_an_invalidation_and_stored_after_it_is_refused(near, writer):
    writer.set("a", 1)
    hold(near, writer, b"a")
    near.forget(b"a")
    ticket = near.begin(b"a")
    old = writer.get("a")
    seen = near.stats().invalidations
    writer.set("a", 2)
    until(lambda: near.stats().invalidations > seen, "the invalidation has come")
    assert not near.put(ticket, old)
    assert fetch(near, writer, b"a") == b"2" == near.get(b"a")


def test_everything_flushed_while_a_read_is_on_its_way(near, writer):
    writer.set("a", 1)
    hold(near, writer, b"a")
    near.forget(b"a")
    ticket = near.begin(b"a")
    old = writer.get("a")
    flushes = near.stats().flushes
    writer.flushall()
    until(lambda: near.stats().flushes > flushes, "the message has come")
    assert near.ready and not near.put(ticket, old)


def test_an_expired_key_is_named_by_the_server(near, writer):
    writer.set("a", 1, px=300)
    hold(near, writer, b"a")
    # Redis and Valkey name it when they delete it: at a read, or when their cycle comes by.
    until(lambda: near.get(b"a") is None, "the key has expired here too")
    assert writer.get("a") is None


def test_a_deadline_is_kept_though_the_server_says_nothing(near, writer):
    writer.set("a", 1)                      # no deadline there: the server will say nothing
    hold(near, writer, b"a")
    near.forget(b"a")
    ticket = near.begin(b"a")
    began = time.monotonic()
    assert near.put(ticket, b"1", ttl=0.3)
    assert began < last_served(near, b"a", b"1") <= began + 0.3


def test_only_keys_with_the_prefixes_are_kept(kind, server, writer):
    with closing(opened(kind, server.port, (b"user:", b"user:1", b"x"))) as near:
        ready(near)
        writer.mset({"user:1": 1, "xy": 1, "other": 1})
        hold(near, writer, b"user:1")
        hold(near, writer, b"xy")
        assert near.begin(b"other") is None
        seen = near.stats().invalidations
        writer.set("other", 2)
        writer.set("xy", 2)
        until(lambda: near.get(b"xy") is None, "the invalidation has come")
        assert near.stats().invalidations == seen + 1
        assert near.get(b"user:1") == b"1"


def test_a_near_hit_sends_nothing(near, writer):
    writer.set("a", 1)
    hold(near, writer, b"a")
    before = writer.info("commandstats")["cmdstat_get"]["calls"]
    for _ in range(100):
        assert near.get(b"a") == b"1"
    assert writer.info("commandstats")["cmdstat_get"]["calls"] == before


@pytest.mark.parametrize("options", [
    {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}, {"db": 3}, {"client_name": "near"}, {"health_check_interval": 1},
    {"socket_timeout": None, "socket_connect_timeout": None}, {"single_connection_client": True},
], ids=str)
def test_any_client_will_do(kind, server, writer, options):
    with closing(opened(kind, server.port, **options)) as near:
        ready(near)
        with server.client(db=options.get("db", 0)) as writer:
            writer.set("a", 1)
            hold(near, writer, b"a")
            writer.set("a", 2)
            until(lambda: near.get(b"a") is None, "the invalidation has come")


def test_users_passwords_and_sockets(kind, valkey_server):
    server = valkey_server(requirepass="secret", unixsocket="here.sock", unixsocketperm="700")
    path = os.path.join(server.folder, "here.sock")
    with server.client(password="secret") as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">pass", "~*", "-@all", "+get", "+ping", "+client|tracking", "+client|setinfo")
        admin.set("a", 1)
        classes = {"threads": redis.UnixDomainSocketConnection, "tasks": redis.asyncio.UnixDomainSocketConnection}
        pools = {"threads": redis.ConnectionPool, "tasks": redis.asyncio.ConnectionPool}
        make = {"threads": redis.Redis, "tasks": redis.asyncio.Redis}[kind]
        wrap = {"threads": Threads, "tasks": Tasks}[kind]

        def client():
            return make(connection_pool=pools[kind](connection_class=classes[kind], path=path, username="reader", password="pass"))

        with closing(wrap(client, NearCache(**OPTIONS))) as near:
            ready(near)
            hold(near, admin, b"a")
            admin.set("a", 2)
            until(lambda: near.get(b"a") is None, "the invalidation has come")


def test_an_encrypted_connection(kind, valkey_server, tmp_path):
    binary, openssl = redis_binary(), shutil.which("openssl")
    if binary is None or openssl is None:
        pytest.skip("needs Debian's redis-server, which speaks TLS, and openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    port = free_port()
    server = valkey_server(binary, tls_port=port, tls_cert_file=cert, tls_key_file=key, tls_ca_cert_file=cert, tls_auth_clients="no")
    with closing(opened(kind, port, ssl=True, ssl_ca_certs=str(cert))) as near, server.client() as writer:
        ready(near)
        writer.set("a", 1)
        hold(near, writer, b"a")
        for number in range(3000):          # more than one record, and than one read
            writer.set(f"some other key {number}", 1)
        writer.set("a", 2)
        until(lambda: near.get(b"a") is None, "the invalidation has come")
        assert near.stats().invalidations == 3002 and near.stats().losses == 0


def test_who_may_not_track_gets_no_near_cache(kind, valkey_server, caplog):
    server = valkey_server()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@all", "-client|tracking")
        with closing(opened(kind, server.port, username="reader", password="pass")) as near:
            until(lambda: "NOPERM" in near.stats().error, "it was refused")
            assert not near.ready and near.begin(b"a") is None and not near.put(None, b"1") and near.get(b"a") is None
            admin.execute_command("ACL", "SETUSER", "reader", "+@all")
            until(lambda: near.ready, "it is asked again")
    assert "near caching is off" in caplog.text


# -- losing the server

def test_a_killed_tracking_connection_empties_the_tier_until_it_is_back(near, writer):
    writer.set("a", 1)
    hold(near, writer, b"a")
    ticket = near.begin(b"b")
    writer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    until(lambda: near.stats().losses == 1, "the loss was noticed")
    assert near.get(b"a") is None and not near.put(ticket, b"1")
    until(lambda: near.ready, "it is back")
    assert near.stats().currsize == 0
    hold(near, writer, b"a")
    writer.set("a", 2)
    until(lambda: near.get(b"a") is None, "and told again")


def test_a_killed_server_and_one_that_comes_back_empty(kind, valkey_server):
    server = valkey_server()
    with closing(opened(kind, server.port)) as near:
        ready(near)
        with server.client() as client:
            client.set("a", 1)
            hold(near, client, b"a")
        server.kill()
        until(lambda: not near.ready, "the loss was noticed", WINDOW)
        assert near.get(b"a") is None and near.begin(b"a") is None
        server.start()
        until(lambda: near.ready, "it is back")
        assert near.get(b"a") is None
        with server.client() as client:
            assert fetch(near, client, b"a") is None


def test_a_stopped_server_is_not_believed_for_longer_than_the_window(kind, valkey_server):
    server = valkey_server()
    with closing(opened(kind, server.port)) as near, server.client() as client:
        ready(near)
        client.set("a", 1)
        hold(near, client, b"a")
        ticket = near.begin(b"b")
        with paused(server):
            stopped = time.monotonic()
            # Within a window of the last question that was answered, which was asked before the stop.
            assert last_served(near, b"a", b"1") <= stopped + WINDOW
            assert not near.ready and near.begin(b"a") is None and not near.put(ticket, b"1")
            until(lambda: near.stats().losses == 1, "the connection was given up")
            assert near.stats().currsize == 0
        until(lambda: near.ready, "it is back")
        assert near.get(b"a") is None


def test_a_server_that_is_busy_with_a_script_is_not_believed(kind, server, valkey_server):
    """It has acknowledged a write from just before the script, answers HELLO, and sits on the invalidation until the script ends."""
    server = valkey_server(server.binary, busy_reply_threshold=50)
    with closing(opened(kind, server.port)) as near, server.client() as client, \
            socket.create_connection((HOST, server.port)) as writer, socket.create_connection((HOST, server.port)) as script:
        ready(near)
        for link in (writer, script):
            link.settimeout(10)
            link.sendall(b"PING\r\n")
            assert link.recv(7) == b"+PONG\r\n"
        client.set("a", 1)
        hold(near, client, b"a")
        with paused(server):                # both are there when it looks, the write first
            time.sleep(0.05)                # until it really stands still
            writer.sendall(b"SET a 2\r\n")
            time.sleep(0.02)
            script.sendall(b"EVAL 'while true do end' 0\r\n")
            time.sleep(0.02)
        assert writer.recv(5) == b"+OK\r\n"
        acknowledged = time.monotonic()
        assert last_served(near, b"a", b"1") <= acknowledged + WINDOW
        until(lambda: not near.ready, "the lease has run out", WINDOW)
        client.script_kill()
        ready(near)
        assert fetch(near, client, b"a") == b"2"


def test_a_wire_that_forwards_nothing_ends_within_the_window(kind, server, writer):
    """Half-open: the connection stands, and what was written elsewhere is never heard of."""
    with closing(Wire(server.port)) as wire, closing(opened(kind, wire.port)) as near:
        ready(near)
        writer.set("a", 1)
        hold(near, writer, b"a")
        wire.cut()
        writer.set("a", 2)
        acknowledged = time.monotonic()
        assert acknowledged < last_served(near, b"a", b"1") <= acknowledged + WINDOW
        until(lambda: near.stats().losses == 1, "the connection was given up")
        wire.mend()
        until(lambda: near.ready, "it is back")
        assert fetch(near, writer, b"a") == b"2"


def test_a_stalled_listener_serves_nothing_for_longer_than_the_window(valkey):
    """The loop that listens stands still; other threads read on."""
    with closing(opened("tasks", valkey.port)) as near, valkey.client() as writer:
        ready(near)
        writer.set("a", 1)
        hold(near, writer, b"a")
        stalled = threading.Event()
        near.loop.call_soon_threadsafe(lambda: (stalled.set(), time.sleep(WINDOW + 1)))
        stalled.wait()
        writer.set("a", 2)
        acknowledged = time.monotonic()
        assert acknowledged < last_served(near, b"a", b"1") <= acknowledged + WINDOW
        until(lambda: near.ready, "the loop runs again, on the connection that it had")
        assert near.get(b"a") is None and near.stats().losses == 0


SERVED = """
import sys, time, redis
from adaptcache.near import Near, NearCache
client = redis.Redis(port=int(sys.argv[1]))
near = Near(client, NearCache(10, heartbeat=0.05, window=1.0))
while near.get(b"a") is None:
    ticket = near.begin(b"a")
    near.put(ticket, client.get("a"))
print("held", flush=True)
sys.stdin.readline()
print(near.get(b"a"), flush=True)
while not near.ready:
    time.sleep(0.01)
near.close()
client.close()
"""


def test_a_process_that_was_stopped_serves_nothing_from_before(server, writer):
    writer.set("a", 1)
    child = subprocess.Popen([sys.executable, "-c", SERVED, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGSTOP)
        writer.set("a", 2)
        time.sleep(WINDOW + 0.2)
        child.stdin.write("\n")
        child.stdin.flush()
        child.send_signal(signal.SIGCONT)
        assert child.stdout.readline() == "None\n"
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


# -- life and death

def test_closing_serves_nothing_and_leaves_no_connection(kind, server, writer):
    before = writer.info("clients")["connected_clients"]
    near = opened(kind, server.port)
    ready(near)
    writer.set("a", 1)
    hold(near, writer, b"a")
    near.close()
    assert near.get(b"a") is None and not near.ready and near.begin(b"a") is None
    until(lambda: writer.info("clients")["connected_clients"] <= before, "its connections are closed")
    if kind == "threads":
        near.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "adaptcache-near"]


def test_one_that_is_dropped_is_collected_and_its_thread_ends(server, writer):
    client = server.client()
    near = client.near = Near(client, NearCache(**OPTIONS))         # as a client that owns its tier
    ready(near)
    gone = weakref.ref(client), weakref.ref(near)
    client.close()
    del client, near
    gc.collect()
    assert not any(ref() for ref in gone)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "adaptcache-near"], "the thread has ended")


def test_one_of_a_cluster_that_is_dropped_lets_the_client_go(cluster):
    client = cluster.client()
    near = Near(client, NearCache(**OPTIONS))
    until(lambda: near.stats().nodes == 3, "ready")
    gone = weakref.ref(client)
    client.close()
    del client
    until(lambda: gc.collect() is not None and gone() is None, "the client was collected")
    near.close()


def test_a_loop_that_ends_ends_the_lease(server):
    async def main():
        async with redis.asyncio.Redis(port=server.port) as client:
            near = AsyncNear(client, NearCache(**OPTIONS))
            await near.start()
            await near.start()
            while not near.ready:
                await asyncio.sleep(0.01)
            assert near.put(near.begin(b"a"), 1) and near.get(b"a") == 1
            return near

    near = asyncio.run(main())
    assert not near.ready and near.get(b"a") is None

    async def again():
        async with near:
            while not near.ready:
                await asyncio.sleep(0.01)
            assert near.get(b"a") is None

    # A client belongs to a loop, but its pool makes new connections in any.
    asyncio.run(again())
    assert not near.ready


def test_an_async_one_that_is_dropped_ends_its_task(server, writer):
    async def main():
        async with redis.asyncio.Redis(port=server.port) as client:
            near = AsyncNear(client, NearCache(**OPTIONS))
            await near.start()
            while not near.ready:
                await asyncio.sleep(0.01)
            del near
            gc.collect()
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_begins_anew_and_holds_no_connection_of_its_parent(kind, server, writer):
    writer.set("a", 1)
    before = writer.info("clients")["connected_clients"]
    near = opened(kind, server.port)
    ready(near)
    hold(near, writer, b"a")
    mine, yours = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        said = "failed"
        try:
            assert near.get(b"a") is None and not near.ready and near.stats().hits == 0
            said = "empty"
            if kind == "threads":
                with server.client() as own:
                    until(lambda: near.begin(b"a") is not None, "ready")
                    hold(near, own, b"a")
                    own.set("a", 2)
                    until(lambda: near.get(b"a") is None, "told")
                near.close()
            said = "fine"
        finally:
            yours.send(said)
            yours.poll(20)
            os._exit(0)
    try:
        assert mine.poll(20) and mine.recv() == "fine"
        assert near.ready and near.stats().losses == 0, "the parent's connection was not touched"
        writer.set("a", 3)
        until(lambda: near.get(b"a") != b"1", "told")
        near.close()
        until(lambda: writer.info("clients")["connected_clients"] <= before, "nobody else holds the connection open")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        mine.close()
        yours.close()


def test_the_interpreter_ends_without_a_word(server):
    code = """
import sys, redis
from adaptcache.near import Near, NearCache
near = Near(redis.Redis(port=int(sys.argv[1])), NearCache(10))
while not near.ready:
    pass
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code, str(server.port)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stderr == ""


def test_arguments_are_checked(server):
    with server.client() as client:
        with pytest.raises(TypeError, match="options: expected a NearCache"):
            Near(client, {"maxsize": 10})
        with pytest.raises(TypeError, match="prefixes"):
            Near(client, NearCache(10), b"user:")
        with pytest.raises(TypeError, match="prefixes"):
            Near(client, NearCache(10), ["user:"])
        with pytest.raises(TypeError, match="client"):
            Near(object(), NearCache(10))


# -- Sentinel and Cluster

@pytest.mark.slow
def test_a_sentinels_new_primary_is_followed():
    with closing(Sentinels()) as group:
        sentinel = group.sentinel()
        client = sentinel.master_for(Sentinels.NAME)
        with pytest.raises(ValueError, match="replicas of a Sentinel"):
            Near(sentinel.slave_for(Sentinels.NAME), NearCache(10))
        with Near(client, NearCache(**OPTIONS)) as near:
            ready(near)
            client.set("a", 1)
            hold(near, client, b"a")
            old = group.primary()
            old.kill()
            until(lambda: not near.ready, "the loss was noticed")
            assert near.get(b"a") is None
            until(lambda: near.ready, "the new primary is listened to")
            new = group.primary()
            assert new is not old
            with new.client() as writer:
                writer.set("a", 2)
                until(lambda: answers(client), "the sentinels agree")
                hold(near, client, b"a")
                writer.set("a", 3)
                until(lambda: near.get(b"a") != b"2", "told by the new one")
        client.close()
        for each in sentinel.sentinels:
            each.close()


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def cluster_near(kind, cluster):
    if kind == "threads":
        return Threads(cluster.client, NearCache(**OPTIONS))
    nodes = [redis.asyncio.cluster.ClusterNode(HOST, server.port) for server in cluster.servers]
    return Tasks(lambda: redis.asyncio.RedisCluster(startup_nodes=nodes), NearCache(**OPTIONS))


def test_each_node_of_a_cluster_tells_of_its_keys(kind, cluster):
    with closing(cluster_near(kind, cluster)) as near, closing(cluster.client()) as client:
        until(lambda: near.stats().nodes == 3, "every node is listened to")
        keys = [b"key:%d" % number for number in range(30)]
        for key in keys:
            client.set(key, 1)
        for key in keys:
            hold(near, client, key)
        for key in keys:
            client.set(key, 2)
        for key in keys:
            until(lambda key=key: near.get(key) != b"1", "told")
        for key in keys:
            assert fetch(near, client, key) == b"2"
        client.set("{x}a", 1)
        hold(near, client, b"{x}a")
        cluster.flush()
        until(lambda: near.get(b"{x}a") is None, "told")


def test_slots_are_counted_as_the_servers_do(cluster):
    with closing(cluster.client()) as client:
        for key in (b"a", b"", b"{b}x", b"x{y", b"foo{}{bar}", b"{{bar}}", b"}{a}{b}", bytes(range(256))):
            assert slot_of(key) == client.keyslot(key)


def test_reads_from_replicas_are_refused(cluster):
    with closing(cluster.client(load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)) as client, pytest.raises(ValueError, match="replicas of a cluster"):
        Near(client, NearCache(10))


@pytest.mark.parametrize("kind", ["threads", pytest.param("tasks", marks=pytest.mark.slow)])
def test_a_slot_that_moves_leaves_no_value_without_a_watcher(kind, own_cluster):
    cluster = own_cluster(2)
    with closing(cluster_near(kind, cluster)) as near, closing(cluster.client()) as client:
        until(lambda: near.stats().nodes == 2, "every node is listened to")
        slot = slot_of(b"{s}")
        source = cluster.owner(slot)
        target = next(server for server in cluster.servers if server is not source)
        client.set("{s}a", 1)
        hold(near, client, b"{s}a")
        assert near.put(near.begin(b"{s}none"), b"nothing")         # what is not there cannot be moved, so nobody names it
        cluster.migrate(slot, target)
        until(lambda: near.get(b"{s}none") is None and near.get(b"{s}a") is None, "the owner's lease was renewed", WINDOW + 1)
        until(lambda: near.stats().nodes == 2, "both are settled")
        hold(near, client, b"{s}a")
        client.set("{s}a", 2)
        until(lambda: near.get(b"{s}a") != b"1", "told by the new owner")


@pytest.mark.slow
def test_a_failover_is_followed_and_other_nodes_serve_on(kind, own_cluster):
    cluster = own_cluster(3, 1)
    with closing(cluster_near(kind, cluster)) as near, closing(cluster.client()) as client:
        until(lambda: near.stats().nodes == 3, "every node is listened to")
        one = next(b"k%d" % number for number in range(100) if cluster.owner(slot_of(b"k%d" % number)) is cluster.servers[0])
        two = next(b"k%d" % number for number in range(100) if cluster.owner(slot_of(b"k%d" % number)) is cluster.servers[1])
        for key in (one, two):
            client.set(key, 1)
            hold(near, client, key)
        cluster.servers[0].kill()
        until(lambda: near.get(one) is None, "nothing of the lost node is served", WINDOW)
        assert near.begin(one) is None
        assert near.get(two) == b"1" and near.stats().nodes >= 2
        until(lambda: near.stats().nodes == 3, "the replica that took over is listened to")
        assert near.get(two) == b"1", "a node that kept its slots keeps its entries"
        client.set(one, 1)
        hold(near, client, one)
        client.set(one, 2)
        until(lambda: near.get(one) != b"1", "told by the new owner")


# -- many processes

def check_fleet(port, workers, reads, window, pause):
    acknowledged, results = fleet(port, workers, reads, window, pause)
    assert len(results) == workers
    hits = sum(result[3] for result in results)
    assert hits + sum(result[4] for result in results) == workers * reads
    assert hits > workers * reads / 2
    worst = staleness(acknowledged, results)
    print(f"{workers} processes, {workers * reads} reads, {hits} near hits, {sum(map(len, acknowledged)) - 10} writes, "
          f"oldest value served {worst * 1e3:.1f} ms after what replaced it was acknowledged, window {window} s")
    assert worst <= window
    assert not any(result[2] for result in results), "a process went back to an older version"


def test_processes_that_share_hot_keys_serve_nothing_older_than_the_window(valkey):
    check_fleet(valkey.port, workers=2, reads=10_000, window=2.0, pause=0.005)


@pytest.mark.slow
def test_eight_processes_and_a_million_reads(valkey):
    check_fleet(valkey.port, workers=8, reads=125_000, window=2.0, pause=0.005)
