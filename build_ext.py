"""Compile the kernels: by pip for wheels and editable installs, by hand in place.

``python build_ext.py`` leaves the extension beside its sources; what follows goes to
setuptools' ``build_ext``. What is compiled is said in ``pyproject.toml``; CFFI makes one
source more, between Python and the functions that ``kernels.h`` declares.
"""

import sys
from pathlib import Path

from cffi import FFI
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CONTRACT = Path(__file__).parent / "src/tunstack/_fastpath/kernels.h"


class BuildExt(build_ext):
    """``build_ext`` that has CFFI write what lies between Python and the kernels."""

    def build_extension(self, ext: Extension) -> None:
        """Compile one extension."""
        ffi = FFI()
        lines = CONTRACT.read_text().splitlines()
        ffi.cdef("\n".join(line for line in lines if not line.startswith("#")))
        ffi.set_source(ext.name, '#include "kernels.h"')
        binding = Path(self.build_temp, "_kernels.c")
        binding.parent.mkdir(parents=True, exist_ok=True)
        ffi.emit_c_code(str(binding))
        ext.sources = [*ext.sources, str(binding)]
        super().build_extension(ext)


if __name__ == "__main__":
    setup(script_args=["build_ext", "--inplace", *sys.argv[1:]])
