"""The rule that judges our numbers gives the paper's own the outcomes that a reader gives; its slips are found."""

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from lib.results import claims, paper
from lib.results.claims import FORGET, KEEP, NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, onset
from lib.results.summary import pick, top_third

MODELS = ["BERT", "RoBERTa", "XLNet"]


@lru_cache
def judge(factor: float) -> pd.DataFrame:
    return claims.judge(paper.evidence(), factor)


@pytest.fixture
def judged() -> pd.DataFrame:
    return judge(1.0)


def losses(model: str, name: str) -> dict[str, np.ndarray]:
    """Task → loss per layer."""
    evidence = paper.evidence()
    return {task: evidence.losses("layer", name, (model, task))[0][:, 0, 0] for task in (*FORGET, *KEEP)}


def shown(values: list[float], as_printed: str) -> str:
    """Numbers as a text writes them, each with as many decimals as it has there."""
    written = as_printed.split()
    return " ".join(f"{v:.{len(text.partition('.')[2])}f}" for v, text in zip(values, written, strict=True))


# The numbers -------------------------------------------------------------------------------------------------------


def test_every_printed_number_is_there_and_every_row_of_neurons_has_its_sum() -> None:
    rows = paper.numbers()
    assert len(rows) == 1905
    per_layer = pick(rows, measure="top neurons in layer")
    assert per_layer["status"].str.contains("partly hidden").sum() == 26
    sums = per_layer.groupby(["source", "property", "model", "condition"])["value"].agg(["sum", "size"])
    assert len(sums) == 3 * 3 * 7 + 2 * 3 * 4
    assert (sums["size"] == 13).all()
    assert sums["sum"].groupby("property").unique().map(list).to_dict() == {"chunk": [998], "pos": [499], "sem": [499]}
    figures = per_layer.set_index(["source", "property", "model", "condition", "layer"])["value"]
    again = figures["Figure 2"]
    assert again.equals(figures["Figure 3"].loc[again.index])


def test_the_printed_numbers_are_evidence_of_whole_and_of_pruned_encoders() -> None:
    evidence = paper.evidence()
    assert evidence.measures == {"layer", "all", "top", "bottom", "selected", "top per layer", "score"}
    for model in MODELS:
        assert {*evidence.conditions(model, "layer")} == {*FORGET, *KEEP}
        assert {*evidence.conditions(model, "score")} == {"sst2", "mnli", "qnli"}
        cut = evidence.conditions(model, "score", dropped="bottom")
        assert cut == {f"{task}-dropbottom6": task for task in ("sst2", "mnli", "qnli")}
        assert evidence.values["layer", model, "pretrained", -1, "pos"].shape == (13, 1)


@pytest.mark.parametrize(("model", "name", "accuracy"), [
    ("BERT", "pos", "96.0 95.8 95.6 95.5"), ("BERT", "chunk", "93.8 92.9 92.2 91.2"),
    ("RoBERTa", "pos", "96.8 96.7 96.6 96.6"), ("XLNet", "pos", "96.1 95.5 95.0 92.0"),
])  # fmt: skip
def test_the_accuracy_of_the_highest_layers_before_fine_tuning(model: str, name: str, accuracy: str) -> None:
    assert shown(paper.evidence().values["layer", model, "pretrained", -1, name][9:, 0], accuracy) == accuracy


@pytest.mark.parametrize(("model", "top", "mean"), [
    ("BERT", "1.5 0.6 1.4 0.2 0.2 0.2", "0.7 0.4 1.0 0.1 0.1 0.2"),
    ("RoBERTa", "36.1 11.9 9.9 10.6 5.5 4.0", "16.2 6.2 5.8 4.2 2.8 2.3"),
    ("XLNet", "56.7 81.5 50.8 3.7 3.8 12.9", "23.7 59.4 20.7 2.3 2.3 6.15"),
])  # fmt: skip
def test_the_loss_at_the_top_layer_and_over_the_top_third_after_each_task(model: str, top: str, mean: str) -> None:
    lost = losses(model, "pos")
    assert shown([loss[-1] for loss in lost.values()], top) == top
    assert shown([top_third(loss) for loss in lost.values()], mean) == mean


# The claims --------------------------------------------------------------------------------------------------------

