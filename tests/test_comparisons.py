"""The comparing figures show every encoder, task and seed they are given, in its own colour, at the right place."""

import importlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import with_variants
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib import figures, results
from lib.figures import comparisons, report, style
from lib.results.summary import pick
from lib.study import loading

TITLES = {"bert-mini": "BERT-mini", "roberta-mini": "RoBERTa-mini", "xlnet-mini": "XLNet-mini", "minilm": "MiniLM-L6"}
TASKS = ["sentiment", "sentiment-quarter", "acceptability", "shuffled"]
CELL = {"property": "pos", "source": "gold", "target": "real", "word_group": "all"}
LAYERS = range(4)
SHAPES = pytest.mark.parametrize("encoders, seeds", [(1, 1), (3, 3), (4, 2)])


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def titles(encoders: int) -> dict[str, str]:
    return dict(list(TITLES.items())[:encoders])


def variants(seeds: int) -> list[str]:
    return [f"{task}-s{seed + 1}" for task in TASKS for seed in range(seeds)]


def drop(v: str, layer: int) -> float:
    """Half a point per layer and place among the tasks; seed n has n - 2 tenths of a point more."""
    task, seed = v.rsplit("-s", 1)
    return 0.005 * layer * (TASKS.index(task) - 1) + 0.001 * (int(seed) - 2)


def accuracies(encoders: int, seeds: int) -> pd.DataFrame:
    rows = [
        {**CELL, "study": s, "variant": v, "layer": layer, "accuracy": start - (drop(v, layer) if "-s" in v else 0)}
        for s in titles(encoders) for layer in LAYERS
        for v, start in {"pretrained": 0.9, "random": 0.6, **dict.fromkeys(variants(seeds), 0.9)}.items()
    ]  # fmt: skip
    fixed = [
        {**CELL, "study": s, "variant": "pretrained", "layer": -1, "target": kind, "accuracy": value}
        for s in titles(encoders) for kind, value in (("lookup", 0.8), ("majority", 0.1))
    ]  # fmt: skip
    table = with_variants(pd.DataFrame(rows + fixed))
    return table.assign(low=table["accuracy"] - 0.02, high=table["accuracy"] + 0.03)


def drops(encoders: int, seeds: int) -> pd.DataFrame:
    rows = [
        {**CELL, "study": s, "variant": v, "layer": layer, "drop": drop(v, layer)}
        for s in titles(encoders) for v in variants(seeds) for layer in LAYERS
    ]  # fmt: skip
    table = with_variants(pd.DataFrame(rows).drop(columns="target"))
    return table.assign(low=table["drop"] - 0.004, high=table["drop"] + 0.002)


def neuron_layers(encoders: int, seeds: int) -> pd.DataFrame:
    """Ten top neurons in each run; in seed n, n of them are one layer lower."""
    counts = {"pretrained": [0, 0, 10, 0], "random": [3, 2, 2, 3]}
    counts |= {v: [0, int(v[-1]), 10 - int(v[-1]), 0] for v in variants(seeds)}
    rows = [
        {"property": "pos", "source": "gold", "study": s, "variant": v, "ranking": "lca", "layer": layer, "neurons": n}
        for s in titles(encoders) for v, where in counts.items() for layer, n in enumerate(where)
    ]  # fmt: skip
    return with_variants(pd.DataFrame(rows))


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def named(ax: Axes) -> dict[str, str]:
    """Name → colour of the lines that the legend shows."""
    return {str(n): to_hex(h.get_color()) for h, n in zip(*ax.get_legend_handles_labels(), strict=True)}


def legend(figure: Figure) -> list[str]:
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def line(ax: Axes, name: str) -> list[float]:
    (found,) = (found for found in ax.lines if found.get_label() == name)
    return np.asarray(found.get_ydata(), float).tolist()


def shade(ax: Axes, name: str) -> tuple[list[float], list[float]]:
    """Lower and upper edge of the shade around a line."""
    place = [drawn.get_label() for drawn in ax.lines if len(np.atleast_1d(drawn.get_xdata())) == len(LAYERS)]
    shades = [c for c in ax.collections if type(c).__name__ in ("FillBetweenPolyCollection", "PolyCollection")]
    points = shades[place.index(name)].get_paths()[0].vertices
    ends = [points[np.isclose(points[:, 0], layer), 1] for layer in LAYERS]
    return [float(e.min()) for e in ends], [float(e.max()) for e in ends]


def assert_all_text_inside_and_apart(figure: Figure) -> None:
    """Titles, axis labels and legend lie inside the figure; no two of them overlap."""
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    shown = {t: t.get_window_extent() for t in texts if t not in {u for ax in panels(figure) for u in ax.texts}}
    for text, box in shown.items():
        ticks = {t for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels(which="both")}
        if text not in ticks:
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
            others = [u for u, b in shown.items() if u is not text and u not in ticks and box.overlaps(b)]
            assert not others, (text, others)


