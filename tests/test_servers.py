"""The servers that other tests stand on do what their names say."""
from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from servers import HOST, Cluster, Sentinels, Server, Wire, paused, until


def test_a_killed_server_comes_back_empty_on_its_port(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with server.client() as client:
        client.set("a", 1)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.set("a", 2)
        port = server.port
        server.start()
        assert server.port == port
        assert client.get("a") is None


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_server_ends_with_the_process_that_started_it() -> None:
    """However that ends: the suite may be killed while its servers run, or stand still."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); from servers import Server; one = Server(); one.pause(); print(one.pid, one.port, one.folder, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, port, folder = owner.stdout.readline().split()
        try:
            until(lambda: port in Path(f"/proc/{pid}/cmdline").read_text(), "the server says who it is")
            owner.kill()
            owner.wait()
            until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes(), "the server has ended")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def test_a_paused_server_answers_nothing_until_it_is_resumed(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server(maxmemory="100mb")
    with server.client(socket_timeout=0.2, retry=None) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(100 << 20)}
        with paused(server), pytest.raises(redis.TimeoutError):
            client.ping()
        assert client.ping()


def test_a_server_is_shared_and_empty(server: Server) -> None:
    with server.client() as client:
        assert client.dbsize() == 0
        client.set("left", "over")


def test_a_cluster_answers_for_all_slots_and_moves_them(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(2, 1)
    with cluster.client() as client:
        for at in range(20):
            client.set(f"key{at}", at)
        slot = client.keyslot("key7")
        source = cluster.owner(slot)
        target = next(one for one in cluster.servers[:2] if one is not source)
        cluster.migrate(slot, target)
        assert cluster.owner(slot) is target
        assert [client.get(f"key{at}") for at in range(20)] == [b"%d" % at for at in range(20)]


def test_sentinels_promote_the_replica(sentinels: Sentinels) -> None:
    with sentinels.sentinel().master_for(Sentinels.NAME) as client:
        client.set("a", 1)
        client.wait(1, 5000)
        old = sentinels.primary()
        old.kill()
        until(lambda: sentinels.primary() is not old, "a failover")

    def promoted() -> bool:
        with sentinels.primary().client() as now:
            return now.info("replication")["role"] == "master" and now.get("a") == b"1"

    until(promoted, "the replica is the primary, with its data")


def test_a_cut_wire_is_silent_and_open(valkey: Server, wire: Callable[[int], Wire]) -> None:
    through = wire(valkey.port)
    with socket.create_connection((HOST, through.port), timeout=5) as link:
        link.sendall(b"PING\r\n")
        assert link.recv(64) == b"+PONG\r\n"
        through.cut()
        link.settimeout(0.3)
        link.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            link.recv(64)
        through.mend()
        link.settimeout(5)
        assert link.recv(64) == b"+PONG\r\n"
        through.drop()
        assert link.recv(64) == b""
