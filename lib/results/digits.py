"""Digits: what runs computed, to the last digit, as digests: two machines that compute alike have the same.

``expected/digits.yaml`` has those of ``ISA=avx2`` for each maker of processors, ``expected/exact.yaml`` those of
``ISA=compatible``, which all have in common.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lib import disk, neurons, surroundings
from lib.study import inputs, loading, params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS

COUNTED = (".csv", ".npy", ".parquet", ".safetensors")
"""Endings of the files that count: weights, vectors and tables. Orders are read from their archive, whose bytes depend
on the library that packs it; the rest names versions."""


def of_step(run: Run, step: str) -> str:
    """Digest of the result of a step, which must be there."""
    listed = [disk.read_manifest(folder)["files"] for folder in STEPS[step].folders(run)]
    parts: list = [{n: digest for n, digest in files.items() if n.endswith(COUNTED)} for files in listed]
    if step == "neurons":
        parts += [ranked.order.tolist() for ranked in neurons.ensure_rankings(run).values()]
    return inputs.digest(parts)


def of_runs(wanted: Iterable[Run]) -> dict[str, str]:
    """``study: variant: step`` → digest, of all steps whose results last, run by run in the order of the steps."""
    return {
        f"{run.study.name}: {run.variant.name}: {step.name}": of_step(run, step.name)
        for run in wanted
        for step in STEPS.values()
        if step.lasts and step.applies(run)
    }


# Kept and compared -------------------------------------------------------------------------------------------------


def _place(wanted: Iterable[Run]) -> tuple[Path | None, str]:
    """The file of the digests that these runs should have, and whose they are in it; None if no digits are promised."""
    isa, by = surroundings.isa(), _computed_by(wanted)
    name = {"avx2": "digits", "compatible": "exact"}.get(isa)
    makers = {"x86-64"} if isa == "compatible" else {facts.get("maker", runs.maker()) for facts in by}
    alike = all(f["machine"].startswith("x86_64") and f.get("device", "cpu") == "cpu" and f["threads"] == 1 for f in by)
    if not (name and alike and len(makers) == 1):
        return None, ""
    return params.ROOT / "expected" / f"{name}.yaml", makers.pop()


def _computed_by(wanted: Iterable[Run]) -> list[dict[str, Any]]:
    """What computed each step of these runs whose results last: it may have been another machine than this one."""
    lasting = [(run, step.name) for run in wanted for step in STEPS.values() if step.lasts and step.applies(run)]
    return [runs.manifest(run, step)["provenance"] for run, step in lasting]


def _read(file: Path | None) -> dict[str, Any]:
    return loading.read_yaml(file) if file and file.exists() else {}


def compare(wanted: list[Run]) -> tuple[str, bool]:
    """Are the digits of these runs those that are kept? What there is to say, and whether all that are known agree."""
    file, whose = _place(wanted)
    if not file:
        how = f"ISA={surroundings.isa()}, and the devices, threads and makers that computed these runs"
        return f"digits: none are promised ({how}); the comparisons above count", False
    known, found = _read(file).get(whose, {}), of_runs(wanted)
    both = [name for name in found if name in known]
    other = [name for name in both if found[name] != known[name]]
    if not both:
        return f"digits: none are kept for {whose} processors in {file.name}; the comparisons above count", False
    beside = f", {len(found) - len(both)} more are not kept" if len(found) > len(both) else ""
    if other:
        return (
            f"digits: {len(both) - len(other)} of {len(both)} results are those kept for {whose} processors{beside}; "
            f"the first that differs is {other[0]}",
            False,
        )
    return f"digits: all {len(both)} results are equal to the last digit to those kept for {whose}{beside}", True


def keep(wanted: list[Run]) -> None:
    """For Make: keep the digests of these runs, beside those of others.

    Raises ParameterError where none are promised.
    """
    file, whose = _place(wanted)
    if not file:
        raise params.ParameterError("digits are promised, and kept, for ISA=avx2 or EXACT=1 on one thread of an x86-64")
    kept = _read(file)
    kept[whose] = kept.get(whose, {}) | of_runs(wanted)
    head = "# Digests of results, to the last digit, by maker of the processor. Written by `make digits`.\n"
    with disk.atomic_write(file) as part:
        part.write_text(head + yaml.safe_dump(kept, sort_keys=False, width=120), encoding="utf-8")
    print(f"kept for {whose} in {file.relative_to(params.ROOT)}")