# seeds --------------------------------------------------------------------------------------------------------------


def test_the_mean_over_seeds_is_that_of_a_table_made_by_hand() -> None:
    table = pd.DataFrame(
        [("sentiment-s1", 0, 1.0, 0.0, 3.0), ("sentiment-s2", 0, 2.0, 1.0, 4.0), ("sentiment-s3", 0, 6.0, 5.0, 8.0),
         ("sentiment-s1", 1, 7.0, 6.0, 9.0), ("sentiment-quarter-s12", 0, 5.0, 4.0, 7.0), ("random", 0, 8.0, 8.0, 8.0)],
        columns=["variant", "layer", "drop", "low", "high"],
    ).assign(study="s", **CELL)  # fmt: skip
    found = comparisons.seed_mean(with_variants(table), "drop").set_index(["condition", "layer"])
    assert found.loc[("sentiment-quarter", 0), ["task", "amount", "label"]].tolist() == [
        "sentiment", "quarter", "sentiment (quarter)",
    ]  # fmt: skip
    shown = found[["drop", "low", "high", "min", "max", "seeds"]]
    assert shown.loc[("sentiment", 0)].tolist() == [3.0, 2.0, 5.0, 1.0, 6.0, 3]
    assert shown.loc[("sentiment", 1)].tolist() == [7.0, 6.0, 9.0, 7.0, 7.0, 1]
    assert shown.loc[("sentiment-quarter", 0)].tolist() == [5.0, 4.0, 7.0, 5.0, 5.0, 1]
    assert shown.loc[("random", 0)].tolist() == [8.0, 8.0, 8.0, 8.0, 8.0, 1]
    assert len(found) == 4


def test_the_mean_over_seeds_keeps_studies_properties_word_groups_and_targets_apart() -> None:
    table = pd.concat(
        accuracies(3, 3).assign(property=p, word_group=w, accuracy=lambda t, add=add: t["accuracy"] + add)
        for p, w, add in (("pos", "all", 0), ("pos", "unseen", 0.01), ("chunk", "all", 0.02))
    )
    found = comparisons.seed_mean(table, "accuracy")
    assert len(found) == 3 * 3 * (6 * len(LAYERS) + 2)
    where = found.query("condition == 'sentiment' and layer == 2").set_index(["property", "word_group"])
    for key, add in {("pos", "all"): 0, ("pos", "unseen"): 0.01, ("chunk", "all"): 0.02}.items():
        assert where.loc[key, "accuracy"].tolist() == pytest.approx([0.91 + add] * 3)


def test_the_mean_over_seeds_works_without_intervals() -> None:
    found = comparisons.seed_mean(neuron_layers(1, 3), "neurons")
    assert "low" not in found
    assert len(found) == 6 * len(LAYERS)


def test_the_mean_interval_contains_the_interval_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    rates = {"pretrained": 0.9, "random": 0.5, "sentiment-s1": 0.8, "sentiment-s2": 0.82, "sentiment-s3": 0.81}
    where = {**CELL, "study": "bert-mini", "layer": 0, "split": "test", "total": 30}
    counts = pd.concat(
        pd.DataFrame({"text": range(60), "correct": rng.binomial(30, rate, 60), "variant": v, **where})
        for v, rate in rates.items()
    )
    counts = with_variants(counts)
    (mean,) = comparisons.seed_mean(results.drops(counts), "drop").itertuples()
    pooled = counts.assign(variant=counts["condition"], seed=-1)
    (exact,) = results.drops(pooled.groupby([*results.CELL, "split", "text"]).sum().reset_index()).itertuples()
    assert mean.drop == pytest.approx(exact.drop) and mean.seeds == 3
    assert mean.low < exact.low < exact.drop < exact.high < mean.high


# colours ------------------------------------------------------------------------------------------------------------


ARCHITECTURES = {"BERT-mini": "bert", "RoBERTa-mini": "roberta", "XLNet-mini": "xlnet", "MiniLM-L6": "minilm"}
"""Title of an encoder → its ``model_type``."""


def look(title: str) -> tuple[str, str]:
    return style.encoder_look(ARCHITECTURES[title], title)


def test_an_encoder_has_one_colour_and_marker_by_its_architecture_whatever_its_name() -> None:
    for architecture, known in style.ENCODER_LOOKS.items():
        assert {style.encoder_look(architecture, name) for name in ("bert-mini", "mine", "$x$", "")} == {known}
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in combinations(map(look, ARCHITECTURES), 2))
    for other in ("albert", "deberta-v2", "distilbert", "xlm-roberta", ""):
        assert style.encoder_look(other, "bert-mini") in style.OTHER_LOOKS


