# To a type checker these are cachetools' own names: whatever it says of those holds here.
from cachetools.func import fifo_cache as fifo_cache
from cachetools.func import lfu_cache as lfu_cache
from cachetools.func import lru_cache as lru_cache
from cachetools.func import rr_cache as rr_cache
from cachetools.func import ttl_cache as ttl_cache
