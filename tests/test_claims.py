"""Planted effects get the verdict they must have; what cannot be asked says so, and by what it is lacking."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import pytest
from conftest import with_variants
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from lib import results
from lib.results import claims
from lib.results.claims import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, UNDECIDED
from lib.study.runs import Run
from lib.study.variants import Variant

FLAT = np.full(6, 90.0)
"""Accuracy of every layer before fine-tuning, in per cent."""
LOW = np.full(6, 50.0)
"""That of the random encoder."""
TOP = np.array([0, 0, 0, 0, 1.0, 1.0])
"""The top third of six layers."""


def counts(profiles: dict[str, np.ndarray], study: str = "s", noise: float = 0, texts: int = 40, **where: str):
    """Variant → accuracy per layer (per cent), as ``results.layers`` gives it; ``noise`` : points, of each text."""
    cell = {"property": "tag", "source": "gold", "target": "real", "word_group": "all", "split": "test", **where}
    level = np.concatenate([*profiles.values()]).repeat(texts)
    level = level + noise * np.random.default_rng(len(study)).standard_normal(len(level))
    index = [(v, k, f"t{i}") for v, profile in profiles.items() for k in range(len(profile)) for i in range(texts)]
    table = pd.DataFrame(index, columns=["variant", "layer", "text"])
    return with_variants(table.assign(correct=100 * level, total=10_000, study=study, **cell))


def scores(variants: Iterable[str], study: str = "s", failed: Iterable[str] = ()) -> pd.DataFrame:
    """What ``results.task_scores`` says of the fine-tuned ones; a quarter of the updates where the name says so."""
    tuned = [v for v in variants if v not in ("pretrained", "random")]
    rows = [(study, v, v not in failed, 25 if "quarter" in v else 100) for v in tuned]
    return with_variants(pd.DataFrame(rows, columns=["study", "variant", "learnt", "updates"]))


def ranked(
    histograms: dict[str, list[int]], margin: dict[str, float] | None = None, study: str = "s", ranking: str = "lca"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Variant → top neurons per layer, as ``results.neuron_tests`` and ``neuron_layers`` give them. ``margin`` : top
    minus random (0.2)."""
    layers = [(variant, k, n) for variant, neurons in histograms.items() for k, n in enumerate(neurons)]
    tests = [
        (variant, test, "test", n, 0.5 + (test == "keep-top") * (margin or {}).get(variant, 0.2))
        for variant in histograms
        for test in ("keep-top", "keep-random")
        for n in (10, 100)
    ]
    cell = {"study": study, "property": "tag", "ranking": ranking, "source": "gold"}
    tests = pd.DataFrame(tests, columns=["variant", "test", "split", "neurons", "accuracy"])
    layers = pd.DataFrame(layers, columns=["variant", "layer", "neurons"])
    return with_variants(tests.assign(**cell)), with_variants(layers.assign(**cell))


NO_TESTS = ranked({})


def judged(profiles: dict[str, np.ndarray], tests=NO_TESTS, failed: Iterable[str] = (), ranking="lca", **planted):
    """The verdicts on one study of the encoder E."""
    return verdicts(scores(profiles, failed=failed), counts(profiles, **planted), tests, ranking)


def verdicts(scores: pd.DataFrame, counts: pd.DataFrame, tests=NO_TESTS, ranking: str = "lca") -> pd.DataFrame:
    return claims.judge_tables({"s": "E"}, {"s": "bert"}, scores, counts, *tests, ranking)


