"""A cache on a server is a dict with losses that many processes share, by threads and by tasks, on every kind of server."""
import asyncio
import copy
import pickle
import time
from decimal import Decimal

import pytest
from backend_doors import DOORS, world
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import adaptcache
from adaptcache import Cache, Idle, PerEntry, RedisBackend, cached
from adaptcache.backends import header
from adaptcache.backends.clients import place_of

KINDS = ("valkey", "redis", "cluster")


@pytest.fixture(params=[f"{kind}-{door}" for kind in KINDS for door in DOORS])
def here(request):
    kind, door = request.param.split("-")
    if kind == "redis":
        server = request.getfixturevalue("_debian")
        if server is None:
            pytest.skip("redis-server is not installed (apt-get install redis-server)")
        with server.client() as client:
            client.flushall()
        where = server.url
    elif kind == "cluster":
        where = request.getfixturevalue("cluster").url.replace("redis://", "redis+cluster://").removesuffix("/0")
    else:
        where = request.getfixturevalue("valkey").url
    with world(where, door) as made:
        yield made


@pytest.fixture(params=DOORS)
def quick(request, valkey):
    """Valkey alone, for what does not depend on the kind of server."""
    with world(valkey.url, request.param) as made:
        yield made


# -- a dict with losses


def test_two_processes_see_each_others_writes(here):
    one, other = here.cache(), here.cache()
    assert one.get("k") is None and other.get("k", 7) == 7
    one.set("k", {"a": [1, 2.5, None]})
    assert other.get("k") == {"a": [1, 2.5, None]}
    other.set("k", 2)
    assert one.get("k") == 2
    assert one.contains("k") if here.runner else "k" in one.cache
    assert one.delete("k") is True
    assert other.get("k") is None
    assert other.delete("k") is False
    assert here.events == []


def test_a_key_is_what_python_says(quick):
    cache = quick.cache()
    for key in (1, "1", b"1", (1,), None):
        cache.set(key, repr(key))
    assert [cache.get(key) for key in (1.0, True, Decimal(1), "1", b"1", (1.0,), None)] == \
        ["1", "1", "1", "'1'", "b'1'", "(1,)", "None"]
    with pytest.raises(TypeError, match="methodkey"):
        cache.get(object())


def test_many_keys_at_once(here):
    one, other = here.cache(), here.cache()
    one.set_many({at: at * at for at in range(600)})
    assert other.get_many(range(-1, 601)) == {at: at * at for at in range(600)}
    assert other.delete_many([0, 1, 1, "no"]) == 2
    assert one.get_many([0, 1, 2]) == {2: 4}


def test_a_batch_is_one_round_trip(quick):
    backend = quick.backend()
    cache = quick.cache(backend=backend)
    cache.set_many({at: at for at in range(100)})
    for act, trips in ((lambda: cache.get_many(range(120)), 1), (lambda: cache.set_many({at: 0 for at in range(100)}), 1),
                       (lambda: cache.delete_many(range(100)), 1), (lambda: cache.get(1), 1), (lambda: cache.set(1, 1), 1)):
        before = backend.stats().trips
        act()
        assert backend.stats().trips - before == trips


def test_pop_and_its_default(quick):
    cache = quick.cache()
    cache.set("k", 1)
    assert cache.pop("k") == 1
    assert cache.pop("k", 5) == 5
    with pytest.raises(KeyError):
        cache.pop("k")


def test_mapping_manners(valkey):
    with RedisBackend(valkey.url) as backend:
        cache = Cache(10, backend=backend)
        assert type(cache) is not Cache and isinstance(cache, Cache)
        cache["k"] = 1
        assert cache["k"] == 1 and "k" in cache and cache.setdefault("k", 2) == 1
        cache.update(j=5)
        assert cache["j"] == 5
        del cache["k"]
        with pytest.raises(KeyError):
            cache["k"]
        with pytest.raises(KeyError):
            del cache["k"]
        assert cache and cache != {} and cache in [cache]
        for untold in (lambda: len(cache), lambda: list(cache), cache.popitem, cache.keys, cache.values, cache.items, cache.expire,
                       lambda: cache.expires_in("j")):
            with pytest.raises(TypeError, match="does not know its entries"):
                untold()
        for refused in (lambda: cache.resize(5), lambda: cache.record("x"), lambda: copy.copy(cache), lambda: copy.deepcopy(cache),
                        lambda: pickle.dumps(cache), lambda: Cache.load("x", 5, backend=backend)):
            with pytest.raises(TypeError):
                refused()
        for unlearned in (lambda: cache.save("x"), lambda: cache.merge_state("x"), lambda: cache.explain("j"), lambda: cache.log_decisions("x")):
            with pytest.raises(ValueError, match="does not learn"):
                unlearned()
    with pytest.raises(RuntimeError, match="closed"):
        cache.get("k")


