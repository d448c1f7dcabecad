"""Verify: are the numbers of a run those that were recorded? Exact, tight and loose, each with its reason."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib import corpora, disk, encoders, results
from lib.results import claims
from lib.study import inputs, loading, params, runs
from lib.study.runs import Run

REASONS = {
    "exact": "counted, not trained: splits, label sets and checkpoints are pinned",
    "tight": "no fine-tuning: seed, weights and order of words are fixed; only the processor's rounding differs",
    "loose": "after fine-tuning: four standard deviations over the recorded seeds, pooled over encoders and tasks",
    "claim": "a verdict may become or cease to be undecided with other seeds; it must not turn into its opposite",
}

TIGHT = 0.005
"""Tolerance of the tight comparisons, as a fraction of the test words."""

MEASURES = ["task score", "best accuracy", "top layer accuracy", "drop, top third", "mean layer of top neurons"]
"""Columns of ``results.summary`` that are compared loosely, for the first gold property."""


def exact(wanted: list[Run]) -> dict[str, Any]:
    """Counts and digests: what must be the same on every machine."""
    found: dict[str, Any] = {}
    for run in wanted:
        study, name = run.study, run.study.name
        found[f"{name}: checkpoint"] = inputs.checkpoint_digest(study)
        found[f"{name}: layers, width"] = list(encoders.shape(study))
        if run.variant.task:
            examples = sorted(runs.manifest(run, "finetune")["examples"].items())
            found[f"{name}: {run.variant.condition}: examples"] = [count for _, count in examples]
        for corpus, (_, properties) in study.corpora_in_use.items() if run.variant.name == "pretrained" else ():
            place = f"{name}: {corpus}" if len(study.corpora_in_use) > 1 else name
            for split, words in corpora.load(study, corpus).items():
                counts = [words["text"].nunique(), int(words["sentence"].max()) + 1, len(words)]
                found[f"{place}: {split}: texts, sentences, words"] = counts
                found[f"{place}: {split}: words and labels"] = inputs.digest(words.astype(str).to_numpy().tolist())
                found |= {f"{place}: {split}: {name}: labels": int(words[name].nunique()) for name in properties}
    return found


def tight(accuracy: pd.DataFrame) -> dict[str, float]:
    """Probe accuracy without fine-tuning, on all words at the first, a middle and the last layer.

    ``accuracy`` : as ``results.accuracies`` gives it.
    """
    rows = results.pick(accuracy, target="real", word_group="all", task="")
    top = rows.groupby(results.NAMED)["layer"].transform("max")
    chosen = rows[(rows["layer"] == 0) | (rows["layer"] == top // 2) | (rows["layer"] == top)]
    return {f"{r.study}: {r.variant}: {r.property}: layer {r.layer}": r.accuracy for r in chosen.itertuples()}


def loose(summary: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over seeds of the headline numbers of the fine-tuned runs.

    ``summary`` : as ``results.summary`` gives it.

    Returns
    -------
    One row per study, condition and measure: ``name``, ``value`` (mean over seeds), ``sigma`` (pooled over the rows of
    the measure; none with one seed).
    """
    gold = results.pick(summary, source="gold")
    tuned = gold[(gold["task"] != "") & gold["property"].isin(gold["property"].head(1))]
    keys = ["study", "condition", "measure"]
    values = tuned.melt(keys[:2], MEASURES, "measure").dropna().groupby(keys, sort=False)["value"]
    table = values.agg(value="mean", variance="var").reset_index()
    sigma = table.groupby("measure")["variance"].transform("mean") ** 0.5
    return table.assign(sigma=sigma, name=table["study"] + ": " + table["condition"] + ": " + table["measure"])


def verdicts(judged: pd.DataFrame) -> dict[str, str]:
    """The verdict of every comparison that could be made. ``judged`` : as ``claims.judge`` gives it."""
    columns = ["claim", "encoder", "compared", "property", "verdict"]
    testable = judged.loc[judged["verdict"] != claims.NOT_TESTABLE, columns]
    return {": ".join(names): verdict for *names, verdict in testable.itertuples(index=False)}


def expectations(
    wanted: list[Run], accuracy: pd.DataFrame, summary: pd.DataFrame, judged: pd.DataFrame
) -> dict[str, Any]:
    """What a later run is compared with, as it is written into ``expected/<suite>.yaml``.

    Only what the default run makes too is recorded: the studies' own tasks.

    Raises
    ------
    ParameterError : fewer than three seeds of a task: their spread is the tolerance.
    """
    seeds = pd.Series([(run.study.name, run.variant.condition) for run in wanted if run.variant.task]).value_counts()
    if len(seeds) and seeds.min() < 3:
        raise params.ParameterError("three seeds of every task are needed: reproduce and record with SEEDS='1 2 3'")
    own = {(run.study.name, task) for run in wanted for task in run.study.tasks}
    default = [r for r in wanted if not r.variant.task or (r.study.name, r.variant.condition) in own]
    return {
        "exact": {"reason": REASONS["exact"], "values": exact(default)},
        "tight": {"reason": REASONS["tight"], "tolerance": TIGHT,
                  "values": {k: round(v, 4) for k, v in tight(accuracy).items()}},
        "loose": {"reason": REASONS["loose"],
                  "values": {row.name: {"value": round(row.value, 4), "tolerance": round(4 * row.sigma, 4)}
                             for row in loose(summary).itertuples() if (row.study, row.condition) in own}},
        "claim": {"reason": REASONS["claim"], "values": verdicts(judged)},
    }  # fmt: skip