def tuned(drops: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A pre-trained, a random, and fine-tuned encoders with these drops, in points."""
    return {"pretrained": FLAT, "random": LOW} | {variant: FLAT - drop for variant, drop in drops.items()}


def only(table: pd.DataFrame, **where: object) -> pd.Series:
    (row,) = (row for _, row in results.pick(table, **where).iterrows())
    return row


# The rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per_seed", "low", "high", "expected", "found"), [
    ([2, 3], 1.5, 3.5, 1, REPRODUCED), ([2, 3], 1.5, 3.5, 0, REPRODUCED), ([2, 3], 1.5, 3.5, -1, NOT_REPRODUCED),
    ([-2, -3], -3.5, -1.5, 0, REPRODUCED), ([-2, -3], -3.5, -1.5, 1, NOT_REPRODUCED),
    ([6, -1], 1.5, 3.5, 1, UNDECIDED), ([6, -1], 1.5, 3.5, 0, UNDECIDED), ([6, -1], 1.5, 3.5, -1, UNDECIDED),
    ([2, 3], 0.5, 3.5, 1, UNDECIDED), ([0, 0], -0.5, 0.5, 1, NOT_REPRODUCED), ([0.5], -1.5, 0.5, 0, UNDECIDED),
    ([1], 1, 1, 1, NOT_REPRODUCED), ([0.2, -0.2], -1, 1, 0, NOT_REPRODUCED),
])  # fmt: skip
def test_the_rule_on_intervals(per_seed: list, low: float, high: float, expected: int, found: str) -> None:
    assert claims.verdict(np.array(per_seed), low, high, 1.0, expected) == found


@pytest.mark.parametrize(("per_seed", "expected", "found"), [
    ([2, 3, 4], 1, REPRODUCED), ([2, 3, 4], -1, NOT_REPRODUCED), ([2, 3, 4], 0, REPRODUCED),
    ([2, 3, 0.5], 1, UNDECIDED), ([0.5, -3, 0], 1, UNDECIDED), ([0.5, -1, 0], 1, NOT_REPRODUCED),
    ([2, 2, -2], 0, UNDECIDED), ([0, 0.5, -0.5], 0, NOT_REPRODUCED), ([2, 3], 1, UNDECIDED), ([0, 0], 1, UNDECIDED),
])  # fmt: skip
def test_the_rule_on_seeds_where_there_is_no_interval(per_seed: list, expected: int, found: str) -> None:
    assert claims.verdict(np.array(per_seed), np.nan, np.nan, 1.0, expected) == found


REAL = st.floats(-10, 10, allow_nan=False)


@given(st.lists(REAL, min_size=1, max_size=5), st.tuples(REAL, REAL), st.booleans(), st.floats(0.01, 3))
def test_there_is_exactly_one_verdict_and_none_prefers_a_direction(seeds, ends, interval, threshold) -> None:
    per_seed = np.array(seeds)
    low, high = sorted(ends) if interval else (np.nan, np.nan)
    found = {sign: claims.verdict(per_seed, low, high, threshold, sign) for sign in (1, 0, -1)}
    assert set(found.values()) <= {REPRODUCED, NOT_REPRODUCED, UNDECIDED}
    for sign, mine in found.items():
        assert claims.verdict(-per_seed, -high, -low, threshold, -sign) == mine
    assert [found[1], found[-1]].count(REPRODUCED) <= 1
    assert (found[0] == REPRODUCED) == (REPRODUCED in (found[1], found[-1]))


# The measures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("drop", "first"), [
    ([0, 0, 0, 0], 4), ([2, 2, 2, 2], 0), ([2, 0, 2, 2], 2), ([2, 2, 2, 1], 4), ([0, 0, 0, 1.1], 3), ([0, -5, 3, 3], 2),
])  # fmt: skip
def test_the_depth_is_the_first_layer_from_which_every_higher_one_drops(drop: list, first: int) -> None:
    assert claims.depth(np.array(drop)[:, None]).tolist() == [first]


def test_the_measures_are_taken_in_each_draw_by_itself() -> None:
    drop = np.array([[0, 2, 2], [0, 0, 2], [0, 2, 2]])
    assert claims.depth(drop).tolist() == [3, 2, 0]
    assert results.top_third(np.arange(18.0).reshape(9, 2)).tolist() == [14, 15]
    assert np.isnan(results.top_third(np.ones((2, 3)))).all(), "there is no third of two layers"
    found = results.centre_of_gravity(np.array([[1.0, -3, -1], [1, 1, -1], [0, 3, -1]]))
    assert found[:2].tolist() == [0.5, 1.75], "what is below the random encoder weighs nothing"
    assert np.isnan(found[2])


# C1 ----------------------------------------------------------------------------------------------------------------


def test_a_task_difference_of_5_points_is_reproduced_in_either_order() -> None:
    drops = {f"a-s{s}": 7 * TOP for s in (1, 2, 3)} | {f"b-s{s}": 2 * TOP for s in (1, 2, 3)}
    for sign, ordered in ((1, drops), (-1, dict(reversed(drops.items())))):
        row = only(judged(tuned(ordered), noise=3), claim="C1", property="tag")
        assert row["verdict"] == REPRODUCED
        assert row["effect"] == pytest.approx(5 * sign, abs=0.6)
        assert row["low"] < row["effect"] < row["high"]
        assert row["compared"] == ("a vs b" if sign == 1 else "b vs a")
        assert row[["unit", "threshold", "seeds", "same_sign"]].tolist() == ["points", 1.0, 3, True]
        assert np.mean([float(effect) for effect in row["per_seed"].split()]) == pytest.approx(row["effect"], abs=1e-3)
        assert "E, a minus b, tag: +" in row["sentence"] if sign == 1 else "b minus a, tag: -" in row["sentence"]


def test_a_tenth_of_a_point_on_many_texts_is_not_reproduced_and_noise_leaves_it_undecided() -> None:
    drops = {"a-s1": 2.1 * TOP, "b-s1": 2 * TOP}
    quiet = only(judged(tuned(drops), noise=3, texts=400), claim="C1", property="tag")
    loud = only(judged(tuned(drops), noise=30), claim="C1", property="tag")
    assert (quiet["verdict"], loud["verdict"]) == (NOT_REPRODUCED, UNDECIDED)
    assert quiet["high"] - quiet["low"] < loud["high"] - loud["low"]


def test_one_seed_of_the_other_sign_leaves_it_undecided() -> None:
    drops = {"a-s1": 9 * TOP, "a-s2": 9 * TOP, "a-s3": 0 * TOP} | {f"b-s{s}": TOP for s in (1, 2, 3)}
    row = only(judged(tuned(drops), noise=1), claim="C1", property="tag")
    assert row["low"] > 1
    assert (row["verdict"], row["same_sign"]) == (UNDECIDED, False)
    assert f"per seed {row['per_seed']}" in row["sentence"]


def test_the_effect_is_the_difference_of_the_drops_that_are_tabled() -> None:
    rng = np.random.default_rng(3)
    profiles = {v: rng.uniform(60, 90, 7) for v in ("pretrained", "random", "a-s1", "a-s2", "b-s1", "b-s2")}
    table = results.drops(counts(profiles, noise=8))
    deep = table[table["layer"] >= 5].groupby("variant")["drop"].mean() * 100
    expected = (deep["a-s1"] + deep["a-s2"] - deep["b-s1"] - deep["b-s2"]) / 2
    assert only(judged(profiles, noise=8), claim="C1", property="tag")["effect"] == pytest.approx(expected)


def test_the_interval_is_a_paired_one() -> None:
    """Texts that are hard for every encoder widen an accuracy's interval, not that of a difference."""
    table = counts(tuned({"a-s1": 4 * TOP, "b-s1": 2 * TOP}))
    hard = pd.Series(np.random.default_rng(0).uniform(-3000, 0, 40), index=[f"t{i}" for i in range(40)])
    table["correct"] += table["text"].map(hard)
    row = only(verdicts(scores(["a-s1", "b-s1"]), table), claim="C1", property="tag")
    assert row[["low", "effect", "high"]].tolist() == pytest.approx([2, 2, 2])
    assert np.diff(results.accuracies(table)[["low", "high"]]).min() > 0.03


def test_the_papers_tasks_are_compared_in_groups() -> None:
    drops = {"sst2-s1": 5 * TOP, "mnli-s1": 4 * TOP, "rte-s1": 1 * TOP, "mrpc-s1": 3 * TOP}
    table = results.pick(judged(tuned(drops)), claim="C1")
    row = only(table, compared="forget (sst2, mnli) vs keep (rte, mrpc)")
    assert (row["effect"], row["verdict"]) == (pytest.approx(2.5), REPRODUCED)
    assert len(table) == 6 + 1
    failed = only(judged(tuned(drops), failed=["mrpc-s1"]), compared="forget (sst2, mnli) vs keep (rte)")
    assert failed["effect"] == pytest.approx(3.5)
    upside_down = {"sst2-s1": TOP, "rte-s1": 4 * TOP}
    table = results.pick(judged(tuned(upside_down)), claim="C1").set_index("compared")["verdict"]
    assert table["sst2 vs rte"] == REPRODUCED
    assert table["forget (sst2) vs keep (rte)"] == NOT_REPRODUCED, "a pair differs, but not as the paper says"


# What is left out ---------------------------------------------------------------------------------------------------


def test_a_run_that_did_not_learn_is_left_out_visibly() -> None:
    drops = {"a-s1": 5 * TOP, "a-s2": 40 * TOP, "b-s1": 2 * TOP, "b-s2": 2 * TOP, "c-s1": 9 * TOP}
    table = judged(tuned(drops), failed=["a-s2", "c-s1"])
    row = only(table, claim="C1", compared="a vs b")
    assert (row["effect"], row["seeds"], row["verdict"]) == (pytest.approx(3), 1, REPRODUCED)
    assert "left out, task not learnt: E a-s2" in row["sentence"]
    for claim, compared in (("C1", "a vs c"), ("C1", "b vs c"), ("C2", "c vs pretrained")):
        for _, lost in results.pick(table, claim=claim, compared=compared).iterrows():
            assert (lost["verdict"], lost["seeds"]) == (NOT_TESTABLE, 0)
            assert "E c-s1" in lost["sentence"]


def test_silver_properties_and_other_splits_targets_and_word_groups_are_ignored() -> None:
    drops = tuned({"a-s1": 5 * TOP, "b-s1": 2 * TOP})
    mirrored = tuned({"a-s1": 2 * TOP, "b-s1": 9 * TOP})
    other = [
        {"property": "kind", "source": "silver"},
        {"split": "dev"},
        {"target": "control"},
        {"word_group": "unseen"},
    ]
    noise = pd.concat(counts(mirrored, **where) for where in other)
    every = pd.concat([counts(drops), noise])
    pd.testing.assert_frame_equal(verdicts(scores(drops), every), judged(drops))
    silver = verdicts(scores(drops), counts(drops, source="silver"))
    assert silver["verdict"].unique().tolist() == [NOT_TESTABLE]


def test_each_gold_property_has_its_own_row() -> None:
    drops = tuned({"a-s1": 5 * TOP, "b-s1": 2 * TOP})
    table = pd.concat([counts(drops), counts(tuned({"a-s1": TOP, "b-s1": TOP}), property="other")])
    rows = results.pick(verdicts(scores(drops), table), compared="a vs b")
    assert rows.set_index("property")["verdict"].to_dict() == {"other": NOT_REPRODUCED, "tag": REPRODUCED}


def test_an_encoder_that_did_not_change_has_effects_of_exactly_0() -> None:
    rng = np.random.default_rng(0)
    same = counts({"pretrained": FLAT}, noise=9)
    twins = [with_variants(same.assign(variant=v)) for v in ("pretrained", "a-s1", "b-s1")]
    table = pd.concat([*twins, counts({"random": LOW})])
    table["correct"] += table["layer"] * rng.integers(1, 9)
    tests = ranked({v: [3, 2, 1] for v in ("pretrained", "a-s1", "b-s1")})
    found = verdicts(scores(["a-s1", "b-s1"]), table, tests).dropna(subset="effect")
    assert len(found) == 1 + 3 * 2
    assert (found["effect"] == 0).all()
    assert not found["same_sign"].any()
    measured = found.dropna(subset="low")
    assert (measured[["low", "high"]] == 0).all(axis=None)
    assert measured["verdict"].unique().tolist() == [NOT_REPRODUCED]


# C2 ----------------------------------------------------------------------------------------------------------------


def test_a_planted_shift_of_the_centre_of_gravity_is_found() -> None:
    before, down, up = (LOW + np.array(a) for a in ([10] * 6, [10, 10, 10, 10, 0, -5], [0, 0, 10, 10, 10, 10]))
    profiles = {"pretrained": before, "random": LOW, "down-s1": down, "up-s1": up, "none-s1": before}
    table = results.pick(judged(profiles, noise=1), measure="centre of gravity over the layers").set_index("compared")
    assert table["effect"].to_dict() == pytest.approx(
        {"down vs pretrained": -1, "up vs pretrained": 1, "none vs pretrained": 0}, abs=0.1
    )
    assert table["verdict"].tolist() == [REPRODUCED, NOT_REPRODUCED, NOT_REPRODUCED]
    assert table["unit"].unique().tolist() == ["layers"]


NEURONS = {"pretrained": [10, 10, 10, 10], "a-s1": [25, 9, 4, 2], "a-s2": [24, 10, 4, 2], "a-s3": [26, 8, 4, 2]}
HISTOGRAMS = ["mean layer of the top neurons", "entropy of the top neurons"]


def test_top_neurons_that_move_down_are_judged_by_the_seeds() -> None:
    drops = tuned(dict.fromkeys(list(NEURONS)[1:], TOP))
    table = judged(drops, ranked(NEURONS)).set_index("measure").loc[HISTOGRAMS]
    assert table["verdict"].tolist() == [REPRODUCED, REPRODUCED]
    spread = np.mean([entropy(NEURONS[f"a-s{s}"]) for s in (1, 2, 3)]) - np.log(4)
    assert table["effect"].tolist() == pytest.approx([23 / 40 - 1.5, spread])
    assert table[["low", "high"]].isna().all(axis=None)
    assert table[["unit", "threshold"]].to_numpy().tolist() == [["layers", 0.25], ["nats", 0.05]]
    upwards = ranked({v: n[::-1] for v, n in NEURONS.items()})
    table = judged(drops, upwards).set_index("measure").loc[HISTOGRAMS]
    assert table["verdict"].tolist() == [NOT_REPRODUCED, REPRODUCED], "concentrated, but higher up"


def test_fewer_than_three_seeds_without_an_interval_are_undecided() -> None:
    table = judged(tuned({"a-s1": TOP, "a-s2": TOP}), ranked(NEURONS)).set_index("measure").loc[HISTOGRAMS]
    assert table["verdict"].tolist() == [UNDECIDED, UNDECIDED]
    assert table["sentence"].str.contains("no interval: 3 seeds decide; per seed -").all()


@pytest.mark.parametrize("weak", ["pretrained", "a-s2"])
def test_neurons_in_an_order_that_fails_its_own_test_are_undecided(weak: str) -> None:
    tests = ranked(NEURONS, margin={weak: 0.0})
    table = judged(tuned(dict.fromkeys(list(NEURONS)[1:], TOP)), tests).set_index("measure").loc[HISTOGRAMS]
    assert table["verdict"].tolist() == [UNDECIDED, UNDECIDED]
    assert table["sentence"].str.contains(f"neurons no better than random: {weak.split('-s')[0]}").all()


def test_the_neurons_that_are_judged_are_those_of_one_ranking() -> None:
    drops = tuned(dict.fromkeys(list(NEURONS)[1:], TOP))
    weak = ranked({v: n[::-1] for v, n in NEURONS.items()}, dict.fromkeys(NEURONS, -0.1), ranking="means")
    both = [pd.concat(tables) for tables in zip(ranked(NEURONS), weak, strict=True)]
    pd.testing.assert_frame_equal(judged(drops, both), judged(drops, ranked(NEURONS)))
    table = judged(drops, both, ranking="means")
    pd.testing.assert_frame_equal(table, judged(drops, weak, ranking="means"))
    assert table.groupby("measure")["ranking"].unique().loc[HISTOGRAMS].tolist() == [["means"], ["means"]]
    assert set(table[~table["measure"].isin(HISTOGRAMS)]["ranking"]) == {""}
    assert table.set_index("measure").loc[HISTOGRAMS, "verdict"].tolist() == [UNDECIDED, UNDECIDED]
    assert judged(drops, ranked(NEURONS), ranking="means").set_index("measure").loc[HISTOGRAMS, "effect"].isna().all()


# C3 ----------------------------------------------------------------------------------------------------------------

TITLES = {"bert-mini": "BERT-mini", "roberta-mini": "RoBERTa-mini", "xlnet-mini": "XLNet-mini"}
MINIS = {"bert-mini": "bert", "roberta-mini": "roberta", "xlnet-mini": "xlnet"}


def encoders(drops: dict[str, np.ndarray], architectures: dict[str, str] = MINIS, noise: float = 0) -> pd.DataFrame:
    """The verdicts on C3 of studies whose encoder, fine-tuned on the task a, drops like this."""
    each = {study: tuned({"a-s1": drop, "a-s2": drop}) for study, drop in drops.items()}
    table = pd.concat(counts(p, study, noise=noise) for study, p in each.items())
    known = pd.concat(scores(p, study) for study, p in each.items())
    titles = {study: TITLES.get(study, study) for study in each}
    return results.pick(claims.judge_tables(titles, architectures, known, table, *NO_TESTS), claim="C3")


def test_a_bert_that_keeps_it_deeper_than_the_others_is_found() -> None:
    shallow = np.array([0, 0, 5, 10, 15, 30])
    table = encoders({"xlnet-mini": 0.8 * shallow, "bert-mini": 5 * TOP, "roberta-mini": shallow}, noise=0.5)
    assert table["verdict"].tolist() == [REPRODUCED] * 4
    assert table["encoder"].unique().tolist() == ["BERT-mini vs XLNet-mini", "BERT-mini vs RoBERTa-mini"]
    assert table[table["unit"] == "layers"]["compared"].tolist() == ["a"] * 4
    assert table["effect"].iloc[0] == 2, "BERT drops from layer 4 on, XLNet from layer 2 on"
    other_way = encoders({"bert-mini": shallow, "xlnet-mini": 5 * TOP})
    assert other_way["verdict"].tolist() == [NOT_REPRODUCED, NOT_REPRODUCED]


def test_studies_are_drawn_with_the_same_texts() -> None:
    """Two encoders that are right on the same words of the same texts differ by nothing, in every draw."""
    profiles = tuned({"a-s1": 1.02 * TOP})
    table = pd.concat(counts(profiles, noise=5).assign(study=study) for study in ("bert-mini", "roberta-mini"))
    known = pd.concat(scores(profiles, study) for study in ("bert-mini", "roberta-mini"))
    titles = {study: TITLES[study] for study in ("bert-mini", "roberta-mini")}
    rows = results.pick(claims.judge_tables(titles, MINIS, known, table, *NO_TESTS), claim="C3")
    assert (rows[["effect", "low", "high"]] == 0).all(axis=None)
    table["text"] = table["text"].mask(table["study"] == "bert-mini", "other " + table["text"])
    with pytest.raises(ValueError, match="not probed on the same test texts"):
        claims.judge_tables(titles, MINIS, known, table, *NO_TESTS)


@pytest.mark.parametrize(("architectures", "lacking"), [
    (["bert"], "a RoBERTa or XLNet"), (["roberta", "xlnet"], "one BERT"), (["bert", "bert", "roberta"], "one BERT"),
    (["deberta-v2", "roberta"], "one BERT"), (["distilbert", "xlnet"], "one BERT"), (["albert", "roberta"], "one BERT"),
    (["bert", "xlm-roberta"], "a RoBERTa or XLNet"), (["bert", "camembert"], "a RoBERTa or XLNet"),
])  # fmt: skip
def test_without_a_pair_the_architectures_are_not_compared(architectures: list[str], lacking: str) -> None:
    known = dict(zip("abc", architectures, strict=False))
    row = only(encoders(dict.fromkeys(known, TOP), known), claim="C3")
    assert row["verdict"] == NOT_TESTABLE
    assert lacking in row["sentence"]


def test_an_architecture_is_that_of_the_encoder_whatever_its_study_is_called() -> None:
    drops = {"roberta-large": 5 * TOP, "mine": TOP}
    found = encoders(drops, {"roberta-large": "bert", "mine": "xlnet"})
    assert (found["verdict"] != NOT_TESTABLE).all()
    assert found["encoder"].unique().tolist() == ["roberta-large vs mine"]
    misled = encoders({"bert-mini": TOP, "roberta-mini": TOP}, {"bert-mini": "deberta", "roberta-mini": "longformer"})
    assert misled["verdict"].tolist() == [NOT_TESTABLE]


def test_encoders_of_different_depth_are_not_compared() -> None:
    profiles = dict.fromkeys(["bert-mini", "roberta-mini"], tuned({"a-s1": TOP}))
    profiles["xlnet-mini"] = {v: np.full(4, 80.0) for v in ("pretrained", "random", "a-s1")}
    table = pd.concat(counts(mine, study) for study, mine in profiles.items())
    known = pd.concat(scores(["a-s1"], study) for study in TITLES)
    found = results.pick(claims.judge_tables(TITLES, MINIS, known, table, *NO_TESTS), claim="C3").set_index("encoder")
    assert (found.loc["BERT-mini vs RoBERTa-mini", "verdict"] != NOT_TESTABLE).all()
    assert found.loc["BERT-mini vs XLNet-mini", "verdict"] == NOT_TESTABLE
    assert "as many layers" in found.loc["BERT-mini vs XLNet-mini", "sentence"]


# C4 ----------------------------------------------------------------------------------------------------------------


def test_reduced_variants_are_used_by_the_control_only() -> None:
    drops = {"a-s1": 5 * TOP, "a-s2": 5 * TOP, "b-s1": 5 * TOP, "b-s2": 5 * TOP}
    drops |= {"a-quarter-s1": 2 * TOP, "a-quarter-s2": 2 * TOP, "b-half-s1": 4.9 * TOP, "c-quarter-s1": TOP}
    table = judged(tuned(drops), ranked({v: [1, 2, 3] for v in drops}))
    control = results.pick(table, claim="C4").set_index("compared")
    assert control["verdict"].to_dict() == {"a vs a-quarter": REPRODUCED, "b vs b-half": NOT_REPRODUCED}
    assert control["effect"].tolist() == pytest.approx([3, 0.1])
    assert control["seeds"].tolist() == [2, 1]
    assert "updates: a 100, a-quarter 25" in control["sentence"].iloc[0]
    rest = table[table["claim"] != "C4"]
    assert not rest["compared"].str.contains("quarter|half|c").any()
    assert len(results.pick(table, claim="C1")) == 2


def test_a_task_in_full_is_compared_with_fewer_examples_of_it() -> None:
    drops = {"sst2": 5, "sst2-1k": 2, "sst2-500": 1, "sst2-half": 5, "rte-1k": 1}
    each = {f"{task}-s{s}": points * TOP for task, points in drops.items() for s in (1, 2)}
    control = results.pick(judged(tuned(each)), claim="C4")
    assert control[["condition", "against", "effect", "verdict"]].to_numpy().tolist() == [
        ["sst2", "sst2-1k", pytest.approx(3), REPRODUCED], ["sst2", "sst2-500", pytest.approx(4), REPRODUCED],
        ["sst2", "sst2-half", 0, NOT_REPRODUCED],
    ]  # fmt: skip
    assert control["compared"].tolist() == ["sst2 vs sst2-1k", "sst2 vs sst2-500", "sst2 vs sst2-half"]


def test_tasks_on_equally_many_examples_are_compared_as_tasks_are() -> None:
    drops = {"sst2-1k": 5, "rte-1k": 2, "own-1k": 2, "sst2": 8, "sst2-500": 3, "own-half": 1, "rte-half": 3}
    table = judged(tuned({f"{task}-s1": points * TOP for task, points in drops.items()}))
    pairs = results.pick(table, claim="C1").dropna(subset="effect").set_index("compared")
    found = {"sst2-1k vs rte-1k": 3, "sst2-1k vs own-1k": 3, "rte-1k vs own-1k": 0}
    assert pairs["effect"].to_dict() == pytest.approx(found), "no half, and none of unlike numbers"
    assert pairs["verdict"].tolist() == [REPRODUCED, REPRODUCED, NOT_REPRODUCED]
    assert results.pick(table, claim="C2")["condition"].unique().tolist() == ["sst2"], "asked of tasks in full"


# What cannot be asked, and the overview -----------------------------------------------------------------------------


def test_one_task_and_no_random_encoder_leave_rows_that_say_what_is_lacking() -> None:
    table = judged({"pretrained": FLAT, "a-s1": FLAT - TOP})
    assert table["verdict"].unique().tolist() == [NOT_TESTABLE]
    assert table["claim"].tolist() == ["C1", "C1", "C2", "C2", "C2", "C3", "C4"]
    lacking = ["two fully trained tasks", "sst2, qnli, mnli and one among stsb, rte, mrpc", "random", "ranked neurons",
               "one BERT", "fewer updates or examples"]  # fmt: skip
    for needed in lacking:
        assert table["sentence"].str.contains(f"not testable without .*{needed}").any(), needed
    assert table[["effect", "low", "high"]].isna().all(axis=None)
    assert not table["same_sign"].any()


def test_fewer_than_three_layers_have_no_top_third() -> None:
    profiles = {v: np.array([80.0, 81.0]) for v in ("pretrained", "random", "a-s1", "b-s1")}
    row = only(judged(profiles), claim="C1", property="tag")
    assert row["verdict"] == NOT_TESTABLE
    assert "three layers" in row["sentence"]


def test_judge_asks_runs_for_titles_and_scores(make_study: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = tuned({"a-s1": 5 * TOP, "b-s1": 2 * TOP})
    study = make_study()
    wanted = [Run(study, Variant.parse(v)) for v in profiles]
    bare = wanted[:2]
    assert claims.judge(bare, counts(profiles, "minilm"), *NO_TESTS)["verdict"].unique().tolist() == [NOT_TESTABLE]
    monkeypatch.setattr(results, "task_scores", lambda wanted: scores(profiles, "minilm"))
    table = claims.judge(wanted, counts(profiles, "minilm"), *NO_TESTS)
    assert table["encoder"].unique().tolist() == ["MiniLM-L6"]
    assert only(table, compared="a vs b")["verdict"] == REPRODUCED
    twin = Run(study.model_copy(update={"name": "twin"}), Variant("pretrained"))
    both = claims.judge([*wanted, twin], counts(profiles, "minilm"), *NO_TESTS)
    assert {"MiniLM-L6 (minilm)", "MiniLM-L6 (twin)"} < set(both["encoder"])


def test_judge_reads_the_architecture_from_the_encoder(make_study: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies that are both called BERT: by their config.json one is a BERT and the other a RoBERTa."""
    profiles = tuned({"a-s1": TOP})
    studies = [make_study(kind).model_copy(update={"name": f"bert-{kind}"}) for kind in ("roberta", "bert")]
    monkeypatch.setattr(results, "task_scores", lambda runs: pd.concat(scores(profiles, s.name) for s in studies))
    table = pd.concat(counts(profiles, study.name) for study in studies)
    found = claims.judge([Run(study, Variant.parse(v)) for study in studies for v in profiles], table, *NO_TESTS)
    pairs = results.pick(found, claim="C3")
    assert pairs["encoder"].unique().tolist() == ["MiniLM-L6 (bert-bert) vs MiniLM-L6 (bert-roberta)"]
    assert (pairs["verdict"] != NOT_TESTABLE).all()


def test_studies_of_different_corpora_are_refused(make_study: Callable) -> None:
    wanted = [Run(make_study(files={"train": "a", "test": name}), Variant("pretrained")) for name in ("b", "c")]
    with pytest.raises(ValueError, match="different corpora"):
        claims.judge(wanted, counts({"pretrained": FLAT}), *NO_TESTS)


def test_the_overview_has_one_row_per_claim_and_measure_and_names_what_came_to_each_verdict() -> None:
    rows = [
        ("C1", "drop", "E", "a", "b", "pos", REPRODUCED, 2.0), ("C1", "drop", "E", "a", "b", "sem", REPRODUCED, 3.0),
        ("C1", "drop", "E", "a", "c", "pos", UNDECIDED, 1.0),
        ("C1", "drop", "E", "b", "c", "pos", NOT_TESTABLE, np.nan),
        ("C1", "drop", "F", "a", "b", "pos", NOT_REPRODUCED, -0.5),
        ("C1", "drop", "F", "", "", "", NOT_TESTABLE, np.nan),
        ("C2", "shift", "E", "a", "pretrained", "pos", NOT_TESTABLE, np.nan),
        ("C2", "shift", "F", "a", "pretrained", "pos", UNDECIDED, 0.0),
        ("C3", "shift", "E|F", "a", "a", "pos", REPRODUCED, -1.0),
    ]  # fmt: skip
    columns = ["claim", "measure", "encoder", "condition", "against", "property", "verdict", "effect"]
    table = pd.DataFrame(rows, columns=columns)
    compared = (table["condition"] + " vs " + table["against"]).where(table["claim"] != "C3", table["condition"])
    found = claims.overview(table.assign(compared=compared, unit="points"))
    assert found.columns.tolist() == ["claim", "measure", "E", "F", "E|F"]
    several = "reproduced (a vs b pos +2.00, a vs b sem +3.00); undecided (a vs c pos +1.00)"
    assert found.to_numpy().tolist() == [
        ["C1", "drop (points)", several, "not reproduced (a vs b -0.50)", ""],
        ["C2", "shift (points)", NOT_TESTABLE, "undecided (a +0.00)", ""],
        ["C3", "shift (points)", "", "", "reproduced (a -1.00)"],
    ]
    assert claims.to_markdown(found[["claim", "E|F"]].tail(1)) == (
        "| claim | E\\|F |\n| --- | --- |\n| C3 | reproduced (a -1.00) |"
    )


def test_the_columns_are_those_that_are_promised() -> None:
    table = judged(tuned({"a-s1": 5 * TOP, "b-s1": 2 * TOP}))
    assert table.columns.tolist() == [
        "claim", "encoder", "study", "other", "architecture", "compared", "condition", "against", "property",
        "measure", "ranking", "effect", "low", "high", "unit", "threshold", "seeds", "same_sign", "per_seed", "verdict",
        "sentence",
    ]  # fmt: skip
    assert table["same_sign"].dtype == bool
    assert table["claim"].is_monotonic_increasing
    assert table["sentence"].str.fullmatch(r"[A-Z].*\.").all()
