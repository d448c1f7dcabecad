"""Surroundings: nothing that runs here takes a variable from the shell, or from a launcher, that it does not name.

``surroundings.mk`` lists the variables that are removed, why, and the variables that are set instead. Make removes them
for all that it starts. A launcher brings its own variables, so this module removes them again where a step begins:
``python -I lib/surroundings.py [NAME=VALUE ...] ARGUMENTS`` becomes ``python ARGUMENTS`` in a clean environment, in
which Python itself starts. ``lib`` removes them when it is imported.

Needs the standard library only.
"""

from __future__ import annotations  # read by whatever Python a user names

import os
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

SHOWN = (
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_THREADING_LAYER", "KMP_DUPLICATE_LIB_OK",
    "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "MIOPEN_%",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)  # fmt: skip
"""The variables that are left to the user although results may depend on them."""


def _among(name: str, patterns: list[str] | tuple[str, ...]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("%") else name == p for p in patterns)


def clean(environ: MutableMapping[str, str] = os.environ, patterns: list[str] = REMOVED) -> list[str]:
    """Remove the variables that match ``patterns``, but for ``KEPT`` and ``SET``. Returns the names of those removed.

    It cannot undo what a library has read already: clean before you import the library.
    """
    removed = sorted(n for n in environ if _among(n, patterns) and not _among(n, KEPT) and n not in SET)
    for name in removed:
        del environ[name]
    return removed


def remaining(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of ``SHOWN`` that are set."""
    return {name: environ[name] for name in sorted(environ) if _among(name, SHOWN)}


def start(arguments: list[str]) -> None:
    """Become Python with these arguments, after ``NAME=VALUE`` for more variables, in a clean environment."""
    environ = dict(os.environ)
    if removed := clean(environ, [*REMOVED, *REMOVED_AT_START]):
        print("not used here, although set:", " ".join(removed), flush=True)
    environ |= {**SET, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    while arguments and re.match(r"\w+=", arguments[0]):
        environ.update([arguments.pop(0).split("=", 1)])
    os.execve(sys.executable, [sys.executable, *arguments], environ)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    start(sys.argv[1:])
