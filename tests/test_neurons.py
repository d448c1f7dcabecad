"""The ranking is total, follows the definition of LCA to the letter, and puts planted neurons first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import store
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib import neurons, probes
from lib.encoders import activations
from lib.neurons import Ranked, mass_at_entry, minimal_set, ordering, rank, search_score
from lib.probes.labels import Labels
from lib.probes.linear import ProbeSpec
from lib.results.summary import pick
from lib.study import params, runs, variants

WEIGHTS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7), elements=st.integers(-9, 9)
)
"""Small integers: sums are exact, and zero rows and ties are frequent."""


def prefix(row: np.ndarray, mass: Fraction) -> list[int]:
    """By the definition: the shortest prefix of the neurons by |weight| that reaches the mass; at least one neuron."""
    size = [Fraction(abs(float(w))) for w in row]
    order = sorted(range(len(size)), key=lambda n: (-size[n], n))
    if not sum(size):
        return []
    length = 1
    while sum(size[n] for n in order[:length]) < mass * sum(size):
        length += 1
    return order[:length]


def union(weight: np.ndarray, mass: Fraction) -> set[int]:
    return {n for row in weight for n in prefix(row, mass)}


@settings(max_examples=150, deadline=None)
@given(weight=WEIGHTS, steps=st.integers(1, 12) | st.just(100))
def test_a_neuron_enters_at_the_first_mass_at_which_some_label_needs_it(weight: np.ndarray, steps: int) -> None:
    expected = np.full(weight.shape[1], steps + 1)
    for step in range(steps, -1, -1):
        expected[[*union(weight, Fraction(step, steps))]] = step
    assert mass_at_entry(weight, steps).tolist() == expected.tolist()


def test_a_mass_that_is_reached_exactly_needs_no_further_neuron() -> None:
    weight = np.ones((1, 100))
    assert mass_at_entry(weight, 100).tolist() == [0, *range(2, 101)]


@settings(max_examples=60, deadline=None)
@given(weight=WEIGHTS, steps=st.integers(1, 12))
def test_the_unions_grow_with_the_mass_up_to_every_neuron_with_weight(weight: np.ndarray, steps: int) -> None:
    entry = mass_at_entry(weight, steps)
    unions = [set(np.flatnonzero(entry <= step)) for step in range(steps + 1)]
    assert all(a <= b for a, b in zip(unions, unions[1:], strict=False))
    assert unions[-1] == set(np.flatnonzero((weight != 0).any(0)))
    assert unions[0] == {int(np.abs(row).argmax()) for row in weight if row.any()}, "at p=0 one neuron per label"


@settings(max_examples=100, deadline=None)
@given(weight=WEIGHTS, steps=st.integers(1, 12))
def test_the_ordering_is_a_permutation_sorted_by_step_then_weight_then_number(weight: np.ndarray, steps: int) -> None:
    order = ordering(weight, steps)
    assert sorted(order) == list(range(weight.shape[1]))
    entry, largest = mass_at_entry(weight, steps), np.abs(weight).max(0)
    keys = [(entry[n], -largest[n], n) for n in order]
    assert keys == sorted(keys)


def test_ties_are_broken_by_weight_and_then_by_number() -> None:
    weight = np.array([[5.0, 0, 0, 1, 1], [0, -7, 0, 1, 1]])
    assert ordering(weight, 1).tolist() == [1, 0, 3, 4, 2]
    assert ordering(weight[:, ::-1], 1).tolist() == [3, 4, 0, 1, 2]


def test_the_sign_of_a_weight_does_not_matter() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 40))
    assert ordering(weight).tolist() == ordering(-weight).tolist() == ordering(np.abs(weight)).tolist()


def test_a_label_with_small_weights_gets_its_neurons_as_early_as_one_with_large() -> None:
    weight = np.zeros((2, 10))
    weight[0, :4], weight[1, 8] = [8, 4, 2, 1], 1e-3
    assert set(ordering(weight, 100)[:2]) == {0, 8}


@settings(max_examples=60, deadline=None)
@given(weight=WEIGHTS, step=st.integers(0, 7))
def test_the_top_neurons_of_a_label_are_the_shortest_prefix(weight: np.ndarray, step: int) -> None:
    labels = [str(i) for i in range(len(weight))]
    found = Ranked("tag", "lca", ordering(weight), weight, labels, (1, weight.shape[1])).top(step / 7)
    assert [*found] == labels
    for row, top in zip(weight, found.values(), strict=True):
        if row.any():
            assert top.tolist() == prefix(row, Fraction(step, 7))


@settings(max_examples=30, deadline=None)
@given(layers=st.integers(1, 5), width=st.integers(1, 6), data=st.data())
def test_the_distribution_over_layers_sums_to_the_neurons_taken(layers: int, width: int, data) -> None:
    order = np.array(data.draw(st.permutations(range(layers * width))))
    count = data.draw(st.integers(1, layers * width))
    found = Ranked("tag", "lca", order, np.ones((1, 1)), ["a"], (layers, width)).per_layer(count / (layers * width))
    assert len(found) == layers
    assert found.sum() == count
    for layer in range(layers):
        assert found[layer] == sum(layer * width <= n < (layer + 1) * width for n in order[:count])


@pytest.mark.parametrize(
    ("delta", "expected"),
    [(0.0, 100), (0.009, 100), (0.02, 20), (0.1, 10), (0.5, 5)],
)
def test_the_minimal_set_is_the_first_size_whose_accuracy_exceeds_the_allowed_loss(delta, expected) -> None:
    assert minimal_set({5: 0.5, 10: 0.85, 20: 0.891, 50: 0.880, 100: 0.9}, delta) == expected


def test_reaching_the_allowed_loss_exactly_does_not_exceed_it() -> None:
    assert minimal_set({1: 0.5, 2: 1.0}, 0.5) == 2
    assert minimal_set({1: 0.75, 2: 1.0}, 0.5) == 1


def test_the_search_score_rewards_separation_and_punishes_loss() -> None:
    assert search_score(0.9, 0.3, 0.95, 0.85) == pytest.approx(0.5 * 0.6 - 0.5 * 0.1)
    assert search_score(0.9, 0.3, 0.95, 0.95) > search_score(0.9, 0.3, 0.95, 0.85) > search_score(0.9, 0.5, 0.95, 0.85)


# Planted neurons -------------------------------------------------------------------------------------------------

LAYERS, WIDTH, PLANTED = 3, 8, {2: 0, 13: 1, 22: 2}
"""Number of a planted neuron → the label at which it fires."""


def planted(words: int, seed: int):
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, size=words)
    neurons_ = rng.normal(size=(words, LAYERS * WIDTH))
    for number, label in PLANTED.items():
        neurons_[:, number] = np.where(ids == label, 3, 0) + rng.normal(size=words) * 0.3
    return store(neurons_.reshape(words, LAYERS, WIDTH).transpose(1, 0, 2)), ids


@pytest.fixture
def run(make_study) -> runs.Run:
    return runs.Run(make_study(), variants.Variant("pretrained"))


@pytest.fixture
def planted_run(make_study, monkeypatch: pytest.MonkeyPatch):
    """``planted_run(kind, names, variant, **overrides)``: a run whose stores hold the planted neurons, under these
    properties."""

    def make(kind: str = "bert", names: Sequence[str] = ("tag",), variant: str = "pretrained", **overrides) -> runs.Run:
        stores = {}
        for split, (words, seed) in {"train": (900, 0), "dev": (400, 1), "test": (400, 2)}.items():
            data, ids = planted(words, seed)
            labels = {name: [f"L{i}" for i in ids] for name in names}
            table = data.words.assign(**labels, text=[f"t{i % 9}" for i in range(words)], sentence=0)
            stores[split] = replace(data, words=table)
        monkeypatch.setattr(activations, "ensure", lambda run, corpus=None: stores)
        given = {
            "ranking__sizes": [0.125, 0.5, 1.0], "ranking__top": 0.125, "properties": [*names],
            "corpus__columns": {"word": 0, **dict.fromkeys(names, 1)}, "corpus__gold": [], **overrides,
        }  # fmt: skip
        return runs.Run(make_study(kind, **given), variants.Variant.parse(variant))

    return make


def test_planted_neurons_are_ranked_first(planted_run) -> None:
    run = planted_run()
    rank = neurons.ensure_rankings(run)["tag"]
    assert set(rank.order[:3].tolist()) == set(PLANTED)
    assert rank.per_layer(0.125).tolist() == [1, 1, 1]
    assert rank.shape == (LAYERS, WIDTH)
    for number, label in PLANTED.items():
        assert rank.top(0.0)[f"L{label}"].tolist() == [number]


def test_the_table_shows_that_the_top_neurons_suffice_and_the_bottom_ones_do_not(planted_run) -> None:
    table = neurons.ensure_tests(planted_run())
    cell = table.set_index(["split", "test", "neurons"])["accuracy"]
    for split in ("dev", "test"):
        assert cell[split, "retrain", 3] > 0.95
        assert cell[split, "keep-top", 3] > 0.95
        assert cell[split, "keep-bottom", 3] < 0.5
        every = {cell[split, test, 24] for test in ("keep-top", "keep-random", "keep-bottom")}
        assert len(every) == 1, "all neurons kept: the order does not matter"
        assert cell[split, "retrain", 24] == every.pop(), "the all-neuron probe itself"
    assert len(cell) == 2 * 4 * 3
    assert table[["property", "ranking"]].drop_duplicates().to_numpy().tolist() == [["tag", "lca"]]


def test_the_top_and_the_bottom_neurons_are_counted_per_layer(planted_run) -> None:
    run = planted_run()
    found, order = neurons.ensure_layers(run), neurons.ensure_rankings(run)["tag"].order
    per_layer = found.groupby("end", sort=False)["neurons"].agg(list).to_dict()
    assert per_layer == {"top": [1, 1, 1], "bottom": np.bincount(order[-3:] // WIDTH, minlength=LAYERS).tolist()}
    assert found.drop(columns="neurons").to_dict("list") == {
        "property": ["tag"] * 6, "ranking": ["lca"] * 6, "end": ["top"] * 3 + ["bottom"] * 3, "layer": [0, 1, 2] * 2,
    }  # fmt: skip


def test_rankings_of_half_the_texts_are_counted_beside_and_none_is_learnt_unless_asked_for(planted_run) -> None:
    assert neurons.ensure_halves(planted_run()).empty
    run = planted_run(ranking__half_samples=4)
    found, whole = neurons.ensure_halves(run), neurons.ensure_layers(run)
    assert whole.equals(neurons.ensure_layers(planted_run())), "of all words, as without them"
    top = pick(found, end="top").pivot(index="sample", columns="layer", values="neurons")
    assert top.to_numpy().tolist() == [[1, 1, 1]] * 4, "the planted neurons come first in every half"
    assert found.groupby(["sample", "end"])["neurons"].sum().unique().tolist() == [3]
    bottom = pick(found, end="bottom").groupby("sample")["neurons"].agg(tuple)
    assert bottom.nunique() > 1, "noise is ordered otherwise by other words"
    right = found.groupby("end")["accuracy"].agg(["min", "max"])
    whole = shares(pick(neurons.ensure_sets(run), target="real"), "neurons")
    assert right.loc["top"].tolist() == [whole["top"]] * 2, "the same neurons, the same probe"
    assert right.loc["bottom", "max"] < 0.5 < whole["top"] and found["accuracy"].notna().all()


def test_half_samples_come_in_pairs_that_share_no_text(planted_run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, fit_specs = [], probes.fit_specs

    def watched(X, specs, settings, seed, device, title, chosen=None):
        seen.append(chosen)
        return fit_specs(X, specs, settings, seed, device, title, chosen)

    monkeypatch.setattr(probes, "fit_specs", watched)
    run = planted_run(ranking__half_samples=4)
    texts = activations.ensure(run)["train"].words["text"].to_numpy()
    neurons.ensure_halves(run)
    halves = [{*texts[chosen]} for chosen in seen if chosen is not None]
    assert [len(half) for half in halves] == [5, 4, 5, 4]
    assert not halves[0] & halves[1] and not halves[2] & halves[3] and halves[0] != halves[2]
    assert all((np.diff(chosen) > 0).all() for chosen in seen if chosen is not None)


def shares(sets: pd.DataFrame, *by: str) -> dict:
    sums = pick(sets, split="test").groupby([*by])[["correct", "total"]].sum()
    assert (sums["total"] == 400).all(), "every word counts"
    return (sums["correct"] / sums["total"]).to_dict()


def test_the_top_set_tells_the_planted_labels_and_the_bottom_set_and_control_labels_are_not_told(planted_run) -> None:
    run = planted_run()
    sets = neurons.ensure_sets(run)
    accuracy = shares(sets, "target", "neurons")
    assert {*accuracy} == {("real", end) for end in ("all", "top", "bottom")} | {("control", "all"), ("control", "top")}
    assert min(accuracy["real", "all"], accuracy["real", "top"]) > 0.95
    chance = [accuracy[key] for key in (("real", "bottom"), ("control", "all"), ("control", "top"))]
    assert max(chance) < 0.45, "of three labels"
    retrained = neurons.ensure_tests(run).set_index(["split", "test", "neurons"])["accuracy"]
    for end, count in (("all", 24), ("top", 3)):
        assert accuracy["real", end] == retrained["test", "retrain", count]
    assert pick(sets, split="test").groupby(["target", "neurons"])["text"].nunique().unique().tolist() == [9]


@pytest.mark.parametrize("end", ["top", "bottom"])
def test_a_set_is_judged_by_a_probe_of_its_neurons_alone(planted_run, end: str) -> None:
    run = planted_run()
    stores, order = activations.ensure(run), neurons.ensure_rankings(run)["tag"].order
    chosen = {"top": order[:3], "bottom": order[::-1][:3]}[end]
    tag = probes.label_set({split: data.words for split, data in stores.items()}, "tag")
    (value,) = run.study.ranking.l1
    spec = ProbeSpec([tag.target], torch.from_numpy(chosen.copy()), value, value)
    (probe,) = probes.fit_specs(stores["train"].vectors, [spec], run.study.probe, run.study.seed)
    right = (probe.predict(stores["test"].vectors)[0][0] == tag.ids["test"]).mean()
    assert shares(neurons.ensure_sets(run), "target", "neurons")["real", end] == right


def test_control_tasks_are_learnt_only_where_nothing_was_fine_tuned(planted_run) -> None:
    targets = {
        variant: {*neurons.ensure_sets(planted_run(variant=variant))["target"]}
        for variant in ("pretrained", "random", "sentiment-s1")
    }
    assert targets == {"pretrained": {"real", "control"}, "random": {"real", "control"}, "sentiment-s1": {"real"}}


def test_a_property_may_have_a_top_of_its_own(planted_run) -> None:
    run = planted_run(names=("tag", "kind"), ranking__tops={"tag": 0.25})
    layers = neurons.ensure_layers(run).groupby(["property", "end"])["neurons"].sum().to_dict()
    assert layers == {("tag", "top"): 6, ("tag", "bottom"): 6, ("kind", "top"): 3, ("kind", "bottom"): 3}
    both = shares(pick(neurons.ensure_sets(run), target="real"), "property", "neurons")
    assert both["tag", "bottom"] != both["kind", "bottom"]
    for name, top in (("tag", 0.25), ("kind", 0.125)):
        alone = shares(neurons.ensure_sets(planted_run(ranking__top=top)), "target", "neurons")
        assert {end: both[name, end] for end in ("all", "top", "bottom")} == {
            end: alone["real", end] for end in ("all", "top", "bottom")
        }


TABLE_8 = {
    "bert": {"pos": (1e-3, 1e-2), "sem": (1e-3, 1e-2), "chunk": (1e-4, 1e-5)},
    "roberta": {"pos": (1e-3, 1e-3), "sem": (1e-3, 1e-3), "chunk": (1e-3, 1e-3)},
    "xlnet": {"pos": (1e-3, 1e-2), "sem": (1e-3, 1e-2), "chunk": (1e-4, 1e-4)},
}
"""λ1 and λ2 of the paper, by architecture and property."""


@pytest.mark.parametrize("kind", TABLE_8)
def test_the_papers_probe_takes_the_penalties_of_its_table_8(planted_run, kind: str) -> None:
    run = planted_run(kind, ("pos", "sem", "chunk", "tag"), probe="paper")
    tests = neurons.ensure_tests(run)
    penalties = {name: {*zip(rows["l1"], rows["l2"], strict=True)} for name, rows in tests.groupby("property")}
    assert penalties == {name: {own} for name, own in (TABLE_8[kind] | {"tag": (1e-3, 1e-3)}).items()}
    assert run.study.ranking.l1 == []
    ranks = neurons.ensure_rankings(run)
    assert (np.abs(ranks["pos"].weight).sum() == np.abs(ranks["chunk"].weight).sum()) == (kind == "roberta")


def test_a_second_ranking_is_tested_beside_the_first(planted_run, monkeypatch) -> None:
    """One entry in ``RANKINGS`` is all that it takes; it is given the training words and their labels."""

    def by_means(weight, X, y, settings) -> np.ndarray:
        network = X.transpose(1, 0, 2).reshape(len(y), -1).astype(np.float64)
        means = np.array([network[y == label].mean(0) for label in range(len(weight))])
        return np.argsort(-means.std(0), kind="stable")

    lca = neurons.ensure_tests(planted_run())
    monkeypatch.setitem(neurons.RANKINGS, "means", by_means)
    run = planted_run(ranking__mass_steps=99)
    tests, layers = neurons.ensure_tests(run), neurons.ensure_layers(run)
    assert tests[tests["ranking"] == "lca"].reset_index(drop=True).equals(lca)
    assert tests.groupby("ranking").size().to_dict() == {"lca": 24, "means": 24}
    top = pick(layers, end="top")
    assert top.groupby("ranking")["neurons"].sum().to_dict() == {"lca": 3, "means": 3}
    sets = neurons.ensure_sets(run).groupby(["ranking", "neurons", "target"]).size()
    assert sets["lca"].to_dict() == sets["means"].to_dict()
    for ranking in ("lca", "means"):
        assert set(neurons.ensure_rankings(run, ranking)["tag"].order[:3].tolist()) == set(PLANTED)
    assert (tests.set_index(["ranking", "split", "test", "neurons"])["accuracy"]["means", "test", "keep-top", 3]) > 0.95


def test_zeroing_is_reading_only_the_neurons_that_are_kept() -> None:
    data, ids = planted(300, 0)
    settings = params.ProbeSettings(epochs=2, batch_size=32, learning_rate=1e-2, l1=0.0, l2=0.0)
    (probe,) = probes.fit_specs(data.vectors, [ProbeSpec([(ids, 3)], "all")], settings, seed=0)
    order = np.random.default_rng(0).permutation(LAYERS * WIDTH)
    kept = neurons.ablate(probe, data.vectors, {"a": order, "b": order[::-1]}, [1, 5, 20])
    network = probes.read_block(data.vectors, slice(None), probe.standardiser, torch.device("cpu"))
    network = network.transpose(0, 1).flatten(1).double()
    for name, way in (("a", order), ("b", order[::-1])):
        assert kept[name].shape == (3, 300)
        for n, predicted in zip((1, 5, 20), kept[name], strict=True):
            mask = torch.zeros(LAYERS * WIDTH, dtype=torch.float64)
            mask[way[:n].copy()] = 1
            scores = (network * mask) @ probe.weight[0].double().T + probe.bias[0, :, 0]
            assert np.array_equal(predicted, scores.argmax(1).numpy())


def test_the_order_is_tested_with_the_probe_that_gave_it(planted_run) -> None:
    run = planted_run()
    stores = activations.ensure(run)
    tag = probes.label_set({s: d.words for s, d in stores.items()}, "tag")
    (value,) = run.study.ranking.l1
    spec = ProbeSpec([tag.target], torch.arange(24), value, value)
    (probe,) = probes.fit_specs(stores["train"].vectors, [spec], run.study.probe, run.study.seed)
    expected = (probe.predict(stores["test"].vectors)[0][0] == tag.ids["test"]).mean()
    table = neurons.ensure_tests(run).set_index(["split", "test", "neurons"])["accuracy"]
    assert table["test", "retrain", 24] == expected
    np.testing.assert_allclose(neurons.ensure_rankings(run)["tag"].weight, probe.weight[0].numpy(), atol=1e-6)


def test_the_penalty_that_keeps_the_accuracy_and_separates_the_neurons_is_chosen(planted_run) -> None:
    table = neurons.ensure_tests(planted_run(ranking__l1=[10.0, 1e-3]))
    assert table[["l1", "l2"]].drop_duplicates().to_numpy().tolist() == [[1e-3, 1e-3]], "with ten nothing is learnt"


def test_a_single_penalty_is_taken_without_a_search(planted_run) -> None:
    assert neurons.ensure_tests(planted_run(ranking__l1=[10.0]))["l1"].unique().tolist() == [10.0]


def ranking_settings(**changes) -> params.RankingSettings:
    base = {"l1": [0.0], "mass_steps": 10, "sizes": [1.0], "top": 0.5, "deltas": [0.01]}
    return params.RankingSettings(**(base | changes))


def test_rare_labels_are_left_out_of_the_ordering() -> None:
    ids = np.repeat([0, 1, 2], [50, 4, 46])
    weight = np.zeros((3, 6))
    weight[0, 1], weight[1, 5], weight[2, 2] = 1.0, 100.0, 0.5
    labels = Labels("tag", ["a", "b", "c"], {"train": ids})
    (ranked,) = rank(labels, weight, np.zeros((2, 100, 3)), ranking_settings(min_label_words=5))
    assert ranked.labels == ["a", "c"]
    assert ranked.order[:2].tolist() == [1, 2]
    assert ranked.weight.shape == (2, 6)
    assert ranked.shape == (2, 3)


def test_a_ranking_is_given_the_row_of_each_words_label(monkeypatch) -> None:
    received = []

    def by_number(*arguments) -> np.ndarray:
        received.extend(arguments)
        return np.arange(2)

    monkeypatch.setattr(neurons, "RANKINGS", {"by number": by_number})
    labels = Labels("tag", ["a", "b", "c"], {"train": np.array([2, 0, 1, 2, 0])})
    X = np.zeros((1, 5, 2))
    rank(labels, np.eye(3, 2), X, ranking_settings(min_label_words=2))
    weight, vectors, y, _ = received
    assert y.tolist() == [1, 0, -1, 1, 0]
    assert weight.tolist() == [[1, 0], [0, 0]]
    assert vectors is X


def test_a_property_without_a_frequent_label_is_refused() -> None:
    labels = Labels("tag", ["a", "b"], {"train": np.array([0, 1])})
    with pytest.raises(ValueError, match=r"no label has 500 training words; lower ranking\.min_label_words"):
        rank(labels, np.ones((2, 4)), np.zeros((2, 2, 2)), ranking_settings(min_label_words=500))


# A run -----------------------------------------------------------------------------------------------------------


def test_a_run_is_ranked_once_and_read_again(run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, ranks = neurons.ensure_tests(run), neurons.ensure_rankings(run)
    monkeypatch.setattr(probes, "fit_specs", lambda *a, **k: pytest.fail("ranked again"))
    assert neurons.ensure_tests(run).equals(first)
    again = neurons.ensure_rankings(run)["tag"]
    assert again.order.tolist() == ranks["tag"].order.tolist()
    assert again.labels == ["N", "O", "V"]
    assert sorted(again.order) == list(range(3 * 16))


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:200])])
def test_a_lost_or_truncated_ranking_is_computed_again(run, damage: Callable[[Path], object]) -> None:
    first = neurons.ensure_rankings(run)["tag"].order.tolist()
    damage(run.result("neurons") / "rankings.npz")
    assert neurons.ensure_rankings(run)["tag"].order.tolist() == first


def test_a_ranking_under_other_parameters_replaces_the_old_one(make_study) -> None:
    few, many = (
        runs.Run(make_study(ranking__sizes=sizes), variants.Variant("pretrained")) for sizes in ([1.0], [0.1, 0.5, 1.0])
    )
    assert (neurons.ensure_tests(few)["test"] == "retrain").sum() == 2
    assert (neurons.ensure_tests(many)["test"] == "retrain").sum() == 6
    assert not runs.is_current(few, "neurons")