ASKED = {
    "P1": (2, 2, 2), "P2": (0, 6, 6), "P3": (0, 2, 2), "P4": (2, 2, 2), "P4b": (0, 2, 2), "P5": (18, 18, 18),
    "P6": (18, 18, 18), "P7": (3, 3, 3), "P8": (0, 3, 3), "A1": (0, 0, 0), "A2": (0, 0, 0),
}  # fmt: skip
"""Claim → how many numbers it is about, in BERT, RoBERTa and XLNet."""

QNLI = "P8 XLNet qnli, bottom layers dropped"
FAILING = {
    0.5: {
        "P2 XLNet mnli chunk", "P4b RoBERTa chunk", "P4b XLNet chunk", "P4b RoBERTa pos", "P4b XLNet pos",
        "P5 BERT mnli pos", "P5 BERT sst2 pos", "P5 BERT mnli chunk", "P5 BERT mnli sem",
        "P6 BERT mnli pos", "P6 BERT mnli chunk", "P6 BERT qnli sem", "P6 BERT sst2 sem", QNLI,
    },
    1.0: {"P4b RoBERTa pos", "P4b XLNet pos", "P6 BERT mnli pos", QNLI},
    2.0: {
        "P6 RoBERTa mrpc pos", "P6 RoBERTa rte sem", "P6 XLNet mrpc pos", "P6 XLNet mnli pos", "P6 XLNet rte pos",
        "P6 XLNet sst2 pos", "P6 XLNet stsb pos", "P6 XLNet rte chunk", "P6 XLNet stsb chunk", "P6 XLNet rte sem", QNLI,
    },
}  # fmt: skip
"""By what the margins are multiplied → the comparisons that do not come out as the paper says."""


@pytest.mark.parametrize("factor", FAILING)
def test_the_paper_passes_but_for_named_comparisons(factor: float) -> None:
    table = judge(factor)
    asked = table[table["expected"] != ""]
    counts = asked.groupby(["claim", "study"]).size()
    assert {claim: tuple(counts.get((claim, model), 0) for model in MODELS) for claim in claims.CLAIMS} == ASKED
    assert {*asked["verdict"]} == {REPRODUCED, NOT_REPRODUCED}
    assert {*table[table["expected"] == ""]["verdict"]} == {NOT_TESTABLE}
    failing = pick(asked, verdict=NOT_REPRODUCED)
    compared = failing["compared"].where(~failing["claim"].isin(["P4b"]), "")
    named = failing["claim"] + " " + failing["study"] + " " + compared + " " + failing["property"]
    assert {" ".join(name.split()) for name in named} == FAILING[factor]


def test_printed_means_are_judged_by_effect_and_margin_alone(judged: pd.DataFrame) -> None:
    known = judged.dropna(subset="effect")
    assert len(known) == len(judged) - 2, "all but the two claims of our own"
    assert (known["low"] == known["effect"]).all()
    assert (known["high"] == known["effect"]).all()
    overview = claims.overview(judged).set_index("claim")
    assert overview.loc["P6"].tolist() == ["✓ 17, ✗ 1", "✓", "✓"]
    assert overview.loc["P8"].tolist() == ["–", "✓", "✓ 2, ✗ 1"]


def test_the_overview_has_the_papers_encoder_of_an_architecture_beside_ours() -> None:
    rows = [
        ("P3", "b", "B", "mpnet", "above", 0.5, "undecided"), ("P3", "a", "A", "xlnet", "above", 0.01, "reproduced"),
    ]  # fmt: skip
    columns = ["claim", "study", "encoder", "architecture", "expected", "holm", "verdict"]
    found = paper.overview(pd.DataFrame(rows, columns=columns)).set_index("claim")
    of_all = [f"the paper's {model}" for model in ("BERT", "RoBERTa", "XLNet")]
    assert found.columns.tolist() == ["A", "the paper's XLNet", "B", "the paper's BERT", "the paper's RoBERTa"]
    far_larger = found.loc["P3: the loss is far larger than in BERT"]
    assert far_larger[["A", "B", *of_all]].tolist() == ["✓†", "?", "–", "✓", "✓"]
    assert found.loc["P8: dropping the bottom layers costs more than in BERT", "the paper's XLNet"] == "✓ 2, ✗ 1"


def effects(judged: pd.DataFrame, claim: str, **where: str) -> list[float]:
    """By encoder."""
    rows = pick(judged, claim=claim, **where)
    return rows.sort_values("study", kind="stable")["effect"].tolist()


