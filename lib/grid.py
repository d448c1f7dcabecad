"""Grid: the runs that a command asks for; checked and fetched before any work, and what is to do, as rules for Make."""

import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lib import corpora, disk, encoders, forecast, notebook, results, sources, surroundings, tasks, unpackaged
from lib.corpora import CorpusError
from lib.encoders import EncoderError
from lib.results import verify
from lib.sources import SourceError
from lib.study import inputs, loading, params, runs
from lib.study.params import ParameterError, Study, nearest
from lib.study.runs import Run
from lib.study.steps import STEPS, Step
from lib.study.variants import Variant
from lib.tasks import TaskError

FIGURES = "05_figures"

SEEN_WITHIN = 60
"""Seconds for which a finished result may stay unseen: a network file system remembers so long that there was none."""

FIGURES_CODE = [
    "results/summary",
    "results/tables",
    "results/evidence",
    "results/claims",
    "results/paper",
    "figures/style",
    "figures/lessons",
    "figures/comparisons",
    "figures/effects",
]


def selected(
    suite: str, studies: Sequence[str], tasks: Sequence[str], seeds: Sequence[int], overrides: dict[str, Any]
) -> list[Run]:
    """The runs of these studies (none named: all of the suite): pretrained, random, and each condition with each seed.

    ``tasks`` : with an amount where it is not all. No tasks, no ``seeds`` named: those of each study.

    Raises ParameterError for what cannot be used (see ``loading.load``), and if there is no such study, or all of them
    are of another suite.
    """
    if not studies and (problems := [*loading.problems(suite)]):
        raise ParameterError("\n".join(problems))
    others = {its_suite for name, its_suite in loading.studies().items() if name in studies}
    if others and suite not in others:
        raise ParameterError(f"STUDIES={' '.join(studies)}: not of the suite {suite}; add SCALE={min(others)}")
    found = []
    for name in dict.fromkeys(studies) or [n for n, its_suite in loading.studies().items() if its_suite == suite]:
        study = loading.load(name, "full", overrides)
        tuned = [Variant.parse(task, seed) for task in tasks or study.tasks for seed in seeds or study.seeds]
        variants = dict.fromkeys([Variant("pretrained"), Variant("random"), *tuned])
        found += [Run(study, variant) for variant in variants]
    return found


def check(wanted: Iterable[Run]) -> None:
    """Raise ParameterError for a task or a source that is not known, with the nearest name."""
    for run in wanted:
        if run.variant.task:
            tasks.task(run.study, run.variant.task)
        for source in run.study.sources - set(sources.SOURCES):
            raise ParameterError(f"corpus.source: there is no source '{source}'{nearest(source, sources.SOURCES)}")


def fetch(wanted: list[Run]) -> None:
    """Get all that the steps to do need, and try it: sources, encoders, the data of tasks, corpora.

    Raises
    ------
    SourceError : one list of all that cannot be had or used, each with what to do.
    """
    probing = {run.study.name: run.study for run in wanted if {step.name for step in to_do(run)} - {"finetune"}}
    training = [run for run in wanted if run.variant.task and not runs.is_current(run, "finetune")]
    needs = _needs(probing.values(), training)
    lacking = unpackaged.lacking(needs)
    problems = unpackaged.told(lacking, wanted[0].study.suite if wanted else "") + unpackaged.wrong(needs)
    problems += _got(wanted, training, lacking)
    for study in probing.values():
        known = [name for name, (of, _) in study.corpora_in_use.items() if not {*unpackaged.of_corpus(of)} & {*lacking}]
        problems += _problems(known, lambda name, study=study: inputs.corpus_digest(study, name))
    if not problems:
        elsewhere = any(value and re.fullmatch("LAUNCH(_0[1-9]_.*)?", name) for name, value in os.environ.items())
        problems = _problems(probing.values(), lambda study: encoders.check(study, elsewhere))
        problems += _problems(probing.values(), corpora.check)
        problems += _problems({run.study.name: run.study for run in training}.values(), encoders.head)
        if not elsewhere:
            problems += _problems({run.study.name: run.study for run in training}.values(), _trains_here)
        dropping = {(run.study.name, run.variant.dropped): run.study for run in training if run.variant.dropped}
        problems += _problems(dropping.items(), _drop)
        problems += _problems([run for run in training if run.variant.checkpoint], _stop)
    if problems:
        told = [*dict.fromkeys(problems), "Nothing was started. Fix it, then type the same command again."]
        raise SourceError("\n\n".join(told))


