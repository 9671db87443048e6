"""Build ground_state.pyx: ``python setup.py build_ext --inplace``, or pip."""

import shutil
from importlib.resources import files
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup


def declarations() -> str:
    """Lay out derand_fast's .pxd files by their dotted names and return the folder.

    Cython finds them without this in an installed wheel, but not in an editable install.
    """
    folder = Path("build/pxd/derand_fast/kernels")
    folder.mkdir(parents=True, exist_ok=True)
    for package in (folder, folder.parent):
        (package / "__init__.pxd").touch()
    for declaration in files("derand_fast.kernels").iterdir():
        if declaration.name.endswith(".pxd"):
            shutil.copyfile(str(declaration), folder / declaration.name)
    return str(folder.parents[1])


setup(
    ext_modules=cythonize(
        [Extension("ground_state", ["ground_state.pyx"])],
        include_path=[declarations()],
        language_level=3,
    )
)