def test_no_encoder_has_the_colour_of_a_task() -> None:
    taken = {*style.COLOURS, style.RANDOM, style.PRETRAINED, style.BASELINE, style.PLAIN}
    assert not taken & {shade for shade, _ in (*style.ENCODER_LOOKS.values(), *style.OTHER_LOOKS)}


def test_a_task_has_the_same_colour_in_every_figure() -> None:
    side = comparisons.encoders_side_by_side(accuracies(3, 3), drops(3, 3), TITLES_3, "pos")
    neurons = comparisons.top_neurons(neuron_layers(3, 3), TITLES_3, "pos")
    want = {"before fine-tuning": "#000000", "random weights": to_hex(style.RANDOM)}
    want |= {"sentiment (quarter)": style.colour("sentiment")}
    want |= {t: style.colour(t) for t in TASKS if "-" not in t}
    for ax in [*panels(side)[:3], *panels(neurons)[:3]]:
        assert want.items() <= named(ax).items()
    for ax in panels(side)[3:]:
        assert named(ax) == {n: c for n, c in want.items() if n not in ("before fine-tuning", "random weights")}


def test_an_encoder_has_its_colour_where_encoders_share_a_panel() -> None:
    shown = named(panels(comparisons.pretraining(curves(3)))[0])
    for title in TITLES_3.values():
        assert shown[title] == look(title)[0]


TITLES_3 = titles(3)


# accuracy -----------------------------------------------------------------------------------------------------------


@SHAPES
def test_encoders_side_by_side_has_a_column_per_encoder_and_a_line_per_task(encoders: int, seeds: int) -> None:
    figure = comparisons.encoders_side_by_side(
        accuracies(encoders, seeds), drops(encoders, seeds), titles(encoders), "pos"
    )
    axes = panels(figure)
    top, bottom = axes[:encoders], axes[encoders:]
    assert len(bottom) == encoders
    assert [ax.get_title() for ax in top] == list(titles(encoders).values())
    plain = ["sentiment", "sentiment (quarter)", "acceptability", "shuffled"]
    lookup = "most frequent tag of the word type"
    for ax in top:
        assert [*named(ax)] == ["before fine-tuning", *plain, "random weights", lookup]
    for ax in bottom:
        assert [*named(ax)] == plain
        assert sum(np.ptp(drawn.get_ydata()) == 0 and drawn.get_ydata()[0] == 0 for drawn in ax.lines) >= 1
    assert sorted(legend(figure)) == sorted(["before fine-tuning", *plain, "random weights", lookup])
    assert len({ax.get_ylim() for ax in top}) == len({ax.get_ylim() for ax in bottom}) == 1
    assert_all_text_inside_and_apart(figure)


def test_lines_are_means_shades_are_seeds_and_whiskers_are_texts() -> None:
    figure = comparisons.encoders_side_by_side(accuracies(1, 3), drops(1, 3), titles(1), "pos")
    top, bottom = panels(figure)
    assert line(bottom, "shuffled") == pytest.approx([0, -1, -2, -3])
    low, high = shade(bottom, "shuffled")
    assert low == pytest.approx([-0.1, -1.1, -2.1, -3.1])
    assert high == pytest.approx([0.1, -0.9, -1.9, -2.9])
    whiskers = [c for c in bottom.collections if type(c).__name__ == "LineCollection"]
    (mine,) = (c for c in whiskers if to_hex(c.get_color()[0]) == style.colour("shuffled"))
    assert [sorted(p[:, 1]) for p in mine.get_segments()] == [
        pytest.approx([y - 0.2, y + 0.4]) for y in (0, -1, -2, -3)
    ]
    assert line(top, "before fine-tuning") == pytest.approx([90] * 4)
    assert shade(top, "before fine-tuning") == (pytest.approx([88] * 4), pytest.approx([93] * 4))
    assert "mean of 3 seeds" in figure.legends[0].get_title().get_text()


def test_with_one_seed_the_shade_is_the_interval_over_texts() -> None:
    figure = comparisons.encoders_side_by_side(accuracies(1, 1), drops(1, 1), titles(1), "pos")
    bottom = panels(figure)[1]
    low, high = shade(bottom, "shuffled")
    assert line(bottom, "shuffled") == pytest.approx([0.1, -0.9, -1.9, -2.9])
    assert low == pytest.approx([-0.1, -1.1, -2.1, -3.1])
    assert high == pytest.approx([0.5, -0.5, -1.5, -2.5])
    assert not [c for c in bottom.collections if type(c).__name__ == "LineCollection"]
    assert "One seed per task" in figure.legends[0].get_title().get_text()


NONE = drops(1, 1).iloc[:0]


