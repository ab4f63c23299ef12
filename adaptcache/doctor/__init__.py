"""Reading a log of decisions: what was decided badly, what holds the cache back, and what to change.

`read` turns files into columns, `hindsight` says what other rules would have cost on the same waits, `diagnose` finds
what is clear enough to be said, and `report` says it. Nothing here needs the cache that wrote the log.
"""
from adaptcache.doctor.diagnose import Diagnosis, Finding, diagnose
from adaptcache.doctor.read import Log, read

__all__ = ["Diagnosis", "Finding", "Log", "diagnose", "read"]