def test_what_cannot_be_is_refused_before_anything_changes(valkey):
    with RedisBackend(valkey.url) as backend:
        for wrong in ({"timer": time.time}, {"on_removal": print}, {"space": "a{b"}, {"space": ""}, {"policy": "none"}, {"expiry": -1},
                      {"expiry": adaptcache.Learned(stale=0.1)}):
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                Cache(1, backend=backend, **wrong)
        with pytest.raises(TypeError, match="backend"):
            Cache(1, backend=valkey.url)
        cache = Cache(0, backend=backend)
        cache["k"] = 1
        with pytest.raises(TypeError):
            cache["k"] = lambda: 0
        with pytest.raises(TypeError):
            cache.set_many({"k": 2, "j": lambda: 0})
        for wrong in ({"ttl": -1}, {"cost": float("nan")}, {"tags": "one"}, {"tags": [1]}, {"tags": [""]}):
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                cache.set("k", 2, **wrong)
        assert cache["k"] == 1
    for wrong in ({"timeout": 0}, {"lease": 0}, {"prefix": "a:b"}, {"prefix": ""}, {"on_event": 1}, {"serializer": 1}, {"outage": -1},
                  {"breaker": 5}, {"connections": 0}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            RedisBackend(valkey.url, **wrong)
    for where in (5, "http://x", "redis+sentinel://h", "redis+sentinel://h:1"):
        with pytest.raises((TypeError, ValueError), match="client_or_url"):
            RedisBackend(where)


@pytest.mark.parametrize("door", DOORS)
def test_any_client_says_where(valkey, cluster, sentinels, door):
    import redis
    from redis import asyncio as aio
    from redis.asyncio.sentinel import Sentinel as AsyncSentinel

    addresses = [("127.0.0.1", server.port) for server in sentinels.sentinels]
    names = ",".join(f"127.0.0.1:{port}" for _, port in addresses)
    clients = [
        valkey.client(decode_responses=True, socket_timeout=7), valkey.url, cluster.client(), sentinels.sentinel().master_for("mymaster"),
        f"redis+sentinel://{names}/mymaster", aio.Redis(port=valkey.port), aio.RedisCluster(host="127.0.0.1", port=cluster.servers[0].port),
        AsyncSentinel(addresses).master_for("mymaster"),
    ]
    try:
        kinds = []
        for client in clients:
            kinds.append(place_of(client).kind)
            with world(client, door) as made:
                cache = made.cache()
                cache.set("k", 5)
                assert cache.get("k") == 5 and cache.get_or_load("j", str) == "j"
                assert made.events == []
        assert kinds == ["server", "server", "cluster", "sentinel", "sentinel", "server", "cluster", "sentinel"]
    finally:
        for client in clients:
            if isinstance(client, (redis.Redis, redis.RedisCluster)):
                client.close()
                pool = getattr(client, "connection_pool", None)
                for each in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
                    each.close()


def test_a_socket_file_is_a_place_too(valkey_server, tmp_path):
    path = tmp_path / "socket"
    valkey_server(unixsocket=str(path))
    with RedisBackend(f"unix://{path}") as backend:
        cache = Cache(0, backend=backend)
        cache["k"] = 1
        assert cache["k"] == 1


class Losses(RuleBasedStateMachine):
    """Two caches over one server against one dict: never a value that the dict does not hold."""

    url = ""

    def __init__(self):
        super().__init__()
        self.backends = [RedisBackend(self.url, prefix="machine", lease=0.5) for _ in range(2)]
        self.caches = [Cache(0, backend=backend) for backend in self.backends]
        self.caches[0].clear()
        self.model = {}
        self.tagged = {}

    who = st.integers(0, 1)
    key = st.sampled_from(["a", "b", 1, 1.0, b"a", ("a", 1)])
    value = st.integers(0, 5) | st.none()
    tags = st.sampled_from([(), ("t",), ("t", "u")])

    @rule(who=who, key=key, value=value, tags=tags)
    def set(self, who, key, value, tags):
        self.caches[who].set(key, value, tags=tags)
        self.model[key], self.tagged[key] = value, tags

    @rule(who=who, key=key)
    def delete(self, who, key):
        assert self.caches[who].delete(key) == (key in self.model)
        self.model.pop(key, None)

    @rule(who=who, key=key)
    def pop(self, who, key):
        assert self.caches[who].pop(key, "none") == self.model.pop(key, "none")

    @rule(who=who, key=key, value=value, fails=st.booleans())
    def load(self, who, key, value, fails):
        def loader(asked):
            assert key not in self.model
            if fails:
                raise LookupError
            return value

        try:
            got = self.caches[who].get_or_load(key, loader)
        except LookupError:
            assert key not in self.model
        else:
            self.tagged.setdefault(key, ()) if key in self.model else self.tagged.update({key: ()})
            assert got == self.model.setdefault(key, value)

    @rule(who=who, keys=st.lists(key, unique=True, max_size=4), value=value)
    def load_many(self, who, keys, value):
        missing = []

        def loader(asked):
            missing.extend(asked)
            return {each: value for each in asked}

        got = self.caches[who].get_or_load_many(keys, loader)
        assert set(missing) == {key for key in keys if key not in self.model}
        self.tagged.update({key: () for key in missing})
        self.model.update({key: value for key in missing})
        assert got == {key: self.model[key] for key in keys}

    @rule(who=who, values=st.dictionaries(key, value, max_size=4))
    def set_many(self, who, values):
        self.caches[who].set_many(values)
        self.model.update(values)
        self.tagged.update(dict.fromkeys(values, ()))

    @rule(who=who, tag=st.sampled_from("tu"))
    def invalidate(self, who, tag):
        self.caches[who].invalidate_tag(tag)
        self.model = {key: value for key, value in self.model.items() if tag not in self.tagged[key]}

    @rule(who=who)
    def clear(self, who):
        self.caches[who].clear()
        self.model.clear()

    @invariant()
    def both_see_the_same(self):
        for cache in self.caches:
            assert cache.get_many(["a", "b", 1, b"a", ("a", 1)]) == self.model
            assert cache.get("a", "none") == self.model.get("a", "none")

    def teardown(self):
        for backend in self.backends:
            backend.close()


def test_a_cache_over_a_server_is_a_dict(valkey):
    class Here(Losses):
        url = valkey.url

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Here, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


# -- namespaces and tags


def test_spaces_and_prefixes_are_apart(quick):
    one, other = quick.cache(space="one"), quick.cache(space="other")
    third = quick.cache(space="one", backend=quick.backend(prefix="else"))
    one.set("k", 1)
    assert other.get("k") is None and third.get("k") is None
    other.set("k", 2)
    other.clear()
    assert one.get("k") == 1


def test_a_clear_is_seen_by_all_and_what_is_written_after_it_stays(here):
    one, other = here.cache(), here.cache()
    for cache in (one, other):
        cache.set_many({at: at for at in range(50)})
    one.clear()
    assert other.get_many(range(50)) == {}
    other.set(1, "new")             # by a process that had known the old generation
    assert one.get(1) == other.get(1) == "new"
    other.set_many({at: "new" for at in range(50)})
    assert len(one.get_many(range(50))) == 50


def test_a_tag_invalidates_all_that_carry_it(here):
    one, other = here.cache(space="one"), here.cache(space="other")
    one.set("a", 1, tags=("user:7", "page"))
    other.set("b", 2, tags=["user:7"])
    one.set("c", 3, tags=("page",))
    one.set("d", 4)
    reader = here.cache(space="one")
    assert reader.get_many("acd") == {"a": 1, "c": 3, "d": 4}
    assert other.invalidate_tag("user:7") is True
    for cache in (one, reader):
        assert cache.get_many("acd") == {"c": 3, "d": 4}
        assert cache.get("a") is None and cache.get("c") == 3
    assert other.get("b") is None
    one.set("a", 5, tags=("user:7",))
    assert reader.get("a") == 5


def test_a_tagged_key_is_read_in_one_round_trip_from_the_second_time_on(here):
    here.cache().set("k", 1, tags=("a", "b"))
    backend = here.backend()
    cache = here.cache(backend=backend)
    trips = []
    for _ in range(3):
        before = backend.stats().trips
        assert cache.get("k") == 1
        trips.append(backend.stats().trips - before)
    assert trips == [2, 1, 1]


def test_a_lost_tag_or_generation_brings_nothing_old_back(quick, valkey):
    cache = quick.cache()
    cache.set("k", 1, tags=("t",))
    with valkey.client() as client:
        client.delete(cache.cache._space.names.tag("t"))
        assert cache.get("k") is None
        cache.invalidate_tag("t")
        assert cache.get("k") is None
        cache.set("k", 2)
        (generation,) = cache.cache._space.names.generations
        client.delete(generation)
        assert cache.get("k") is None
        cache.set("j", 3)
        assert cache.get("k") is None and cache.get("j") == 3


# -- deadlines


def _pttl(valkey, cache, key):
    with valkey.client() as client:
        return client.pttl(cache.cache._space.name(key).value) / 1000


def test_expiries_become_deadlines_on_the_server(quick, valkey):
    plain, fixed, entry = quick.cache(space="a"), quick.cache(space="b", expiry=100), \
        quick.cache(space="c", expiry=PerEntry(lambda key, value, now: now + value))
    for cache in (plain, fixed, entry):
        cache.set("k", 50)
    assert _pttl(valkey, plain, "k") == -0.001
    assert 90 < _pttl(valkey, fixed, "k") <= 100
    assert 40 < _pttl(valkey, entry, "k") <= 50
    plain.set("k", 1, ttl=30)
    fixed.set("k", 1, ttl=30)
    assert 20 < _pttl(valkey, plain, "k") <= 30 and 20 < _pttl(valkey, fixed, "k") <= 30
    entry.set("k", -5)
    assert entry.get("k") is None
    plain.set("k", 1, ttl=0)
    assert plain.get("k") is None
    plain.set("k", 1, ttl=0.05)
    time.sleep(0.1)
    assert plain.get("k") is None


def test_a_read_keeps_an_idle_entry_but_not_past_its_ceiling(quick, valkey):
    cache = quick.cache(expiry=Idle(100))
    cache.set("k", 1)
    cache.set("j", 1, ttl=150)
    with valkey.client() as client:
        for key in "kj":
            client.pexpire(cache.cache._space.name(key).value, 5000)
        assert cache.get("k") == 1
        assert cache.get_many("j") == {"j": 1}
        assert 90 < _pttl(valkey, cache, "k") <= 100 and 90 < _pttl(valkey, cache, "j") <= 100
        cache.set("j", 1, ttl=50)
        assert cache.get("j") == 1
        assert 40 < _pttl(valkey, cache, "j") <= 50


# -- what lies there may be anything


def test_foreign_bytes_are_a_miss_and_an_event(quick, valkey):
    cache = quick.cache()
    cache.set("k", 1)
    name = cache.cache._space.name("k").value
    with valkey.client() as client:
        whole = client.get(name)
        for data in (b"", b"x", whole[:-1], whole[:12], whole[:19] + b"\xff" * 20, b"\xac\x02" + whole[2:]):
            client.set(name, data)
            quick.events.clear()
            assert cache.get("k") is None
            assert quick.kinds() == ["unreadable"] and quick.events[0].key == "k"
            assert cache.get_or_load("k", lambda key: 9) == 9
            assert cache.get("k") == 9
        client.delete(name)
        client.lpush(name, "a list")
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda key: 9) == 9
    assert header.unpack(whole) is not None


