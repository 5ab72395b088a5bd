"""What pyproject.toml cannot say yet: the optional C kernel, one for all Pythons from 3.11.

Without a compiler the package installs all the same; numpy does the work then.
"""

from setuptools import Extension, setup

PLANES = Extension(
    "mfd.packet._planes",
    ["mfd/packet/_planes.c"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-O3"],  # without it gcc 11 and older leave the loops scalar
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[PLANES], options={"bdist_wheel": {"py_limited_api": "cp311"}})
