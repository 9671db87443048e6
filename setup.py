"""Build recipe: one Cython extension, kernels/ installed as derand_fast.kernels."""

import hashlib
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

KERNELS = Path("kernels")


def stage_declarations() -> str:
    """Copy the .pxd files to where their dotted names say; Cython looks nowhere else."""
    stage = Path("build/pxd/derand_fast/kernels")
    stage.mkdir(parents=True, exist_ok=True)
    for package in (stage, stage.parent):
        (package / "__init__.pxd").touch()
    for declaration in KERNELS.glob("*.pxd"):
        shutil.copy2(declaration, stage / declaration.name)
    return "build/pxd"


class BuildPyWithDigest(build_py):
    """Append one digest of all kernel sources to each built kernel file.

    Numba's disk cache watches only the file a function sits in. With the digest a change in any
    kernel file changes them all, so an upgrade never runs stale machine code of a callee.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        digest = hashlib.sha256()
        for source in sorted(KERNELS.glob("*.py")):
            digest.update(source.read_bytes())
        for built in sorted(Path(self.build_lib, "derand_fast", "kernels").glob("*.py")):
            text = (KERNELS / built.name).read_text(encoding="utf-8")
            built.write_text(f"{text}# kernel sources: {digest.hexdigest()}\n", encoding="utf-8")


setup(
    packages=[
        "derand_fast",
        "derand_fast.cli",
        "derand_fast.kernels",
        "derand_fast.objectives",
        "derand_fast.optimize",
        "derand_fast.plot",
    ],
    package_dir={"derand_fast.kernels": "kernels"},
    package_data={
        "derand_fast": ["py.typed"],
        "derand_fast.kernels": ["*.pxd", "*.pyx", "*.pyi"],
    },
    ext_modules=cythonize(
        [Extension("derand_fast.kernels.lanczos", ["kernels/lanczos.pyx"])],
        include_path=[stage_declarations()],
        build_dir="build/cython",
        compiler_directives={"language_level": 3},
    ),
    cmdclass={"build_py": BuildPyWithDigest},
)