def test_an_observer_that_raises_is_let_go(valkey):
    calls = []

    def observer(event):
        calls.append(event)
        raise LookupError

    with RedisBackend(valkey.url, on_event=observer) as backend:
        cache = Cache(0, backend=backend)
        with valkey.client() as client:
            client.set(cache._space.name("k").value, b"x")
        assert cache.get("k") is None and cache.get("k") is None
        assert len(calls) == 1 and backend.stats().events["unreadable"] == 2


# -- decorated functions


def test_a_function_is_shared(valkey):
    with RedisBackend(valkey.url) as backend, RedisBackend(valkey.url) as another:
        calls = []

        def make(backend):
            @cached(backend=backend, namespace="squares", tags=lambda x, **named: (f"n:{x}",))
            def square(x, power=2):
                calls.append(x)
                return x ** power

            return square

        one, other = make(backend), make(another)
        assert [one(3), other(3), one(3, power=3), other(power=3, x=3)] == [9, 9, 27, 27]
        assert len(calls) == 3          # a named x is another key, as everywhere
        assert one.cache_info()[:3] == (0, 2, 128)
        assert other.invalidate(3) is True and other.invalidate(3) is False
        assert one(3) == 9 and len(calls) == 4
        one.cache.invalidate_tag("n:3")
        assert other(3) == 9 and len(calls) == 5
        other.cache_clear()
        assert one(3) == 9 and len(calls) == 6
        assert other.cache_info()[:2] == (0, 0)
        with pytest.raises(TypeError, match="backend"):
            cached(cache={}, backend=backend)
        with pytest.raises(TypeError, match="tags"):
            cached(tags=("a",))(len)


