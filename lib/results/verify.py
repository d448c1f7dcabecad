"""Verify: are the numbers of a run those that were recorded? Exact, tight and loose, each with its reason."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib import corpora, disk, encoders, results, surroundings
from lib.results import claims, digits, paper, spread
from lib.study import inputs, loading, params, runs
from lib.study.runs import Run

REASONS = {
    "exact": "counted, not trained: splits, label sets and checkpoints are pinned",
    "tight": "no fine-tuning: seed, weights and order of words are fixed; only the processor's rounding differs",
    "spread": "after fine-tuning: where other seeds lie, judged by the recorded ones (Student's t)",
}

PUBLISHED = "published"
"""The section of numbers that stand in somebody else's work, each with its own tolerance; without one it is shown."""

TIGHT = 0.005
"""Tolerance of the tight comparisons, as a fraction of the test words."""

LEVEL = 0.999
"""How often an honest run holds all comparisons that depend on the seed, taken together."""

MEASURES = ["task score", "best accuracy", "top layer accuracy", "drop, top third", "mean layer of top neurons"]
"""Columns of ``results.summary`` that are compared by their spread, for the first gold property."""


POOLS = ["measure", "of task"]
"""Columns of ``by_seed``: deviations are pooled over the encoders and tasks of a measure, or else over the encoders."""


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


def published(wanted: list[Run], accuracy: pd.DataFrame) -> dict[str, float]:
    """What others print of encoders without fine-tuning, per study and property: accuracy at each layer and the best
    layer (test); accuracy on all, top and bottom neurons (dev, test); how many top neurons each layer has.

    ``accuracy`` : as ``results.accuracies`` gives it.
    """
    plain, found = {"variant": "pretrained", "target": "real"}, {}
    for (study, name), rows in results.pick(accuracy, word_group="all", **plain).groupby(["study", "property"]):
        layers = rows.set_index("layer")["accuracy"]
        layers = layers[layers.index >= 0]
        found |= {f"{study}: {name}: layer {layer}, test": value for layer, value in layers.items()}
        found[f"{study}: {name}: best layer, test"] = int(layers.idxmax())
    sets = results.pick(results.neuron_sets(wanted), ranking="lca", **plain)
    right = sets.groupby(["study", "property", "neurons", "split"])[["correct", "total"]].sum()
    for (study, name, which, split), row in right.iterrows():
        found[f"{study}: {name}: {which} neurons, {split}"] = row["correct"] / row["total"]
    top = results.pick(results.neuron_layers(wanted), ranking="lca", variant="pretrained")
    for (study, name), rows in top.groupby(["study", "property"]):
        counts = rows.set_index("layer")["neurons"]
        found |= {f"{study}: {name}: top neurons in layer {layer}": int(n) for layer, n in counts.items()}
        found[f"{study}: {name}: mean layer of top neurons"] = float(counts.index @ counts / counts.sum())
    return found


