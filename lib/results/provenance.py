"""Provenance: what computed, and how long it took."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version

import pandas as pd
import torch

from lib import surroundings
from lib.study.runs import Run
from lib.study.steps import STEPS


def times(wanted: Iterable[Run]) -> pd.DataFrame:
    """Seconds of each executed notebook of each run, from what papermill wrote into it."""
    rows = []
    for run in wanted:
        for step in STEPS.values():
            file = run.notebook(step.name)
            if file.exists():
                took = json.loads(file.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")
                rows.append(
                    {"study": run.study.name, "variant": run.variant.name, "step": step.notebook, "seconds": took}
                )
    return pd.DataFrame(rows, columns=["study", "variant", "step", "seconds"])


def versions() -> pd.DataFrame:
    """What computes here: the machine, Python, the packages that the numbers come from, and the variables of the shell
    that they may depend on; one row each."""
    packages = ["torch", "transformers", "tokenizers", "datasets", "numpy", "pandas", "scikit-learn", "nltk", "seaborn"]
    found = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "system": platform.system()}
    found |= {"instructions": torch.backends.cpu.get_cpu_capability(), "python": platform.python_version()}
    found |= {name: version(name) for name in packages} | surroundings.remaining()
    return pd.Series(found, name="version").to_frame()
