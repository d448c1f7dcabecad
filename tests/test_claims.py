"""Planted effects get the verdict they must have; what cannot be asked says so, and decides nothing."""

import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import pytest
from conftest import with_variants
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lib import results
from lib.figures import report
from lib.results import claims, paper
from lib.results.claims import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, UNDECIDED, Evidence
from lib.results.summary import pick
from lib.study.runs import Run
from lib.study.variants import Variant

FLAT = np.full(6, 90.0)
"""Accuracy of every layer before fine-tuning, in per cent."""
TOP = np.array([0, 0, 0, 0, 1.0, 1.0])
"""The top third of six layers."""
LAYER = np.arange(6)
BEFORE = {"layer": FLAT, "bottom": 80.0, "top": 80.0, "top per layer": [50, 0, 0, 0, 0, 50], "ranked": 0.2}
"""Measure → what it is before fine-tuning."""

Planted = dict[str, dict[str, object]]
"""Measure → variant → its value."""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(results.resampled.__globals__, "RESAMPLES", 200)


# Tables made by hand -----------------------------------------------------------------------------------------------


def counts(values: dict[tuple, float], column: str, texts: int = 10, noise: float = 0, seed: int = 0) -> pd.DataFrame:
    """Variant and layer, or set of neurons → accuracy in per cent, as ``results`` gives the counts of a probe;
    ``noise`` : points, of each text."""
    rows = [(*cell, f"t{i}", 100 * value) for cell, value in values.items() for i in range(texts)]
    table = pd.DataFrame(rows, columns=["variant", column, "text", "correct"])
    table["correct"] += 100 * noise * np.random.default_rng(seed).standard_normal(len(table))
    return table.assign(total=10_000, target="real", split="test", word_group="all")


def tables(planted: Planted, study: str = "s", failed: Iterable[str] = (), name: str = "tag", **noise) -> dict:
    """The arguments of ``claims.evidence_of`` for a study, but for titles and architectures. ``failed`` : the variants
    that did not learn their task."""
    measures = [values for name, values in planted.items() if name != "halves"]
    tuned = {v: None for values in measures for v in values if v not in ("pretrained", "random")}
    per_layer = {
        (v, layer): value for v, profile in planted.get("layer", {}).items() for layer, value in enumerate(profile)
    }
    sets = {(v, end): x for end in ("all", "top", "bottom") for v, x in planted.get(end, {}).items()}
    where = {
        end: [(v, k, n) for v, neurons in planted.get(f"{end} per layer", {}).items() for k, n in enumerate(neurons)]
        for end in ("top", "bottom")
    }
    counted = counts(sets, "neurons", **noise)
    shares = counted.groupby(["variant", "neurons"])[["correct", "total"]].sum().astype(float)
    known = (shares["correct"] / shares["total"]).to_dict()
    same = {
        (v, end): 2 * [planted.get(f"{end} per layer", {}).get(v, [1])]
        for end in where for v in planted.get(end, {}) | planted.get(f"{end} per layer", {})
    }  # fmt: skip
    halves = [
        (v, end, sample, k, n, known.get((v, end)))
        for (v, end), samples in planted.get("halves", same).items() for sample, neurons in enumerate(samples)
        for k, n in enumerate(neurons)
    ]  # fmt: skip
    tests = [
        (v, test, n, 0.5 + (test == "keep-top") * x)
        for v, x in planted.get("ranked", {}).items() for test in ("keep-top", "keep-random") for n in (10, 100)
    ]  # fmt: skip
    scores = [(v, v not in failed, planted.get("score", {}).get(v, 90) / 100) for v in tuned]

    def amount(tuned: pd.DataFrame) -> list[int]:
        """Whole tasks and shares of them have unlike numbers of examples, so that A2 does not compare them."""
        texts = [a if a.strip("k").isdigit() else c for a, c in zip(tuned["amount"], tuned["condition"], strict=True)]
        return [zlib.crc32(text.encode()) for text in texts]

    def updates(tuned: pd.DataFrame) -> pd.Series:
        return tuned["amount"].map({"": 100, "half": 50}).fillna(10)

    def named(table: pd.DataFrame) -> pd.DataFrame:
        cell = {"study": study, "property": name, "source": "gold", "ranking": "lca", "split": "test"}
        return with_variants(table.assign(**cell))

    return {
        "scores": named(pd.DataFrame(scores, columns=["variant", "learnt", "score"])).assign(
            metric="accuracy", test=1e40, updates=updates, train=amount
        ),
        "counts": named(counts(per_layer, "layer", **noise)),
        "sets": named(counted),
        "neuron_layers": {
            end: named(pd.DataFrame(rows, columns=["variant", "layer", "neurons"])) for end, rows in where.items()
        },
        "halves": named(pd.DataFrame(halves, columns=["variant", "end", "sample", "layer", "neurons", "accuracy"])),
        "tests": named(pd.DataFrame(tests, columns=["variant", "test", "neurons", "accuracy"])),
        "resampled_scores": {},
    }


def together(every: Iterable[dict]) -> dict:
    """The tables of several studies as one."""
    first, *others = every
    return {
        name: together([table, *(one[name] for one in others)]) if isinstance(table, dict)
        else pd.concat([table, *(one[name] for one in others)])
        for name, table in first.items()
    }  # fmt: skip


def evidence(architectures: dict[str, str], *every: dict, **options: str) -> Evidence:
    """``architectures`` : study → that of its encoder, which is called as the study in capitals."""
    titles = {study: study.upper() for study in architectures}
    return claims.evidence_of(titles, architectures, **together(every), **options)


def judged(planted: Planted, architecture: str = "roberta", **options) -> pd.DataFrame:
    """The verdicts on one study."""
    return claims.judge(evidence({"s": architecture}, tables(planted, **options)))


def tuned(losses: dict[str, object]) -> Planted:
    """Fine-tuned encoders with these losses per layer, in points."""
    return {"layer": {"pretrained": FLAT} | {variant: FLAT - loss for variant, loss in losses.items()}}


def only(table: pd.DataFrame, **where: object) -> pd.Series:
    (row,) = (row for _, row in pick(table, **where).iterrows())
    return row


# Every claim -------------------------------------------------------------------------------------------------------

EXPECTED = {
    "P1": ("above", "above", "above", 0.25), "P2": ("", "above", "above", 0), "P3": ("", "above", "above", 1),
    "P4": ("at most", "above", "above", 0), "P4b": ("", "at most", "at most", 2),
    "P5": ("at most", "above", "above", 1), "P6": ("within", "below", "below", 4),
    "P7": ("at most", "at most", "at most", 1), "P8": ("", "above", "above", 1),
    "A1": ("above", "above", "above", 0.25), "A2": ("within", "within", "within", 0.25),
}  # fmt: skip
"""Claim → what it expects of BERT, RoBERTa and XLNet, and its margin."""

TABLE = claims.table()

PLANTS: dict[str, Callable[[int], Planted]] = {
    "P1": lambda x: {"layer": {"sst2": FLAT - (x + 1) * TOP, "rte": FLAT - TOP}},
    "P2": lambda x: {"layer": {"sst2": FLAT - 5 * (LAYER + x >= 5)}},
    "P3": lambda x: {"layer": {"sst2": FLAT - (1 + x) * TOP}},
    "P4": lambda x: {"layer": {"sst2": FLAT - x - TOP}},
    "P4b": lambda x: {"layer": {"sst2": FLAT - x - 30 * TOP}},
    "P5": lambda x: {"bottom": {"sst2": 80 - x}},
    "P6": lambda x: {"top per layer": {"sst2": [50 - x, 0, 0, 0, 0, 50 + x]}, "ranked": {"sst2": 0.2}},
    "P7": lambda x: {"all": {"pretrained": 90}, "top": {"pretrained": 90 - x}},
    "P8": lambda x: {"score": {"sst2": 90, "sst2-dropbottom3": 80 - x}},
    "A1": lambda x: {"layer": {"sst2": FLAT - (x + 1) * TOP, "sst2-1k": FLAT - TOP}},
    "A2": lambda x: {"layer": {"sst2-1k": FLAT - (x + 1) * TOP, "rte-1k": FLAT - TOP}},
}
"""Claim → what gives its number this value; of a BERT beside it, the value 0."""


