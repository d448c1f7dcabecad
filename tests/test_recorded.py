"""What is recorded: each recorded seed would have held beside the others, and wrong runs are misses."""

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from lib import results
from lib.results import spread, verify
from lib.results.summary import VARIANT, pick
from lib.study import runs
from lib.study.variants import Variant

SUITE, SEED = "mini", 1

pytestmark = pytest.mark.skipif(
    not runs.recorded(SUITE).exists(), reason="nothing is recorded yet: make record SEEDS='1 2 3'"
)


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


def summary(seed: int, counts: pd.DataFrame | None = None, neurons: pd.DataFrame | None = None) -> pd.DataFrame:
    """The summary of one seed's runs, as one would have made them; of other ``counts`` or ``neurons`` if given."""
    own, layers, tests, neuron_layers = recorded()
    chosen = [run for run in own if run.variant.seed in (None, seed)]
    names = {run.variant.name for run in chosen}
    layers, neuron_layers = (t if given is None else given for t, given in ((layers, counts), (neuron_layers, neurons)))
    return results.summary(chosen, *(t[t["variant"].isin(names)] for t in (layers, tests, neuron_layers)))


def expected(*left_out: int) -> dict:
    """What the recorded seeds lead to expect, without those left out."""
    values = pd.concat([verify.by_seed(summary(seed)) for seed in seeds() if seed not in left_out])
    table = spread.of_cells(values, verify.POOLS, ["name"]).set_index("name")
    numbers = table[["mean", "deviation", "freedom", "seeds"]].to_dict("index")
    return {"spread": {"reason": verify.REASONS["spread"], "level": verify.LEVEL, "values": numbers}}


def misses(found: pd.DataFrame, *left_out: int) -> list[str]:
    own = [run for run in recorded()[0] if run.variant.seed in (None, SEED)]
    table = verify.compare(expected(*left_out), own, pd.DataFrame(columns=["x"]), found)
    return table.loc[table["verdict"] != "OK", "name"].tolist()


@pytest.fixture(autouse=True)
def only_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "exact", lambda wanted: {})
    monkeypatch.setattr(verify, "tight", lambda accuracy: {})


def test_each_seed_holds_beside_the_others() -> None:
    assert len(seeds()) >= 3
    assert {seed: misses(summary(seed), seed) for seed in seeds()} == {seed: [] for seed in seeds()}


def test_a_summary_is_that_of_the_recorded_tables() -> None:
    assert misses(summary(SEED)) == []


TUNED = {"study": "bert-mini", "variant": f"sentiment-s{SEED}"}


def replaced(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The table with other rows in place of those of one fine-tuned run."""
    its = np.logical_and.reduce([table[column] == value for column, value in TUNED.items()])
    named = Variant.parse(TUNED["variant"]).columns()
    return pd.concat([table[~its], rows.assign(study=TUNED["study"], **named)])


def test_pretrained_weights_in_place_of_fine_tuned_ones_are_a_miss() -> None:
    before = {"study": "bert-mini", "variant": "pretrained"}
    _, counts, _, neurons = recorded()
    found = summary(SEED, *(replaced(table, pick(table, **before)) for table in (counts, neurons)))
    assert misses(found)


def test_layers_that_are_off_by_one_are_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    _, counts, _, _ = recorded()
    untuned = counts[counts["task"] == ""]
    layers = untuned["layer"].max() + 1
    shifted = untuned.assign(layer=(untuned["layer"] + 1).where(untuned["layer"] >= 0, -1) % layers)
    values, found = (verify.tight(results.accuracies(pick(t, split="test"))) for t in (untuned, shifted))
    assert {name for name in values if abs(values[name] - found[name]) > verify.TIGHT} >= {
        f"{study}: pretrained: pos: layer 0" for study in untuned["study"].unique()
    }


def test_the_store_of_another_encoder_is_a_miss() -> None:
    _, counts, _, neurons = recorded()
    other = TUNED | {"study": "xlnet-mini"}
    found = summary(SEED, *(replaced(table, pick(table, **other)) for table in (counts, neurons)))
    assert misses(found)


@pytest.mark.skipif(not runs.recorded("sweep").exists(), reason="no other learning rate is recorded yet")
def test_a_training_at_four_times_the_learning_rate_is_a_miss() -> None:
    hot = [run for run in results.recorded_runs("sweep") if run.study.name == "bert-mini-sweep"]
    name = f"sentiment-lr4e-4-s{SEED}"
    chosen = [run for run in hot if run.variant.name == name]
    columns = ["study", *VARIANT]
    _, counts, _, neurons = recorded()
    mine = (results.layers(chosen).drop(columns=columns), results.neuron_layers(chosen).drop(columns=columns))
    found = summary(SEED, *(replaced(table, rows) for table, rows in zip((counts, neurons), mine, strict=True)))
    assert misses(found)