def test_a_coroutine_function_is_shared(valkey):
    async def main():
        async with RedisBackend(valkey.url) as backend:
            calls = []

            @cached(backend=backend)
            async def double(x):
                calls.append(x)
                await asyncio.sleep(0.01)
                return 2 * x

            assert await asyncio.gather(*[double(2) for _ in range(20)]) == [4] * 20
            assert calls == [2]
            assert await double.ainvalidate(2) is True
            assert await double(2) == 4 and calls == [2, 2]
            await double.acache_clear()
            assert await double(2) == 4 and calls == [2, 2, 2]

    asyncio.run(main())


def test_the_plain_import_knows_no_redis():
    import subprocess
    import sys

    program = "import sys, adaptcache; assert 'redis' not in sys.modules; assert adaptcache.RedisBackend; assert 'redis' in sys.modules"
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", program], check=True)


# -- learned deadlines


LEARNED = dict(memory_price=1e-4, predictors=("table",), learner="manual", seed=1)


def test_a_learned_deadline_is_written_and_pushed_by_reads_when_half_of_it_is_gone(quick, valkey):
    backend = quick.backend()
    cache = quick.cache(backend=backend, expiry=adaptcache.Learned(ceiling=3600, **LEARNED))
    try:
        cache.set("k", 1, cost=1.0)     # about 70 bytes: it breaks even in two minutes
        first = _pttl(valkey, cache, "k")
        assert 10 < first < 3600
        trips = backend.stats().trips
        for _ in range(20):
            assert cache.get("k") == 1
        assert backend.stats().trips - trips == 20          # nothing to push yet
        with valkey.client() as client:
            client.pexpire(cache.cache._space.name("k").value, 5000)
        cache.cache._space.deadlines._known.clear()         # as a process that has never seen the key
        assert cache.get("k") == 1
        assert _pttl(valkey, cache, "k") > 8
        assert backend.stats().trips - trips == 22
        cache.set("k", 1, cost=1.0, ttl=3)
        cache.cache._space.deadlines._known.clear()
        assert cache.get("k") == 1 and _pttl(valkey, cache, "k") <= 3
    finally:
        cache.cache.close()


