"""Steps: what is done with a run, in order. From the table ``STEPS`` follow keys, the plan and the rules for Make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.study import inputs
from lib.study.params import SPLITS, Study

if TYPE_CHECKING:
    from lib.study.runs import Run


@dataclass(frozen=True)
class Step:
    """One notebook, executed once per run.

    ``code`` : the modules on whose code the result depends. ``after`` : the steps of the same run whose results it
    reads. ``inputs`` : what else the result depends on. ``tables`` : the small files of the result, which are recorded.
    ``beside`` : variants whose result of this step its notebook shows too. ``lasts`` : whether the result is kept when
    all steps after it are done. ``stores`` : the folders below the result's that each have a manifest; None: the
    result's folder itself.
    """

    name: str
    notebook: str
    code: tuple[str, ...]
    after: tuple[str, ...]
    inputs: Callable[[Run], list[Any]]
    tables: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    lasts: bool = True
    stores: Callable[[Run], list[Path]] | None = None

    def applies(self, run: Run) -> bool:
        """Whether a run has this step: an encoder that is not fine-tuned needs no training, and where the neurons of
        random weights lie is of no claim."""
        lacking = {"finetune": run.variant.task is None, "neurons": run.variant.start == "random"}
        return not lacking.get(self.name, False)

    def folders(self, run: Run) -> list[Path]:
        """The folders with a manifest that the result of a run consists of."""
        return self.stores(run) if self.stores else [run.result(self.name)]

    def key(self, run: Run) -> str:
        """Digest of all that the step's result depends on, chained through the steps before it."""
        before = [STEPS[name].key(run) for name in self.after if STEPS[name].applies(run)]
        code, computed = inputs.code_key(self.name, self.code), inputs.arithmetic(run.study, run.isa)
        return inputs.digest(self.name, code, computed, before, *self.inputs(run))


def _training(run: Run) -> list[Any]:
    study, data = run.study, run.study.task_data
    settings = [inputs.checkpoint_digest(study), study.training(run.variant), study.encoder.max_subwords, study.seed]
    amounts = data.model_dump(exclude={"own", "glue", "glue_revision"})
    examples = inputs.examples_of(study, run.variant.task or "", run.recorded)
    return [run.variant.name, run.variant.share, *settings, amounts, *examples, *_precision(study)]


def _extraction(run: Run) -> list[Any]:
    study = run.study
    source = [] if run.variant.task else [inputs.checkpoint_digest(study), run.variant.name, study.seed]
    corpora = [inputs.corpus_digest(study, name, run.recorded) for name in study.corpora_in_use]
    return [source, corpora, study.encoder.pooling, study.encoder.max_subwords, study.properties, *_precision(study)]


def _precision(study: Study) -> list[str]:
    """Nothing for float32, in which all was computed before there was another."""
    return [] if study.precision == "float32" else [study.precision]


STEPS = {
    step.name: step
    for step in (
        Step("finetune", "01_finetune", ("tables", "tasks", "encoders/checkpoints", "finetune"), (), _training,
             tables=("curve.csv", "predictions.csv")),
        Step("extract", "02_extract", ("encoders/checkpoints", "encoders/alignment", "encoders/activations"),
             ("finetune",), _extraction, lasts=False, stores=lambda run: [
                 run.activations(split, corpus) for corpus in run.study.corpora_in_use for split in SPLITS
             ]),
        Step("layers", "03_probe_layers", ("probes/labels", "probes/linear", "probes/layers"),
             ("extract",), lambda run: [run.study.probe, run.study.seed],
             tables=("counts.parquet",), beside=("random",)),
        Step("neurons", "04_rank_neurons", ("probes/labels", "probes/linear", "neurons"),
             ("extract",), lambda run: [run.study.probe, run.study.ranking, run.study.seed],
             tables=("tests.parquet", "layers.parquet", "halves.parquet", "sets.parquet")),
    )
}  # fmt: skip
