"""Compiling a kernel for a GPU that is not there, and reading what the compiler made of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels._rows_triton import FUSED

__all__ = ["ARCHITECTURES", "Case", "Compiled", "compile_case"]

# Compute capability and shared memory that a program may have, bytes (CUDA C++ guide, table 30).
ARCHITECTURES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_ROWS = ("stride_xb", "stride_wl", "num_features")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)")


@dataclass(frozen=True)
class Case:
    """A kernel as a launcher would start it.

    Attributes:
        types: of the arguments that are not constants, by name, as Triton writes them.
        constants: by name.
    """

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def reads_rows(self) -> bool:
        """Whether the length of a row of features or weights is among its arguments."""
        return "num_features" in self.kernel.arg_names

    def with_constants(self, **constants: Any) -> Case:
        """The same with other constants."""
        return replace(self, constants=self.constants | constants)


@dataclass(frozen=True)
class Compiled:
    """Registers a thread, bytes of stack and local memory a thread, of shared memory a program."""

    registers: int
    spilled_bytes: int
    shared_bytes: int


def compile_case(case: Case, capability: int, directory: Path, *, aligned_rows: bool) -> Compiled:
    """Compile for a capability, with pointers aligned to 16 bytes, as torch allocates.

    Args:
        aligned_rows: the number of features, and with it rows, is a multiple of 16, which Triton
            finds out at a launch and compiles for: loads are wide, and several under way.
    """
    signature = {
        name: "constexpr" if name in case.constants else case.types[name]
        for name in case.kernel.arg_names
    }
    hints = {
        (position,): [["tt.divisibility", 16]]
        for position, name in enumerate(case.kernel.arg_names)
        if signature[name].startswith("*") or (aligned_rows and name in _ROWS)
    }
    source = ASTSource(case.kernel, signature, constexprs=case.constants, attrs=hints)
    made = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options=FUSED | case.options
    )
    binary = directory / "kernel.cubin"
    binary.write_bytes(made.asm["cubin"])
    usage = subprocess.run(
        [_CUOBJDUMP, "--dump-resource-usage", binary], capture_output=True, text=True, check=True
    ).stdout
    found = _USAGE.search(usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    return Compiled(registers, stack + local, made.metadata.shared)
