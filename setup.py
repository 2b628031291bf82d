"""What pyproject.toml cannot say: the modules and the program that are written in C."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-Wall", "-Wextra"]


class Program(Extension):
    """A program that is run, where an extension is a module that is imported."""


class Build(build_ext):
    """Builds them, and puts a program where a module of its name would be."""

    def get_ext_filename(self, fullname: str) -> str:
        if isinstance(getattr(self, "ext_map", {}).get(fullname), Program):
            return str(Path(*fullname.split(".")))
        return super().get_ext_filename(fullname)

    def build_extension(self, ext: Extension) -> None:
        if not isinstance(ext, Program):
            super().build_extension(ext)
            return
        objects = self.compiler.compile(ext.sources, output_dir=self.build_temp, extra_postargs=ext.extra_compile_args)
        path = Path(self.get_ext_fullpath(ext.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Static: a fork of it costs half as much.
        self.compiler.link_executable(objects, str(path), extra_postargs=["-static"])


setup(
    ext_modules=[
        Extension("synosfs.host._atomic", ["synosfs/host/_atomic.c"], extra_compile_args=FLAGS),
        Extension("synosfs.host._msgwatch", ["synosfs/host/_msgwatch.c"], extra_compile_args=FLAGS),
        Program(
            "synosfs.host.fork_program",
            ["synosfs/host/fork_program.c", "synosfs/host/heritage.c"],
            extra_compile_args=FLAGS,
        ),
    ],
    cmdclass={"build_ext": Build},
)
