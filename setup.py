"""The compiled core. Everything declarative is in pyproject.toml; this page holds the switches.

ADAPTCACHE_DEBUG=1      C assertions and symbols, no optimisation
ADAPTCACHE_CHECK=1      every operation of a cache ends with `_check()`
ADAPTCACHE_SANITIZE=1   AddressSanitizer and UBSan, the first fault ends the process (run Python with libasan preloaded)
ADAPTCACHE_COVERAGE=1   line coverage of the core by gcov (see tools/cycov.py)
ADAPTCACHE_USDT=1       static tracepoints, where <sys/sdt.h> exists
ADAPTCACHE_TESTS=1      also build adaptcache._coretest and _learntest, through which the tests reach the structures
ADAPTCACHE_BUILD=dir    where C files and objects go, so that one kind of build does not disturb another
"""
import os

from Cython.Build import cythonize
from setuptools import Extension, setup


def on(name: str) -> bool:
    return os.environ.get(f"ADAPTCACHE_{name}", "") not in ("", "0")


BUILD = os.environ.get("ADAPTCACHE_BUILD") or None
flags = ["-O0", "-g"] if on("DEBUG") else ["-O2"]
flags += ["-Wno-unused-function"]
links = []
macros = []
if not on("DEBUG"):
    macros += [("CYTHON_WITHOUT_ASSERTIONS", "1")]
if on("CHECK"):
    macros += [("ADAPTCACHE_CHECK", "1")]
if on("SANITIZE"):
    flags += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    links += ["-fsanitize=address,undefined"]
if on("COVERAGE"):
    flags += ["--coverage"]
    links += ["--coverage"]
if on("USDT"):
    macros += [("ADAPTCACHE_USDT", "1")]


def extension(name: str, source: str) -> Extension:
    return Extension(name, [source], include_dirs=["_ext"], define_macros=macros,
                     extra_compile_args=flags, extra_link_args=links, libraries=["m"])


extensions = [extension("adaptcache._core", "_ext/core.pyx")]
if on("TESTS"):
    extensions += [extension("adaptcache._coretest", "_ext/coretest.pyx"),
                   extension("adaptcache._learntest", "_ext/learntest.pyx")]

setup(
    options={"build": {"build_base": BUILD}} if BUILD else {},
    ext_modules=cythonize(
        extensions,
        include_path=["_ext"],
        build_dir=BUILD,
        force=True,  # cythonize does not notice a changed directive, macro or .pxi
        compiler_directives={"language_level": 3},
    ),
)