def test_where_nothing_was_fine_tuned_one_row_is_drawn_and_nothing_is_said_of_seeds() -> None:
    before = accuracies(3, 1).query("variant in ('pretrained', 'random')")
    for drop in (NONE, pd.DataFrame(columns=NONE.columns), drops(3, 1).assign(study="another")):
        figure = comparisons.encoders_side_by_side(before, drop, TITLES_3, "pos")
        axes = panels(figure)
        assert [ax.get_title() for ax in axes] == list(TITLES_3.values())
        assert all(ax.get_xlabel().startswith("layer") for ax in axes)
        assert figure.legends[0].get_title().get_text() == "Shades: 95 % interval over texts."
        assert_all_text_inside_and_apart(figure)
    neurons = comparisons.top_neurons(neuron_layers(3, 1).query("variant in ('pretrained', 'random')"), TITLES_3, "pos")
    assert neurons.legends[0].get_title().get_text() == "Triangles: mean layer."
    with pytest.raises(ValueError, match="no encoder was fine-tuned"):
        comparisons.drop_heatmap(NONE, TITLES_3, "pos")


def test_an_encoder_that_was_not_fine_tuned_is_said_to_be_so_beside_one_that_was() -> None:
    tables = [
        t.query("study == 'bert-mini' or variant in ('pretrained', 'random')") for t in (accuracies(2, 3), drops(2, 3))
    ]
    first, second = panels(comparisons.encoders_side_by_side(*tables, titles(2), "pos"))[2:]
    assert [t.get_text() for ax in (first, second) for t in ax.texts] == ["not fine-tuned"]
    assert second.texts and not named(second) and named(first)
    assert [ax.get_title() for ax in panels(comparisons.drop_heatmap(tables[1], titles(2), "pos"))] == ["BERT-mini"]


def test_a_task_of_one_encoder_only_is_in_the_legend() -> None:
    lacking = [t.query("study != 'bert-mini' or variant != 'shuffled-s1'") for t in (accuracies(3, 1), drops(3, 1))]
    figure = comparisons.encoders_side_by_side(*lacking, TITLES_3, "pos")
    assert "shuffled" not in named(panels(figure)[0])
    assert "shuffled" in legend(figure)


def test_silver_properties_are_marked() -> None:
    silver = {"property": "supersense", "source": "silver"}
    tables = accuracies(1, 1).assign(**silver), drops(1, 1).assign(**silver), neuron_layers(1, 1).assign(**silver)
    same = {study: study for study in titles(1)}
    drawn = [
        comparisons.encoders_side_by_side(tables[0], tables[1], titles(1), "supersense"),
        comparisons.drop_heatmap(tables[1], titles(1), "supersense"),
        comparisons.top_neurons(tables[2], titles(1), "supersense"),
        comparisons.raw_and_standardised(tables[2], tables[0], titles(1), same, "supersense"),
    ]
    for figure in drawn:
        assert "semantic classes (silver)" in figure.get_suptitle().replace("\n", " ")
        assert_all_text_inside_and_apart(figure)
    gold = comparisons.drop_heatmap(drops(1, 1), titles(1), "pos")
    assert "silver" not in gold.get_suptitle()


# names and surroundings ----------------------------------------------------------------------------------------------

ODD = ["$10-$20", "$1_$5", r"\frac{a}_^", "$x^2$", "_hidden", "50 % {off}"]


def literal(figure: Figure) -> list[str]:
    """The texts of a figure as they are drawn; no name is taken for a formula."""
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    assert not [
        t for t in texts if t.get_parse_math() and is_math_text(t.get_text()) and "mathdefault" not in t.get_text()
    ]
    return [t.get_text().removeprefix("\u200b") for t in texts]


def test_class_names_are_drawn_as_they_are() -> None:
    found = literal(figures.confusion(pd.DataFrame({"gold": [0, 1], "predicted": [1, 1]}), ODD))
    assert all(found.count(name) == 2 for name in ODD)


def test_titles_properties_and_tasks_are_drawn_as_they_are() -> None:
    shown, name = ODD[2:5], "$p_1$"
    studies, encoders = (dict(zip(known, shown, strict=True)) for known in (TITLES_3, TITLES_3.values()))
    accuracy, drop, tests = (
        with_variants(t.assign(property=name, variant=t["variant"].str.replace("shuffled", "_topic")))
        for t in (accuracies(3, 2), drops(3, 2), neuron_layers(3, 2))
    )
    curve = curves(3).assign(encoder=lambda t: t["encoder"].map(encoders))
    for figure in (
        comparisons.encoders_side_by_side(accuracy, drop, studies, name),
        comparisons.drop_heatmap(drop, studies, name),
        comparisons.top_neurons(tests, studies, name),
    ):
        found = literal(figure)
        assert {*shown, "_topic"} <= set(found)
        assert any(text.endswith(f": {name}") for text in found)
    assert set(shown) <= set(literal(comparisons.pretraining(curve)))
    for figure in (
        figures.neurons_per_layer(tests, {name: "$t$"}),
        figures.accuracy_per_layer(accuracy, {name: "$t$"}),
    ):
        assert {"_topic-s1", "$t$"} <= set(literal(figure))


