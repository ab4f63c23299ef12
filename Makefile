# Everything sets itself up: a bare Python >= 3.11 and a C compiler are enough.
#   make demo    the main job: a cache that learns its expiry, before your eyes
#   make demo-redis   a fleet of worker processes that learn together on an embedded Valkey
#   make test    build and pass the tests
#   make debug   the core's tests on a build that checks itself after every operation, under AddressSanitizer and UBSan
#   make coverage   which lines of the core the tests run
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
SOURCES = pyproject.toml setup.py $(wildcard _ext/*) $(shell find adaptcache -name '*.py' -o -name '*.html' -o -name '*.pyi')

.PHONY: demo demo-redis test test-slow bench bench-expiry bench-fleet bench-freshness bench-recovery bench-restart bench-robustness bench-ablation bench-overhead bench-scale bench-memory bench-stream bench-policies soak debug coverage lint typing clean

# The package is built and installed as a user would; ADAPTCACHE_TESTS adds the tests' own extension.
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adaptcache needs Python 3.11 or later; set PYTHON=")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	ADAPTCACHE_TESTS=1 $(RUN) -m pip install --quiet '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(RUN) -P -m adaptcache demo --html adaptcache-demo.html

demo-redis: $(VENV)/installed
	$(RUN) -P -m adaptcache demo-redis

# Python salts the hashes of str, which the learner's draws depend on: a fixed salt makes a run repeat exactly.
# `make test PYTHONHASHSEED=random ADAPTCACHE_EXPLORE=1` looks for what no run has seen.
export PYTHONHASHSEED ?= 0

# Three processes on two cores: some tests wait for a server's clock.
test: $(VENV)/installed
	$(RUN) -P -m pytest -n 3 -m "not slow"

test-slow: $(VENV)/installed
	$(RUN) -P -m pytest -n 3 -m slow

# Other kinds of build lie in folders of their own and see the libraries of $(VENV).
CORE_TESTS = $(wildcard $(patsubst %,tests/test_%.py,structures policies adaptive store reentrancy threads flooding attic stream recording curves held compat* functools*))
TARGET_INSTALL = pip install --quiet --no-deps --upgrade --target

build/debug/installed: $(VENV)/installed
	rm -rf build/debug
	ADAPTCACHE_BUILD=build/debug ADAPTCACHE_DEBUG=1 ADAPTCACHE_CHECK=1 ADAPTCACHE_SANITIZE=1 ADAPTCACHE_TESTS=1 \
		$(RUN) -m $(TARGET_INSTALL) build/debug/site .
	touch $@

# Python allocates with malloc, so that a read past the end of an object is seen, and keeps much at its end, which is no leak.
SANITIZED = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONMALLOC=malloc PYTHONFAULTHANDLER=1 PYTHONPATH=build/debug/site

debug: build/debug/installed
	$(SANITIZED) $(RUN) -P -c 'from adaptcache import _core; assert _core.CHECKED'
	$(SANITIZED) ADAPTCACHE_EXAMPLES=0.2 $(RUN) -P -m pytest -n 2 -m "not slow" $(CORE_TESTS)

build/coverage/installed: $(VENV)/installed tools/cycov.py
	rm -rf build/coverage
	ADAPTCACHE_BUILD=build/coverage ADAPTCACHE_DEBUG=1 ADAPTCACHE_COVERAGE=1 ADAPTCACHE_TESTS=1 \
		$(RUN) -m $(TARGET_INSTALL) build/coverage/site .
	touch $@

coverage: build/coverage/installed
	find build/coverage -name '*.gcda' -delete
	PYTHONPATH=build/coverage/site $(RUN) -P -m pytest -n 2 -m "not slow"
	$(RUN) tools/cycov.py build/coverage --html build/coverage/html

bench: $(VENV)/installed
	$(RUN) -P -m pytest bench -q --benchmark-only --benchmark-quiet --report build/bench

# A hundred million operations of each policy, with and without an expiry: memory flat, structures sound.
soak: $(VENV)/installed
	$(RUN) -P bench/soak.py

bench-expiry: $(VENV)/installed
	$(RUN) -P bench/expiry.py

bench-fleet: $(VENV)/installed
	$(RUN) -P bench/fleet.py --join 2000 --price 0.1

bench-freshness: $(VENV)/installed
	$(RUN) -P bench/freshness.py

bench-recovery: $(VENV)/installed
	$(RUN) -P bench/recovery.py

bench-restart: $(VENV)/installed
	$(RUN) -P bench/restart.py

bench-robustness: $(VENV)/installed
	$(RUN) -P bench/robustness.py

bench-ablation: $(VENV)/installed
	$(RUN) -P bench/ablation.py

bench-overhead: $(VENV)/installed
	$(RUN) -P bench/overhead.py

bench-scale: $(VENV)/installed
	$(RUN) -P bench/scale.py

bench-memory: $(VENV)/installed
	$(RUN) -P bench/memory.py

bench-stream: $(VENV)/installed
	$(RUN) -P bench/stream.py

bench-policies: $(VENV)/installed
	$(RUN) -P bench/policies.py

lint: $(VENV)/installed
	$(RUN) -m ruff check adaptcache tests bench tools

typing: $(VENV)/installed
	$(RUN) -m mypy adaptcache

clean:
	rm -rf $(VENV) build dist *.egg-info _ext/*.c adaptcache/*.so
