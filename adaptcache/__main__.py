"""`python -m adaptcache` and the script `adaptcache`: the commands, or how to get them."""
from __future__ import annotations

import sys


def main() -> None:
    try:
        from adaptcache.cli import adaptcache
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("adaptcache: the commands need the package click; pip install '.[simulate]' in adaptcache's source folder brings it")
    adaptcache(prog_name="adaptcache")


if __name__ == "__main__":
    main()