def get_data(wanted: list[Run], suite: str, mirror: str) -> None:
    """For Make: get all data and encoders of these runs, whether or not they are done, and say which could be better.

    ``mirror`` : a folder that has copies of what no package registry has; relative to the repository.

    Raises SourceError as ``fetch`` does.
    """
    if mirror and not (params.ROOT / mirror).is_dir():
        raise ParameterError(f"MIRROR={mirror}: there is no folder {(params.ROOT / mirror).resolve()}")
    problems = _problems(sources.needed(), _fetched)
    studies = {run.study.name: run.study for run in wanted}
    training = [run for run in wanted if run.variant.task]
    needs = _needs(studies.values(), training)
    folder = (params.ROOT / mirror).resolve() if mirror else None
    problems += unpackaged.provide(needs, suite, folder)
    wished = unpackaged.of(set().union(*map(loading.wished, studies)))
    better = {name: files for name, files in wished.items() if name not in needs}
    problems += unpackaged.provide(unpackaged.in_mirror(better, folder), suite, folder)
    problems += _got(wanted, training, unpackaged.lacking(needs))
    on_glue = {run.study.name: run.study.task_data.glue for run in training if run.variant.task in tasks.GLUE}
    copied = unpackaged.UNPACKAGED["glue"].folder
    others = [name for name, glue in on_glue.items() if glue != copied and not (params.ROOT / glue).is_dir()]
    if problems and others and mirror and (params.ROOT / mirror / "glue").is_dir():
        problems.append(
            f"MIRROR={mirror} has a copy of GLUE, but these studies read it from the model hub: {', '.join(others)}. "
            "To read the copy, write 'task_data: {glue: data/glue}' into their files in params/"
        )
    for text in unpackaged.told(unpackaged.lacking(better), suite):
        print(f"Not needed, but what the paper has; where you have the licence:\n{text}")
    if problems:
        raise SourceError("\n\n".join(dict.fromkeys(problems)))


def _needs(studies: Iterable[Study], training: list[Run]) -> unpackaged.Needs:
    """What of the data that no registry has these studies probe, and these runs are trained on."""
    trained = [unpackaged.trained_on(run.study, run.variant.task or "") for run in training]
    return unpackaged.joined([*map(unpackaged.needed, studies), *trained])


def _got(wanted: list[Run], training: list[Run], lacking: unpackaged.Needs) -> list[str]:
    """Fetch sources, encoders and the data of tasks, but for what is ``lacking``; what cannot be had."""
    reading = {
        (run.variant.task, run.variant.examples, repr(run.study.task_data)): run
        for run in training if not _from_snippets(run)
    }  # fmt: skip
    checkpoints = {(s.encoder.checkpoint, s.encoder.revision): s for s in (run.study for run in wanted)}
    problems = _problems(sorted(set().union(*map(_sources, wanted))), _fetched)
    problems += _problems([s for (name, _), s in checkpoints.items() if name not in sources.SOURCES], _located)
    found = [run for run in reading.values() if not {*lacking} & {*_needs([], [run])}]
    return problems + _problems(found, lambda run: tasks.load(run.study, run.variant))


def _fetched(name: str) -> None:
    print("OK", name, sources.fetch(name))


def _located(study: Study) -> None:
    """Fetch an encoder; refuse one of the hub that may be another tomorrow: its results would pass for this one's."""
    encoder, folder = study.encoder, Path(encoders.locate(study))
    if not (params.ROOT / encoder.checkpoint).is_dir() and encoder.revision != folder.name:
        raise ParameterError(
            f"study '{study.name}', encoder.revision: what '{encoder.checkpoint}' is on the model hub may change, and "
            f"the results of one are not those of another. Name the commit: 'revision: {folder.name}' is what is here"
        )


def _from_snippets(run: Run) -> bool:
    return run.variant.task in tasks.REGISTRY


def _trains_here(study: Study) -> None:
    if ":" in study.device:  # of several GPUs
        from lib import finetune  # here: Trainer takes seconds to import

        finetune.device(study)


def _drop(pruned: tuple[tuple[str, tuple[str, int]], Study]) -> None:
    (_, dropped), study = pruned
    encoders.without_layers(encoders.classifier(study, []), *dropped)


def _stop(run: Run) -> None:
    tasks.updates(run.study, run.variant, len(tasks.load(run.study, run.variant)["train"]))


def _sources(run: Run) -> set[str]:
    """The named sources that a run needs."""
    study = run.study
    named = {study.encoder.checkpoint} & set(sources.SOURCES)
    return named | study.sources | ({"movie-snippets"} if run.variant.task else set())  # its notebook shows them


def _problems(wanted: Iterable[Any], get: Callable[[Any], Any]) -> list[str]:
    """What is wrong with these: a text each, but one for those that have the same ``SourceError.reason``."""
    found: dict[str, dict[str, None]] = {}  # how texts end → how those begin
    for one in wanted:
        try:
            get(one)
        except (SourceError, EncoderError, TaskError, CorpusError, ParameterError) as error:
            reason = getattr(error if isinstance(error, SourceError) else error.__cause__, "reason", "")
            before, reason, after = str(error).rpartition(reason) if reason else ("", "", str(error))
            found.setdefault(reason + after, {})[before] = None
    return [
        "\n".join([*(text.removesuffix(": ") for text in before), end]) if len(before) > 1 else next(iter(before)) + end
        for end, before in found.items()
    ]