def test_a_worker_never_shortens_the_deadline_of_another(quick, valkey):
    one, other = (quick.cache(expiry=adaptcache.Learned(**LEARNED)) for _ in range(2))
    try:
        one.set("k", 1, cost=1.0)
        with valkey.client() as client:
            client.pexpire(one.cache._space.name("k").value, 1_000_000)
        assert other.get("k") == 1 and one.get("k") == 1
        assert _pttl(valkey, one, "k") > 990
    finally:
        one.cache.close()
        other.cache.close()


def test_a_learned_cache_without_a_price_never_expires_and_tells_what_it_knows(quick, valkey):
    cache = quick.cache(expiry=adaptcache.Learned(learner="manual", predictors=("table",)))
    try:
        cache.set("k", 1)
        assert cache.get("k") == 1 and _pttl(valkey, cache, "k") == -0.001
        assert cache.get("none") is None
        stats = cache.cache.stats()
        assert (stats.hits, stats.misses, stats.inserts) == (1, 1, 1) and stats.weights
        assert "stays for ever" in str(cache.cache.explain("k"))
        cache.delete("k")
        with pytest.raises(KeyError):
            cache.cache.explain("k")
        assert cache.cache.learn() == 0
    finally:
        cache.cache.close()


def test_a_learned_cache_lets_go_on_the_server(valkey):
    """What nobody asks for any more leaves before its ceiling, and a value asked for in time stays."""
    with RedisBackend(valkey.url) as backend:
        cache = Cache(0, backend=backend, expiry=adaptcache.Learned(memory_price=1e-2, ceiling=3600, predictors=("table",), learner="manual"))
        cache.set("k", 1, cost=0.3)
        name = cache._space.name("k").value
        with valkey.client() as client:
            assert 0 < client.pttl(name) < 60_000
        cache.close()