def plant(claim: str, per_seed: list[int]) -> Planted:
    """What gives the number of a claim these values, one per seed."""
    planted: Planted = {}
    for seed, x in enumerate(per_seed, 1):
        for measure, values in PLANTS[claim](x).items():
            before = {"pretrained": BEFORE[measure]} if measure in BEFORE else {}
            own = {v if v == "pretrained" else f"{v}-s{seed}": value for v, value in values.items()}
            planted[measure] = before | planted.get(measure, {}) | own
    return planted


def of(
    claim: str, architecture: str, per_seed: list[int], failed: Iterable[str] = (), beside: str = "bert"
) -> pd.DataFrame:
    """The rows of a claim about an encoder of which its number has these values, with another one beside it."""
    every = [tables(plant(claim, per_seed), "s", failed)]
    if architecture != "bert":
        every.append(tables(plant(claim, [0] * len(per_seed)), "b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "table", lambda: {claim: TABLE[claim]})
        rows = claims.judge(evidence({"s": architecture, "b": beside}, *every))
    return rows[rows["study"].isin(["s", ""])]


ASKED = [
    (claim, architecture, word, margin)
    for claim, (*words, margin) in EXPECTED.items()
    for architecture, word in zip(("bert", "roberta", "xlnet"), words, strict=True)
    if word
]
EACH = pytest.mark.parametrize(("claim", "architecture", "word", "margin"), ASKED)
TUNED = pytest.mark.parametrize(
    ("claim", "architecture", "word", "margin"),
    [*{(claim, word): (claim, a, word, margin) for claim, a, word, margin in ASKED if claim != "P7"}.values()],
)
"""Each word of each claim about fine-tuned encoders."""


def inside(word: str, margin: float) -> tuple[int, int]:
    """A value where the claim expects it, and one where it does not."""
    most = int(margin) + 3
    return {"above": (most, -1), "below": (-most, 0), "within": (0, most), "at most": (int(margin) - 1, most)}[word]


def test_the_claims_expect_what_the_paper_says_of_each_architecture() -> None:
    found = {
        name: (*(claim.expected.get(a, "") for a in ("bert", "roberta", "xlnet")), claim.margin)
        for name, claim in TABLE.items()
    }
    assert found == EXPECTED


@EACH
def test_a_planted_number_is_found_and_judged(claim: str, architecture: str, word: str, margin: float) -> None:
    for x, verdict in zip(inside(word, margin), (REPRODUCED, NOT_REPRODUCED), strict=True):
        row = only(of(claim, architecture, [x] * 3), expected=word)
        assert row["effect"] == pytest.approx(x)
        assert row[["verdict", "encoder", "architecture", "margin"]].tolist() == [verdict, "S", architecture, margin]
        if claim != "P7":
            assert row["seeds"] == 3
            assert [float(each) for each in row["per_seed"].split()] == pytest.approx([x] * 3)


@TUNED
def test_seeds_on_both_sides_of_the_margin_leave_it_undecided(claim, architecture, word, margin) -> None:
    x, y = inside(word, margin)
    row = only(of(claim, architecture, [x, y, x]), expected=word)
    assert row["verdict"] == UNDECIDED
    assert row["low"] < row["effect"] < row["high"]
    assert [float(each) for each in row["per_seed"].split()] == pytest.approx([x, y, x])


@TUNED
def test_two_seeds_leave_it_undecided_however_sure_they_are(claim, architecture, word, margin) -> None:
    row = only(of(claim, architecture, [inside(word, margin)[0]] * 2), expected=word)
    assert (row["verdict"], row["seeds"], row["low"], row["high"]) == (UNDECIDED, 2, row["effect"], row["effect"])


def test_one_seed_has_no_interval() -> None:
    row = only(of("P1", "bert", [3]), expected="above")
    assert (row["verdict"], row["seeds"]) == (UNDECIDED, 1)
    assert np.isnan([row["low"], row["high"]]).all()


@TUNED
def test_a_seed_that_did_not_learn_its_task_is_left_out(claim, architecture, word, margin) -> None:
    x, y = inside(word, margin)
    per_seed, failed = [x, y, x, x], [f"{v}-s2" for v in ("sst2", "sst2-1k", "sst2-dropbottom3")]
    row = only(of(claim, architecture, per_seed, failed), expected=word)
    assert (row["verdict"], row["seeds"], row["effect"]) == (REPRODUCED, 3, pytest.approx(x))


@TUNED
def test_without_a_seed_that_learnt_its_task_it_is_not_testable(claim, architecture, word, margin) -> None:
    failed = [f"{v}-s{s}" for v in ("sst2", "sst2-1k", "sst2-dropbottom3") for s in (1, 2, 3)]
    found = of(claim, architecture, [inside(word, margin)[0]] * 3, failed)
    assert {*found["verdict"]} <= {NOT_TESTABLE}
    assert found["effect"].isna().all()


@pytest.mark.parametrize("claim", EXPECTED)
def test_another_architecture_has_no_verdict_on_what_the_paper_says(claim: str) -> None:
    found = of(claim, "deberta-v2", [3] * 3)
    likely = {REPRODUCED, NOT_REPRODUCED} if claim.startswith("A") else {*claims.LIKE.values(), claims.NEITHER}
    assert {*found["verdict"]} <= {NOT_TESTABLE, UNDECIDED, *likely}
    number = {"P2": np.nan, "P3": np.nan, "P8": 90 - (80 - 3)}.get(claim, 3)  # of P8 its own cost
    assert found["effect"].iloc[0] == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("claim", ["P2", "P3", "P8"])
@pytest.mark.parametrize("beside", ["roberta", "distilbert", "albert"])
def test_without_a_bert_the_architectures_are_not_compared(claim: str, beside: str) -> None:
    rows = of(claim, "xlnet", [3] * 3, beside=beside)
    assert {*rows["verdict"]} <= {NOT_TESTABLE} and not rows["effect"].notna().any()


@pytest.mark.parametrize("claim", ["P2", "P3", "P8"])
def test_two_berts_and_encoders_of_unlike_depth_are_no_pair(claim: str) -> None:
    mine, bert = (tables(plant(claim, [x] * 3), study) for study, x in (("s", 3), ("b", 0)))
    depths = [
        {"layer": dict.fromkeys(["pretrained", *(f"sst2-s{s}" for s in (1, 2, 3))], np.full(k, 90.0))} for k in (6, 9)
    ]
    kinds = {"s": "roberta", "b": "bert"}
    twins = claims.judge(evidence(kinds | {"c": "bert"}, mine, bert, tables(plant(claim, [0] * 3), "c")))
    assert pick(twins, claim=claim)["verdict"].tolist() == [NOT_TESTABLE]
    shallow, deep = (plant("P8", [x] * 3) | depth if claim == "P8" else plant(claim, [x] * 3) if x else depth
                     for x, depth in zip((3, 0), depths, strict=True))  # fmt: skip
    unlike = claims.judge(evidence(kinds, tables(shallow, "s"), tables(deep, "b")))
    assert pick(unlike, claim=claim)["verdict"].tolist() == [NOT_TESTABLE]


def test_nothing_fine_tuned_leaves_one_row_per_claim_that_says_so() -> None:
    bare: Planted = {"layer": {"pretrained": FLAT, "random": FLAT - 40}, "bottom": {"pretrained": 80}}
    for planted in (bare, {}):
        table = judged(planted)
        assert table["claim"].tolist() == [*EXPECTED]
        assert {*table["verdict"]} == {NOT_TESTABLE}
        assert claims.overview(table)["claim"].tolist() == [*EXPECTED]


# One claim at a time -----------------------------------------------------------------------------------------------


def test_p1_takes_the_mean_of_each_kind_of_task_and_leaves_out_those_not_learnt() -> None:
    losses = {"sst2": 5, "mnli": 4, "qnli": 40, "rte": 1, "mrpc": 3, "own": 90}
    each = {f"{task}-s{s}": points * TOP for task, points in losses.items() for s in (1, 2, 3)}
    row = only(judged(tuned(each), failed=[f"qnli-s{s}" for s in (1, 2, 3)]), claim="P1")
    assert (row["compared"], row["effect"], row["verdict"]) == (
        "sst2, mnli − rte, mrpc",
        pytest.approx(2.5),
        REPRODUCED,
    )


def test_p1_shows_pairs_of_tasks_without_a_verdict_where_a_kind_is_lacking() -> None:
    each = {f"{task}-s{s}": points * TOP for task, points in {"a": 5, "sst2": 2, "b": 1}.items() for s in (1, 2, 3)}
    rows = pick(judged(tuned(each)), claim="P1").set_index("compared")
    assert rows["effect"].to_dict() == pytest.approx({"a − sst2": 3, "a − b": 4, "sst2 − b": 1})
    assert rows["verdict"].tolist() == [NOT_TESTABLE] * 3
    assert {*rows["expected"]} == {""}


def test_the_loss_of_p1_is_that_of_the_table_of_losses() -> None:
    rng = np.random.default_rng(3)
    profiles = {v: rng.uniform(60, 90, 7) for v in ("pretrained", "sst2-s1", "sst2-s2", "rte-s1", "rte-s2")}
    every = tables({"layer": profiles}, noise=8)
    lost = results.drops(every["counts"])
    deep = lost[lost["layer"] >= 5].groupby("variant")["drop"].mean() * 100
    row = only(claims.judge(evidence({"s": "bert"}, every)), claim="P1")
    assert row["effect"] == pytest.approx((deep["sst2-s1"] + deep["sst2-s2"] - deep["rte-s1"] - deep["rte-s2"]) / 2)


def test_p1_of_encoders_without_three_layers_is_not_decided() -> None:
    each = {f"{task}-s{s}": np.array([90.0, x]) for task, x in (("sst2", 50), ("rte", 80)) for s in (1, 2, 3)}
    row = only(judged({"layer": {"pretrained": np.array([90.0, 90.0])} | each}), claim="P1")
    assert row["verdict"] in (UNDECIDED, NOT_TESTABLE)


def pair(**losses: tuple[float, float]) -> pd.DataFrame:
    """Verdicts on a RoBERTa and a BERT that lose so many points from layer 3 on after these tasks."""
    one, other = (
        tables(
            tuned({f"{task}-s{s}": both[i] * (LAYER >= 3) for task, both in losses.items() for s in (1, 2, 3)}), study
        )
        for i, study in enumerate("sb")
    )
    return claims.judge(evidence({"s": "roberta", "b": "bert"}, one, other))


def test_p2_is_asked_of_every_task_but_those_that_keep() -> None:
    rows = pick(pair(rte=(5, 0), sentiment=(5, 0.5), mnli=(5, 5)), claim="P2")
    assert rows.set_index("compared")["effect"].to_dict() == {"sentiment": 3, "mnli": 0}
    assert rows[["study", "other"]].drop_duplicates().to_numpy().tolist() == [["s", "b"]]


def test_p3_compares_the_largest_losses_whatever_tasks_they_come_from() -> None:
    row = only(pair(sst2=(7, 1), mnli=(2, 4)), claim="P3")
    assert (row["effect"], row["compared"]) == (pytest.approx(3), "largest of sst2, mnli")


def test_p4_takes_the_smallest_and_p4b_the_largest_before_the_drop_over_the_tasks_that_were_learnt() -> None:
    losses = {"sst2": [3, 2, 2, 2, 60, 60], "rte": [1.5, 2, 2, 2, 2.5, 2.5], "mnli": [-9, 30, 9, 9, 9, 9]}
    each = {f"{task}-s{s}": np.array(loss) for task, loss in losses.items() for s in (1, 2, 3)}
    table = judged(tuned(each), failed=[f"mnli-s{s}" for s in (1, 2, 3)])
    assert [only(table, claim=claim)["effect"] for claim in ("P4", "P4b")] == pytest.approx([1.5, 3])
    assert [only(table, claim=claim)["compared"] for claim in ("P4", "P4b")] == [
        "smallest of sst2, rte",
        "largest of sst2, rte",
    ]


def test_p5_shows_the_top_neurons_too_without_a_verdict() -> None:
    values = {"pretrained": 80.0} | {f"sst2-s{s}": 75.0 for s in (1, 2, 3)}
    rows = pick(judged({"bottom": values, "top": values}), claim="P5").set_index("compared")
    assert rows["verdict"].to_dict() == {"sst2": REPRODUCED, "sst2, top neurons": NOT_TESTABLE}
    assert rows["effect"].tolist() == pytest.approx([5, 5])


def test_p6_shows_the_shift_below_the_top_layer_without_a_verdict() -> None:
    values = {"pretrained": [10, 10, 0, 0, 0, 80]} | {f"sst2-s{s}": [0, 20, 0, 0, 0, 0] for s in (1, 2, 3)}
    rows = pick(judged({"top per layer": values}), claim="P6").set_index("compared")
    assert rows["verdict"].to_dict() == {"sst2": REPRODUCED, "sst2, without the top layer": NOT_TESTABLE}
    assert rows["effect"].tolist() == pytest.approx([20 - 82, 20 - 10]), "in per cent of the depth"


@pytest.mark.parametrize("weak", ["pretrained", "sst2-s2"])
@pytest.mark.parametrize("margin", [0.0, -0.1, np.nan])
def test_p6_decides_nothing_where_the_top_neurons_do_no_better_than_random_ones(weak: str, margin: float) -> None:
    planted = plant("P6", [-9, -9, -9])
    planted["ranked"][weak] = margin
    row = only(judged(planted), claim="P6", compared="sst2")
    doubt = "not tested against random neurons" if np.isnan(margin) else "no better than random neurons"
    assert (row["verdict"], row["doubt"]) == (UNDECIDED, doubt)
    assert row["effect"] == pytest.approx(-9)
    forgotten = judged(planted, failed=["sst2-s2"]) if weak == "sst2-s2" else judged(plant("P6", [-9] * 3))
    assert only(forgotten, claim="P6", compared="sst2")["doubt"] == "", "a run that is left out raises no doubt"


@pytest.mark.parametrize("claim, compared", [("P5", "sst2"), ("P6", "sst2"), ("P7", "all − top neurons")])
def test_neurons_that_were_not_ranked_on_half_samples_of_the_words_decide_nothing(claim: str, compared: str) -> None:
    planted = plant(claim, [-9] * 3)
    assert only(judged(planted), claim=claim, compared=compared)["verdict"] != UNDECIDED
    for halves in (
        {},
        {(variant, end): [[1]] for values in planted.values() for variant in values for end in ("top", "bottom")},
    ):
        row = only(judged({**planted, "halves": halves}), claim=claim, compared=compared)
        assert (row["verdict"], row["doubt"]) == (UNDECIDED, "not ranked on half-samples of the words")


def test_p7_needs_no_fine_tuning_and_has_its_interval_from_the_texts() -> None:
    planted: Planted = {"all": {"pretrained": 90}, "top": {"pretrained": 88.9}}
    table = claims.judge(evidence({"s": "xlnet"}, tables(planted, noise=1)))
    row = only(table, claim="P7")
    assert row["low"] < row["effect"] < row["high"]
    assert row["verdict"] == UNDECIDED, "1.1 points, of which no more is known than half a point"
    quiet = claims.judge(evidence({"s": "xlnet"}, tables(planted, noise=0.1)))
    assert only(quiet, claim="P7")["verdict"] == NOT_REPRODUCED


def scored(**scores: float) -> Planted:
    return {"score": {f"{v.replace('_', '-')}-s{s}": x for v, x in scores.items() for s in (1, 2, 3)}}


def test_p8_compares_costs_task_by_task_and_shows_the_top_layers_without_a_verdict() -> None:
    one = scored(
        sst2=90, sst2_dropbottom3=70, sst2_droptop3=89, mnli=80, mnli_dropbottom3=79, rte_dropbottom3=50, qnli=90
    )
    other = scored(sst2=92, sst2_dropbottom3=90, sst2_droptop3=92, mnli=80, mnli_dropbottom3=79, rte_dropbottom3=50)
    table = claims.judge(evidence({"s": "roberta", "b": "bert"}, tables(one, "s"), tables(other, "b")))
    rows = pick(table, claim="P8").set_index("compared")
    assert rows["effect"].to_dict() == pytest.approx({
        "sst2, bottom layers dropped": 18, "mnli, bottom layers dropped": 0, "sst2, top layers dropped": 1,
    })  # fmt: skip
    assert rows["verdict"].tolist() == [REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE]


def test_p8_shows_what_it_costs_an_architecture_that_the_paper_does_not_have_beside_the_papers() -> None:
    one = scored(sst2=90, sst2_dropbottom3=70, sst2_droptop3=89)
    rows = pick(paper.beside(claims.judge(evidence({"s": "mpnet"}, tables(one)))), claim="P8").set_index("compared")
    own = rows.loc[["sst2, bottom layers dropped, its own cost", "sst2, top layers dropped, its own cost"]]
    assert own["effect"].tolist() == pytest.approx([20, 1])
    assert {*rows["verdict"]} == {NOT_TESTABLE}
    printed = pick(paper.numbers(), condition="sst2", source="Table 2/6")
    printed = printed.pivot(index="model", columns="measure", values="value")
    whole = printed["dev score, no pruning"]
    for (_, row), cut in zip(own.iterrows(), ("bottom", "top"), strict=True):
        costs = whole - printed[f"dev score, prune {cut} 6"]
        assert row[["paper low", "paper high"]].tolist() == pytest.approx([costs.min(), costs.max()])


def test_p8_counts_a_pruned_encoder_that_can_no_longer_do_its_task() -> None:
    one, other = scored(sst2=90, sst2_dropbottom3=50), scored(sst2=90, sst2_dropbottom3=85)
    failed = [f"sst2-dropbottom3-s{s}" for s in (1, 2, 3)]
    table = claims.judge(evidence({"s": "roberta", "b": "bert"}, tables(one, "s", failed), tables(other, "b")))
    assert only(table, claim="P8", compared="sst2, bottom layers dropped")["verdict"] == REPRODUCED


def test_p8_decides_nothing_where_neither_of_the_two_can_do_the_task_whatever_a_third_can() -> None:
    failed = [f"sst2-dropbottom3-s{s}" for s in (1, 2, 3)]
    both = [tables(scored(sst2=90, sst2_dropbottom3=50), study, failed) for study in ("s", "b")]
    third = tables(scored(sst2=90, sst2_dropbottom3=85), "x")
    found = claims.judge(evidence({"s": "roberta", "b": "bert", "x": "xlnet"}, *both, third))
    rows = pick(found, claim="P8", compared="sst2, bottom layers dropped").set_index("study")
    assert rows.loc["s", "verdict"] == UNDECIDED
    assert rows.loc["s", "doubt"] == "without these layers neither does better than a constant answer"
    assert (rows.loc["x", "verdict"], rows.loc["x", "doubt"]) == (NOT_REPRODUCED, "")


@pytest.mark.parametrize("other", ["sst2-dropbottom3-1k", "sst2-dropbottom3-lr2e-5", "sst2-dropbottom3-at9"])
def test_p8_takes_no_encoder_that_was_trained_otherwise_too(other: str) -> None:
    scores = {f"{v}-s{s}": x for v, x in (("sst2", 90), (other, 60)) for s in (1, 2, 3)}
    every = [tables({"layer": {"pretrained": FLAT}, "score": scores}, study) for study in "sb"]
    row = only(claims.judge(evidence({"s": "roberta", "b": "bert"}, *every)), claim="P8")
    assert row["verdict"] == NOT_TESTABLE


def test_a1_compares_a_task_with_fewer_updates_or_examples_of_itself() -> None:
    losses = {"sst2-1k": 2, "sst2": 5, "sst2-half": 4.9, "rte-1k": 1, "sst2-at10": 0, "sst2-lr2e-5": 0,
              "sst2-droptop1": 0}  # fmt: skip
    rows = pick(judged(tuned({f"{v}-s{s}": x * TOP for v, x in losses.items() for s in (1, 2, 3)})), claim="A1")
    assert rows[["compared", "effect", "verdict"]].to_numpy().tolist() == [
        ["sst2 − sst2-half", pytest.approx(0.1), NOT_REPRODUCED], ["sst2 − sst2-1k", pytest.approx(3), REPRODUCED],
        ["sst2-half − sst2-1k", pytest.approx(2.9), REPRODUCED],
    ]  # fmt: skip


def test_an_encoder_may_be_trained_on_more_examples_than_its_study_has() -> None:
    losses = {"sst2-5k": 5, "sst2-1k": 2}
    every = tables(tuned({f"{v}-s{s}": x * TOP for v, x in losses.items() for s in (1, 2, 3)}))
    every["scores"]["updates"] = every["scores"]["amount"].map({"5k": 50, "1k": 10})
    row = only(claims.judge(evidence({"s": "bert"}, every)), claim="A1")
    assert row[["compared", "effect"]].tolist() == ["sst2-5k − sst2-1k", pytest.approx(3)]


def test_a2_compares_tasks_on_equally_many_examples() -> None:
    losses = {"sst2-1k": 5, "rte-1k": 2, "own-1k": 2.1, "sst2": 8, "sst2-500": 3, "own-half": 1, "rte-half": 3,
              "rte-droptop1-1k": 0}  # fmt: skip
    rows = pick(judged(tuned({f"{v}-s{s}": x * TOP for v, x in losses.items() for s in (1, 2, 3)})), claim="A2")
    assert rows[["compared", "effect", "verdict"]].to_numpy().tolist() == [
        ["sst2-1k − rte-1k", pytest.approx(3), NOT_REPRODUCED],
        ["sst2-1k − own-1k", pytest.approx(2.9), NOT_REPRODUCED],
        ["rte-1k − own-1k", pytest.approx(-0.1), REPRODUCED],
    ]  # fmt: skip


def test_a2_compares_those_that_forget_with_those_that_keep_where_there_are_several() -> None:
    losses = {"sst2-1k": 5, "mnli-1k": 3, "rte-1k": 2}
    rows = pick(judged(tuned({f"{v}-s{s}": x * TOP for v, x in losses.items() for s in (1, 2, 3)})), claim="A2")
    assert rows[["compared", "effect"]].to_numpy().tolist()[3:] == [["sst2-1k, mnli-1k − rte-1k", pytest.approx(2)]]
    assert len(rows) == 4


def test_variants_other_than_whole_ones_are_asked_nothing_but_the_controls() -> None:
    whole = {"layer": {"pretrained": FLAT} | {f"sst2-s{s}": FLAT - 5 * TOP for s in (1, 2, 3)}}
    other = [
        f"{v}-s{s}" for v in ("mnli-half", "qnli-1k", "mnli-droptop2", "mnli-lr2e-5", "mnli-at5") for s in (1, 2, 3)
    ]
    more = {"layer": whole["layer"] | dict.fromkeys(other, FLAT - 50)}
    pd.testing.assert_frame_equal(judged(more), judged(whole))


# An architecture that the paper does not have --------------------------------------------------------------------


@pytest.mark.parametrize(("claim", "seeds", "outcome"), [
    ("P1", [3, 3, 4], "as all three"), ("P1", [0, 0, 0.1], "neither"), ("P1", [-3, 0, 4], UNDECIDED),
    ("P4", [2, 2, 3], "as RoBERTa and XLNet"), ("P4", [-2, -2, -2.1], "as BERT"),
    ("P5", [3, 3, 4], "as RoBERTa and XLNet"), ("P5", [0, 0.1, 0], "as BERT"),
    ("P6", [0, 0.1, 0], "as BERT"), ("P6", [-20, -21, -20], "as RoBERTa and XLNet"), ("P6", [20, 21, 20], "neither"),
    ("A1", [3, 3, 4], REPRODUCED),
])  # fmt: skip
def test_an_architecture_that_the_paper_does_not_have_is_said_to_be_like_those_it_has(
    claim: str, seeds: list[float], outcome: str
) -> None:
    rows = pick(judged(plant(claim, seeds), "mpnet"), claim=claim)
    assert rows.loc[rows["expected"] != "", "verdict"].tolist() == [outcome]


def test_what_it_is_like_is_decided_by_the_margin_that_divides_the_papers_encoders() -> None:
    claim = claims.table()["P6"]
    assert [claims.likeness(low, high, claim) for low, high in ((-3, 3), (-9, -5), (-5, -3), (3, 5), (5, 9))] == [
        "as BERT", "as RoBERTa and XLNet", UNDECIDED, UNDECIDED, "neither",
    ]  # fmt: skip
    rows = judged({**plant("P5", [3, 3, 4]), **plant("P6", [0, 0.1, 0])}, "mpnet")
    cells = claims.overview(rows).set_index("claim")["S"]
    assert cells["P5"].rstrip("†") == "as RoBERTa and XLNet"
    assert cells[["P2", "P3"]].tolist() == ["–", "–"]
    assert (rows.loc[rows["claim"] == "P5", "p"].dropna() < 0.05).all()


# What evidence is --------------------------------------------------------------------------------------------------


def test_silver_properties_and_other_splits_targets_word_groups_and_rankings_are_ignored() -> None:
    planted = {**plant("P1", [3, 3, 4]), **plant("P5", [3, 3, 4]), **plant("P6", [3, 3, 4])}
    wrong = {**plant("P1", [-9, 8, 0]), **plant("P5", [-9, 8, 0]), **plant("P6", [-9, 8, 0])}
    plain, noise = tables(planted), tables(wrong)
    alone = claims.judge(evidence({"s": "bert"}, plain))
    for change, of_tables in (
        ({"source": "silver", "property": "kind"}, ("counts", "sets", "tests", "top", "bottom")),
        ({"split": "dev"}, ("counts", "sets", "tests")), ({"target": "control"}, ("counts", "sets")),
        ({"word_group": "unseen"}, ("counts",)), ({"ranking": "means"}, ("sets", "tests", "top", "bottom")),
    ):  # fmt: skip
        other = plain | {
            name: pd.concat([table, noise[name].assign(**change)]) if name in of_tables else table
            for name, table in plain.items() if name != "neuron_layers"
        }  # fmt: skip
        other["neuron_layers"] = {
            end: pd.concat([table, noise["neuron_layers"][end].assign(**change)]) if end in of_tables else table
            for end, table in plain["neuron_layers"].items()
        }
        pd.testing.assert_frame_equal(claims.judge(evidence({"s": "bert"}, other)), alone)
        if "ranking" in change:
            means = claims.judge(evidence({"s": "bert"}, other, ranking="means"))
            assert only(means, claim="P5", compared="sst2")["per_seed"] == "-9.000 +8.000 +0.000"


def test_each_gold_property_has_its_own_row() -> None:
    both = [tables(plant("P1", [x] * 3), name=name) for name, x in (("tag", 3), ("other", 0))]
    both[1]["scores"] = both[1]["scores"].iloc[:0]
    rows = pick(claims.judge(evidence({"s": "bert"}, *both)), claim="P1")
    assert rows.set_index("property")["verdict"].to_dict() == {"other": NOT_REPRODUCED, "tag": REPRODUCED}


def test_the_order_of_the_rows_does_not_matter_and_seeds_stay_with_their_seed() -> None:
    planted = {"layer": {"pretrained": FLAT}}
    for seed, (forget, keep) in enumerate([(9, 6), (3, 1), (5, 2)], 1):
        planted["layer"] |= {f"sst2-s{seed}": FLAT - forget * TOP, f"rte-s{seed}": FLAT - keep * TOP}
    every = tables(planted, noise=2)
    row = only(claims.judge(evidence({"s": "bert"}, every)), claim="P1")
    mixed = {name: table.sample(frac=1, random_state=5) if name == "scores" else table for name, table in every.items()}
    again = only(claims.judge(evidence({"s": "bert"}, mixed)), claim="P1", compared=row["compared"])
    assert [float(x) for x in row["per_seed"].split()] == pytest.approx([3, 2, 3], abs=2)
    assert again["per_seed"] == row["per_seed"]
    assert again[["effect", "low", "high"]].tolist() == pytest.approx(row[["effect", "low", "high"]].tolist())


def test_the_interval_is_a_paired_one_over_the_same_texts() -> None:
    """Texts that are hard for every encoder widen an accuracy's interval, not that of a difference."""
    every = {study: tables(plant("P3", [x] * 3), study) for study, x in (("s", 3), ("b", 0))}
    hard = pd.Series(np.random.default_rng(0).uniform(-3000, 0, 10), index=[f"t{i}" for i in range(10)])
    for one in every.values():
        one["counts"]["correct"] += one["counts"]["text"].map(hard)
    row = only(claims.judge(evidence({"s": "roberta", "b": "bert"}, *every.values())), claim="P3")
    assert row[["low", "effect", "high"]].tolist() == pytest.approx([3, 3, 3])
    assert np.diff(results.accuracies(every["s"]["counts"])[["low", "high"]]).min() > 0.03
    every["b"]["counts"]["text"] = "other " + every["b"]["counts"]["text"]
    with pytest.raises(ValueError, match="not probed on the same test texts"):
        evidence({"s": "roberta", "b": "bert"}, *every.values())


def test_an_encoder_that_did_not_change_has_effects_of_exactly_0() -> None:
    twins = [*(f"{task}-s{s}" for task in ("sst2", "rte") for s in (1, 2, 3))]
    values = {measure: dict.fromkeys(["pretrained", *twins], value) for measure, value in BEFORE.items()}
    every = tables(values)
    for table in (every["counts"], every["sets"]):
        column = "layer" if "layer" in table else "neurons"
        noise = np.random.default_rng(0).uniform(-900, 900, table.groupby([column, "text"]).ngroups)
        table["correct"] += noise[table.groupby([column, "text"]).ngroup()]
    found = claims.judge(evidence({"s": "roberta"}, every)).dropna(subset="effect")
    found = found[~found["claim"].isin(["P4b"])]
    assert {*found["claim"]} == {"P1", "P4", "P5", "P6"}
    assert np.abs(found[["effect", "low", "high"]].to_numpy(float)).max() < 1e-9
    assert {*found[found["expected"] != ""]["verdict"]} == {NOT_REPRODUCED}


@pytest.fixture
def planted_runs(monkeypatch: pytest.MonkeyPatch, make_study: Callable) -> Callable[..., list[Run]]:
    """``planted_runs(name → kind)``: the runs of studies of one title, in whose results P3's number is 3 for all but a
    BERT."""

    def make(kinds: dict[str, str]) -> list[Run]:
        every = together(tables(plant("P3", [0 if k == "bert" else 3] * 3), name) for name, k in kinds.items())
        for name in ("counts", "scores", "sets", "tests", "halves"):
            asked = {"counts": "layers", "scores": "task_scores"}.get(name, f"neuron_{name}")
            monkeypatch.setattr(results, asked, lambda wanted, name=name, **_: every[name])
        monkeypatch.setattr(results, "neuron_layers", lambda wanted, end: every["neuron_layers"][end])
        monkeypatch.setattr(results, "resampled_scores", lambda wanted: {})
        studies = [make_study(kind).model_copy(update={"name": name}) for name, kind in kinds.items()]
        return [Run(study, Variant(start)) for study in studies for start in ("pretrained", "random")]

    return make


def test_the_architecture_is_that_of_the_encoder_and_two_studies_of_one_title_are_told_apart(planted_runs) -> None:
    wanted = planted_runs({"bert-like": "roberta", "mine": "bert"})
    table = claims.judge(claims.evidence(wanted))
    row = only(table, claim="P3")
    assert row[["study", "architecture", "other"]].tolist() == ["bert-like", "roberta", "mine"]
    assert row[["encoder", "effect"]].tolist() == ["MiniLM-L6 (bert-like)", pytest.approx(3)]
    (alone,) = {*claims.evidence(planted_runs({"mine": "bert"})).titles.values()}
    assert alone == "MiniLM-L6"


def test_beside_two_berts_nothing_is_compared_with_either_and_this_is_said(planted_runs, capsys) -> None:
    claims.evidence(planted_runs({"r": "roberta", "a": "bert"}))
    assert capsys.readouterr().out == ""
    found = claims.evidence(planted_runs({"r": "roberta", "a": "bert", "b": "bert"}))
    assert "nothing is compared with BERT (P2, P3, P8): a, b all are" in capsys.readouterr().out
    assert not [*found.pairs("layer")]


def test_studies_of_different_corpora_are_refused(make_study: Callable) -> None:
    wanted = [Run(make_study(files={"train": "a", "test": name}), Variant("pretrained")) for name in ("b", "c")]
    with pytest.raises(ValueError, match="different corpora for 'tag'"):
        claims.evidence(wanted)


# The measures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "margin", "first"), [
    ([0, 0, 0, 0, 0, 0], 1, 6), ([0, 0, 0, 0, 2, 2], 1, 4), ([0, 2, 2, 2, 2, 2], 1, 1), ([0, 2, 0, 2, 2, 2], 1, 3),
    ([0, 2, 2, 2, 2, 1], 1, 6), ([5, 5, 4, 5.5, 6, 7], 1, 3), ([3, 0, 0, 0, -9, 2], 1, 5),
    ([0, 0, 0, 0, 1, 1.01], 1, 5),
    ([0, 0, 0, 0, 2, 2], 2, 6), ([0.1, 0.3, 0.3, 0.3, 0.3, 0.3], 0.2, 6), ([0, 0, 0, 0, -3, -1.5], 1, 6),
])  # fmt: skip
def test_a_loss_begins_where_it_stays_above_the_smallest_of_the_lower_layers(loss, margin, first) -> None:
    assert claims.onset(np.array(loss, float)[:, None], margin).tolist() == [first]
    both = np.array([loss, loss[::-1]], float).T
    assert claims.onset(both, margin)[0] == first, "each column by itself"


