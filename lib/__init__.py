"""Shared library of the notebooks: what fine-tuning does to the grammar inside a pre-trained encoder.

From the ground up, each imports only from what stands before it: ``surroundings``, ``disk``, ``study`` (parameters,
variants, runs), ``sources``, ``hub``, ``corpora``, ``tables``, ``tasks``, ``encoders`` (checkpoints, alignment,
activations), ``finetune``, ``probes``, ``neurons``, ``results``, ``figures``; beside them ``pretraining``.
"""

import importlib
from types import ModuleType

from lib import surroundings

surroundings.settle()  # before torch is imported, which reads its variables only then: a notebook opened by hand too

OFFERED = {
    "activations": "lib.encoders.activations", "claims": "lib.results.claims", "comparisons": "lib.figures.comparisons",
    "effects": "lib.figures.effects", "paper": "lib.results.paper",
    "loading": "lib.study.loading", "report": "lib.figures.report", "runs": "lib.study.runs",
    "verify": "lib.results.verify",
    **{name: f"lib.pretraining.{name}" for name in ("minis", "objectives", "text", "training")},
}  # fmt: skip
"""Modules that a notebook imports from ``lib`` by their own names; each is loaded when it is asked for."""


def __getattr__(name: str) -> ModuleType:
    if name not in OFFERED:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    return importlib.import_module(OFFERED[name])
