"""Run: one study × one variant; where its results lie, and whether they are still the results of its parameters.

Every step has a *key*: a digest of the parameters, input files and code that its result depends on, chained through the
steps before it. A result carries the key it was made under; under another key it is redone, never mixed in.
"""

import ast
import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib import disk
from lib.study import loading, params
from lib.study.params import Study
from lib.study.variants import Variant

LIB = Path(__file__).resolve().parents[1]
"""The library, whose code counts in the keys."""

CODE = {
    "finetune": ["tables", "tasks", "encoders/checkpoints", "finetune"],
    "corpus": [f"corpora/{name}" for name in ("sentences", "brown", "columns", "silver", "corpus")],
    "extract": ["encoders/checkpoints", "encoders/alignment", "encoders/activations"],
    "layers": ["probes/labels", "probes/linear", "probes/layers"],
    "neurons": ["probes/labels", "probes/linear", "neurons/rankings", "neurons/ablation"],
}
"""The modules whose code a step's result depends on."""

FIGURES_CODE = [f"results/{name}" for name in ("intervals", "summary", "tables", "claims")]
FIGURES_CODE += [f"figures/{name}" for name in ("style", "lessons", "comparisons")]

SNIPPETS = ("sentiment", "acceptability", "shuffled")
"""The tasks over the pinned movie snippets (``tasks.REGISTRY``, which takes long to import)."""

NOTEBOOKS = {
    "finetune": "01_finetune",
    "extract": "02_extract",
    "layers": "03_probe_layers",
    "neurons": "04_rank_neurons",
}


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
        return self.folder / "model"

    @property
    def layers(self) -> Path:
        return self.folder / "layers.parquet"

    @property
    def neurons(self) -> Path:
        return self.folder / "neurons.parquet"

    @property
    def ranking(self) -> Path:
        return self.folder / "ranking.npz"

    def activations(self, split: str) -> Path:
        return self.folder / "activations" / self.study.corpus.name / split

    def key(self, step: str) -> str:
        """Digest of all that the result of ``step`` depends on."""
        study, variant = self.study, self.variant
        if step == "finetune":
            data = study.task_data
            inputs: list[Any] = [variant.name, variant.task, checkpoint_digest(study), study.finetune]
            inputs += [study.encoder.max_pieces, data.model_dump(exclude={"own", "glue", "glue_revision"}), study.seed]
            inputs += _examples_of(study, variant.task or "")
        elif step == "extract":
            source = self.key("finetune") if variant.task else [checkpoint_digest(study), variant.name, study.seed]
            inputs = [source, corpus_key(study), study.encoder.pooling, study.encoder.max_pieces, study.properties]
        elif step == "layers":
            inputs = [self.key("extract"), study.probe, study.seed]
        elif step == "neurons":
            inputs = [self.key("extract"), study.probe, study.ranking, study.seed]
        else:
            raise KeyError(step)
        return digest(step, code_digest(*CODE[step]), *inputs)


def load(study: str, variant: str, size: str = "full", overrides: dict[str, Any] | None = None) -> Run:
    """The run of a variant of a study, all parameters validated (see ``loading.load``)."""
    return Run(loading.load(study, size, overrides), Variant.parse(variant))


def home() -> Path:
    """Where runs are written: ``runs/`` of the repository (tests: the folder in the environment variable RUNS)."""
    return (params.ROOT / (os.environ.get("RUNS") or "runs")).resolve()


def folder(study: Study) -> Path:
    """Where the runs of a study lie: ``runs/<study>``, or ``runs/<size>/<study>`` for a named reduction."""
    return home() / study.name if study.size == "full" else home() / study.size / study.name


