"""The exceptions of adaptcache. Each says what was found, where, and what would be right."""


class TraceError(ValueError):
    """A trace that cannot be read or replayed: the file, the line or row and the column are named."""