def compare(
    expected: dict[str, Any], wanted: list[Run], accuracy: pd.DataFrame, summary: pd.DataFrame, judged: pd.DataFrame
) -> pd.DataFrame:
    """Every recorded number beside the one found: columns kind, name, expected, got, tolerance, verdict, reason.

    The verdict is ``OK``, ``MISS`` (outside the tolerance, on either side) or ``MISSING`` (not made). A claim that the
    run could not ask, for want of a variant, is not compared.
    """
    computed = {
        "exact": exact(wanted),
        "tight": tight(accuracy),
        "loose": loose(summary).set_index("name")["value"].to_dict(),
        "claim": verdicts(judged),
    }
    rows = []
    for kind, section in expected.items():
        for name, value in section["values"].items():
            got, tolerance = computed[kind].get(name), section.get("tolerance")
            if kind == "loose":
                value, tolerance = value["value"], value["tolerance"]
            if kind == "claim":
                good = {value, got} != {claims.REPRODUCED, claims.NOT_REPRODUCED}
            elif kind == "exact" or got is None:
                good = value == got
            else:
                good = abs(got - value) <= tolerance
            if got is not None or kind != "claim":
                verdict = "MISSING" if got is None else "OK" if good else "MISS"
                rows.append((kind, name, value, got, tolerance, verdict, section["reason"]))
    return pd.DataFrame(rows, columns=["kind", "name", "expected", "got", "tolerance", "verdict", "reason"])


def read(path: Path) -> dict[str, Any]:
    """Recorded numbers. Raises ParameterError if the file is not there or has other sections."""
    if not path.exists():
        raise params.ParameterError(f"nothing is recorded for this suite: there is no {path}")
    expected = loading.read_yaml(path)
    if set(expected) != set(REASONS):
        raise params.ParameterError(f"{path}: the sections must be {', '.join(REASONS)}")
    return expected


def with_claims(page: str, suite: str, judged: pd.DataFrame) -> str:
    """A Markdown page with the overview of a suite's claims between the marks ``<!-- claims: SUITE -->`` and
    ``<!-- end -->``, if it has them."""
    table = claims.to_markdown(claims.overview(judged))
    marks = re.compile(rf"(<!-- claims: {suite} -->\n).*?(<!-- end -->)", re.S)
    return marks.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page)


def write_claims(suite: str, judged: pd.DataFrame) -> None:
    """Write the overview of a suite's claims into README, if it has a place for them."""
    page = params.ROOT / "README.md"
    text = with_claims(page.read_text(encoding="utf-8"), suite, judged)
    with disk.atomic_write(page) as part:
        part.write_text(text, encoding="utf-8")


def check(wanted: list[Run], suite: str) -> bool:
    """For Make: compare the results with ``expected/<suite>.yaml`` and print the table.

    Returns
    -------
    Whether everything recorded was found again.
    """
    expected = read(params.ROOT / "expected" / f"{suite}.yaml")
    results.complete(wanted)
    table = compare(expected, wanted, *_tables(wanted))
    shown = table.drop(columns="reason").map(lambda v: f"{v:.4f}" if isinstance(v, float) else v)
    print(shown.to_string(index=False, na_rep="", max_colwidth=70))
    for kind, reason in table.drop_duplicates("kind")[["kind", "reason"]].itertuples(index=False):
        print(f"{kind}: {reason}")
    bad = table[table["verdict"] != "OK"]
    print(f"{len(table) - len(bad)} of {len(table)} comparisons hold" + (":" if len(bad) else ""))
    for row in bad.itertuples():
        print(f"  {row.verdict}  {row.name}: expected {row.expected}, got {row.got}, tolerance {row.tolerance}")
    return bad.empty


def record(wanted: list[Run], suite: str) -> None:
    """For Make: record what is not recorded yet, and make all recorded runs the reference in ``expected/<suite>.yaml``.

    Raises
    ------
    StaleResult : a run is neither recorded nor computed.
    ParameterError : fewer than three seeds of a task.
    """
    for run, step in results.tabled_steps(run for run in wanted if not results.is_recorded(run)):
        runs.record(run, step)  # all its steps: the tables of a run are of one training
    recorded = results.recorded_runs(suite)
    path = params.ROOT / "expected" / f"{suite}.yaml"
    numbers = yaml.safe_dump(expectations(recorded, *_tables(recorded)), sort_keys=False, width=120)
    head = f"# What a run of the suite '{suite}' must give again, and how closely. Written by `make record`.\n"
    with disk.atomic_write(path) as part:
        part.write_text(head + numbers, encoding="utf-8")
    print(f"recorded in {runs.recorded(suite).relative_to(params.ROOT)}/ and {path.relative_to(params.ROOT)}")


def _tables(wanted: list[Run]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Accuracies, summary and judged claims of these runs."""
    counts = results.layers(wanted)
    summary = results.summary(wanted, counts, results.neuron_tests(wanted), results.neuron_layers(wanted))
    return results.accuracies(counts), summary, claims.judge(claims.evidence(wanted))
