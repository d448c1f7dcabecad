"""What is recorded: the recipe is calm, each recorded seed would have held beside the others, and wrong runs are
misses."""

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest

from lib import results
from lib.results import spread, verify
from lib.results.summary import VARIANT, pick
from lib.study import params, runs
from lib.study.variants import Variant

SUITE, SEED = "mini", 1
STUDIES, TASKS = ("bert-mini", "roberta-mini", "xlnet-mini"), ("sentiment", "acceptability")

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
"""Counts, accuracies and summary, as ``verify`` takes them."""


@lru_cache
def recorded() -> tuple[list, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The runs of the studies' own tasks, and their tables."""
    every = results.recorded_runs(SUITE)
    own = [run for run in every if not run.variant.task or run.variant.condition in run.study.tasks]
    ranked = results.ranked(own)
    return own, results.layers(own), results.neuron_tests(ranked), results.neuron_layers(ranked)


@lru_cache
def seeds() -> list[int]:
    return sorted({run.variant.seed for run in recorded()[0] if run.variant.task})


def tables(seed: int, counts: pd.DataFrame | None = None, neurons: pd.DataFrame | None = None) -> Tables:
    """The tables of one seed's runs, as one would have made them; of other ``counts`` or ``neurons`` if given."""
    own, layers, tests, neuron_layers = recorded()
    chosen = [run for run in own if run.variant.seed in (None, seed)]
    names = {run.variant.name for run in chosen}
    layers, neuron_layers = (t if given is None else given for t, given in ((layers, counts), (neuron_layers, neurons)))
    layers, tests, neuron_layers = (t[t["variant"].isin(names)] for t in (layers, tests, neuron_layers))
    return layers, results.accuracies(layers), results.summary(chosen, layers, tests, neuron_layers)


@lru_cache
def honest(seed: int) -> Tables:
    return tables(seed)


def expected(*left_out: int) -> dict:
    """What the recorded seeds lead to expect, without those left out."""
    values = pd.concat([verify.by_seed(*honest(seed)[1:]) for seed in seeds() if seed not in left_out])
    table = spread.of_cells(values, verify.POOLS, ["name"]).set_index("name")
    numbers = table[["mean", "deviation", "freedom", "seeds"]].to_dict("index")
    return {"spread": {"reason": verify.REASONS["spread"], "level": verify.LEVEL, "values": numbers}}


def misses(found: Tables, *left_out: int) -> list[str]:
    counts, accuracy, summary = found
    own = [run for run in recorded()[0] if run.variant.seed in (None, SEED)]
    table = verify.compare(expected(*left_out), own, accuracy, summary)
    return table.loc[table["verdict"] != "OK", "name"].tolist() + verify.unchanged(counts)


@pytest.fixture(autouse=True)
def only_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "exact", lambda wanted: {})
    monkeypatch.setattr(verify, "tight", lambda accuracy: {})


def test_the_recipe_does_not_break_down_and_every_task_is_learnt() -> None:
    lost = pd.concat([verify.by_seed(*honest(seed)[1:]) for seed in seeds()]).query("measure == 'drop, top third'")
    points = 100 * lost.set_index("name")["value"]
    assert points.groupby("name").std().max() <= 0.25
    assert (points - points.groupby("name").transform("median")).abs().max() <= 0.75
    scores = results.task_scores(run for run in recorded()[0] if run.variant.task)
    error = np.sqrt(scores["majority"] * (1 - scores["majority"]) / scores["test"])
    assert ((scores["score"] - scores["majority"]) / error).min() >= 5
    assert scores.groupby(["study", "task"])["seed"].nunique().to_dict() == dict.fromkeys(product(STUDIES, TASKS), 8)


def test_each_seed_holds_beside_the_others() -> None:
    assert len(seeds()) >= 3
    assert {seed: misses(honest(seed), seed) for seed in seeds()} == {seed: [] for seed in seeds()}


# Wrong runs --------------------------------------------------------------------------------------------------------

EACH = pytest.mark.parametrize(("study", "task"), [*product(STUDIES, TASKS)])