def digest(*parts: Any) -> str:
    """Short SHA-256 over parameters: sections, lists, numbers, strings."""
    text = json.dumps(parts, sort_keys=True, default=lambda section: section.model_dump())
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@lru_cache
def code_digest(*modules: str) -> str:
    """Digest of library modules as Python reads them: comments, layout and docstrings do not count."""
    trees = []
    for module in modules:
        tree = ast.parse((LIB / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        trees.append(ast.dump(tree))
    return digest(trees)


@lru_cache
def pins() -> dict[str, dict[str, Any]]:
    """The pinned sources (``lib/sources.yaml``): name → registry, package, version, SHA-256 …"""
    return loading.read_yaml(LIB / "sources.yaml")


def _folder_digest(path: Path) -> str:
    """Digest of a checkpoint's files; its card and tables do not count."""
    counted = sorted(p for p in path.iterdir() if p.is_file() and p.suffix not in _NOTES)
    return digest([[p.name, disk.file_digest(p)] for p in counted])


_NOTES = (".md", ".csv")


def checkpoint_digest(study: Study) -> str:
    """What the checkpoint of a study is: the pin of a named source, the files of a folder, a hub id's revision."""
    name, local = study.encoder.checkpoint, params.ROOT / study.encoder.checkpoint
    if name in pins():
        return digest(pins()[name])
    return digest(name, _folder_digest(local) if local.is_dir() else study.encoder.revision)


def _examples_of(study: Study, task: str) -> list[Any]:
    """What the examples of a task depend on: the files of one's own, the pinned snippets, or the copy of GLUE."""
    data = study.task_data
    if own := data.own.get(task):
        return [own, *map(disk.file_digest, own.files.values())]
    if task in SNIPPETS:
        return [pins()["movie-snippets"]]
    files = sorted(p for p in (params.ROOT / data.glue / task).rglob("*") if p.is_file())
    return [[p.name, disk.file_digest(p)] for p in files] or [data.glue, data.glue_revision]


def corpus_key(study: Study) -> str:
    """Digest of all that the sentences and labels of a study's corpus depend on."""
    files = {split: disk.file_digest(name) for split, name in study.corpus.files.items()}
    used = [pins().get(study.corpus.source or ""), pins()["wordnet"] if "supersense" in study.properties else None]
    return digest(code_digest(*CODE["corpus"]), study.corpus, study.properties, study.seed, files, used)


def made(run: Run, step: str) -> bool:
    """Whether the result of a step is there and of the run's parameters (a store may be gone: it is made again)."""
    key = run.key(step)
    if step == "finetune":
        meta, weights = disk.read_meta(run.model), run.model / "model.safetensors"
        return meta.get("key") == key and weights.exists() and weights.stat().st_size == meta["bytes"]
    try:
        table = step == "extract" or bool(len(disk.read_table(run.layers if step == "layers" else run.neurons, key)))
    except disk.StaleResult:
        return False
    return table and (step != "neurons" or disk.archive_key(run.ranking) == key)


def notebook_digest(name: str) -> str:
    """Digest of a notebook's text and code."""
    cells = json.loads((params.ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return digest(["".join(c["source"]) for c in cells])


def _drawn(notebook: Path, wanted: list[Run]) -> bool:
    """Whether the figures of these runs and no others are there, by the parameters that ``lib/notebook.sh`` keeps."""
    given = (disk.read_json(notebook.with_suffix(".given")) or {}).get("variants", {})
    asked = {(study, name) for study, names in given.items() for name in names}
    tables = (notebook.parent / f"{name}.csv" for name in ("summary", "claims"))
    return asked == {(run.study.name, run.variant.name) for run in wanted} and all(t.exists() for t in tables)


def write_keys(wanted: list[Run], figures: str) -> None:
    """For Make: write each step's key beside its notebook, touching those that changed or whose result is not there.

    ``figures`` is the folder, below ``runs/``, of the notebook that draws the figures of all these runs.
    """
    keys: dict[Path, tuple[str, bool]] = {}
    for run in wanted:
        for step, notebook in NOTEBOOKS.items():
            if step != "finetune" or run.variant.task:
                keys[run.folder / f"{notebook}.key"] = (run.key(step), made(run, step))
    titles = sorted({run.study.title for run in wanted})
    drawn = [code_digest(*FIGURES_CODE), notebook_digest("05_figures"), titles]
    drawn += [
        disk.file_digest(table) for table in sorted(params.ROOT.glob("figures/*/*.csv"))
    ]  # the recorded ones it shows
    place = home() / figures / "05_figures.key"
    keys[place] = (digest(drawn, sorted(k for k, _ in keys.values())), _drawn(place, wanted))
    with disk.lock(home() / "keys"):
        for path, (key, whole) in keys.items():
            finished = path.with_suffix(".ipynb").exists()
            if not path.exists() or path.read_text() != key or (finished and not whole):
                with disk.being_made(path) as part:
                    part.write_text(key)