def test_the_mean_layer_is_a_share_of_the_depth() -> None:
    per_layer = np.array([[4, 0, 1], [0, 0, 1], [0, 7, 2]])
    assert claims.mean_layer(per_layer).tolist() == [0, 100, 62.5]


def test_the_top_third_is_taken_in_each_draw_by_itself() -> None:
    assert results.top_third(np.arange(18.0).reshape(9, 2)).tolist() == [14, 15]
    assert np.isnan(results.top_third(np.ones((2, 3)))).all(), "there is no third of two layers"


# The rule ----------------------------------------------------------------------------------------------------------

WORDS = ("above", "below", "within", "at most")


@pytest.mark.parametrize(("low", "high", "word", "found"), [
    (1.5, 3, "above", REPRODUCED), (1, 3, "above", UNDECIDED), (0, 1, "above", NOT_REPRODUCED),
    (1, 1, "above", NOT_REPRODUCED),
    (-3, -1.5, "below", REPRODUCED), (-3, -1, "below", UNDECIDED), (-1, 5, "below", NOT_REPRODUCED),
    (-1, 1, "within", REPRODUCED), (-1, 1.1, "within", UNDECIDED), (1.1, 9, "within", NOT_REPRODUCED),
    (-9, -1.1, "within", NOT_REPRODUCED), (-2, 2, "within", UNDECIDED), (-9, 1, "at most", REPRODUCED),
    (0, 1.1, "at most", UNDECIDED), (1.1, 2, "at most", NOT_REPRODUCED),
    (94.9 - 93.9, 94.9 - 93.9, "at most", REPRODUCED),
])  # fmt: skip
def test_the_rule(low: float, high: float, word: str, found: str) -> None:
    assert claims.verdict(low, high, word, 1.0) == found
    assert claims.verdict(np.nan, np.nan, word, 1.0) == UNDECIDED