@pytest.mark.parametrize(("claim", "name", "printed"), [
    ("P1", "pos", "0.57 6.3 31.0"), ("P1", "chunk", "1.7 7.2 26.7"), ("P3", "pos", "34.6 80.0"),
    ("P3", "chunk", "31.4 50.7"), ("P4", "pos", "-0.11 1.05 1.12"), ("P4", "chunk", "-0.56 0.22 0.39"),
    ("P4b", "pos", "0.95 3.0 2.5"), ("P7", "pos", "0.3 0.1 -0.1"),
])  # fmt: skip
def test_the_numbers_of_the_claims(judged: pd.DataFrame, claim: str, name: str, printed: str) -> None:
    assert shown(effects(judged, claim, property=name), printed) == printed


@pytest.mark.parametrize(("model", "name", "forget", "keep"), [
    ("BERT", "pos", [12, 13, 11], {13}), ("RoBERTa", "pos", [8, 9, 9], {10, 11, 12}),
    ("XLNet", "pos", [8, 7, 9], {10, 11, 12}), ("BERT", "chunk", [10, 12, 8], {13}),
    ("RoBERTa", "chunk", [6, 7, 5], None), ("XLNet", "chunk", [8, 5, 7], None),
])  # fmt: skip
def test_p2_the_layer_where_the_loss_begins(model: str, name: str, forget: list[int], keep: set | None) -> None:
    begins = {task: int(onset(loss[:, None], 1.0).item()) for task, loss in losses(model, name).items()}
    assert [begins[task] for task in FORGET] == forget, "sst2, qnli, mnli; 13: it never does"
    assert keep is None or {begins[task] for task in KEEP} <= keep


@pytest.mark.parametrize(("name", "largest"), [
    ("pos", {"BERT": (1.5, "sst2"), "RoBERTa": (36.1, "sst2"), "XLNet": (81.5, "qnli")}),
    ("chunk", {"BERT": (3.4, "sst2"), "RoBERTa": (34.8, "sst2"), "XLNet": (54.1, "qnli")}),
])  # fmt: skip
def test_p3_the_largest_loss_at_the_top_layer_and_the_task_that_costs_it(name: str, largest: dict) -> None:
    for model, (points, task) in largest.items():
        lost = {task: loss[-1] for task, loss in losses(model, name).items()}
        assert max(lost, key=lost.get) == task
        assert round(lost[task], 1) == points


@pytest.mark.parametrize(("model", "name", "low", "over"), [
    ("RoBERTa", "pos", "1.05", {0, 1}), ("RoBERTa", "chunk", "0.22", set()),
    ("XLNet", "pos", "1.12", {0, 1, 2}), ("XLNet", "chunk", "0.39", set()),
])  # fmt: skip
def test_p4_they_stay_below_at_every_layer_and_lose_two_points_at_the_lowest(model, name, low, over) -> None:
    lost = np.array([*losses(model, name).values()])
    assert shown([lost.min()], low) == low
    assert {layer for layer in range(4) if lost[:, layer].max() > 2} == over


@pytest.mark.parametrize(("model", "before", "after", "top"), [
    ("BERT", 94.9, (93.9, 94.8), (0.0, 0.2)), ("RoBERTa", 95.3, (60.4, 91.9), (0.9, 1.3)),
    ("XLNet", 91.2, (10.3, 88.1), (1.3, 1.8)),
])  # fmt: skip
def test_p5_what_the_bottom_and_the_top_neurons_lose(judged, model: str, before: float, after: tuple, top: tuple):
    lost = pick(judged, claim="P5", study=model, property="pos")
    bottom = lost[lost["expected"] != ""]["effect"]
    assert (before - bottom.max(), before - bottom.min()) == pytest.approx(after)
    shown_only = lost[lost["expected"] == ""]["effect"]
    assert (shown_only.min(), shown_only.max()) == pytest.approx(top)


@pytest.mark.parametrize(("model", "least", "most"), [
    ("BERT", -0.68, 0.37), ("RoBERTa", -2.43, -0.64), ("XLNet", -1.88, -0.60),
])  # fmt: skip
def test_p6_how_far_the_top_neurons_move(judged: pd.DataFrame, model: str, least: float, most: float) -> None:
    rows = pick(judged, claim="P6", study=model)
    layers = 0.12 * rows[rows["expected"] != ""]["effect"]
    assert (round(layers.min(), 2), round(layers.max(), 2)) == (least, most)


