"""Certify: does changed code give the same results? Then what was recorded with the old code stays current.

The key of a result holds the *version* of its step as long as the step's code is the one that ``study/certified.yaml``
names, and the code itself under any other: a change makes results stale until it has been certified. To certify,
the same small study is computed by the working tree and by a commit whose code is certified, on the same machine. Steps
with equal results keep their version under the new code; the others, and those after them, get the next.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lib import corpora, disk, finetune, neurons, probes
from lib.encoders import activations
from lib.results import digits
from lib.study import inputs, params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS

RUNS = [
    *(("bert-mini", variant) for variant in ("pretrained", "random", "sentiment-s1")),
    ("xlnet-mini-raw", "pretrained"),
]
COMPUTE: dict[str, Callable[[Run], object]] = {
    "finetune": finetune.ensure, "extract": activations.ensure, "layers": probes.ensure_layer_counts,
    "neurons": neurons.ensure_tests,
}  # fmt: skip

CODE = {"corpus": inputs.CORPUS_CODE} | {step.name: step.code for step in STEPS.values()}


def results() -> dict[str, str]:
    """Step → digest of its results in ``RUNS`` at the preset ``lesson``, computed now (a minute or two)."""
    found: dict[str, list[Any]] = {step: [] for step in CODE}
    for study, variant in RUNS:
        run = runs.load(study, variant, "lesson", {"device": "cpu"})
        found["corpus"] += [table.astype(str).to_csv() for table in corpora.load(run.study).values()]
        for step in (step for step in STEPS.values() if step.applies(run)):
            COMPUTE[step.name](run)
            found[step.name].append(digits.of_step(run, step.name))
    return {step: inputs.digest(parts) for step, parts in found.items()}


def results_of(tree: Path) -> tuple[list[str], dict[str, str]]:
    """``changed`` and ``results`` of a checkout, in a process and a folder of its own. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"PYTHONPATH": str(tree), "RUNS": folder, "DATA": str(params.ROOT / "data")}
        code = "import json; from lib import certify as c; print(json.dumps([c.changed(), c.results()]))"
        output = subprocess.check_output([sys.executable, "-c", code], cwd=tree, env=environ, text=True)
    return json.loads(output.splitlines()[-1])


def changed() -> list[str]:
    """The steps whose code is not the certified one."""
    known = inputs.certified()
    return [step for step, modules in CODE.items() if known.get(step, {}).get("code") != inputs.code_digest(*modules)]


def write(versions: dict[str, str]) -> None:
    """Certify the code as it is, with these versions of steps' results, and those of before for all other steps."""
    known = {step: entry["version"] for step, entry in inputs.certified().items()} | versions
    entries = {
        step: {"version": known.get(step, 1), "code": inputs.code_digest(*modules)} for step, modules in CODE.items()
    }
    head = "# The version of each step's results and the code that gives them. Written by `python -m lib certify`.\n"
    with disk.atomic_write(inputs.LIB / "study" / "certified.yaml") as part:
        part.write_text(head + yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")


def certify(commit: str) -> bool:
    """For contributors: compare the working tree with a commit, print and write down which steps give other results.
    Returns whether none does. Raises ParameterError if the commit's own code is not certified."""
    if not changed():
        print("nothing to certify: the code is the one that was certified")
        return True
    with tempfile.TemporaryDirectory() as tree:
        command = ["git", f"--work-tree={tree}", "checkout", commit, "--", "."]
        subprocess.run(command, cwd=params.ROOT, check=True, env=os.environ | {"GIT_INDEX_FILE": f"{tree}/.index"})
        (uncertified, before), (_, now) = results_of(Path(tree)), results_of(params.ROOT)
    if uncertified:
        raise params.ParameterError(
            f"the code of {commit} is not certified ({', '.join(uncertified)}): name one that is"
        )
    other = {step: now[step] for step in CODE if before.get(step) != now[step]}
    write(other)
    for step in CODE:
        print(f"{step}: {'other results: a new version' if step in other else 'the same results'}")
    return not other
