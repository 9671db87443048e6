"""What the modules here need of Dask, imported when used."""

from __future__ import annotations

import pickle
import sys
from typing import Any

__all__ = [
    "call_packed",
    "checked_client",
    "is_client",
    "large_messages",
    "packed",
    "worker_addresses",
]


def is_client(candidate: Any) -> bool:
    """Whether this is a ``distributed.Client``; Dask is not imported to find out."""
    module = sys.modules.get("distributed")
    return module is not None and isinstance(candidate, module.Client)


def checked_client(client: Any) -> Any:
    """Return a Dask client.

    Raises
    ------
    TypeError
        If it is none, or an asynchronous one.
    ImportError
        If Dask is missing, naming the extra.
    """
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            "client= needs Dask's scheduler: pip install 'derand-fast[distributed]'"
        ) from error
    if not isinstance(client, distributed.Client):
        raise TypeError(f"client must be a distributed.Client, not {type(client).__name__}")
    if client.asynchronous:
        raise TypeError("client must be a synchronous distributed.Client")
    return client


def worker_addresses(client: Any) -> list[str]:
    """Return the addresses of the workers, in order; waits for the first one."""
    client.wait_for_workers(1, timeout=60)
    return sorted(client.nthreads())


def large_messages() -> Any:
    """Return a context in which Dask does not advise against sending data with a task.

    The scheduler must keep the data: it sends them once more when a worker is lost.
    """
    import dask

    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})


def packed(*call: Any) -> bytes:
    """Return a function and its arguments as bytes for `call_packed`.

    Dask unpacks what it is given in the middle of its own messages, and a worker that cannot import
    a module then loses its connection. As bytes the call is unpacked within the task, whose error
    comes back.
    """
    from distributed.protocol.pickle import dumps

    return bytes(dumps(call))


def call_packed(call: bytes) -> Any:
    """Return what the packed function returns."""
    function, *arguments = pickle.loads(call)
    return function(*arguments)