def to_do(run: Run, recording: bool = False) -> list[Step]:
    """The steps of a run whose results are not current, in order; those that do not last only if one after them is.

    ``recording`` : a run counts as done if all its tables are recorded; of one that is not, no step does, so that its
    tables are of one training.
    """
    if recording and results.is_recorded(run):
        return []
    found: list[Step] = []
    for step in reversed(STEPS.values()):
        if step.applies(run):
            current, shown = runs.is_current(run, step.name), run.notebook(step.name).exists()
            read = any(step.name in later.after for later in found)
            if not (current and shown) if step.lasts else read and not current:
                found.append(step)
    return found[::-1]


def figures_key(wanted: list[Run]) -> str:
    """Digest of all that the figures of these runs depend on, also the recorded tables, the paper's numbers and the
    same encoders under another probe, which they show."""
    lesson = json.loads((params.ROOT / "notebooks" / f"{FIGURES}.ipynb").read_text(encoding="utf-8"))
    drawn = [inputs.code_digest(*FIGURES_CODE), ["".join(cell["source"]) for cell in lesson["cells"]]]
    beside = [*params.ROOT.glob("figures/*/*.csv"), *params.ROOT.glob("paper/*.*")]
    recorded = [disk.file_digest(file) for file in sorted(beside)]
    keys = [
        [run.study.name, run.study.title, run.variant.name, run.key(step)] for run, step in results.tabled_steps(wanted)
    ]
    known = {run.study.name for run in wanted}
    others = {study for pair in loading.twins(known)[0].items() for study in pair} - known
    twins = [Run(loading.load(study), Variant("pretrained")) for study in sorted(others)]
    shown = [disk.read_json(run.result(step) / "manifest.json") or {} for run, step in results.tabled_steps(twins)]
    return inputs.digest(drawn, recorded, sorted(keys), [made.get("key") for made in shown])


def figures_are_current(wanted: list[Run], suite: str) -> bool:
    """Whether the figures of these runs and no others are there."""
    folder = results.figures_folder(suite)
    metadata = (disk.read_json(folder / f"{FIGURES}.ipynb") or {}).get("metadata", {})
    tables = all((folder / f"{name}.csv").exists() for name in ("summary", "claims"))
    return tables and metadata.get("lib", {}).get("key") == figures_key(wanted)


def plan(doing: forecast.Doing, suite: str) -> list[str]:
    """The steps to do, as the names of executed notebooks below ``runs/``."""
    found = [f"{run.study.name}/{run.variant.name}/{step.notebook}" for run, steps in doing for step in steps]
    drawn = not found and figures_are_current([run for run, _ in doing], suite)
    return found + ([] if drawn else [f"figures/{suite}/{FIGURES}"])


LISTED = 40
"""How many steps ``make plan`` lists, of a longer list."""


def print_plan(wanted: list[Run], suite: str, jobs: int, keep: bool) -> None:
    """For Make: print what ``make reproduce`` would run, ``jobs`` runs at a time, and what that takes (``keep`` : with
    the stores, which then stay). Nothing is fetched, and no data need to be here."""
    doing = [(run, to_do(run)) for run in wanted]
    if not (names := plan(doing, suite)):
        print("nothing to do: every result is there")
        return
    print(f"{forecast.told(doing, suite, jobs, keep)}\n\nto run:")
    print("\n".join(f"  {name}" for name in (names if len(names) <= LISTED else [*names[: LISTED - 1], names[-1]])))
    if len(names) > LISTED:
        print(f"... of {len(names)} steps, the first {LISTED - 1} and the last are shown")


def print_rules(wanted: list[Run], suite: str, overrides: dict[str, Any], keep: bool, dry: bool, record: bool) -> None:
    """For Make: fetch what the steps need (unless ``dry``), then print the steps as rules, and nothing else.

    Raises ParameterError for other properties than a study's own, another number of threads, another size or another
    ``ISA``, if they are to be recorded. bfloat16 is recorded under ``ISA=native`` too, which processors need for it.
    """
    low = {run.study.precision for run in wanted} == {"bfloat16"}
    own = {
        "PROPERTIES": "properties" in overrides,
        "THREADS": "threads" in overrides,
        "SIZE": "size" in overrides,
        "ISA": surroundings.isa() not in (("avx2", "native") if low else ("avx2",)),
    }
    for name in (name for name, given in own.items() if given and record):
        raise ParameterError(f"make record takes no {name}: what is recorded are the studies' own, under ISA=avx2")
    if not dry:
        with contextlib.redirect_stdout(sys.stderr):
            fetch([run for run in wanted if not (record and results.is_recorded(run))])
            with disk.lock(results.figures_folder(suite)):  # where there are no locks, this refuses, before any work
                pass
            _discard(wanted, suite, record)
    print(rules(wanted, suite, overrides, keep, record))


