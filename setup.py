"""Build recipe: three Cython extensions, kernels/ installed as derand_fast.kernels."""

import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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


class BuildExtensions(build_ext):
    """Leave the options in the sources, which are for GCC and Clang, to those."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            for extension in self.extensions:
                extension.extra_compile_args = []
        super().build_extensions()


setup(
    packages=[
        "derand_fast",
        "derand_fast.cli",
        "derand_fast.distributed",
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
        [
            Extension(f"derand_fast.kernels.{name}", [f"kernels/{name}.pyx"])
            for name in ("cuts", "gauss_hermite", "lanczos")
        ],
        include_path=[stage_declarations()],
        build_dir="build/cython",
        compiler_directives={"language_level": 3},
    ),
    cmdclass={"build_ext": BuildExtensions},
)
