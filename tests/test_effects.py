"""The figures of the claims show the numbers of their tables, and what is committed is what the code draws."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import with_variants

from lib import results
from lib.figures import effects, printed
from lib.results import claims, paper
from lib.study import params

TITLES = {"b": "BERT-mini", "r": "RoBERTa-mini"}


def scores(**changed: float) -> pd.DataFrame:
    """Of two studies: a task with all layers, and without the top and the bottom ones; three seeds of each."""
    of = {"sst2": 0.8, "sst2-droptop4": 0.7, "sst2-dropbottom4": 0.6} | changed
    rows = [(s, f"{c}-s{k}", score + 0.01 * k, 0.5) for s in TITLES for c, score in of.items() for k in (1, 2, 3)]
    return with_variants(pd.DataFrame(rows, columns=["study", "variant", "score", "majority"]))


def test_pruned_encoders_are_bars_beside_the_whole_one() -> None:
    figure = effects.pruning(scores(), TITLES)
    assert [ax.get_title() for ax in figure.axes] == list(TITLES.values())
    assert [round(bar.get_height()) for bar in figure.axes[0].patches] == [82, 72, 62]
    dots = [y for kept in figure.axes[0].collections for _, y in np.asarray(kept.get_offsets()).tolist() if y]
    assert sorted(dots) == pytest.approx([61, 62, 63, 71, 72, 73, 81, 82, 83])


def test_the_papers_scores_stand_beside_where_it_has_the_task() -> None:
    figure = effects.pruning(scores(), TITLES, printed={"r": ["BERT", "XLNet"]})
    assert paper.score("BERT", "sst2") == 92.4 and paper.score("BERT", "sst2", "top") == 90.3
    assert paper.score("BERT", "sentiment") is None
    greys = [{float(line.get_ydata()[0]) for line in ax.lines} for ax in figure.axes]
    theirs = {paper.score(model, "sst2", end) for model in ("BERT", "XLNet") for end in ("", "top", "bottom")}
    assert theirs <= greys[1] and not theirs & greys[0]
    told = {text.get_text().split(" (")[0] for text in figure.legends[0].get_texts()}
    assert {"the paper's BERT-base", "the paper's XLNet-base"} <= told


def test_what_was_trained_otherwise_is_no_bar() -> None:
    more = scores(**{"rte": 0.9, "sst2-1k": 0.1, "sst2-lr1e-3": 0.1, "sst2-at9": 0.1})
    (ax, _) = effects.pruning(more, TITLES).axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["sst2"]
    assert [round(bar.get_height()) for bar in ax.patches] == [82, 72, 62]


def test_a_pruned_encoder_stands_beside_the_whole_one_with_as_many_examples() -> None:
    of = {"sst2-droptop4-8": 0.7, "sst2-8": 0.75, "sst2-dropbottom4-lr1e-3": 0.1, "sst2-lr1e-3": 0.1}
    alone = scores(**{"sst2-droptop4": 0.1, "sst2-dropbottom4": 0.1}, **of)
    alone = alone[alone["condition"].isin(of)]
    (ax, _) = effects.pruning(alone, TITLES).axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["sst2-8"]
    assert [round(bar.get_height()) for bar in ax.patches] == [77, 72]
    assert effects.with_pruned(alone[alone["rate"] != ""]).empty, "at another rate: no figure"


def test_a_training_is_followed_through_its_checkpoints() -> None:
    loss = {"sst2-at9": 1, "sst2-at90": 3, "sst2": 2, "sst2-lr1e-3-at9": 5, "sst2-lr1e-3": 6, "rte": 7, "sst2-1k": 8}
    rows = [
        (s, f"{c}-s1", layer, 0.01 * x * (layer > 3)) for s in TITLES for c, x in loss.items() for layer in range(6)
    ]
    drop = with_variants(pd.DataFrame(rows, columns=["study", "variant", "layer", "drop"]))
    drop = drop.assign(property="pos", word_group="all")
    known = [(s, f"{c}-s1", 0.7, 0.5, True, {"sst2-at9": 9, "sst2-lr1e-3-at9": 9, "sst2-at90": 90}.get(c, 99))
             for s in TITLES for c in loss]  # fmt: skip
    columns = ["study", "variant", "score", "majority", "learnt", "updates"]
    table = with_variants(pd.DataFrame(known, columns=columns)).assign(train=500)
    points = results.along_training(table, drop, "pos", {"b": 2e-4, "r": 1e-4})
    of_b = results.pick(points, study="b", rate="2e-4")
    assert of_b[["updates", "loss"]].to_numpy().tolist() == [[9, 1], [90, 3], [99, 2]]
    assert results.pick(points, study="r", rate="1e-3")["loss"].tolist() == pytest.approx([5, 6])
    assert set(points["task"]) == {"sst2"}, "of the others there are no checkpoints"
    figure = effects.updates(points, TITLES)
    (usual,) = (line for line in figure.axes[0].lines if line.get_label() == "sst2, learning rate 2e-4")
    assert usual.get_ydata().tolist() == [70, 70, 70]
    (usual,) = (line for line in figure.axes[2].lines if line.get_label() == "sst2, learning rate 2e-4")
    assert (usual.get_xdata().tolist(), usual.get_ydata().tolist()) == ([9, 90, 99], pytest.approx([1, 3, 2]))


def test_a_task_is_shown_at_its_learning_rates_and_lengths() -> None:
    loss = {"sst2": 1, "sst2-half": 0.5, "sst2-lr1e-3": 6, "sst2-lr1e-3-half": 3, "sst2-lr1e-3-at9": 9, "rte": 7}
    rows = [
        ("b", f"{c}-s{s}", layer, 0.01 * (x + s) * (layer > 3))
        for c, x in loss.items() for s in (1, 2, 3) for layer in range(6)
    ]  # fmt: skip
    drop = with_variants(pd.DataFrame(rows, columns=["study", "variant", "layer", "drop"]))
    known = [("b", f"{c}-s{s}", 0.5 + 0.1 * s, 0.5, True, 50 if "half" in c else 99) for c in loss for s in (1, 2, 3)]
    columns = ["study", "variant", "score", "majority", "learnt", "updates"]
    table = with_variants(pd.DataFrame(known, columns=columns)).assign(train=500)
    points = results.by_rate(table, drop.assign(property="pos", word_group="all"), "pos", {"b": 2e-4})
    assert points.groupby(["rate", "updates"])["loss"].median().to_dict() == pytest.approx(
        {("1e-3", 50): 5, ("1e-3", 99): 8, ("2e-4", 50): 2.5, ("2e-4", 99): 3}
    )
    assert set(points["task"]) == {"sst2"}, "the other was trained at one rate only"
    score, lost = effects.rates(points, TITLES).axes
    (line,) = (line for line in lost.lines if line.get_label() == "sst2, 99 updates")
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([2e-4, 1e-3], pytest.approx([3, 8]))
    (line,) = (line for line in score.lines if line.get_label() == "sst2, 50 updates")
    assert line.get_ydata().tolist() == pytest.approx([70, 70])
    assert [tick.get_text() for tick in lost.get_xticklabels()] == ["2e-4", "1e-3"]
    assert lost.get_yscale() == "linear"
    _, lost = effects.rates(points.assign(loss=10 * points["loss"]), TITLES).axes
    assert lost.get_yscale() == "symlog" and "logarithmic" in lost.figure.legends[0].get_title().get_text()
    assert lost.get_ylim()[1] > 80
    many = pd.concat([points.assign(updates=points["updates"] + more) for more in range(12)])
    assert len(effects.rates(many, TITLES).axes[1].lines) > 12, "more lines than colours"


def test_tasks_are_shown_at_their_numbers_of_examples() -> None:
    loss = {"sst2": 1, "sst2-5k": 4, "rte": 2, "rte-half": 9, "sst2-lr1e-3-5k": 9, "sst2-droptop1-5k": 9}
    rows = [(s, f"{c}-s1", layer, 0.01 * x * (layer > 3)) for s in "br" for c, x in loss.items() for layer in range(6)
            if s == "b" or "5k" not in c]  # fmt: skip
    drop = with_variants(pd.DataFrame(rows, columns=["study", "variant", "layer", "drop"]))
    known = drop.drop_duplicates(["study", "variant"]).assign(score=0.7, majority=0.5, learnt=True, updates=9)
    known["train"] = known["amount"].map({"5k": 5000}).fillna(2241).astype(int)
    points = results.by_examples(known, drop.assign(property="pos", word_group="all"), "pos", {"b": 1e-4, "r": 1e-4})
    assert points[["study", "task", "examples", "loss"]].to_numpy().tolist() == [
        ["b", "rte", 2241, 2], ["b", "sst2", 2241, 1], ["b", "sst2", 5000, 4],
    ]  # fmt: skip
    score, lost = effects.examples(points, TITLES).axes
    assert "best constant answer" in [line.get_label() for line in score.lines]
    floors = points.assign(majority=points["task"].map({"sst2": 0.5, "rte": 0.6}))
    score, _ = effects.examples(floors, TITLES).axes
    assert "best constant answer" not in [line.get_label() for line in score.lines], "of which task?"
    (line,) = (line for line in lost.lines if line.get_label() == "sst2")
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([2241, 5000], pytest.approx([1, 4]))
    assert [tick.get_text() for tick in lost.get_xticklabels()] == ["2,241", "5,000"]


def test_probes_of_one_encoder_are_compared_and_no_others(make_study) -> None:
    ways = {"plain": {}, "raw": {"probe__standardise": False}, "long": {"probe__tolerance": 0.01}}
    runs = [results.tables.Run(make_study(**way).model_copy(update={"name": name}), None) for name, way in ways.items()]
    rows = [(name, "own-s1", layer, 0.01 * (i + layer)) for i, name in enumerate(ways) for layer in range(3)]
    drop = with_variants(pd.DataFrame(rows, columns=["study", "variant", "layer", "drop"]))
    drop = drop.assign(property="pos", word_group="all")
    found = results.by_probe(runs, drop, "pos")
    assert found.groupby("probe")["loss"].first().to_dict() == {"standardised": 0, "raw": 1, "converged": 2}
    assert results.by_probe(runs[:1], drop[drop["study"] == "plain"], "pos").empty
    other = with_variants(drop[drop["study"] == "raw"].assign(variant="own-s2", drop=9.0)[drop.columns])
    again = results.by_probe(runs, pd.concat([drop, other]), "pos")
    assert again["loss"].tolist() == found["loss"].tolist(), "of the second seed there is one probe only"
    figure = effects.better_probes(found, {})
    assert {line.get_label() for line in figure.axes[0].lines} >= {"raw", "standardised", "converged"}


def test_selectivity_is_accuracy_minus_that_of_the_control_task() -> None:
    cell = {"study": "b", "property": "pos"}
    rows = [("pretrained", "top", "real", 0.9), ("pretrained", "top", "control", 0.5), ("sst2-s1", "top", "real", 0.8)]
    table = with_variants(pd.DataFrame(rows, columns=["variant", "neurons", "target", "accuracy"]).assign(**cell))
    (row,) = results.selectivity_of_sets(table).itertuples()
    assert (row.variant, row.neurons, row.accuracy, row.selectivity) == ("pretrained", "top", 90, pytest.approx(40))


def test_a_figure_without_runs_is_the_recorded_one_and_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(results, "recorded_table", lambda suite, name: scores() if suite == "mini" else pd.DataFrame())
    drawn = effects.drawn("pruning", scores()[:0], "mini", tmp_path, effects.pruning, TITLES)
    assert drawn.get_suptitle().endswith("(recorded)") and not [*tmp_path.iterdir()]
    assert effects.drawn("pruning", scores()[:0], "other", tmp_path, effects.pruning, TITLES) is None
    assert "not computed here, and not recorded yet" in capsys.readouterr().out
    mine = effects.drawn("pruning", scores(), "other", tmp_path, effects.pruning, TITLES)
    assert "recorded" not in mine.get_suptitle()
    assert {file.name for file in tmp_path.iterdir()} == {"pruning.csv", "pruning.pdf", "pruning.png"}


def test_the_page_of_verdicts_has_a_cell_per_claim_and_encoder() -> None:
    judged = claims.judge(paper.evidence())
    ax = effects.claims_page(judged, "title").axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert len(ax.patches) == 3 * len(claims.table())
    assert texts.count("✓ 17, ✗ 1") == 1 and all(claim in texts for claim in claims.table())


# What is committed -------------------------------------------------------------------------------------------------


def test_the_page_and_the_tables_as_printed_are_those_of_the_code(tmp_path: Path, monkeypatch) -> None:
    committed = results.figures_folder(printed.SUITE, recorded=True)
    monkeypatch.setattr(results, "figures_folder", lambda *_, **__: tmp_path / "figures" / printed.SUITE)
    monkeypatch.setattr(printed.params, "ROOT", params.ROOT)
    assert printed.page(claims.judge(paper.evidence())) == (committed / "README.md").read_text(encoding="utf-8")
    names = {file.stem for file in committed.glob("*.csv")}
    assert names == {file.stem for file in committed.glob("*.png")} == {file.stem for file in committed.glob("*.pdf")}
    kept = results.pick(paper.accuracies().merge(paper.drops(), how="left"), property="pos")
    assert pd.read_csv(committed / "figure_1_pos.csv")["accuracy"].to_numpy() == pytest.approx(
        kept["accuracy"], abs=1e-4
    )


def test_every_file_of_the_map_in_readme_is_one_that_the_notebook_writes() -> None:
    page = (params.ROOT / "README.md").read_text(encoding="utf-8")
    table = page.split("## From the paper's tables and figures to ours")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and " | --- " not in line][1:]
    told = " ".join(row[0] for row in rows)
    assert all(re.search(rf"\b{n}\b", told) for n in range(1, 9)) and "Figure 4" in told
    lesson = (params.ROOT / "notebooks" / "05_figures.ipynb").read_text(encoding="utf-8")
    written = {*re.findall(r'folder, f?\\"(\w+?)_?(?:\{|\\")', lesson), *re.findall(r'drawn\(\\"(\w+)\\"', lesson)}
    for row in rows:
        for name in re.findall(r"`([\w*.]+)`", row[3]):
            stem = name.removesuffix(".csv").removesuffix("_*")
            known = any(stem == kept or stem.startswith(f"{kept}_") for kept in written)
            assert known or (params.ROOT / name).exists(), name
    for link in re.findall(r"\]\(([\w/.]+)\)", table):
        assert (params.ROOT / link).exists(), link
