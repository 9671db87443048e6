"""Backend ``derand_fast`` of networkx: the same cuts, seed for seed, in compiled code.

With this package installed, networkx finds it by its entry points:

>>> import networkx as nx
>>> G = nx.random_regular_graph(3, 100, seed=1)
>>> cut_size, partition = nx.approximation.one_exchange(G, seed=1, backend="derand_fast")
>>> (cut_size, partition) == nx.approximation.one_exchange(G, seed=1, backend="networkx")
True

``nx.config.backend_priority = ["derand_fast"]``, or the environment variable
``NETWORKX_BACKEND_PRIORITY=derand_fast``, uses it wherever it pays. It offers

- `one_exchange`: O(n + degree) a move, where networkx computes all cuts anew, O(n m);
- `randomized_partitioning` and `cut_size`: they pay once a graph has been converted. networkx keeps
  the converted graph in ``G.__networkx_cache__``, and `convert_from_nx` gives one to hold.

Results are those of networkx: values of the same type and bits, the same partition in sets of the
same order, ties broken by the same random numbers, and the generator left in the same state. Where
rounding decides between two moves their cuts are summed as networkx sums them. Weights may be
whatever networkx can add: those other than Python's int, float and bool and numpy's integers,
float64 and float32, or sums that overflow, are added by Python, so that only speed is lost.

One exchange is local search. For better cuts, with an upper bound on all cuts, call
`derand_fast.max_cut`, which takes a networkx graph as well.

This module loads in no time, since ``import networkx`` loads it: the work is in
`derand_fast.networkx_cuts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from derand_fast.networkx_cuts import ConvertedGraph

__all__ = [
    "backend_info",
    "can_run",
    "convert_from_nx",
    "convert_to_nx",
    "cut_size",
    "one_exchange",
    "randomized_partitioning",
    "should_run",
]

NAME = "derand_fast"
# The argument ``weight`` has the same place in all functions here.
_WEIGHT_PLACE = 3
# From how many vertices on the functions are faster than networkx (bench/networkx_table.py): one
# exchange with the conversion of the graph, the others without.
_LEAST_VERTICES = {"one_exchange": 5, "randomized_partitioning": 50, "cut_size": 50}


def backend_info() -> dict[str, Any]:
    """Describe the backend to networkx, which adds this to its own documentation."""
    tail = "The result is that of networkx, seed for seed."
    return {
        "backend_name": NAME,
        "project": "derand-fast",
        "package": "derand_fast",
        "short_summary": "Cuts in compiled code, the same as networkx's seed for seed.",
        "functions": {
            "one_exchange": {
                "additional_docs": (
                    f"O(n + degree) for a move. {tail}\nFor better cuts, with an upper bound on "
                    "all cuts, call ``derand_fast.max_cut(G)``."
                )
            },
            "randomized_partitioning": {
                "additional_docs": f"Faster once the graph has been converted. {tail}"
            },
            "cut_size": {"additional_docs": "Faster once the graph has been converted."},
        },
    }


# --------------------------------------------------------------------------------------------------
# What networkx asks before it calls
# --------------------------------------------------------------------------------------------------


def can_run(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | str:
    """Whether a call can be made, or why not."""
    graph, weight = _graph_and_weight(args, kwargs)
    if graph.is_directed():
        return f"{NAME} does not take directed graphs in {name}"
    if graph.is_multigraph():
        return f"{NAME} does not take multigraphs in {name}"
    if isinstance(weight, bool) or callable(weight):
        return f"{NAME} takes the name of an edge attribute as weight, not {weight!r}"
    return True


def should_run(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | str:
    """Whether a call is faster than networkx's own, conversion included, or why not."""
    graph, weight = _graph_and_weight(args, kwargs)
    least = _LEAST_VERTICES[name]
    if len(graph) < least:
        return f"networkx is as fast below {least} vertices"
    if name == "one_exchange" or _is_converted(graph, weight):
        return True
    return f"{name} takes no longer than the conversion of the graph, which is not yet converted"


