"""Figures of the claims: both ends of a ranking, dropped layers, updates, better probes, and all verdicts."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lib import results
from lib.figures.comparisons import having, labelled, property_name
from lib.figures.style import (
    BASELINE,
    COLOURS,
    MANY,
    MARKERS,
    PAPER,
    PRETRAINED,
    colour,
    finish,
    lines,
    logarithmic_points,
    named,
    panels,
    percent_axis,
    save,
    subject,
)
from lib.results import claims, paper
from lib.results.summary import pick
from lib.study import loading
from lib.study.variants import written

DOTS = "Dots: single seeds."

SEEDS = f"Bars and lines: mean of the seeds. {DOTS}"

VERDICTS = {
    claims.REPRODUCED: "#bfe3c0",
    claims.NOT_REPRODUCED: "#f3c1b8",
    **dict.fromkeys(claims.LIKE.values(), "#cfe0f3"),
    claims.NEITHER: "#e3d5ee",
    claims.UNDECIDED: "#f4e3a8",
    claims.NOT_TESTABLE: "#f2f2f2",
}
"""Verdict → colour of its cell."""


def neuron_sets(
    accuracy: pd.DataFrame,
    titles: dict[str, str],
    name: str,
    printed: dict[str, list[str]] | None = None,
    caption: str = f"Lines: mean of the seeds. {DOTS}",
) -> Figure:
    """Accuracy of probes retrained on the top and on the bottom neurons, before and after each fine-tuning.

    ``accuracy`` : as ``results.accuracies`` gives it of ``results.neuron_sets``. ``titles`` : study → title of its
    panel. ``name`` : the property. ``printed`` : study → the paper's models beside it
    (``paper.models_of``), drawn below in grey, each in a row of its own.
    """
    rows = labelled(pick(accuracy, property=name, target="real"))
    rows = rows[rows["neurons"].isin(["top", "bottom"])]
    theirs, titles = pick(paper.neuron_sets(), property=name), having(rows, titles)
    below = max(map(len, printed.values())) if printed and len(theirs) else 0
    figure, axes = panels(titles.values(), ["accuracy, %"] + ["the paper's\naccuracy, %"] * below, _width(titles))
    for column, study in enumerate(titles):
        _ends(axes[0, column], pick(rows, study=study))
        for row, model in enumerate((printed or {}).get(study, [])[:below], 1):
            _ends(axes[row, column], labelled(pick(theirs, study=model)), grey=True)
            axes[row, column].set_title(f"{model}-base", size=9, color=PAPER["color"], loc="left")
    return finish(
        figure,
        f"Probes on the top and on the bottom neurons alone: {property_name(accuracy, name)}",
        f"Filled: top neurons; hollow: as many bottom ones. Each panel has its own scale. {caption}",
    )


def _ends(ax: Axes, rows: pd.DataFrame, grey: bool = False) -> None:
    """Top and bottom neurons, one place along the x axis per condition."""
    order = list(lines(rows[rows["condition"] != "random"], "label"))
    for end, face in (("top", None), ("bottom", "white")):
        means = pick(rows, neurons=end).groupby("label")["accuracy"].mean().reindex(order)
        shade = PAPER["color"] if grey else PRETRAINED
        ax.plot(range(len(order)), 100 * means, "-", color=shade, lw=1, zorder=1)
        for place, label in enumerate(order):
            of_label = pick(rows, neurons=end, label=label)
            if of_label.empty:
                continue
            look = shade if grey else colour(subject(of_label))
            ax.scatter([place] * len(of_label), 100 * of_label["accuracy"], s=10, color=look, alpha=0.5, lw=0)
            ax.plot(place, 100 * means[label], "o" if end == "top" else "s", color=look, markerfacecolor=face or look)
    ax.set_xticks(range(len(order)), order, rotation=30, ha="right", size=9)


def drawn(
    name: str,
    table: pd.DataFrame,
    suite: str,
    folder: Path,
    draw: Callable[..., Figure],
    titles: dict[str, str],
    **options: Any,
) -> Figure | None:
    """A figure of the runs at hand, kept in ``folder``; if ``table`` has no rows, of the recorded ones of the suite,
    and marked so; if there are none either, a line that says so. ``draw`` : takes the table, ``titles``, and
    ``options``."""
    mark = ""
    if table.empty:
        table, mark = results.recorded_table(suite, name), " (recorded)"
    if table.empty:
        print(f"{name}: not computed here, and not recorded yet; README has the command")
        return None
    figure = draw(table, titles, **options)
    figure.suptitle(figure.get_suptitle() + mark)
    if not mark:
        save(figure, folder, name, table)
    return figure


def with_pruned(scores: pd.DataFrame) -> pd.DataFrame:
    """The trainings of tasks that a pruned encoder was trained on, too: to the end, and at their study's rate. ``of`` :
    the task, and how many of its examples if not all. ``scores`` : as ``results.task_scores`` gives them."""
    rows = scores[(scores["rate"] == "") & (scores["checkpoint"] < 0)]
    rows = rows.assign(of=rows["task"] + ("-" + rows["amount"]).where(rows["amount"] != "", ""))
    return rows[rows["of"].isin(rows.loc[rows["dropped"] != "", "of"])]


def pruning(
    scores: pd.DataFrame,
    titles: dict[str, str],
    caption: str = SEEDS,
    printed: dict[str, list[str]] | None = None,
) -> Figure:
    """Score of each task with all layers, and with the top or the bottom ones dropped before fine-tuning.

    ``scores`` : as ``results.task_scores`` gives them; drawn are those ``with_pruned``, of which there must be some.
    ``printed`` : study → the paper's models (``paper.models_of``), whose scores stand beside in grey where it has the
    task.
    """
    rows = with_pruned(scores)
    titles = _those_in(rows["study"], titles)
    figure, (axes,) = panels(titles.values(), ["score"], _width(titles))
    shades = {"": PRETRAINED, "top": COLOURS[0], "bottom": COLOURS[1]}
    kinds = sorted(
        {*zip(rows["dropped"], rows["layers_dropped"], strict=True)},
        key=lambda kind: (kind[1], [*shades].index(kind[0])),
    )
    width = 0.8 / len(kinds)
    for ax, study in zip(axes, titles, strict=True):
        tasks = sorted(set(pick(rows, study=study)["of"]))
        for step, (end, count) in enumerate(kinds):
            label = f"{count} {end} layers dropped" if end else "all layers"
            for place, task in enumerate(tasks):
                found = 100 * pick(rows, study=study, of=task, dropped=end, layers_dropped=count)["score"]
                x = place + width * (step - (len(kinds) - 1) / 2)
                look = {"color": shades[end], "alpha": 0.75, "label": label if place == 0 else None}
                ax.bar(x, found.mean(), 0.92 * width, **look)
                ax.scatter([x] * len(found), found, s=12, color="black", zorder=3, lw=0)
                models = (printed or {}).get(study, [])
                for number, model in enumerate(models, 1):
                    if (score := paper.score(model, task, end)) is None:
                        continue
                    beside = x + 0.92 * width * (number / (len(models) + 1) - 0.5)
                    look = {"color": PAPER["color"], "markeredgecolor": "white", "zorder": 4, "linestyle": ""}
                    told = f"the paper's {model}-base (6 of 12 layers dropped)"
                    ax.plot(beside, score, marker=MARKERS[number], **look, label=told)
        for place, task in enumerate(tasks):
            floor = 100 * pick(rows, study=study, of=task)["majority"].mean()
            if np.isnan(floor):
                continue
            label = "best constant answer" if place == 0 else None
            ax.hlines(floor, place - 0.4, place + 0.4, color=BASELINE, ls="--", lw=1.2, label=label)
        ax.set_xticks(range(len(tasks)), tasks)
        percent_axis(ax)
    return finish(figure, "What dropping layers costs the task", caption)


def updates(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Score of the task and loss of grammar along a training: one column of panels per encoder, a line per task and
    learning rate.

    ``points`` : as ``results.along_training`` gives it.
    """
    points = points.assign(label=points["task"] + ", learning rate " + points["rate"])
    figure = _scores_and_losses(points, titles, "updates", str)
    return finish(figure, "Score and grammar, update by update", f"Lines: medians. {DOTS}")