def test_p6_the_shift_comes_after_every_task_and_in_xlnet_mostly_from_the_top_layer(judged: pd.DataFrame) -> None:
    rows = pick(judged, claim="P6")
    moved = rows[(rows["expected"] != "") & (rows["study"] != "BERT")]
    assert (len(moved), (moved["effect"] < 0).sum()) == (36, 36)
    means = moved.assign(forgets=moved["compared"].isin(FORGET)).groupby(["study", "forgets"])["effect"].mean()
    further = 0.12 * (means.xs(False, level="forgets") - means.xs(True, level="forgets"))
    assert further.between(0.2, 0.5).all(), "a part of what the shifts are: the grouping does not explain them"
    below = rows[(rows["expected"] == "") & (rows["study"] == "XLNet")]
    assert (len(below), (below["effect"] > 0).sum()) == (18, 11)
    before, after = ([
        paper.evidence().values["top per layer", "XLNet", run, -1 if run == "pretrained" else 1, name][-1, 0]
        for name in ("pos", "chunk", "sem") for run in runs
    ] for runs in (["pretrained"], [*FORGET, *KEEP]))  # fmt: skip
    assert before == [50, 122, 85]
    assert max(after) <= 4


def test_p7_the_accuracy_of_all_and_of_the_top_neurons() -> None:
    values = paper.evidence().values
    for measure, printed in (("all", "96.2 96.3 96.4"), ("selected", "95.9 96.2 96.5")):
        found = [values[measure, model, "pretrained", -1, "pos"].item() for model in MODELS]
        assert shown(found, printed) == printed


@pytest.mark.parametrize(("end", "cost"), [
    ("bottom", {"BERT": "4.3 5.6 7.4", "RoBERTa": "8.5 24.8 28.0", "XLNet": "6.4 17.9 7.4"}),
    ("top", {"BERT": "2.1 2.8 3.5", "RoBERTa": "0.2 2.0 1.7", "XLNet": "1.7 2.5 2.4"}),
])  # fmt: skip
def test_p8_what_dropping_half_of_the_layers_costs(judged: pd.DataFrame, end: str, cost: dict[str, str]) -> None:
    values, tasks = paper.evidence().values, ("sst2", "mnli", "qnli")
    score = {key[1:3]: value.item() for key, value in values.items() if key[0] == "score"}
    found = {model: [score[model, t] - score[model, f"{t}-drop{end}6"] for t in tasks] for model in MODELS}
    assert {model: shown(found[model], text) for model, text in cost.items()} == cost
    for model in ("RoBERTa", "XLNet"):
        rows = pick(judged, claim="P8", study=model).set_index("compared")["effect"]
        beyond = [rows[f"{task}, {end} layers dropped"] for task in tasks]
        assert beyond == pytest.approx(np.subtract(found[model], found["BERT"]))


# Beside ours -------------------------------------------------------------------------------------------------------


def test_the_printed_numbers_as_tables_are_those_of_the_evidence() -> None:
    values, drop = paper.evidence().values, paper.drops()
    assert len(drop) == 3 * 2 * 6 * 13
    for (model, name, task), rows in drop.groupby(["study", "property", "condition"]):
        lost = 100 * rows.sort_values("layer")["drop"].to_numpy()
        np.testing.assert_allclose(lost, losses(model, name)[task], atol=1e-9)
    for table, measure, column, share in (
        (paper.neuron_layers(), "top per layer", "neurons", 1), (paper.accuracies(), "layer", "accuracy", 100),
    ):  # fmt: skip
        for row in table.sample(20, random_state=1).itertuples():
            seed = -1 if row.condition == "pretrained" else 1
            exact = values[measure, row.study, row.condition, seed, row.property][row.layer, 0]
            assert share * getattr(row, column) == pytest.approx(exact)
    scores = paper.task_scores().set_index(["study", "condition"])["score"]
    assert len(scores) == 3 * 3 * 3
    assert 100 * scores["XLNet", "qnli"] == pytest.approx(values["score", "XLNet", "qnli", 1, ""].item())
    sets = paper.neuron_sets()
    assert sets["neurons"].value_counts().to_dict() == {"top": 63, "bottom": 63}
    constant = pick(sets, study="XLNet", property="pos", condition="qnli", neurons="bottom")["accuracy"]
    assert constant.item() == pytest.approx(0.103)


