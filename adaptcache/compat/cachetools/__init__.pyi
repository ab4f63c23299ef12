# To a type checker these are cachetools' own names: whatever it says of those holds here.
from cachetools import Cache as Cache
from cachetools import CacheInfo as CacheInfo
from cachetools import FIFOCache as FIFOCache
from cachetools import LFUCache as LFUCache
from cachetools import LRUCache as LRUCache
from cachetools import RRCache as RRCache
from cachetools import TLRUCache as TLRUCache
from cachetools import TTLCache as TTLCache
from cachetools import cached as cached
from cachetools import cachedmethod as cachedmethod

from adaptcache.compat.cachetools import func as func
from adaptcache.compat.cachetools import keys as keys
