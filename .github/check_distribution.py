"""Check what wheels and source distributions hold: python .github/check_distribution.py dist/*."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1]
# Left over from a build, or from a run; the examples have a C source.
NEVER = re.compile(
    r"(^|/)(build|__pycache__|\.[a-z]\w*)/|(?<!/path_operator)\.(c|py[cod]|nbi|nbc|tmp)$"
)
EXTENSION = re.compile(r"\.(so|pyd)$")


def sources(folder: str, *suffixes: str) -> set[str]:
    """Files of the source tree by the names that they have in a source distribution."""
    paths = (path for suffix in suffixes for path in (SOURCE / folder).rglob(f"*{suffix}"))
    return {path.relative_to(SOURCE).as_posix() for path in paths}


def check_wheel(path: Path) -> None:
    """Assert that all that is installed is there, and nothing else."""
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = {name for name in names if ".dist-info/" in name}
    extensions = {name for name in names if EXTENSION.search(name)}
    wanted = sources("derand_fast", ".py", "py.typed") | {
        f"derand_fast/{name}" for name in sources("kernels", ".py", ".pyx", ".pxd", ".pyi")
    }
    assert names - metadata - extensions == wanted, sorted((names - metadata - extensions) ^ wanted)
    compiled = {name.split(".")[0] for name in extensions}
    assert compiled == {name.removesuffix(".pyx") for name in wanted if name.endswith(".pyx")}
    for name in compiled:
        assert f"{name}.pxd" in names, f"{name} cannot be cimported"
        assert f"{name}.pyi" in names, f"{name} has no types"
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def check_source(path: Path) -> None:
    """Assert that it holds the sources, tests and benchmarks, and nothing that was built."""
    with tarfile.open(path) as archive:
        files = [member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()]
    names = {name for name in files if not re.match(r"[\w.]+\.egg-info/", name)}
    wanted = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "CHANGELOG.md", "MANIFEST.in"}
    wanted |= sources("derand_fast", ".py", "py.typed") | sources("tests", ".py")
    wanted |= sources("kernels", ".py", ".pyx", ".pxd", ".pyi") | sources("bench", ".py")
    assert wanted <= names, sorted(wanted - names)
    left_over = {name for name in names if NEVER.search(name) or EXTENSION.search(name)}
    assert not left_over, sorted(left_over)


def main() -> None:
    """Check each file that is named."""
    for name in sys.argv[1:]:
        path = Path(name)
        (check_wheel if path.suffix == ".whl" else check_source)(path)
        print(f"{path.name}: complete, nothing left over")


if __name__ == "__main__":
    main()
