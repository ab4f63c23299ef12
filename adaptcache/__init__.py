"""adaptcache: a cache that learns the expiry of every key online."""
