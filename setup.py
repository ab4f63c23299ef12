"""The compiled core. Everything declarative is in pyproject.toml; this page holds the switches.

ADAPTCACHE_TRACE=1      line coverage of the core (slow)
ADAPTCACHE_DEBUG=1      C assertions and symbols, no optimisation
ADAPTCACHE_SANITIZE=1   AddressSanitizer and UBSan (run Python with libasan preloaded)
ADAPTCACHE_USDT=1       static tracepoints, where <sys/sdt.h> exists
ADAPTCACHE_TESTS=1      also build adaptcache._coretest and _learntest, through which the tests reach the structures
"""
import os

from Cython.Build import cythonize
from setuptools import Extension, setup


def on(name: str) -> bool:
    return os.environ.get(f"ADAPTCACHE_{name}", "") not in ("", "0")


flags = ["-O0", "-g"] if on("DEBUG") else ["-O2"]
flags += ["-Wno-unused-function"]
links = []
macros = []
if not on("DEBUG"):
    macros += [("CYTHON_WITHOUT_ASSERTIONS", "1")]
if on("TRACE"):
    macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
if on("SANITIZE"):
    flags += ["-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    links += ["-fsanitize=address,undefined"]
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
    ext_modules=cythonize(
        extensions,
        include_path=["_ext"],
        force=True,  # cythonize does not notice a changed directive, macro or .pxi
        compiler_directives={"language_level": 3, "linetrace": on("TRACE")},
    ),
)
