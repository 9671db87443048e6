"""The file of a run: written by ``run``, read and checked by ``report`` and ``compare``."""

import json
from pathlib import Path
from typing import Any

FORMAT = "derand_fast benchmarks 1"
_KEYS = ("command", "budget", "data", "seconds", "machine", "topics", "comparisons", "summary")


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a run; numbers that are not finite have no place in JSON and become null."""
    text = json.dumps(_plain(result), indent=1, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return a run; SystemExit with the reason where the file is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    except ValueError:
        raise SystemExit(f"{path}: not JSON") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise SystemExit(f"{path}: not a result of python -m bench run")
    missing = [key for key in (*_KEYS, "not_run") if key not in result]
    if missing:
        raise SystemExit(f"{path}: without {', '.join(missing)}")
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