ENDS = st.tuples(*[st.integers(-60, 60).map(lambda n: n / 8)] * 2).map(sorted)
"""An interval; its ends often fall on one another or on the margin."""
MARGIN = st.integers(0, 16).map(lambda n: n / 8)


@given(ENDS, ENDS, MARGIN, st.sampled_from(WORDS))
def test_a_wider_interval_decides_less_and_never_otherwise(inner, outer, margin: float, word: str) -> None:
    wide = min(inner[0], outer[0]), max(inner[1], outer[1])
    narrow, less = (claims.verdict(*ends, word, margin) for ends in (inner, wide))
    assert less in (narrow, UNDECIDED)


@given(ENDS, MARGIN, MARGIN)
def test_a_larger_margin_is_harder_to_exceed_and_easier_to_stay_within(ends, margin: float, more: float) -> None:
    order = [NOT_REPRODUCED, UNDECIDED, REPRODUCED]
    for word, sign in (("above", 1), ("below", 1), ("within", -1), ("at most", -1)):
        small, large = (order.index(claims.verdict(*ends, word, m)) for m in (margin, margin + more))
        assert sign * small >= sign * large


@given(ENDS, MARGIN)
def test_the_words_agree_with_one_another(ends, margin: float) -> None:
    low, high = ends
    found = {word: claims.verdict(low, high, word, margin) for word in WORDS}
    opposite = {REPRODUCED: NOT_REPRODUCED, NOT_REPRODUCED: REPRODUCED, UNDECIDED: UNDECIDED}
    assert claims.verdict(-high, -low, "below", margin) == found["above"]
    assert found["at most"] == opposite[found["above"]]
    assert claims.verdict(-high, -low, "within", margin) == found["within"]
    if REPRODUCED in (found["above"], found["below"]):
        assert found["within"] == NOT_REPRODUCED
    assert UNDECIDED not in [claims.verdict(low, low, word, margin) for word in WORDS]