def replaced(table: pd.DataFrame, study: str, task: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The table with other rows in place of those of one fine-tuned run."""
    variant = f"{task}-s{SEED}"
    its = (table["study"] == study) & (table["variant"] == variant)
    return pd.concat([table[~its], rows.assign(study=study, **Variant.parse(variant).columns())])


def wrong(study: str, task: str, rows_of: Callable[[pd.DataFrame], pd.DataFrame], neurons: bool = True) -> list[str]:
    """The misses if a fine-tuned run has the rows that ``rows_of`` takes from each table; ``neurons`` : from that of
    the neurons too."""
    _, counts, _, layers = recorded()
    chosen = [replaced(t, study, task, rows_of(t)) for t in ((counts, layers) if neurons else (counts,))]
    return misses(tables(SEED, *chosen))


@EACH
def test_the_encoder_before_fine_tuning_in_its_place_is_a_miss(study: str, task: str) -> None:
    assert f"{study}: {task}-s{SEED}" in wrong(study, task, lambda t: pick(t, study=study, variant="pretrained"))


def test_so_it_is_where_some_words_are_answered_otherwise() -> None:
    def almost(table: pd.DataFrame) -> pd.DataFrame:
        rows = pick(table, study="bert-mini", variant="pretrained")
        if "correct" in rows:
            rows = rows.assign(correct=rows["correct"] - (np.random.default_rng(0).random(len(rows)) < 0.1))
        return rows

    assert f"bert-mini: sentiment-s{SEED}" in wrong("bert-mini", "sentiment", almost)


@EACH
@pytest.mark.parametrize("shift", [1, -1])
def test_layers_that_are_off_by_one_are_a_miss(study: str, task: str, shift: int) -> None:
    def shifted(table: pd.DataFrame) -> pd.DataFrame:
        rows = pick(table, study=study, variant=f"{task}-s{SEED}")
        layers = rows["layer"].max() + 1
        return rows.assign(layer=((rows["layer"] + shift) % layers).where(rows["layer"] >= 0, -1))

    assert wrong(study, task, shifted, neurons=False)


def test_layers_that_are_off_by_one_before_fine_tuning_are_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    _, counts, _, _ = recorded()
    untuned = counts[counts["task"] == ""]
    layers = untuned["layer"].max() + 1
    shifted = untuned.assign(layer=(untuned["layer"] + 1).where(untuned["layer"] >= 0, -1) % layers)
    values, found = (verify.tight(results.accuracies(pick(t, split="test"))) for t in (untuned, shifted))
    assert {name for name in values if abs(values[name] - found[name]) > verify.TIGHT} >= {
        f"{study}: pretrained: pos: layer 0" for study in untuned["study"].unique()
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("study", "other"), [*permutations(STUDIES, 2)])
def test_the_store_of_another_encoder_is_a_miss(study: str, other: str, task: str) -> None:
    assert wrong(study, task, lambda table: pick(table, study=other, variant=f"{task}-s{SEED}"))


@pytest.mark.skipif(not runs.recorded("sweep").exists(), reason="no other learning rate is recorded yet")
def test_a_training_at_four_times_the_learning_rate_is_a_miss() -> None:
    hot = [run for run in results.recorded_runs("sweep") if run.study.name == "bert-mini-sweep"]
    chosen = [run for run in hot if run.variant.name == f"sentiment-lr4e-4-s{SEED}"]
    counts, neurons = (
        t.drop(columns=["study", *VARIANT]) for t in (results.layers(chosen), results.neuron_layers(chosen))
    )
    assert wrong("bert-mini", "sentiment", lambda table: counts if "correct" in table else neurons)


@pytest.mark.parametrize("suite", sorted(folder.name for folder in (params.ROOT / "results").iterdir()))
def test_every_recorded_result_says_what_computed_it(suite: str) -> None:
    recorded_runs = results.recorded_runs(suite)
    by = results.computed_by(recorded_runs)
    assert by["steps"].sum() == len([*results.tabled_steps(recorded_runs)])
    assert not by.isna().any(axis=None) and by["processor"].ne("").all()
