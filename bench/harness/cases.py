"""Which rows of a pytest-benchmark file are compared with each other, and which of them are ours.

Two ways to write a comparison are known. Within one function one parameter names who does the
work; it is the one that has a value which starts with "ours" or stands in the file's ``OURS``. Or
there is a function for each: ``test_x_ours`` (or ``test_x``) and ``test_x_eigsh``; then parameters
that all of them have tell the case, and the rest of them belong to the name. Values in the file's
``LIMITS`` are no rivals, but marks that nobody can pass.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Parameters = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """What is measured, who does it, and whether that is "ours", a "rival" or a "limit"."""

    case: str
    who: str
    kind: str


@dataclass
class Collected:
    """The functions of one file, each with the values of its parameters."""

    ours: Collection[str] = ()
    limits: Collection[str] = ()
    values: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def add(self, function: str, parameters: Parameters) -> None:
        """Add one test."""
        known = self.values.setdefault(function, {})
        for name, value in parameters.items():
            known.setdefault(name, set()).add(value)

    def case(self, function: str, parameters: Parameters, group: str | None) -> Case:
        """Return the case of one test."""
        stem, tag = self._split(function)
        if stem is not None:
            shared = self._shared(stem)
            own = [_told(name, parameters[name]) for name in parameters if name not in shared]
            who = ", ".join([tag.replace("_", " ") or "ours", *own])
            kind = "ours" if tag in ("", "ours") else "rival"
            left = {name: value for name, value in parameters.items() if name in shared}
            return Case(_title(stem, group, left), who, kind)
        naming = self._naming(function)
        left = {name: value for name, value in parameters.items() if name != naming}
        title = _title(function, group, left)
        if naming is None:
            return Case(title, "ours", "ours")
        who = parameters[naming]
        return Case(title, who, self._kind(who))

    def _kind(self, who: str) -> str:
        if who in self.limits:
            return "limit"
        return "ours" if who.startswith("ours") or who in self.ours else "rival"

    def _naming(self, function: str) -> str | None:
        """Return the parameter that names who does the work."""
        for name, values in self.values[function].items():
            if any(self._kind(value) == "ours" for value in values):
                return name
        return None

    def _split(self, function: str) -> tuple[str | None, str]:
        """Return the longest stem that other functions have too, and what follows it."""
        functions = set(self.values)
        stems = functions | {name.removesuffix("_ours") for name in functions}
        for stem in sorted(stems, key=len, reverse=True):
            if function != stem and not function.startswith(f"{stem}_"):
                continue
            if len(self._siblings(stem)) > 1 and {stem, f"{stem}_ours"} & functions:
                return stem, function[len(stem) + 1 :]
        return None, ""

    def _siblings(self, stem: str) -> list[str]:
        return [name for name in self.values if name == stem or name.startswith(f"{stem}_")]

    def _shared(self, stem: str) -> set[str]:
        return set.intersection(*(set(self.values[name]) for name in self._siblings(stem)))


def text_of(value: Any) -> str:
    """Return a parameter's value as a word for tables."""
    if isinstance(value, str):
        return value
    name = getattr(value, "__name__", None)
    return str(value) if name is None else str(name).strip("_")


def texts_of(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return all values as words."""
    return {name: text_of(value) for name, value in parameters.items()}


def _title(function: str, group: str | None, parameters: Parameters) -> str:
    """Return the group's name, and the parameters that it does not tell."""
    title = group or function.removeprefix("test_").replace("_", " ")
    return ", ".join([title, *_untold(title, parameters)])


def _untold(title: str, parameters: Parameters) -> Iterable[str]:
    for name, value in parameters.items():
        word = re.escape(value)
        if _is_number(value):
            # "p = 8" or "threads: 1" for n_threads.
            word = rf"{re.escape(name.split('_')[-1])}\s*[=:]\s*{word}"
        if re.search(rf"(?<![\w.]){word}(?![\w.])", title) is None:
            yield _told(name, value)


def _told(name: str, value: str) -> str:
    """Return words as they are, and numbers with the name of the parameter."""
    return f"{name} = {value}" if _is_number(value) else value


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[-+.\de]+", value) is not None
