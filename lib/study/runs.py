"""Run: one study × one variant; where its results lie, and whether they belong to its parameters.

Every step has a *key*: a digest of the parameters, input files and code that its result depends on. A result is a
folder whose manifest carries its key; under another key it is computed again, never mixed in. A *recorded* run is one
of which the repository keeps the small tables, in ``results/``; it is read and never computed.
"""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib import disk, surroundings
from lib.study import loading, params
from lib.study.params import ParameterError, Study
from lib.study.steps import STEPS
from lib.study.variants import Variant

RECORDED = {"recorded": True}
"""The override by which a study has the parameters of recorded runs (``recorded`` in ``base.yaml``)."""


@dataclass(frozen=True)
class Run:
    """One study × one variant, computed in ``runs/`` or recorded in ``results/``."""

    study: Study
    variant: Variant
    recorded: bool = False

    @property
    def folder(self) -> Path:
        above = recorded(self.study.suite) / self.study.name if self.recorded else folder(self.study)
        return above / self.variant.name

    def result(self, step: str) -> Path:
        """The folder of a step's result (of the extraction: of its stores)."""
        return self.model if step == "finetune" and not self.recorded else self.folder / step

    @property
    def isa(self) -> str:
        """The ``ISA`` of this process; of a recorded run, the one that it was computed under."""
        facts = disk.read_json(self.result("layers") / "manifest.json") if self.recorded else None
        return (facts or {}).get("provenance", {}).get("isa", surroundings.isa())

    @property
    def model(self) -> Path:
        """The fine-tuned encoder: trained once per encoder, variant and settings, whatever is probed on it."""
        encoder = Path(self.study.encoder.checkpoint).name
        return home() / "models" / encoder / self.variant.name / self.key("finetune")

    def activations(self, split: str, corpus: str | None = None) -> Path:
        """The store of a split of a corpus; by default that of the first property."""
        return self.result("extract") / (corpus or next(iter(self.study.corpora_in_use))) / split

    def notebook(self, step: str) -> Path:
        """The executed notebook of a step."""
        return self.folder / f"{STEPS[step].notebook}.ipynb"

    def key(self, step: str) -> str:
        """Digest of all that the result of ``step`` depends on."""
        return STEPS[step].key(self)


def load(study: str, variant: str, preset: str = "full", overrides: dict[str, Any] | None = None) -> Run:
    """The run of a variant of a study, all parameters validated (see ``loading.load``)."""
    return Run(loading.load(study, preset, overrides), Variant.parse(variant))


def home() -> Path:
    """Where runs are written: ``runs/`` of the repository (tests: the folder in the environment variable RUNS)."""
    return (params.ROOT / (os.environ.get("RUNS") or "runs")).resolve()


def folder(study: Study) -> Path:
    """Where the runs of a study lie: ``runs/<study>``, or ``runs/<preset>/<study>`` for a named reduction."""
    return home() / study.name if study.preset == "full" else home() / study.preset / study.name


def recorded(suite: str) -> Path:
    """Where the recorded runs of a suite lie: ``results/<suite>``."""
    return params.ROOT / "results" / suite


def manifest(run: Run, step: str, folder: Path | None = None) -> dict[str, Any]:
    """The manifest of a step's result, or of one of its stores. Raises StaleResult unless it is complete and has the
    run's key."""
    folder = folder or run.result(step)
    content = disk.read_manifest(folder)
    if content.get("key") == run.key(step):
        return content
    why = "was computed with other parameters or code" if content else "is damaged or unfinished"
    made = f"SCALE={run.study.suite}'"
    command = f"'make record {made} with its task and seed, or delete it" if run.recorded else f"'make reproduce {made}"
    raise disk.StaleResult(
        f"{folder} {why if folder.exists() else 'is missing'}: "
        f"run {command if run.study.preset == 'full' else f'notebook {STEPS[step].notebook}'}"
    )


def is_current(run: Run, step: str) -> bool:
    """Whether a step's result is there, complete, and of the run's parameters and code (not if an input is missing)."""
    try:
        return all(manifest(run, step, folder) for folder in STEPS[step].folders(run))
    except (disk.StaleResult, ParameterError):
        return False


