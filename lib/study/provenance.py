"""Provenance: which machine, which packages and which commit computed a result."""

import os
import platform
import re
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib import surroundings
from lib.study import params

PACKAGES = ["torch", "transformers", "tokenizers", "datasets", "numpy", "pandas", "scikit-learn", "nltk", "seaborn"]
"""The packages that numbers and figures come from."""


def describe() -> dict[str, Any]:
    """The machine, Python, the packages, the commit, and the shell's variables that results may depend on."""
    import torch  # here: commands that compute nothing do not wait for it

    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    return {
        "machine": cores, "processor": _processor(), "system": platform.system(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "python": platform.python_version(), **{name: version(name) for name in PACKAGES},
        "commit": _commit(), **surroundings.remaining(),
    }  # fmt: skip


def _processor() -> str:
    """The processor's name, with family and model where the system gives them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", lines, re.MULTILINE))
    return " ".join(filter(None, [fields.get("model name"), *(fields.get(k) for k in ("cpu family", "model"))]))


@lru_cache
def _commit() -> str:
    """The commit of the code, with ``+`` if files differ from it; empty outside a git repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=params.ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return ""
