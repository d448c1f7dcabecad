"""Surroundings: nothing that runs here takes a variable from the shell, or from a launcher, that it does not name.

``surroundings.mk`` lists the variables that are removed, why, and the variables that are set instead. Make removes them
for all that it starts. A launcher brings its own variables, so this module removes them again where a step begins:
``python -I lib/surroundings.py [NAME=VALUE ...] ARGUMENTS`` becomes ``python ARGUMENTS`` in a clean environment, in
which Python itself starts. ``lib`` does the same when it is imported, unless torch has read them already.

Needs the standard library only.
"""

from __future__ import annotations  # read by whatever Python a user names

import os
import platform
import re
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_LISTS = re.findall(
    r"^(\w+) \+= (.*)$", Path(__file__).resolve().with_suffix(".mk").read_text(encoding="utf-8"), re.MULTILINE
)


def _listed(name: str) -> list[str]:
    return [word for title, words in _LISTS if title == name for word in words.split()]


REMOVED, KEPT, REMOVED_AT_START = (_listed(name) for name in ("REMOVED", "KEPT", "REMOVED_AT_START"))
SET = dict(pair.split("=", 1) for pair in _listed("SET"))

ISAS = ("avx2", "compatible", "native")
"""How numbers are computed: the values of the variable ``ISA``, the first if there is none."""


def arithmetic(isa: str) -> dict[str, str]:
    """The variables that make this machine compute as ``isa`` says; none on a processor that is no x86-64 with AVX2.

    Raises ValueError for another name.
    """
    if isa not in ISAS:
        raise ValueError(f"ISA={isa}: write one of {', '.join(ISAS)}")
    try:
        able = re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text())
    except OSError:  # macOS
        able = True
    return dict(pair.split("=", 1) for pair in _listed(f"SET_{isa}_{platform.machine()}") if able)


SHOWN = (
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_THREADING_LAYER", "KMP_DUPLICATE_LIB_OK",
    "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "MIOPEN_%",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)  # fmt: skip
"""The variables that are left to the user although results may depend on them."""


def _among(name: str, patterns: list[str] | tuple[str, ...]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("%") else name == p for p in patterns)


def isa(environ: Mapping[str, str] = os.environ) -> str:
    """How an environment says that numbers are computed."""
    return environ.get("ISA") or ISAS[0]


def settle(environ: MutableMapping[str, str] = os.environ) -> str:
    """Clean this process, and set how it computes. Returns that ``ISA``: native if torch has been imported already,
    with other variables."""
    wanted = arithmetic(isa(environ))
    if "torch" in sys.modules and {name: environ.get(name) for name in wanted} != wanted:
        environ["ISA"], wanted = "native", arithmetic("native")
    clean(environ)
    environ |= wanted
    return isa(environ)


def clean(environ: MutableMapping[str, str] = os.environ, patterns: list[str] = REMOVED) -> list[str]:
    """Remove the variables that match ``patterns``, but for ``KEPT``, ``SET``, and those of ``ISA`` that are as it
    says. Returns the names of those removed.

    It cannot undo what a library has read already: clean before you import the library.
    """
    own = dict.fromkeys(SET) | arithmetic(isa(environ))
    stays = {name for name in own if own[name] in (None, environ.get(name))}
    removed = sorted(n for n in environ if _among(n, patterns) and not _among(n, KEPT) and n not in stays)
    for name in removed:
        del environ[name]
    return removed


def remaining(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of ``SHOWN`` that are set."""
    return {name: environ[name] for name in sorted(environ) if _among(name, SHOWN)}


def start(arguments: list[str]) -> None:
    """Become Python with these arguments, after ``NAME=VALUE`` for more variables, in a clean environment."""
    given = {}
    while arguments and re.match(r"\w+=", arguments[0]):
        given.update([arguments.pop(0).split("=", 1)])
    environ = os.environ | given
    if removed := clean(environ, [*REMOVED, *REMOVED_AT_START]):
        print("not used here, although set:", " ".join(removed), flush=True)
    root = Path(__file__).resolve().parents[1]
    environ |= {**SET, "PYTHONPATH": str(root), **given, **arithmetic(isa(environ))}
    os.execve(sys.executable, [sys.executable, *arguments], environ)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    start(sys.argv[1:])