def _discard(wanted: list[Run], suite: str, recording: bool) -> None:
    """Delete the executed notebooks of what is to do: one that is there when its step has ended was made by it."""
    old = [run.notebook(step.name) for run in wanted for step in to_do(run, recording)]
    if not recording and (old or not figures_are_current(wanted, suite)):
        old.append(results.figures_folder(suite) / f"{FIGURES}.ipynb")
    for executed in old:
        executed.unlink(missing_ok=True)


def rules(wanted: list[Run], suite: str, overrides: dict[str, Any], keep: bool, recording: bool = False) -> str:
    """The steps to do as a makefile: one target per step of a run.

    A step waits for those that it reads, and for the same step of the variants that its notebook shows beside it. A
    result that does not last is deleted when all steps that read it are done, unless ``keep``. When ``recording``, each
    step records its tables as it finishes, and the figures are left to ``make figures``. Before each command stands
    the environment's ``LAUNCH_<notebook>``, or else ``LAUNCH``. Whatever code a launcher returns, a step without its
    executed notebook has failed.
    """
    doing = {(run.study.name, run.variant.name): (run, to_do(run, recording)) for run in wanted}
    left, now = sum(len(steps) for _, steps in doing.values()), time.time()
    draws = not recording and (left > 0 or not figures_are_current(wanted, suite))
    options = f"--overrides {shlex.quote(json.dumps(overrides))} --since {now:.2f} --of {left + draws}"
    seen = "test -f $@ && exit; test $$code = 0 || exit $$code"
    seen += f"; for second in {{1..{SEEN_WITHIN}}}; do sleep 1; test -f $@ && exit; done"
    missing = "echo 'FAILED: $@ is not there, although its job has ended; the same command tries it again'; exit 1"
    lines, isa = ["SHELL := bash", ".SHELLFLAGS := -euo pipefail -c", ".PHONY: all", "all:"], surroundings.isa()
    lines.append(f"finished = {seen}; {missing}")

    def rule(target: str, before: list[str], command: str) -> None:
        launch = f"$${{LAUNCH_{Path(target).stem}-$${{LAUNCH-}}}}"
        step = f'set -f; {launch} "$(PYTHON)" -I lib/surroundings.py ISA={isa} -m lib {command} {options}'
        lines.extend(
            [
                f".PHONY: {target}",
                f"all: {target}",
                f"{target}: {' '.join(before)}",
                f"\t@code=0; {step} || code=$$?; $(finished)",
            ]
        )

    def target(study: str, variant: str, step: Step) -> str:
        return f"runs/{study}/{variant}/{step.notebook}.ipynb"

    for (study, variant), (run, steps) in doing.items():
        for step in steps:
            before = [target(study, variant, s) for s in steps if s.name in step.after]
            others = [(v, doing.get((study, v), (None, []))[1]) for v in step.beside if v != variant]
            before += [target(study, v, step) for v, todo in others if step in todo]
            command = f"run {study} {variant} {step.notebook} --key {run.key(step.name)}"
            if recording and step.tables:
                command += f" --record {step.name}"
            rule(target(study, variant, step), before, command)
        reading = [target(study, variant, s) for s in steps if "extract" in s.after]
        if reading and not keep:
            gone = f"runs/{study}/{variant}/extract"
            lines += [f".PHONY: {gone}", f"all: {gone}", f"{gone}: {' '.join(reading)}", f"\t@rm -rf {gone}"]
    if draws:
        every = [target(*name, step) for name, (_, steps) in doing.items() for step in steps if step.name != "extract"]
        chosen = {study: [v for s, v in doing if s == study] for study, _ in doing}
        rule(f"runs/figures/{suite}/{FIGURES}.ipynb", every,
             f"draw {suite} {shlex.quote(json.dumps(chosen))} --key {figures_key(wanted)}")  # fmt: skip
    return "\n".join(lines) + "\n"


def draw_recorded(suite: str) -> bool:
    """For Make: draw all figures and tables of the recorded runs into ``figures/<suite>``, and write their verdicts
    into README, if it has a place for them; of the suite ``as_printed``, the paper's. Returns whether it went well."""
    if suite == "as_printed":
        from lib.figures import printed  # here: seaborn takes a second, and rules do not need it

        printed.draw()
        return True
    of_study = groupby(results.recorded_runs(suite), lambda run: run.study.name)
    variants = {study: [run.variant.name for run in recorded] for study, recorded in of_study}
    if not notebook.draw(suite, variants, {}, recorded=True):
        return False
    verify.write_claims(suite)
    return True