def test_powers_of_ten_are_formulas_beside_names_that_are_none() -> None:
    rows = [
        ("$p$", "lca", test, "test", n, 0.5)
        for test in ("retrain", "keep-top", "keep-random", "keep-bottom")
        for n in (1, 90, 2000)
    ]
    tests = pd.DataFrame(rows, columns=["property", "ranking", "test", "split", "neurons", "accuracy"])
    figure = figures.accuracy_by_neurons(tests, {"$p$": "$p$ (silver)"})
    figure.suptitle("$s$")
    found = literal(figure)
    assert {"$p$ (silver)", "$s$"} <= set(found)
    shown = [t for t in panels(figure)[0].get_xticklabels() if t.get_text()]
    assert len(shown) >= 3 and all(t.get_parse_math() and is_math_text(t.get_text()) for t in shown)


OWN = {
    "savefig.bbox": "tight", "savefig.transparent": True, "savefig.dpi": 30, "figure.dpi": 50, "text.usetex": True,
    "font.family": ["monospace"], "lines.linestyle": "--", "axes.titlelocation": "left", "axes.xmargin": 0.3,
    "axes.unicode_minus": False, "pdf.compression": 0, "pdf.fonttype": 3, "mathtext.fontset": "stix",
}  # fmt: skip


def saved(folder: Path) -> list[bytes]:
    """A figure with a name and powers of ten, drawn now: its PNG and its PDF."""
    cell = {"property": "pos", "ranking": "lca", "test": "retrain", "split": "test"}
    tests = pd.DataFrame({**cell, "neurons": [1, 100], "accuracy": 0.5})
    figures.save(figures.accuracy_by_neurons(tests, {"pos": "pos"}), folder, "x", tests)
    return [(folder / f"x.{suffix}").read_bytes() for suffix in ("png", "pdf")]


def test_a_picture_does_not_depend_on_the_matplotlibrc_of_whoever_draws_it(tmp_path: Path) -> None:
    plain = saved(tmp_path)
    with plt.rc_context(OWN):
        importlib.reload(style)
        assert saved(tmp_path) == plain
    importlib.reload(style)


def test_saving_heeds_no_setting_that_is_made_after_the_drawing(tmp_path: Path) -> None:
    _, ((ax,),) = style.panels(["before"], ["accuracy"])
    style.layers_axis(ax)
    figures.save(ax.figure, tmp_path, "plain", pd.DataFrame())
    with plt.rc_context(OWN):
        figures.save(ax.figure, tmp_path, "own", pd.DataFrame())
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"plain.{suffix}").read_bytes() == (tmp_path / f"own.{suffix}").read_bytes()


def test_twins_are_found_by_their_names_whichever_of_them_is_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "studies", lambda: dict.fromkeys(["a", "b"], "suite"))
    assert loading.twins(["a-raw", "b-raw"]) == ({"a": "a-raw", "b": "b-raw"}, "raw neurons")
    assert loading.twins(["a-paper"]) == ({"a": "a-paper"}, "the paper's probe")
    assert loading.twins(["a-standardised"]) == ({"a-standardised": "a"}, "the paper's probe")
    assert loading.twins(["a", "b"])[0] == {}
    assert loading.twins(["news-paper", "news-standardised"])[0] == {}, "a name that only ends so"


def test_a_twin_is_shown_where_it_is_at_hand_and_has_the_property(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, *properties: str) -> SimpleNamespace:
        return SimpleNamespace(study=SimpleNamespace(name=name, properties=properties))

    at_hand = [run("a", "pos"), run("b", "chunk")]  # c is not
    monkeypatch.setattr(loading, "studies", lambda: dict.fromkeys("abc", "suite"))
    monkeypatch.setattr(results, "at_hand", lambda asked, *_: [r for r in at_hand if r.study.name in asked])
    ours = [run(f"{name}-paper", "pos", "chunk") for name in "abc"]
    pairs = ({"a": "a-paper"}, "the paper's probe")
    assert comparisons.with_twins(ours, "pos", "full") == ([*ours, *at_hand], *pairs)
    assert comparisons.with_twins([*ours, at_hand[0]], "pos", "full")[0][3:] == at_hand, "each once"
    assert comparisons.with_twins(at_hand[:1], "pos", "full")[:2] == (at_hand[:1], {})


