"""The same results from many machines: shards of objectives, restarts and row blocks, on Dask.

Needs the extra ``distributed`` for Dask clients and arrays; without a client everything runs in
this process, with the same bits.
"""

from derand_fast.distributed.restarts import max_cut
from derand_fast.distributed.sharded import ShardedObjective
from derand_fast.distributed.splitting import shard

__all__ = ["ShardedObjective", "max_cut", "shard"]