def _graph_and_weight(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    graph = args[0] if args else kwargs["G"]
    place = _WEIGHT_PLACE
    return graph, args[place] if len(args) > place else kwargs.get("weight")


def _is_converted(graph: Any, weight: Any) -> bool:
    """Whether the graph is converted, or networkx keeps it converted."""
    if getattr(graph, "__networkx_backend__", None) == NAME:
        return True
    cache = getattr(graph, "__networkx_cache__", None) or {}
    # networkx marks a failed conversion by a string.
    kept = [g for g in cache.get("backends", {}).get(NAME, {}).values() if not isinstance(g, str)]
    return any(converted.holds(weight) for converted in kept)


# --------------------------------------------------------------------------------------------------
# Conversions and functions
# --------------------------------------------------------------------------------------------------


def convert_from_nx(
    graph: Any,
    *,
    edge_attrs: dict[Any, Any] | None = None,
    node_attrs: dict[Any, Any] | None = None,
    preserve_edge_attrs: bool = False,
    preserve_node_attrs: bool = False,
    preserve_graph_attrs: bool = False,
    name: str | None = None,
    graph_name: str | None = None,
) -> ConvertedGraph:
    """Convert an undirected networkx graph; attributes of nodes and of the graph are left behind.

    Parameters
    ----------
    graph : networkx.Graph
        Not a directed graph, nor a multigraph.
    edge_attrs : mapping from attributes of edges to defaults, optional
        What to take over; by default nothing.
    preserve_edge_attrs : bool
        Take over all attributes of edges.
    node_attrs, preserve_node_attrs, preserve_graph_attrs, name, graph_name
        Part of networkx's protocol, not used.

    Returns
    -------
    ConvertedGraph
        A copy: it does not see later changes of ``graph``.

    Raises
    ------
    NotImplementedError
        If the graph is directed or a multigraph.

    Notes
    -----
    O(n + m), about 0.2 us an edge and 0.2 us for its weight.

    Examples
    --------
    >>> import networkx as nx
    >>> G = nx.Graph([(0, 1, {"cost": 2}), (1, 2, {"cost": 3})])
    >>> converted = convert_from_nx(G, edge_attrs={"cost": 1})
    >>> nx.cut_size(converted, {1}, weight="cost")
    5
    """
    from derand_fast.networkx_cuts import ConvertedGraph

    del node_attrs, preserve_node_attrs, preserve_graph_attrs, name, graph_name
    return ConvertedGraph.of(graph, None if preserve_edge_attrs else edge_attrs or {})


def convert_to_nx(result: Any, *, name: str | None = None) -> Any:
    """Convert a `ConvertedGraph` to a networkx graph; anything else is returned as it is."""
    del name
    if getattr(result, "__networkx_backend__", None) == NAME:
        return result.to_networkx()
    return result


def one_exchange(
    G: ConvertedGraph, initial_cut: Any = None, seed: Any = None, weight: Any = None
) -> tuple[Any, tuple[set[Any], set[Any]]]:
    """Move the best vertex to the other side until no move improves the cut.

    The function ``networkx.approximation.one_exchange`` on a converted graph; see there.
    """
    from derand_fast import networkx_cuts

    return networkx_cuts.one_exchange(G, initial_cut, seed, weight)


def randomized_partitioning(
    G: ConvertedGraph, seed: Any = None, p: Any = 0.5, weight: Any = None
) -> tuple[Any, tuple[set[Any], set[Any]]]:
    """Put each vertex into the first part with probability p.

    The function ``networkx.approximation.randomized_partitioning`` on a converted graph; see there.
    """
    from derand_fast import networkx_cuts

    return networkx_cuts.randomized_partitioning(G, seed, p, weight)


def cut_size(G: ConvertedGraph, S: Any, T: Any = None, weight: Any = None) -> Any:
    """Sum of the weights between S and T, by default the complement of S.

    The function ``networkx.cut_size`` on a converted graph; see there.
    """
    from derand_fast import networkx_cuts

    return networkx_cuts.cut_size(G, S, T, weight)
