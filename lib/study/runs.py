"""Run: one study × one variant; where its results lie, and whether they are still those of its parameters.

Every step has a *key*, a digest of the parameters, input files and code that its result depends on. A result carries
the key it was made under; under another key it is redone, never mixed in.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import disk
from lib.study import loading, params
from lib.study.params import Study
from lib.study.steps import STEPS
from lib.study.variants import Variant


@dataclass(frozen=True)
class Run:
    """One study × one variant."""

    study: Study
    variant: Variant

    @property
    def folder(self) -> Path:
        return folder(self.study) / self.variant.name

    @property
    def model(self) -> Path:
        """The fine-tuned encoder: trained once per encoder, variant and settings, whatever is probed on it."""
        encoder = Path(self.study.encoder.checkpoint).name
        return home() / "models" / encoder / self.variant.name / self.key("finetune")

    @property
    def layers(self) -> Path:
        return self.folder / "layers.parquet"

    @property
    def neurons(self) -> Path:
        return self.folder / "neurons.parquet"

    @property
    def ranking(self) -> Path:
        return self.folder / "ranking.npz"

    def activations(self, split: str, corpus: str | None = None) -> Path:
        """The store of a split of a corpus; by default that of the first property."""
        return self.folder / "activations" / (corpus or next(iter(self.study.corpora_in_use))) / split

    def notebook(self, step: str) -> Path:
        """The executed notebook of a step."""
        return self.folder / f"{STEPS[step].notebook}.ipynb"

    def key(self, step: str) -> str:
        """Digest of all that the result of ``step`` depends on."""
        return STEPS[step].key(self)


def load(study: str, variant: str, size: str = "full", overrides: dict[str, Any] | None = None) -> Run:
    """The run of a variant of a study, all parameters validated (see ``loading.load``)."""
    return Run(loading.load(study, size, overrides), Variant.parse(variant))


def home() -> Path:
    """Where runs are written: ``runs/`` of the repository (tests: the folder in the environment variable RUNS)."""
    return (params.ROOT / (os.environ.get("RUNS") or "runs")).resolve()


def folder(study: Study) -> Path:
    """Where the runs of a study lie: ``runs/<study>``, or ``runs/<size>/<study>`` for a named reduction."""
    return home() / study.name if study.size == "full" else home() / study.size / study.name


def is_current(run: Run, step: str) -> bool:
    """Whether the result of a step is there and of the run's parameters (a store may be gone: it is made again)."""
    key = run.key(step)
    if step == "finetune":
        return disk.read_meta(run.model).get("key") == key
    try:
        table = step == "extract" or bool(len(disk.read_table(run.layers if step == "layers" else run.neurons, key)))
    except disk.StaleResult:
        return False
    return table and (step != "neurons" or disk.archive_key(run.ranking) == key)