def by_seed(accuracy: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """The headline numbers of the fine-tuned runs and their accuracy at each layer, one row each: ``measure``, ``of
    task``, ``name``, ``value``. Both tables : as ``results.accuracies`` and ``results.summary`` give them."""
    gold = results.pick(summary, source="gold")
    tuned = gold[(gold["task"] != "") & gold["property"].isin(gold["property"].head(1))]
    rows = tuned.melt(["study", "condition"], MEASURES, "measure").dropna()
    layers = results.pick(accuracy, target="real", word_group="all").rename(columns={"accuracy": "value"})
    layers = layers.assign(measure="accuracy at layer " + layers["layer"].astype(str))
    layers = layers.merge(tuned[["study", "variant", "property"]])
    rows = pd.concat([rows, layers[rows.columns]], ignore_index=True)
    of_task = rows["condition"] + ": " + rows["measure"]
    return rows.assign(**{"of task": of_task, "name": rows["study"] + ": " + of_task}).drop(
        columns=["study", "condition"]
    )


ALIKE, BLOCK = 0.75, 200
"""The share of blocks of so many words with as many correct answers as before fine-tuning, at every layer, from which
on it is the encoder before fine-tuning that was probed. In the recorded runs the layer that changed most has less than
.3 after a whole training at the study's rate, and less than .6 after the first 35 updates (``results/updates``)."""


def unchanged(counts: pd.DataFrame) -> list[str]:
    """The fine-tuned runs that answer as the encoder before fine-tuning: it was probed in their place. ``counts`` : as
    ``results.layers`` gives them."""
    rows = results.pick(counts, target="real", word_group="all", split="test")
    rows = rows.sort_values(["study", "variant", "property", "layer", "text"])
    cell = ["study", "variant", "property", "layer"]
    block = rows.groupby(cell)["total"].cumsum() // BLOCK  # few words of a short text answer alike by chance
    rows = rows.groupby([*cell, "task", "dropped", block.rename("block")])["correct"].sum().reset_index()
    before = results.pick(rows, variant="pretrained").drop(columns=["variant", "task", "dropped"])
    both = rows[(rows["task"] != "") & (rows["dropped"] == "")]
    both = both.merge(before, on=["study", "property", "layer", "block"], suffixes=("", " before"))
    same = (both["correct"] == both["correct before"]).groupby([both["study"], both["variant"], both["layer"]]).mean()
    least = same.groupby(["study", "variant"]).min()
    return [f"{study}: {variant}" for study, variant in least.index[least >= ALIKE]]


def expectations(wanted: list[Run], accuracy: pd.DataFrame, summary: pd.DataFrame) -> dict[str, Any]:
    """What a later run is compared with, as it is written into ``expected/<suite>.yaml``.

    Only what the default run makes too is recorded: the studies' own tasks.

    Raises
    ------
    ParameterError : fewer than three seeds of one of these: their spread is the tolerance.
    """
    own = {(run.study.name, task) for run in wanted for task in run.study.tasks}
    default = [r for r in wanted if not r.variant.task or (r.study.name, r.variant.condition) in own]
    seeds = pd.Series([(run.study.name, run.variant.condition) for run in default if run.variant.task]).value_counts()
    if len(seeds) and seeds.min() < 3:
        raise params.ParameterError("three seeds of every task are needed: reproduce and record with SEEDS='1 2 3'")
    tuned = pd.MultiIndex.from_frame(summary[["study", "condition"]]).isin([*own])
    table = spread.of_cells(by_seed(accuracy, summary[tuned]), POOLS, ["name"])
    numbers = table.set_index("name")[["mean", "deviation", "freedom", "seeds"]].astype(float).round(6)
    return {
        "exact": {"reason": REASONS["exact"], "values": exact(default)},
        "tight": {"reason": REASONS["tight"], "tolerance": TIGHT,
                  "values": {k: round(v, 4) for k, v in tight(accuracy).items()}},
        "spread": {"reason": REASONS["spread"], "level": LEVEL,
                   "values": numbers.to_dict("index")},
    }  # fmt: skip


def compare(expected: dict[str, Any], wanted: list[Run], accuracy: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Every recorded number beside the one found: columns kind, name, expected, got, tolerance, verdict, reason.

    The verdict is ``OK``, ``MISS`` (outside the tolerance, on either side), ``MISSING`` (not made), ``NOT LEARNT`` (a
    loss after a training that did not learn its task, as it happened among the recorded seeds too: it has none) or
    ``SHOWN`` (a published number without a tolerance). The tolerance of a number that depends on the seed is its
    prediction interval for as many seeds as were run, at a level that all of them together hold as often as ``level``
    says. Studies and tasks of which no run is ``wanted`` are left out.
    """
    found = by_seed(accuracy, summary).groupby("name")["value"].agg(["mean", "size"])
    computed = {"exact": exact(wanted), "tight": tight(accuracy), "spread": found["mean"].to_dict()}
    computed |= {PUBLISHED: published(wanted, accuracy)} if PUBLISHED in expected else {}
    rows = []
    for kind, section in expected.items():
        values, tolerances = section["values"], dict.fromkeys(section["values"], section.get("tolerance"))
        if kind == "spread" and values:
            table = pd.DataFrame.from_dict(values, "index")
            seeds = found["size"].reindex(table.index).fillna(1)
            level = 1 - (1 - section["level"]) / max(len(table), 1)
            values, tolerances = table["mean"].to_dict(), spread.reach(table, seeds, level).to_dict()
        if kind == PUBLISHED:
            tolerances = {name: number["tolerance"] for name, number in values.items()}
            values = {name: number["value"] for name, number in values.items()}
        for name, value in values.items():
            if not _asked(name, wanted):
                continue
            got, tolerance = computed[kind].get(name), tolerances[name]
            if got is None:
                failed = kind == "spread" and _fails_at_times(name, values=section["values"], found=found)
                verdict = "NOT LEARNT" if failed else "MISSING"
            elif kind == PUBLISHED and tolerance is None:
                verdict = "SHOWN"
            else:
                verdict = "OK" if (value == got if kind == "exact" else abs(got - value) <= tolerance) else "MISS"
            rows.append((kind, name, value, got, tolerance, verdict, section["reason"]))
    return pd.DataFrame(rows, columns=COMPARED)


COMPARED = ["kind", "name", "expected", "got", "tolerance", "verdict", "reason"]


def _fails_at_times(name: str, values: dict[str, dict[str, float]], found: pd.DataFrame) -> bool:
    """Whether a number that a run lacks, although it has a score, was lacking in some recorded seeds too. ``values`` :
    the recorded numbers, ``found`` : those of the run."""
    score = f"{name.rpartition(': ')[0]}: task score"
    return score in found.index and score in values and values[name]["seeds"] < values[score]["seeds"]


def _asked(name: str, wanted: list[Run]) -> bool:
    """Whether a recorded number is of a study and a task that are run."""
    study, part, *_ = name.split(": ")
    its = [run for run in wanted if run.study.name == study]
    of_others = {task for run in its for task in run.study.tasks} - {run.variant.condition for run in its}
    return bool(its) and part not in of_others


def read(path: Path) -> dict[str, Any]:
    """Recorded numbers. Raises ParameterError if the file is not there or has other sections."""
    if not path.exists():
        raise params.ParameterError(f"nothing is recorded for this suite: there is no {path}")
    expected = loading.read_yaml(path)
    if set(expected) not in ({*REASONS}, {*REASONS, PUBLISHED}, {PUBLISHED}):
        raise params.ParameterError(f"{path}: the sections must be {', '.join(REASONS)}, or {PUBLISHED}, or all four")
    return expected


def with_claims(page: str, suite: str, judged: pd.DataFrame, lost: pd.DataFrame | None = None) -> str:
    """A Markdown page with what came out of a suite, beside the paper's, where the page has marks for it: the overview
    of its claims between ``<!-- claims: SUITE -->`` and ``<!-- end -->``, its losses between ``<!-- losses: SUITE -->``
    and ``<!-- end -->``. ``lost`` : as ``claims.losses`` gives it."""
    shown = {"claims": f"{claims.to_markdown(paper.overview(judged))}\n\n{claims.told(judged)}"}
    if lost is not None:
        titles = dict(judged.loc[judged["encoder"] != "", ["study", "encoder"]].itertuples(index=False))
        points = paper.losses_beside(lost, titles)
        shown["losses"] = claims.to_markdown(points.map(lambda v: f"{v:.1f}" if isinstance(v, float) else v))
        shown["losses"] = shown["losses"].replace("nan", "–")
    for what, text in shown.items():
        marks = re.compile(rf"(<!-- {what}: {suite} -->\n).*?(<!-- end -->)", re.S)
        page = marks.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    return page


def write_claims(suite: str) -> None:
    """Write what came out of a recorded suite into README, where it has a place for it."""
    folder, page = results.figures_folder(suite, recorded=True), params.ROOT / "README.md"
    judged, lost = (results.from_csv(folder / f"{name}.csv") for name in ("claims", "losses"))
    text = with_claims(page.read_text(encoding="utf-8"), suite, judged, lost)
    with disk.atomic_write(page) as part:
        part.write_text(text, encoding="utf-8")


def check(wanted: list[Run], suite: str, overrides: dict[str, Any] | None = None) -> bool:
    """For Make: compare the results with ``expected/<suite>.yaml``, and with the digests of the processor's maker, and
    print both.

    Returns
    -------
    Whether everything recorded was found again; under ``ISA=compatible``, whether every digit was, too.

    Raises
    ------
    ParameterError : nothing is recorded of these studies, or they are probed for other properties than their own.
    """
    if "properties" in (overrides or {}):
        raise params.ParameterError("make verify takes no PROPERTIES: what is recorded are the studies' own")
    expected = read(params.ROOT / "expected" / f"{suite}.yaml")
    results.complete(wanted)
    counts, accuracy, summary = _tables(wanted)
    table = compare(expected, wanted, accuracy, summary)
    if table.empty:
        which = ", ".join(dict.fromkeys(run.study.name for run in wanted))
        raise params.ParameterError(f"expected/{suite}.yaml says nothing of {which}: SCALE names the suite")
    same = [("exact", f"{name}: changed by fine-tuning", True, False, None, "MISS", REASONS["exact"])
            for name in unchanged(counts)]  # fmt: skip
    table = pd.concat([table, pd.DataFrame(same, columns=COMPARED)]) if same else table
    shown = table.drop(columns="reason").map(lambda v: f"{v:.4f}" if isinstance(v, float) else v)
    print(shown.to_string(index=False, na_rep="", max_colwidth=70))
    for kind, reason in table.drop_duplicates("kind")[["kind", "reason"]].itertuples(index=False):
        print(f"{kind}: {reason}")
    judged = table[~table["verdict"].isin(["SHOWN", "NOT LEARNT"])]
    bad = judged[judged["verdict"] != "OK"]
    print(f"{len(judged) - len(bad)} of {len(judged)} comparisons hold" + (":" if len(bad) else ""))
    for row in bad.itertuples():
        print(f"  {row.verdict}  {row.name}: expected {row.expected}, got {row.got}, tolerance {row.tolerance}")
    for name in table.loc[table["verdict"] == "NOT LEARNT", "name"]:
        print(f"  not compared: {name}: this training did not learn its task, as some of the recorded ones did not")
    recorded = results.recorded_runs(suite) if runs.recorded(suite).is_dir() else []
    if recorded and (theirs := results.devices(recorded)) != (own := results.devices(wanted)):
        print(f"recorded in {theirs}; these results in {own}")
    says, equal = digits.compare(wanted)
    print(says)
    return bad.empty and (equal or surroundings.isa() != "compatible")


def record(wanted: list[Run], suite: str) -> None:
    """For Make: record what is not recorded yet, and make all recorded runs the reference in ``expected/<suite>.yaml``,
    if every task has three seeds.

    Raises StaleResult if a run is neither recorded nor computed.
    """
    for run, step in results.tabled_steps(run for run in wanted if not results.is_recorded(run)):
        runs.record(run, step)  # all its steps: the tables of a run are of one training
    recorded = results.recorded_runs(suite)
    path = params.ROOT / "expected" / f"{suite}.yaml"
    elsewhere = {PUBLISHED: old[PUBLISHED]} if path.exists() and PUBLISHED in (old := loading.read_yaml(path)) else {}
    place = f"recorded in {runs.recorded(suite).relative_to(params.ROOT)}/"
    try:
        expected = expectations(recorded, *_tables(recorded)[1:])
    except params.ParameterError as few:
        print(f"{place}; no reference yet: {few}")
        return
    numbers = yaml.safe_dump(expected | elsewhere, sort_keys=False, width=120)
    head = f"# What a run of the suite '{suite}' must give again, and how closely. Written by `make record`.\n"
    with disk.atomic_write(path) as part:
        part.write_text(head + numbers, encoding="utf-8")
    print(f"{place} and {path.relative_to(params.ROOT)}")


def _tables(wanted: list[Run]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Counts, accuracies and summary of these runs."""
    counts, ranked = results.layers(wanted, split="test"), results.ranked(wanted)
    summary = results.summary(wanted, counts, results.neuron_tests(ranked), results.neuron_layers(ranked))
    return counts, results.accuracies(counts), summary