def test_the_paper_beside_itself_has_its_own_numbers_and_directions(judged: pd.DataFrame, monkeypatch) -> None:
    monkeypatch.setattr(paper, "judge", lambda evidence: judged)
    found = paper.beside(judged)
    known = found.dropna(subset="effect")
    assert (known["paper low"] == known["effect"]).all() and (known["paper high"] == known["effect"]).all()
    moved = known["effect"].round(9).ne(0) & ~known["expected"].isin(["at most", "within"])
    assert {*known[moved]["same direction"]} == {"yes"} and {*known[~moved]["same direction"]} == {""}
    turned = paper.beside(judged.assign(effect=-judged["effect"])).dropna(subset="effect")
    assert {*turned[moved]["same direction"]} == {"no"}
    other = paper.beside(judged.assign(compared="another task"))
    row = pick(other, claim="P6", study="RoBERTa", property="pos", expected="below").iloc[0]
    assert (row["paper"], row["same direction"]) == ("✓", "yes")
    assert (round(0.12 * row["paper low"], 2), round(0.12 * row["paper high"], 2)) == (-1.79, -0.85)


# The table of claims -----------------------------------------------------------------------------------------------


def test_every_claim_has_a_function_and_words_that_the_rule_knows() -> None:
    table = claims.table()
    assert [*table] == [*claims.CLAIMS] == [*ASKED]
    for claim in table.values():
        assert {*claim.expected} <= {*paper.MODELS.values()}
        assert {*claim.expected.values()} <= {"above", "below", "within", "at most"}
        assert all([claim.section, claim.says, claim.compared, claim.unit, claim.because, claim.limits])
        assert claim.margin >= 0
    assert {name for name, claim in table.items() if claim.onset == 1} == {"P2", "P4b"}


# Slips -------------------------------------------------------------------------------------------------------------


def test_slip_a_the_bottom_neurons_do_what_the_top_layer_does() -> None:
    table = paper.bottom_neurons(paper.evidence()).set_index(["study", "property"])
    assert (table["variants"] == 7).all()
    for name, r, apart in (("pos", "0.92 0.999 1.000", "0.4 0.8 0.3"), ("chunk", "0.62 0.995 0.998", None)):
        rows = table.xs(name, level="property").loc[MODELS]
        assert shown(rows["r"], r) == r
        assert apart is None or shown(rows["difference"], apart) == apart
    assert (table["r"] > table["r_top"]).loc[["RoBERTa", "XLNet"]].all()
    assert (table["r"] > table["r_below"]).loc[["RoBERTa", "XLNet"]].all()
    assert table["in_top_layer"].isna().all(), "not printed"


@pytest.mark.parametrize(("model", "name", "layer", "low", "high"), [
    ("RoBERTa", "pos", 0, 2.95, 3.03), ("XLNet", "pos", 0, 2.34, 2.48), ("BERT", "pos", 0, 0.01, 0.07),
    ("XLNet", "chunk", 0, 1.19, 1.38), ("XLNet", "chunk", 1, 1.35, 1.95), ("RoBERTa", "chunk", 1, 1.26, 1.62),
    ("RoBERTa", "chunk", 0, 0.22, 0.42),
])  # fmt: skip
def test_slip_b_the_lowest_layers_lose_the_same_after_every_task(model, name, layer, low, high) -> None:
    table = paper.lowest_layers(paper.evidence()).set_index(["study", "property", "layer"])
    assert table.loc[(model, name, layer), ["low", "high"]].tolist() == pytest.approx([low, high])


def test_slip_e_a_cell_stands_in_two_tables_and_two_tables_disagree() -> None:
    where = ["source", "property", "source_again", "property_again", "model", "condition"]
    copied = paper.copied_cells()
    assert copied[where].to_numpy().tolist() == [["Table 1", "pos", "Table 5", "sem", "XLNet", "pretrained"]]
    assert copied[["accuracy top neurons", "accuracy bottom neurons"]].to_numpy().tolist() == [[96.5, 91.2]]
    apart = paper.tables_disagree().set_index(["model", "property"])["apart"]
    assert apart.to_dict() == {("RoBERTa", "pos"): 0.5, ("XLNet", "sem"): 3.88}, "the latter is the copied cell"


def test_slip_f_stsb_costs_robertas_top_layer_more_than_tasks_that_forget() -> None:
    found = paper.against_the_grouping(paper.evidence()).round(1).to_numpy().tolist()
    assert sorted(found) == [
        ["RoBERTa", "chunk", "stsb", 15.8, "mnli", 13.4], ["RoBERTa", "chunk", "stsb", 15.8, "qnli", 14.2],
        ["RoBERTa", "pos", "stsb", 10.6, "mnli", 9.9],
    ]  # fmt: skip