# The interval ------------------------------------------------------------------------------------------------------


def test_the_interval_is_students_over_seeds_with_the_variance_over_texts_added() -> None:
    per_seed = np.array([1.0, 2.0, 6.0])
    alone = claims.Estimate.of(per_seed[:, None]).interval
    expected = stats.t.interval(0.95, 2, per_seed.mean(), stats.sem(per_seed))
    assert alone == pytest.approx(expected)
    drawn = np.column_stack([per_seed, *(per_seed + shift for shift in (-1.0, 0.0, 1.0))])
    wide = claims.Estimate.of(drawn).interval
    variance = stats.sem(per_seed) ** 2
    half = stats.t.ppf(0.975, 2 * (1 + 1 / variance)) * np.sqrt(variance + 1)
    assert wide == pytest.approx((3 - half, 3 + half))
    assert np.isnan(claims.Estimate.of(drawn[:1]).interval).all()
    assert claims.Estimate.of(drawn[:1], tuned=False).interval == pytest.approx(stats.norm.interval(0.95, 1.0, 1.0))


def covered(estimates: Iterable[claims.Estimate], truth: float = 0.0) -> float:
    """The share of intervals that contain the true value."""
    intervals = np.array([estimate.interval for estimate in estimates])
    return ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()


def simulated(seeds: int, of_texts: float, cells: tuple[int, ...] = (), times: int = 1000) -> Iterator[np.ndarray]:
    """Effects whose true values are 0: each seed has its own error, of deviation 1, and all have that of the same
    hundred texts."""
    rng = np.random.default_rng(seeds)
    weight = rng.multinomial(100, np.full(100, 0.01), 200).T / 100
    for _ in range(times):
        texts = rng.normal(0, 10 * of_texts, (*cells, 1, 100))
        yield rng.normal(size=(*cells, seeds, 1)) + np.concatenate([texts.mean(-1, keepdims=True), texts @ weight], -1)