def ensure(run: Run, step: str, compute: Callable[[Path], dict[str, Any] | None]) -> Path:
    """The folder of a step's result, computed now unless it is current.

    ``compute`` : fills the empty folder that it is given, and returns facts for the manifest.

    Raises StaleResult if a recorded run is not current.
    """
    folder = run.result(step)
    if run.recorded:
        manifest(run, step)
        return folder
    with disk.lock(folder):
        if not is_current(run, step):
            with writing(run, step, folder) as (part, facts):
                facts |= compute(part) or {}
    return folder


@contextmanager
def writing(run: Run, step: str, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield an empty folder and a dictionary of facts. ``folder`` becomes the one, its manifest has the other, the key,
    the seconds that the block took and what computed it; all or nothing, as ``disk.atomic_write``."""
    import torch  # here: commands that compute nothing do not wait for it

    torch.set_num_threads(run.study.threads)
    begun, facts, key = time.perf_counter(), {}, run.key(step)
    with disk.atomic_write(folder) as part:
        part.mkdir()
        yield part, facts
        if run.key(step) != key:
            raise disk.StaleResult(f"{folder}: an input or the code changed while it was computed: run it again")
        facts |= {"key": key, "seconds": round(time.perf_counter() - begun, 1)}
        disk.write_manifest(part, facts | {"provenance": provenance()})


def record(run: Run, step: str) -> None:
    """Copy the small tables of a step's result into ``results/``, with its manifest. Raises StaleResult, and
    ParameterError for a result of other parameters or of other files than the pinned ones."""
    facts, target = manifest(run, step), replace(run, recorded=True).result(step)
    if facts["key"] != load(run.study.name, run.variant.name, overrides=RECORDED).key(step):
        raise ParameterError(f"{target}: only results of the study's own parameters are recorded, without overrides")
    if any(one.inputs(run) != one.inputs(replace(run, recorded=True)) for one in STEPS.values() if one.applies(run)):
        raise ParameterError(f"{target}: computed from other files than those that lib/unpackaged.yaml pins")
    with disk.lock(target), disk.atomic_write(target) as part:
        part.mkdir()
        for name in STEPS[step].tables:
            shutil.copy2(run.result(step) / name, part / name)
        disk.write_manifest(part, {name: fact for name, fact in facts.items() if name != "files"})


# What computes -------------------------------------------------------------------------------------------------------

PACKAGES = ["torch", "transformers", "tokenizers", "datasets", "numpy", "pandas", "scikit-learn", "nltk", "seaborn"]
"""The packages that numbers and figures come from."""


def provenance() -> dict[str, Any]:
    """The machine, the device that this process used, Python, the packages, the commit, and the shell's variables that
    results may depend on."""
    import torch  # here: commands that compute nothing do not wait for it

    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "processor": _processor(), "maker": maker(),
        "system": platform.system(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "isa": surroundings.isa(),
        "threads": torch.get_num_threads(),
        "device": _device(),
        "python": platform.python_version(), **{name: version(name) for name in PACKAGES},
        "commit": _commit(), **surroundings.remaining(),
    }  # fmt: skip


def _device() -> str:
    """The device that this process used: cpu, mps, or the name of a GPU."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() and torch.mps.current_allocated_memory() else "cpu"


def maker() -> str:
    """The maker of the processor as Linux names it (AuthenticAMD, GenuineIntel); unknown elsewhere."""
    try:
        found = re.search(r"(?m)^vendor_id\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else "unknown"


def _processor() -> str:
    """The processor's name, with family and model where the system gives them."""
    try:
        fields = dict(re.findall(r"(?m)^(model name|cpu family|model)\s*: (.*)$", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return platform.processor()
    return " ".join(filter(None, [fields.get("model name"), *(fields.get(k) for k in ("cpu family", "model"))]))


@lru_cache
def _commit() -> str:
    """The commit of the code, with ``+`` if files differ from it; empty outside a git repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=params.ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return ""
