"""What pyproject.toml cannot say yet: the optional C kernels, one build for all Pythons from 3.11.

Without a compiler the package installs all the same; numpy and zstandard do the work then.
"""

from setuptools import Extension, setup

KERNELS = [
    Extension(
        f"mfd.packet.{name}",
        [f"mfd/packet/{name}.c"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=["-O3"],  # without it gcc 11 and older leave the loops scalar
        py_limited_api=True,
        optional=True,
    )
    for name in ("_planes", "_huffman")
]

setup(ext_modules=KERNELS, options={"bdist_wheel": {"py_limited_api": "cp311"}})