@pytest.mark.parametrize("kind", ["image/png", "image/svg+xml"])
def test_a_report_without_a_picture_is_refused(tmp_path: Path, kind: str) -> None:
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", {"text/plain": "<Figure>"})])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match=r"n\.ipynb: no figure is in it; unset MPLBACKEND"):
        report.write(tmp_path / "n.ipynb", tmp_path / "n.html")
    assert not (tmp_path / "n.html").exists()
    cell.outputs[0].data[kind] = "<svg/>" if "svg" in kind else "aGVsbG8="
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    report.write(tmp_path / "n.ipynb", tmp_path / "n.html")
    assert (tmp_path / "n.html").exists()


def test_a_report_has_no_links_to_files_beside_the_notebook(tmp_path: Path) -> None:
    text = nbformat.v4.new_markdown_cell(
        "# Top\n[a file](../figures/README.md), [here](#Top), [a page](https://x.org/y)"
    )
    picture = nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8="})
    book = nbformat.v4.new_notebook(cells=[text, nbformat.v4.new_code_cell("1", outputs=[picture])])
    nbformat.write(book, tmp_path / "n.ipynb")
    report.write(tmp_path / "n.ipynb", tmp_path / "n.html")
    page = (tmp_path / "n.html").read_text(encoding="utf-8")
    assert "a file" in page and "README.md" not in page
    assert 'href="#Top"' in page and 'href="https://x.org/y"' in page


# the lessons' figures ------------------------------------------------------------------------------------------------


def test_a_task_that_was_not_learnt_in_full_is_dashed_and_hollow() -> None:
    full, less = ["sentiment-s1", "rte-s1"], ["sentiment-half-s12", "sentiment-quarter-s1", "sst2-1k-s1", "sst2-500-s2"]
    one = drops(1, 1).query("variant == 'shuffled-s1'")
    table = pd.concat(with_variants(one.assign(variant=v)) for v in full + less)
    (_, ax) = panels(comparisons.encoders_side_by_side(accuracies(1, 1), table, titles(1), "pos"))
    drawn = {str(m.get_label()): (m.get_linestyle(), to_hex(m.get_markerfacecolor()) == "#ffffff") for m in ax.lines}
    names = [comparisons.labelled(with_variants(pd.DataFrame({"variant": v})))["label"] for v in (full, less)]
    for labels, look in zip(names, (("-", False), ("--", True)), strict=True):
        assert {label: drawn[label] for label in labels} == dict.fromkeys(labels, look)


def test_their_legend_shows_what_any_panel_shows_and_leaves_room_for_a_title() -> None:
    accuracy = pd.concat([t := accuracies(1, 1), t.assign(property="chunk")])
    lacking = accuracy.query("property != 'pos' or variant != 'shuffled-s1'")
    figure = figures.accuracy_per_layer(lacking, {"pos": "pos", "chunk": "chunk"})
    figure.suptitle("BERT-mini")
    assert {*variants(1)} <= {*legend(figure)}
    assert_all_text_inside_and_apart(figure)


# heat map -----------------------------------------------------------------------------------------------------------


@SHAPES
def test_the_heat_maps_share_one_scale_and_print_every_mean(encoders: int, seeds: int) -> None:
    table = drops(encoders, seeds)
    table.loc[table["study"] != "bert-mini", ["drop", "low", "high"]] *= 3
    figure = comparisons.drop_heatmap(table, titles(encoders), "pos")
    axes = panels(figure)
    assert [ax.get_title() for ax in axes] == list(titles(encoders).values())
    assert len(figure.axes) == encoders + 1  # one colour bar
    limits = {ax.collections[0].get_clim() for ax in axes}
    (low, high), *rest = limits
    assert not rest and low == -high
    assert high == pytest.approx(comparisons.seed_mean(table, "drop")["drop"].abs().max() * 100)
    rows = [t.get_text() for t in axes[0].get_yticklabels()]
    assert rows == ["sentiment", "sentiment (quarter)", "acceptability", "shuffled"]
    printed = [t.get_text() for t in axes[0].texts]
    extra = {1: 0.1, 2: 0.05, 3: 0.0}[seeds]
    want = [-0.5 * layer * (TASKS.index(t) - 1) + extra for t in TASKS for layer in LAYERS]
    for text, value in zip(printed, want, strict=True):
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.0500001)
        assert text not in ("+0.0", "−0.0")
    assert_all_text_inside_and_apart(figure)


def test_bold_needs_every_seed_on_the_same_side() -> None:
    ends = {  # (low, high) of the drop, per layer and seed
        0: [(0.1, 0.2), (0.1, 0.3), (0.2, 0.4)], 1: [(-0.2, -0.1)] * 3, 2: [(0.1, 0.2), (0.1, 0.3), (-0.1, 0.4)],
        3: [(0.1, 0.2), (-0.3, -0.1), (0.2, 0.4)],
    }  # fmt: skip
    rows = [
        {**CELL, "study": "bert-mini", "variant": f"sentiment-s{n}", "layer": k, "drop": 0.1, "low": low, "high": high}
        for k, of in ends.items() for n, (low, high) in enumerate(of)
    ]  # fmt: skip
    figure = comparisons.drop_heatmap(with_variants(pd.DataFrame(rows)), titles(1), "pos")
    assert [t.get_fontweight() for t in panels(figure)[0].texts] == ["bold", "bold", "normal", "normal"]
    assert "every seed" in figure.get_supxlabel()


