"""What pyproject.toml cannot say: the module that is written in C."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "synosfs.host._atomic", ["synosfs/host/_atomic.c"], extra_compile_args=["-std=c11", "-Wall", "-Wextra"]
        )
    ]
)
