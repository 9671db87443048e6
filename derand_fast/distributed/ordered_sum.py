"""Sums whose bits do not depend on who adds which part."""

from __future__ import annotations

from typing import Any

__all__ = ["OrderedSum"]

# Level and place in the tree; leaves are at level 0.
Node = tuple[int, int]


class OrderedSum:
    """Sum of ``count`` terms along a fixed binary tree, as far as terms are known.

    Siblings are added as soon as both are there: 0 + 1, 2 + 3, ..., then their sums. Whoever holds
    any of the terms may add what siblings it has and hand on the rest; the last one gets the same
    bits as one who holds them all. A run of consecutive terms leaves at most 2 log2(count) partial
    sums.

    Parameters
    ----------
    count : int
        Number of terms, at least 1.

    Examples
    --------
    >>> here, there = OrderedSum(5), OrderedSum(5)
    >>> for place, term in enumerate([0.1, 0.2, 0.3]):
    ...     here.add(place, term)
    >>> there.add(4, 0.5)
    >>> there.add(3, 0.4)
    >>> here.absorb(there.nodes)
    >>> here.total == ((0.1 + 0.2) + (0.3 + 0.4)) + 0.5
    True
    """

    def __init__(self, count: int) -> None:
        self._widths = [count]
        while self._widths[-1] > 1:
            self._widths.append(-(-self._widths[-1] // 2))
        self.nodes: dict[Node, Any] = {}

    def add(self, place: int, term: Any) -> None:
        """Add the term of this place; terms may be anything that has a +."""
        self._put(0, place, term)

    def absorb(self, nodes: dict[Node, Any]) -> None:
        """Add the partial sums of another holder of terms."""
        for (level, place), term in nodes.items():
            self._put(level, place, term)

    @property
    def total(self) -> Any:
        """The sum, once every term is there."""
        return self.nodes[len(self._widths) - 1, 0]

    def _put(self, level: int, place: int, term: Any) -> None:
        while level < len(self._widths) - 1:
            if place ^ 1 < self._widths[level]:
                sibling = self.nodes.pop((level, place ^ 1), None)
                if sibling is None:
                    break
                term = sibling + term
            level, place = level + 1, place // 2
        self.nodes[level, place] = term