def test_a_task_that_an_encoder_lacks_is_an_empty_row_and_the_others_keep_their_weight() -> None:
    table = drops(2, 1)
    table[["low", "high"]] = 0.001, 0.002
    table.loc[table["variant"] == "shuffled-s1", "low"] = -0.001
    lacking = table.query("study != 'bert-mini' or variant != 'sentiment-quarter-s1'")
    first, second = panels(comparisons.drop_heatmap(lacking, titles(2), "pos"))
    width = len(LAYERS)
    assert (len(first.texts), len(second.texts)) == (3 * width, 4 * width)
    assert [t.get_fontweight() for t in first.texts] == ["bold"] * 2 * width + ["normal"] * width


def test_names_of_few_tasks_are_not_turned() -> None:
    two = drops(1, 1).query("variant in ('sentiment-s1', 'acceptability-s1')")
    (ax,) = panels(comparisons.drop_heatmap(two, titles(1), "pos"))
    assert [(t.get_text(), t.get_rotation()) for t in ax.get_yticklabels()] == [("sentiment", 0), ("acceptability", 0)]


def test_words_on_dark_cells_are_white() -> None:
    shown = panels(comparisons.drop_heatmap(drops(1, 1), titles(1), "pos"))[0].texts
    (darkest,) = (t for t in shown if t.get_text() == "−2.9")
    (lightest,) = (t for t in shown if t.get_text() == "−0.4")
    assert (darkest.get_color(), lightest.get_color()) == ("white", "black")


def test_a_loss_is_red_a_gain_blue_and_nothing_else_is_drawn_in_a_cell() -> None:
    (ax,) = panels(comparisons.drop_heatmap(drops(1, 1), titles(1), "pos"))
    ax.figure.draw_without_rendering()
    shades = ax.collections[0].get_facecolors()
    for text, (red, _, blue, _) in zip(ax.texts, shades, strict=True):
        if text.get_text() != "0.0":
            assert (red > blue) == text.get_text().startswith("−")
    for tick in [*ax.xaxis.get_major_ticks(), *ax.yaxis.get_major_ticks()]:
        assert (tick.gridline.get_alpha(), tick.tick1line.get_markersize()) == (0, 0)


# neurons ------------------------------------------------------------------------------------------------------------


@SHAPES
def test_top_neurons_shows_shares_and_the_mean_layer_of_every_variant(encoders: int, seeds: int) -> None:
    figure = comparisons.top_neurons(neuron_layers(encoders, seeds), titles(encoders), "pos")
    axes = panels(figure)
    top, bottom = axes[:encoders], axes[encoders:]
    mean = (1 + seeds) / 2
    for above, below in zip(top, bottom, strict=True):
        assert len(named(above)) == 6
        assert line(above, "before fine-tuning") == pytest.approx([0, 0, 100, 0])
        assert line(above, "shuffled") == pytest.approx([0, 10 * mean, 100 - 10 * mean, 0])
        assert above.get_ylim()[0] == 0
        marks = {to_hex(m.get_color()): float(m.get_xdata()[0]) for m in below.lines if m.get_marker() == "^"}
        assert sum(m.get_marker() == "^" for m in below.lines) == 6
        assert marks["#000000"] == 2 and marks[style.colour("shuffled")] == pytest.approx(2 - mean / 10)
        assert marks[to_hex(style.RANDOM)] == pytest.approx(1.5)
    assert len(legend(figure)) == 6
    assert_all_text_inside_and_apart(figure)


@SHAPES
def test_raw_and_standardised_neurons_are_two_lines_in_every_panel(encoders: int, seeds: int) -> None:
    accuracy, tests = accuracies(encoders, seeds), neuron_layers(encoders, seeds)
    turned = tests.assign(layer=3 - tests["layer"])
    less = accuracy.assign(**{c: accuracy[c] - 0.1 for c in ("accuracy", "low", "high")})
    raw = {study: f"{study}-raw" for study in titles(encoders)}
    tables = (pd.concat([t, u.assign(study=u["study"].map(raw))]) for t, u in ((tests, turned), (accuracy, less)))
    figure = comparisons.raw_and_standardised(*tables, titles(encoders), raw, "pos")
    axes = panels(figure)
    assert len(axes) == 2 * encoders
    for ax in axes:
        assert [*named(ax)] == ["standardised neurons", "raw neurons"]
        styles = {str(m.get_label()): m.get_linestyle() for m in ax.lines}
        assert (styles["standardised neurons"], styles["raw neurons"]) == ("-", "--")
    assert line(axes[0], "standardised neurons") == pytest.approx([90] * 4)
    assert line(axes[0], "raw neurons") == pytest.approx([80] * 4)
    assert line(axes[-1], "standardised neurons") == pytest.approx([0, 0, 100, 0])
    assert line(axes[-1], "raw neurons") == pytest.approx([0, 100, 0, 0])
    assert [float(m.get_xdata()[0]) for m in axes[-1].lines if m.get_marker() == "^"] == [2, 1]
    assert_all_text_inside_and_apart(figure)