@pytest.mark.parametrize("of_texts", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_95_per_cent_of_the_intervals_contain_the_truth(seeds: int, of_texts: float) -> None:
    assert 0.93 <= covered(map(claims.Estimate.of, simulated(seeds, of_texts))) <= 0.97


@pytest.mark.parametrize("of_words", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_they_do_so_with_the_words_of_four_pairs_of_halves(seeds: int, of_words: float) -> None:
    """A number is the mean over words; each half has the mean of its own, so the two halves err to opposite sides."""
    rng, found = np.random.default_rng(seeds), []
    for effect in simulated(seeds, 0.0, times=2000):
        words = rng.normal(0, of_words * np.sqrt(200), 200)
        halves = [half.mean() for _ in range(4) for half in np.split(rng.permutation(words), 2)]
        whole = effect[:, :1] + words.mean()
        found.append(claims.Estimate.of(whole, words=effect[:, :1] + np.array(halves)))
    assert 0.93 <= covered(found) <= 0.97


@pytest.mark.parametrize(("fold", "truth"), [(claims.SMALLEST, -1.0), (claims.LARGEST, 1.0)])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("seeds", [3, 8])
def test_the_interval_of_an_extreme_of_many_layers_contains_the_truth_at_least_as_often(
    fold: claims.Fold, truth: float, spread: float, seeds: int
) -> None:
    """That of the smallest mean, not the mean of each seed's smallest, which lies below all of them."""
    layers = np.append(truth, truth - np.sign(truth) * spread * np.ones(17))[:, None, None]
    every = [claims.Estimate.of(layers + effect, fold=fold) for effect in simulated(seeds, 0.5, (18,), 300)]
    assert covered(every, truth) >= 0.94
    naive = [claims.Estimate.of(fold.of(layers + effect)) for effect in simulated(seeds, 0.5, (18,), 300)]
    assert spread > 1 or covered(naive, truth) < 0.5


def test_the_largest_of_one_is_compared_with_the_largest_of_the_other_whatever_tasks_they_come_from() -> None:
    one, other = np.array([[1.0, 1.2], [5.0, 5.2]])[:, None], np.array([[2.0, 2.1], [0.0, 0.1]])[None]
    found = claims.Estimate.of((one - other)[..., None], fold=claims.LARGEST_DIFFERENCE)
    assert found.value == pytest.approx(5.1 - 2.05)
    low, high = found.interval
    assert low < found.value < high
    assert found.p("above", 1) < 1 and found.p("above", found.value) == 1


def test_a_verdict_is_what_its_p_says() -> None:
    rng = np.random.default_rng(0)
    for expected in WORDS:
        for mean in (-2.0, -0.6, -0.1, 0.1, 0.6, 2.0):
            found = claims.Estimate.of(mean + 0.1 * rng.normal(size=(5, 1)))
            decided = claims.verdict(*found.interval, expected, 0.5) != UNDECIDED
            assert decided == (found.p(expected, 0.5) < 0.05)


def test_what_could_not_be_tested_is_not_counted_beside_what_could() -> None:
    assert claims.counted(pd.Series(["?", "–", "?"])) == "?"
    assert claims.counted(pd.Series(["?", "–", "✓†"])) == "✓† 1, ? 1"
    assert claims.counted(pd.Series(["–", "–"])) == "–"


def test_a_layer_at_which_nothing_varies_leaves_the_others_their_p() -> None:
    layers = np.array([0.0, 0.4, 0.6])[:, None, None] + np.random.default_rng(0).normal(
        0, [[[0]], [[0.1]], [[0.1]]], (3, 8, 9)
    )
    largest = claims.Estimate.of(layers, fold=claims.LARGEST)
    assert largest.p("at most", 2) < 1e-6
    assert sum(largest.sources.values()) == pytest.approx(1)
    smallest = claims.Estimate.of(layers, fold=claims.SMALLEST)
    assert smallest.interval[1] == 0
    assert claims.verdict(*smallest.interval, "above", 0) == NOT_REPRODUCED
    assert np.isnan(smallest.p("above", 0)), "what decides it does not vary"
    assert np.isnan(smallest.p("above", 0.2)) and smallest.p("above", -0.2) < 1e-6
    still = claims.Estimate.of(np.zeros((8, 9)))
    assert np.isnan(still.p("above", 0))
    assert still.sources == {}


def test_an_effect_beyond_what_is_decidable_is_decided_four_times_in_five() -> None:
    rng, hits = np.random.default_rng(0), []
    beyond = claims.Estimate(
        np.zeros(()), np.array(1 / np.sqrt(8)), np.array(7)
    ).decidable  # of eight seeds with deviation 1
    for _ in range(2000):
        low, high = claims.Estimate.of(0.5 + beyond + rng.normal(size=(8, 1))).interval
        hits.append(claims.verdict(low, high, "above", 0.5) == REPRODUCED)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_the_words_that_a_ranking_was_learnt_from_widen_the_interval_of_the_neurons() -> None:
    where = {"pretrained": [0, 0, 0, 40, 60]} | {f"sst2-s{s}": [0, 0, s, 60 - s, 40] for s in (1, 2, 3)}
    plain = only(judged({"top per layer": where}), claim="P6", compared="sst2")
    for shift, wider in ((0, False), (20, True)):
        halves = {
            (v, "top"): [
                [*n[:3], n[3] - shift * x, n[4] + shift * x] if v != "pretrained" else n for x in (-1, 1, -1, 1)
            ]
            for v, n in where.items()
        }
        found = only(judged({"top per layer": where, "halves": halves}), claim="P6", compared="sst2")
        assert found["effect"] == plain["effect"]
        assert (found["variance"] == "seeds 100%, words 0%") == (not wider)
        assert (found["high"] - found["low"] > plain["high"] - plain["low"] + 1) == wider


def test_holms_correction_is_the_textbooks() -> None:
    found = claims.holm(pd.Series([0.01, np.nan, 0.04, 0.03, 0.005]))
    assert found.tolist() == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)


def test_a_run_is_set_beside_what_the_recorded_seeds_lead_to_expect() -> None:
    recorded = judged(plant("P1", [3.0, 3.1, 2.9, 3.0]))
    for shift, says in ((0.05, "yes"), (1.0, "no"), (-1.0, "no")):
        row, *others = claims.again(judged(plant("P1", [3.0 + shift])), recorded).query("claim == 'P1'").itertuples()
        assert not others
        assert (row.recorded, row.agrees) == ("✓† (4)", says)
        half = stats.t.ppf(0.975, 3) * np.std([3.0, 3.1, 2.9, 3.0], ddof=1) * np.sqrt(1.25)
        assert (row._7, row.to) == pytest.approx((3.0 - half, 3.0 + half))


def test_what_make_reproduce_prints_at_its_end_has_this_run_beside_the_recorded_verdicts(monkeypatch, capsys) -> None:
    this, recorded = (paper.beside(judged(plant("P1", values))) for values in ([3.0], [3.0, 3.1, 2.9, 3.0]))
    for name, value in {
        "complete": None,
        "times": pd.DataFrame(),
        "from_csv": this,
        "recorded_table": recorded,
    }.items():
        monkeypatch.setattr(results, name, lambda *_, value=value: value)
    monkeypatch.setattr(report, "headline", lambda table: "the headline")
    report.print_summary([], "mini")
    told = capsys.readouterr().out
    assert "the headline" in told and "one number in twenty does not agree by chance" in told
    row = next(line for line in told.splitlines() if line.split()[:1] == ["P1"] and "✓† (4)" in line)
    assert row.endswith("yes")
    monkeypatch.setattr(results, "recorded_table", lambda *_: pd.DataFrame())
    report.print_summary([], "mini")
    assert "by chance" not in capsys.readouterr().out, "nothing is recorded"


def test_a_top_tenth_that_was_not_tested_is_neither_better_nor_worse_than_random_neurons() -> None:
    """Only all neurons were tried: what is kept at the top is then what is kept at random."""
    kept = pd.DataFrame({"neurons": [90, 90], "test": ["keep-top", "keep-random"], "accuracy": [0.9, 0.9]})
    assert np.isnan(results.margin(kept))
    tenth = pd.DataFrame({"neurons": [10, 10], "test": ["keep-top", "keep-random"], "accuracy": [0.8, 0.5]})
    assert results.margin(pd.concat([kept, tenth])) == pytest.approx(0.3)


# Numbers and slips of runs -----------------------------------------------------------------------------------------


def test_the_losses_are_those_that_were_planted_over_the_seeds_that_learnt() -> None:
    each = {"sst2-s1": 2, "sst2-s2": 4, "sst2-s3": 99, "rte-s1": 99}
    every = tables(tuned({v: x * TOP + 0.5 for v, x in each.items()}), failed=["sst2-s3", "rte-s1"])
    found = claims.losses(evidence({"s": "bert"}, every))
    assert {*zip(found["study"], found["property"], found["task"], found["seeds"], strict=True)} == {
        ("s", "tag", "sst2", 2)
    }
    assert found.set_index("measure")["value"].to_dict() == pytest.approx({
        "top third": 3.5, "top layer": 3.5, "layer 0": 0.5, "layer 1": 0.5, "smallest": 0.5, "begins": 4,
    })  # fmt: skip
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    every = tables(tuned({"sst2-s1": TOP}), failed=["sst2-s1"])
    none = claims.losses(evidence({"s": "bert"}, every))
    assert none.empty and none.columns.equals(found.columns)
    assert paper.losses_beside(none, {"s": "BERT"}).empty


def test_slips_can_be_asked_of_runs() -> None:
    top = {"pretrained": 90, "sst2-s1": 80, "sst2-s2": 70, "stsb-s1": 60, "stsb-s2": 40, "mnli-s1": 10}
    below = {"pretrained": 88, "sst2-s1": 87, "sst2-s2": 88, "stsb-s1": 87, "stsb-s2": 88, "mnli-s1": 0}
    planted: Planted = {
        "layer": {v: np.array([90 - i, 90 - 2 * i, 90, 90, below[v], x]) for i, (v, x) in enumerate(top.items())},
        "bottom": {v: x - 1 for v, x in top.items()},
        "top": {v: 90 + (x % 20) / 20 for v, x in top.items()},
        "bottom per layer": {v: [0, 0, 0, 1, 1, 8] for v in top},
    }
    every = evidence({"s": "xlnet"}, tables(planted, failed=["mnli-s1"]))
    row = only(paper.bottom_neurons(every), study="s")
    assert row[["study", "property", "variants"]].tolist() == ["s", "tag", 5]
    assert row[["r", "difference", "in_top_layer"]].tolist() == pytest.approx([1, 1, 0.8])
    kept = [*top][:5]
    for name, other in (("r_below", below), ("r_top", planted["top"])):
        assert row[name] == pytest.approx(np.corrcoef([top[v] for v in kept], [other[v] for v in kept])[0, 1])
    low = paper.lowest_layers(every).set_index("layer")
    assert low[["low", "high"]].to_numpy().tolist() == [pytest.approx([1.5, 3.5]), pytest.approx([3, 7])]
    found = only(paper.against_the_grouping(every), study="s")
    assert found[["keeps", "loss", "forgets", "less"]].tolist() == [
        "stsb",
        pytest.approx(40),
        "sst2",
        pytest.approx(15),
    ]


# What is shown -----------------------------------------------------------------------------------------------------


def test_the_margins_can_be_halved_and_doubled_where_a_loss_begins_too() -> None:
    losses = {"sst2": 1.5 * (LAYER >= 3), "mnli": 0.7 * (LAYER >= 2)}
    every = evidence(
        {"s": "roberta", "b": "bert"},
        tables(tuned({f"{task}-s{s}": loss for task, loss in losses.items() for s in (1, 2, 3)}), "s"),
        tables(tuned({f"{task}-s{s}": 0 * TOP for task in losses for s in (1, 2, 3)}), "b"),
    )
    found = {}
    for factor in (0.5, 1.0, 2.0):
        rows = claims.judge(every, factor)
        assert only(rows, claim="P3")["margin"] == factor
        found[factor] = pick(rows, claim="P2").set_index("compared")["effect"].to_dict()
    assert found == {0.5: {"sst2": 3, "mnli": 4}, 1.0: {"sst2": 3, "mnli": 0}, 2.0: {"sst2": 0, "mnli": 0}}


def test_the_columns_are_those_that_are_promised() -> None:
    table = judged(plant("P1", [3, 3, 3]))
    assert {*table.columns} == {
        "claim", "study", "encoder", "architecture", "other", "property", "compared", "effect", "low", "high", "unit",
        "margin", "expected", "seeds", "p", "holm", "decidable", "variance", "per_seed", "doubt", "verdict",
    }  # fmt: skip
    assert table["seeds"].dtype == int
    assert table["claim"].unique().tolist() == [*EXPECTED]
    assert not table.drop(columns=["effect", "low", "high", "p", "holm", "decidable"]).isna().any(axis=None)


def test_the_overview_counts_the_verdicts_per_claim_and_encoder() -> None:
    rows = [
        ("P1", "f", "F|G", "above", 0.04, NOT_REPRODUCED), ("P1", "e", "E", "above", 0.06, REPRODUCED),
        ("P1", "e", "E", "above", 0.06, REPRODUCED), ("P5", "e", "E", "at most", 0.01, REPRODUCED),
        ("P5", "e", "E", "at most", 0.01, UNDECIDED), ("P5", "e", "E", "at most", 0.2, REPRODUCED),
        ("P5", "e", "E", "", np.nan, NOT_TESTABLE), ("P5", "f", "F|G", "above", np.nan, NOT_TESTABLE),
        ("A1", "", "", "", np.nan, NOT_TESTABLE),
    ]  # fmt: skip
    found = claims.overview(pd.DataFrame(rows, columns=["claim", "study", "encoder", "expected", "holm", "verdict"]))
    assert found.columns.tolist() == ["claim", "E", "F|G"], "in the order of the studies"
    assert found["claim"].tolist() == [*EXPECTED]
    cells = found.set_index("claim")
    assert cells.loc["P1"].tolist() == ["✓", "✗†"]
    assert cells.loc["P5"].tolist() == ["✓† 1, ✓ 1, ? 1", "–"]
    assert {*cells.drop(["P1", "P5"]).to_numpy().ravel()} == {"–"}
    assert claims.to_markdown(found[["claim", "F|G"]].head(1)) == "| claim | F\\|G |\n| --- | --- |\n| P1 | ✗† |"