def rates(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Score of the task and loss of grammar by learning rate: one column of panels per encoder, a line per task and
    number of updates.

    ``points`` : as ``results.by_rate`` gives it.
    """
    label = points["task"] + ", " + points["updates"].astype(str) + " updates"
    figure = _scores_and_losses(points.assign(label=label, rate=points["rate"].astype(float)), titles, "rate", written)
    scale = " Losses above one point: on a logarithmic scale." if points["loss"].max() > MANY else ""
    return finish(figure, "Score and grammar, by learning rate", f"Lines: medians. {DOTS}{scale}")


def examples(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Score of the task and loss of grammar by the number of training examples: one column of panels per encoder, a
    line per task. Where lines cross one upright, tasks were trained on equally much.

    ``points`` : as ``results.by_examples`` gives it.
    """
    figure = _scores_and_losses(points.assign(label=points["task"]), titles, "examples", lambda n: f"{n:,.0f}")
    return finish(figure, "Score and grammar, by the number of examples", f"Lines: medians. {DOTS}")


def _scores_and_losses(
    points: pd.DataFrame, titles: dict[str, str], across: str, tick: Callable[[float], str]
) -> Figure:
    """Score above loss, a line per ``label``. ``across`` : the column on the x axis. ``tick`` : how it is written."""
    titles = _those_in(points["study"], titles)
    figure, axes = panels(
        titles.values(), ["score of the task", "loss over the\ntop third, points"], _width(titles), sharex="col"
    )
    for study, (top, bottom) in zip(titles, axes.T, strict=True):
        rows = pick(points, study=study)
        for number, (label, own) in enumerate(rows.groupby("label", sort=False)):
            shade = colour(label) if label == own["task"].iloc[0] else COLOURS[number % len(COLOURS)]
            look = {"color": shade, "marker": "os^Dv*"[number % 6], "label": label}
            for ax, value, share in ((top, "score", 100), (bottom, "loss", 1)):
                medians = own.groupby(across)[value].median() * share
                ax.plot(medians.index, medians, **look)
                ax.scatter(own[across], own[value] * share, s=10, color=shade, alpha=0.5, lw=0)
        if rows["majority"].nunique() == 1:  # else there is none that holds for all lines
            top.axhline(100 * rows["majority"].iloc[0], color=BASELINE, ls="--", lw=1.2, label="best constant answer")
        bottom.axhline(0, color=PRETRAINED, lw=1)
        bottom.set(xscale="log", xlabel={"rate": "learning rate", "examples": "training examples"}.get(across, across))
        bottom.xaxis.set_minor_locator(NullLocator())
        places = sorted(set(rows[across]))
        bottom.set_xticks(places, map(tick, places), rotation=60, size=9)
        if rows["loss"].max() > MANY:
            logarithmic_points(bottom)
            bottom.set_ylim(min(-0.2, rows["loss"].min()), 1.3 * rows["loss"].max())
        top.yaxis.set_major_locator(MaxNLocator(integer=True))
        percent_axis(top)
    return figure


def better_probes(losses: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """The loss at each layer as three probes see it: of raw neurons, of standardised ones, and trained to convergence.

    ``losses`` : as ``results.by_probe`` gives it. ``titles`` : encoder → title of its column; its name
    where there is none. Rows of panels: the learning rates.
    """
    titles = _those_in(losses["encoder"], titles)
    rates = sorted(set(losses["rate"]), key=float)
    labels = [f"learning rate {rate}:\nloss, points" for rate in rates]
    figure, axes = panels(titles.values(), labels, _width(titles), sharex="col")
    kinds = {
        "raw": (COLOURS[3], "v", ":"),
        "standardised": (PRETRAINED, "o", "-"),
        "converged": (COLOURS[2], "s", "--"),
    }
    for (row, rate), (column, encoder) in ((r, c) for r in enumerate(rates) for c in enumerate(titles)):
        ax = axes[row, column]
        ax.axhline(0, color=PRETRAINED, lw=1)
        for probe, (shade, marker, dashes) in kinds.items():
            found = pick(losses, encoder=encoder, rate=rate, probe=probe)
            means = found.groupby("layer")["loss"].mean()
            ax.plot(means.index, means, marker=marker, color=shade, ls=dashes, label=probe)
            ax.scatter(found["layer"], found["loss"], s=10, color=shade, alpha=0.5, lw=0)
        if row == len(rates) - 1:
            ax.set_xlabel("layer (0 = embedding output)")
    return finish(
        figure,
        "What a better probe recovers of a loss",
        "Raw: the toolkit's way. Standardised: ours, with as many epochs. Converged: standardised, trained until the "
        "loss stands still. What the converged probe still loses is gone for linear probes. Dots: single seeds.",
    )


def claims_page(judged: pd.DataFrame, title: str) -> Figure:
    """All verdicts on one page: claims by encoders, each cell with its counts of ✓, ✗ (not reproduced) and ?.

    ``judged`` : as ``claims.judge`` gives it.
    """
    cells, says = claims.overview(judged).set_index("claim"), claims.table()
    figure, ax = plt.subplots(figsize=(6.0 + 2.1 * cells.shape[1], 1.2 + 0.5 * len(cells)))
    for row, (claim, found) in enumerate(cells.iterrows()):
        for column, text in enumerate(found):
            ax.add_patch(plt.Rectangle((column, row), 1, 1, color=_cell_colour(text), ec="white", lw=2))
            wrapped = "\n".join(textwrap.wrap(text, 18))
            ax.text(column + 0.5, row + 0.5, wrapped, ha="center", va="center", size=9 if "\n" in wrapped else None)
        ax.text(-0.1, row + 0.5, claim, ha="right", va="center", weight="bold")
        wrapped = "\n".join(textwrap.wrap(says[claim].says, 72))
        ax.text(cells.shape[1] + 0.1, row + 0.5, wrapped, ha="left", va="center", size=9)
    ax.set(xlim=(0, cells.shape[1] + 2.6), ylim=(len(cells), 0), yticks=[])
    wrapped = ["\n".join(textwrap.wrap(named(title), 18)) for title in cells.columns]
    ax.set_xticks(np.arange(cells.shape[1]) + 0.5, wrapped)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    figure.suptitle(title)
    signs = "✓ as the claim says   ✗ not so   ? undecided   – not asked, or not testable here"
    firm = any("†" in text for text in cells.to_numpy().ravel())
    note = "\n† also when corrected for the number of comparisons" if firm else ""
    if set(judged["verdict"]) & {*claims.LIKE.values(), claims.NEITHER}:
        note += "\nas …: as the claim says of these encoders   neither: as of none of them"
    figure.supxlabel(signs + note, size="medium")
    return figure


def _those_in(names: pd.Series, titles: dict[str, str]) -> dict[str, str]:
    """The titles of what a table is about: those given, else of the studies of these names, else the names."""
    known = loading.studies()
    return {
        name: titles[name] if name in titles else loading.load(name).title if name in known else name
        for name in dict.fromkeys(names)
    }


def _width(titles: dict[str, str]) -> float:
    """Of a panel in inches: wide enough for the title of the figure above few of them."""
    return max(7.2 / len(titles), 4.0)


def _cell_colour(text: str) -> str:
    signs = {claims.SIGNS[verdict]: shade for verdict, shade in VERDICTS.items()}
    found = [sign for sign in signs if sign in text]
    return signs[found[0]] if len(found) == 1 else VERDICTS[claims.UNDECIDED]