def test_a_figure_of_neurons_shows_one_ranking_and_nothing_of_another() -> None:
    first, accuracy = neuron_layers(2, 3), accuracies(2, 3)
    second = first.assign(ranking="means", layer=3 - first["layer"])
    raw = {study: study for study in titles(2)}
    for draw in (
        lambda table, **which: comparisons.top_neurons(table, titles(2), "pos", **which),
        lambda table, **which: comparisons.raw_and_standardised(table, accuracy, titles(2), raw, "pos", **which),
        lambda table, **which: figures.neurons_per_layer(pick(table, study="bert-mini"), {"pos": "pos"}, **which),
    ):
        for which, alone in (("lca", first), ("means", second)):
            assert data(draw(pd.concat([first, second]), ranking=which)) == data(draw(alone, ranking=which))
        assert data(draw(first)) != data(draw(second, ranking="means"))
    cell = {"property": "pos", "test": "retrain", "split": "test", "neurons": [1, 100]}
    tests = [pd.DataFrame({**cell, "ranking": r, "accuracy": [x, 1]}) for r, x in (("lca", 0.25), ("means", 0.5))]
    for name, x in (("lca", 25), ("means", 50)):
        (ax,) = panels(figures.accuracy_by_neurons(pd.concat(tests), {"pos": "pos"}, ranking=name))
        assert line(ax, "retrained on the first n") == [x, 100]


def data(figure: Figure) -> list[str]:
    """What a figure shows: the points of its lines and the heights of its bars."""
    bars = [str((bar.get_x(), bar.get_height())) for ax in panels(figure) for bar in ax.patches]
    return [*bars, *(str(drawn.get_xydata()) for ax in panels(figure) for drawn in ax.lines)]


# encoders in one panel ----------------------------------------------------------------------------------------------


def curves(encoders: int) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame(
            {
                "encoder": e,
                "architecture": ARCHITECTURES[e],
                "pieces": [3e6, 1e6, 2e6],
                "held_out": [4.0 + i, 8.0 + i, 5.0 + i],
                "entropy": 6 + i,
            }
        )
        for i, e in enumerate(titles(encoders).values())
    )


@pytest.mark.parametrize("encoders", [1, 3, 4])
def test_pretraining_has_a_loss_and_an_entropy_per_encoder(encoders: int) -> None:
    figure = comparisons.pretraining(curves(encoders))
    (ax,) = panels(figure)
    assert legend(figure) == [*titles(encoders).values(), "guessing by frequency"]
    level = {
        to_hex(m.get_color()): m.get_ydata()[0] for m in ax.lines if m.get_linestyle() == ":" and len(m.get_ydata())
    }
    for i, title in enumerate(titles(encoders).values()):
        (mine,) = (m for m in ax.lines if m.get_label() == title)
        assert mine.get_xdata().tolist() == [1, 2, 3]
        assert mine.get_ydata().tolist() == [8 + i, 5 + i, 4 + i]
        assert level[look(title)[0]] == 6 + i
    assert ax.get_ylim()[0] == 0
    assert_all_text_inside_and_apart(figure)


def test_encoders_that_were_not_fine_tuned_have_a_panel_each_with_both_starts_and_the_look_up() -> None:
    rows = [
        (study, variant, "real" if layer >= 0 else "lookup", "ambiguous", layer, 0.70 + layer / 100)
        for study in ("bert-mini", "xlnet-mini") for variant in ("pretrained", "random") for layer in range(-1, 4)
    ]  # fmt: skip
    accuracy = pd.DataFrame(rows, columns=["study", "variant", "target", "word_group", "layer", "accuracy"])
    accuracy = with_variants(accuracy.assign(property="pos", source="gold", low=0.6, high=0.8))
    figure = comparisons.encoders_side_by_side(accuracy, None, titles(3), "pos", "ambiguous")
    drawn = [ax for ax in panels(figure) if ax.get_title() != "RoBERTa-mini"]
    for ax in drawn:
        before, weights, lookup = ax.lines
        assert before.get_ydata().round(6).tolist() == weights.get_ydata().round(6).tolist() == [70, 71, 72, 73]
        assert set(lookup.get_ydata()) == {69}
