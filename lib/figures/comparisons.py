"""Figures that compare encoders, each from a tidy table."""

import math
from collections.abc import Collection
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import results
from lib.figures.style import (
    HOLLOW,
    MANY,
    PAPER,
    PRETRAINED,
    accuracy_panel,
    colour,
    encoder_look,
    finish,
    layers_axis,
    line,
    line_style,
    lines,
    logarithmic_points,
    named,
    panels,
    percent_axis,
    subject,
)
from lib.results import paper
from lib.results.claims import FORGET
from lib.results.summary import VARIANT, pick
from lib.study import loading
from lib.study.runs import Run

NAMES = {
    "pretrained": "before fine-tuning",
    "random": "random weights",
    "pos": "parts of speech",
    "sem": "semantic tags",
    "chunk": "chunks",
    "supersense": "semantic classes",
}

POINTS = "after − before, points"


def seed_mean(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of a value over the seeds of each condition: one row per condition where there was one per seed.

    Parameters
    ----------
    table : as ``results.accuracies``, ``drops``, ``neuron_tests`` or ``neuron_layers`` give it, with the column
        ``value``.

    Returns
    -------
    ``label`` : the condition in plain words. ``min``, ``max``: over seeds; ``seeds``: how many. ``low``, ``high``,
    where the table has them: the seeds' interval ends, averaged: exact if all seeds err on the same texts, otherwise
    too wide.
    """
    identifying = [*results.CELL, "ranking", "test", "split"]
    keys = [column for column in identifying if column in table and column not in ("variant", "seed")]
    runs = table.groupby(keys, dropna=False, observed=True)
    means = {column: (column, "mean") for column in (value, "low", "high") if column in table}
    return labelled(runs.agg(**means, min=(value, "min"), max=(value, "max"), seeds=(value, "size")).reset_index())


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """A table with its conditions in plain words, as ``label``: before fine-tuning, rte, rte (1k)."""
    parts = {
        "amount": table["amount"],
        "dropped": table["layers_dropped"].astype(str) + " " + table["dropped"] + " layers dropped",
        "rate": "learning rate " + table["rate"],
        "checkpoint": "update " + table["checkpoint"].astype(str),
    }
    label = table["condition"].where(table["task"] == "", table["task"]).replace(NAMES)
    for column, part in parts.items():
        label += (" (" + part + ")").where(~table[column].isin(["", -1]), "")
    return table.assign(label=label)


def having(rows: pd.DataFrame, titles: dict[str, str]) -> dict[str, str]:
    """The titles of the studies that have rows: studies of one suite may have other properties."""
    return {study: title for study, title in titles.items() if study in set(rows["study"])}


def encoders_side_by_side(
    accuracy: pd.DataFrame,
    drop: pd.DataFrame | None,
    titles: dict[str, str],
    name: str,
    word_group: str = "all",
    printed: dict[str, list[str]] | None = None,
    caption: str = "",
) -> Figure:
    """Accuracy per layer before and after fine-tuning, and the difference: one column of panels per encoder.

    ``accuracy``, ``drop`` : as ``results.accuracies`` and ``results.drops`` give them, of all studies in ``titles``;
    without ``drop``, or if nothing was fine-tuned, there is one row of panels. ``titles`` : study → title of its
    panels. ``name`` : the property. ``word_group`` : all, ambiguous or unseen. ``printed`` : study → the paper's
    models beside it (``paper.models_of``), whose numbers are drawn in grey over the same depth: their accuracy before
    fine-tuning beside ours, and what their six tasks changed in panels of their own. ``caption`` : in place of what
    lines and shades are of runs of ours; each panel of changes then has its own scale.
    """
    drawn = accuracy[accuracy["target"].isin(["real", "lookup"])]
    levels = _shaded(seed_mean(pick(drawn, property=name, word_group=word_group), "accuracy"))
    titles = having(levels, titles)
    changes = seed_mean(pick(drop, property=name, word_group=word_group), "drop") if drop is not None else levels[:0]
    changes = changes[changes["study"].isin(list(titles))]
    beside = pick(paper.accuracies(), property=name) if printed and word_group == "all" else levels[:0]
    rows = [f"accuracy,\n{word_group} words", *([POINTS] if len(changes) else [])]
    own = [1] if caption else [2] if len(beside) else []  # rows of panels that have their own scales
    figure, axes = _grid(titles, rows + (["the paper's\n" + POINTS] if len(beside) else []), own)
    for study, column in zip(titles, axes.T, strict=True):
        accuracy_panel(column[0], pick(levels, study=study), "label")
        if len(changes):
            _change_panel(column[1], pick(changes, study=study))
        if len(beside):
            depth = levels.loc[levels["study"] == study, "layer"].max()
            _printed_panels(column[0], column[-1], (printed or {}).get(study, []), name, depth)
    caption = caption or _caption(changes, texts=True) + (_SQUEEZED if len(beside) else "")
    if len(changes) and 100 * changes["max"].max() > MANY:
        caption += " Beyond one point, the scale of our changes is logarithmic."
        for ax in axes[1]:
            logarithmic_points(ax)
    return finish(figure, f"Accuracy of linear probes: {property_name(accuracy, name)}", caption)


def _printed_panels(level: Axes, change: Axes, models: list[str], name: str, depth: int) -> None:
    """The paper's numbers of a model over our layers: accuracy before fine-tuning, and what its tasks changed; of
    several models, what the tasks of each kind changed on average."""
    change.axhline(0, color=PRETRAINED, lw=1)
    for model, look in zip(models, _greys(models), strict=True):
        before = pick(paper.accuracies(), study=model, property=name, condition="pretrained")
        share, of = depth / before["layer"].max(), f"{model}-base" if len(models) > 1 else "encoder, base size"
        level.plot(share * before["layer"], 100 * before["accuracy"], **look, label=f"the paper's {of}")
        changes = pick(paper.drops(), study=model, property=name)
        changes = changes.assign(kind=np.where(changes["condition"].isin(FORGET), *KINDS))
        for (kind, _), rows in changes.groupby(["kind", "kind" if len(models) > 1 else "condition"], sort=False):
            means = rows.groupby("layer")["drop"].mean()
            dashes = "-" if kind == KINDS[0] else ":"
            change.plot(share * means.index, -100 * means, **look, linestyle=dashes)
    for kind, (dashes, drawn) in zip(KINDS, {"-": "solid", ":": "dotted"}.items(), strict=True):
        told = f"{drawn}: mean of {kind}" if len(models) > 1 else f"the paper: {kind}"
        change.plot([], [], **PAPER, linestyle=dashes, label=told)
    if len(models) == 1:
        change.text(0.03, 0.06, f"{models[0]}-base", color=PAPER["color"], transform=change.transAxes, size=9)


KINDS = ("SST-2, QNLI, MNLI", "STS-B, RTE, MRPC")


def _greys(models: list[str]) -> list[dict[str, object]]:
    """How the paper's models are drawn: one in the usual grey, several in their own shades of it."""
    return [PAPER] if len(models) == 1 else [PAPER | {"color": shade} for shade in ("#333333", "#888888", "#bbbbbb")]


def _change_panel(ax: Axes, changes: pd.DataFrame) -> None:
    """Accuracy after minus before fine-tuning of one encoder; of several seeds the range, and intervals over texts."""
    ax.axhline(0, color=PRETRAINED, lw=1)
    for label, rows in lines(_shaded(changes), "label").items():
        line(ax, rows.assign(change=-rows["drop"], low=-rows["high"], high=-rows["low"]), "change", label)
    for rows in lines(changes[changes["seeds"] > 1], "label").values():
        ax.vlines(rows["layer"], -100 * rows["high"], -100 * rows["low"], color=colour(subject(rows)), lw=1.2)
    if changes.empty:
        ax.text(0.5, 0.7, "not fine-tuned", ha="center", transform=ax.transAxes)


def drop_heatmap(drop: pd.DataFrame, titles: dict[str, str], name: str, word_group: str = "all") -> Figure:
    """Accuracy after minus before fine-tuning, as numbers: one heat map of tasks by layers per encoder, on one scale.

    Bold: the interval over texts excludes 0, on the same side in every seed. ``drop`` : as ``results.drops`` gives it.
    Raises ValueError if nothing was fine-tuned.
    """
    rows = pick(drop, property=name, word_group=word_group)
    rows = labelled(rows[rows["study"].isin(list(titles))])
    if rows.empty:
        raise ValueError(f"no change of '{name}' on {word_group} words can be drawn: no encoder was fine-tuned")
    rows = rows.assign(change=-100 * rows["drop"], side=1.0 * (rows["low"] > 0) - (rows["high"] < 0))
    cells = rows.pivot_table(["change", "side"], ["study", "label"], "layer")
    tasks, layers, studies = list(lines(rows, "label")), rows["layer"].nunique(), cells.index.unique("study")
    most = max(0.1, cells["change"].abs().max(axis=None))
    size = (max(6.4, 2.7 + 0.62 * layers), max(2.8, 1.1 + len(studies) * (0.45 + 0.42 * len(tasks))))
    figure, axes = plt.subplots(len(studies), 1, figsize=size, squeeze=False, sharex=True)
    for ax, study in zip(axes[:, 0], sorted(studies, key=[*titles].index), strict=True):
        of_study = cells.loc[study].reindex(tasks)
        _heatmap(ax, of_study["change"], certain=of_study["side"].abs() == 1, most=most)
        ax.set(title=titles[study], xlabel="", ylabel="")
    several = ", in every seed" if rows["variant"].nunique() > len(tasks) else ""
    axes[-1, 0].set_xlabel("layer (0 = embedding output)")
    figure.supxlabel(f"bold: 95 % interval over texts excludes 0{several}", size="medium")
    figure.colorbar(axes[0, 0].collections[0], ax=list(axes[:, 0]), label=POINTS, aspect=30)
    figure.suptitle(f"Change of accuracy: {property_name(drop, name)}")
    return figure


def _heatmap(ax: Axes, change: pd.DataFrame, certain: pd.DataFrame, most: float) -> None:
    """Points as numbers on colours from ``-most`` to ``most``; bold where ``certain``, white where the cell is dark."""
    sns.heatmap(
        change, annot=change.map(_signed), fmt="", cmap="RdBu", vmin=-most, vmax=most, linewidths=1, cbar=False,
        xticklabels=True, yticklabels=True, ax=ax,
    )  # fmt: skip
    ax.tick_params(length=0, grid_alpha=0, labelrotation=0)
    shown = change.notna().to_numpy()
    shades = ax.collections[0].get_facecolors()[shown.ravel()]
    for text, shade, bold in zip(ax.texts, shades, certain.to_numpy()[shown], strict=True):
        dark = sns.utils.relative_luminance(shade) < 0.2
        text.set(fontweight="bold" if bold else "normal", color="white" if dark else "black")


def top_neurons(
    neuron_layers: pd.DataFrame,
    titles: dict[str, str],
    name: str,
    ranking: str = "lca",
    printed: dict[str, list[str]] | None = None,
    caption: str = "",
) -> Figure:
    """Share of a ranking's top neurons that lies in each layer, and their mean layer (triangle; dots: single seeds).

    ``neuron_layers`` : as ``results.neuron_layers`` gives it, of all studies in ``titles``. ``name`` : the property.
    ``printed`` : study → the paper's models beside it (``paper.models_of``), whose share before fine-tuning is drawn in
    grey over the same depth, per layer of ours. ``caption`` : in place of what lines and shades are of runs of ours.
    """
    per_layer = _shares(pick(neuron_layers, property=name, ranking=ranking))
    titles = having(per_layer, titles)
    figure, axes = _grid(titles, ["share of the\ntop neurons", "mean\nlayer"], height=5.2, height_ratios=(3, 1))
    shares = _shaded(seed_mean(per_layer, "share"))
    centres = results.centres_of_gravity(per_layer, "neurons", ["study", *VARIANT]).reset_index()
    order = list(lines(shares, "label"))
    theirs = pick(paper.neuron_layers(), property=name, condition="pretrained") if printed else shares[:0]
    for study, (top, bottom) in zip(titles, axes.T, strict=True):
        for label, rows in lines(pick(shares, study=study), "label").items():
            line(top, rows, "share", label)
            means = pick(centres, study=study, condition=rows["condition"].iloc[0])["centre"]
            height, shade = order.index(label), colour(subject(rows))
            bottom.scatter(means, [height] * len(means), s=9 if len(means) > 1 else 0, color=shade, alpha=0.6, lw=0)
            bottom.plot(means.mean(), height, **line_style(rows) | {"marker": "^", "markersize": 7})
            if subject(rows) == "pretrained":
                bottom.axvline(means.mean(), color=shade, lw=1)
        if len(theirs):
            _printed_share(top, (printed or {}).get(study, []), theirs, pick(shares, study=study)["layer"].max())
    percent_axis(axes[0, 0])
    axes[0, 0].set_ylim(0, None)
    axes[1, 0].set(yticks=[], ylim=(len(order) - 0.3, -0.7))
    caption = caption or _caption(shares, texts=False) + (_SQUEEZED + _PER_LAYER if len(theirs) else "")
    return finish(figure, f"Where the top neurons lie: {property_name(neuron_layers, name)}", caption)


def _printed_share(ax: Axes, models: list[str], theirs: pd.DataFrame, depth: int) -> None:
    """Where the paper's top neurons lie before fine-tuning, over our layers."""
    for model, look in zip(models, _greys(models), strict=True):
        before = pick(theirs, study=model)
        scale = (len(before) - 1) / depth  # so many of its layers are one of ours
        share = 100 * scale * before["neurons"] / before["neurons"].sum()
        of = f"{model}-base before fine-tuning" if len(models) > 1 else "encoder before fine-tuning, base size"
        ax.plot(before["layer"] / scale, share, **look, label=f"the paper's {of}")


def with_twins(
    ranked: list[Run], name: str, preset: str, overrides: dict | None = None, recorded: bool = False
) -> tuple[list[Run], dict[str, str], str]:
    """Runs, with the pre-trained ones of their twins under another probe as far as they are at hand; and
    ``loading.twins`` of them, those pairs alone of which both have the property ``name``."""
    known = [run.study.name for run in ranked]
    pairs, probe = loading.twins(known)
    others = {study: ["pretrained"] for pair in pairs.items() for study in pair if study not in known}
    beside = [*ranked, *results.at_hand(others, preset, overrides, recorded)]
    having = {run.study.name for run in beside if name in run.study.properties}
    return beside, {one: other for one, other in pairs.items() if {one, other} <= having}, probe


def raw_and_standardised(
    neuron_layers: pd.DataFrame,
    accuracy: pd.DataFrame,
    titles: dict[str, str],
    raw: dict[str, str],
    name: str,
    ranking: str = "lca",
    probe: str = "raw neurons",
) -> Figure:
    """The pre-trained encoders probed with standardised neurons and in another way: accuracy, and share of the top
    neurons.

    ``neuron_layers``, ``accuracy`` : as ``results`` gives them, of both studies. ``titles`` : study with standardised
    neurons → title of its panels. ``raw`` : the same study → the study with the other probe. ``probe`` : its name.
    """
    figure, axes = _grid(titles, ["accuracy, all words", "share of the\ntop neurons"])
    levels = pick(accuracy, property=name, variant="pretrained", target="real", word_group="all")
    shares = _shares(pick(neuron_layers, property=name, ranking=ranking, variant="pretrained"))
    for standardised, (top, bottom) in zip(titles, axes.T, strict=True):
        for label, study, look in (
            ("standardised neurons", standardised, {}),
            (probe, raw[standardised], HOLLOW),
        ):
            rows = pick(shares, study=study)
            line(top, pick(levels, study=study), "accuracy", label, **look)
            line(bottom, rows, "share", label, **look)
            centre = results.centres_of_gravity(rows, "neurons")
            bottom.plot(centre, [0], "k^", markersize=9, clip_on=False, zorder=5, **look)
    for ax in axes[:, 0]:
        percent_axis(ax)
    axes[1, 0].set_ylim(0, None)
    return finish(
        figure,
        f"Standardised neurons and {probe}: {property_name(accuracy, name)}",
        "Before fine-tuning. Shades: 95 % interval over texts. Triangles: mean layer.",
    )


def pretraining(curves: pd.DataFrame) -> Figure:
    """Held-out loss during pre-training, against what guessing by frequency alone would cost (dotted).

    ``curves`` : encoder (study or title, shown as it is), architecture (``model_type``), pieces (read), held_out (loss
    in nats), entropy (of the encoder's single pieces, in nats: a constant). Encoders cut words into different pieces,
    so a line compares with its own dotted line only.
    """
    figure, ax = plt.subplots(figsize=(7.6, 4.8))
    for (encoder, architecture), curve in curves.groupby(["encoder", "architecture"], sort=False):
        shade, marker = encoder_look(architecture, encoder)
        curve = curve.sort_values("pieces")
        look = {"color": shade, "marker": marker, "markevery": math.ceil(len(curve) / 12), "lw": 2}
        ax.plot(curve["pieces"] / 1e6, curve["held_out"], label=named(encoder), **look)
        ax.axhline(curve["entropy"].iloc[0], color=shade, lw=2, linestyle=":")
    ax.plot([], [], ":", color="#555555", lw=2, label="guessing by frequency")
    ax.set(xlabel="millions of pieces read", ylabel="held-out loss, nats per piece", ylim=(0, None))
    return finish(
        figure,
        "Pre-training of the encoders",
        "Pieces differ between encoders: compare a line with its own dotted line only.",
    )


def property_name(table: pd.DataFrame, name: str) -> str:
    """A property in plain words, marked if its labels are silver in the table's ``source``."""
    silver = "source" in table and (pick(table, property=name)["source"] == "silver").any()
    return NAMES.get(name, name) + (" (silver)" if silver else "")


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}".replace("+0.0", "0.0").replace("-", "−")


def _shares(neuron_layers: pd.DataFrame) -> pd.DataFrame:
    total = neuron_layers.groupby(results.NAMED)["neurons"].transform("sum")
    return neuron_layers.assign(share=neuron_layers["neurons"] / total)


def _shaded(means: pd.DataFrame) -> pd.DataFrame:
    """``low`` and ``high`` for the shade: lowest and highest of several seeds, else the interval over texts, if any."""
    several = means["seeds"] > 1
    low = means.get("low", means["min"]).mask(several, means["min"])
    return means.assign(low=low, high=means.get("high", means["max"]).mask(several, means["max"]))


_SQUEEZED = " Grey: the paper's encoder, its 12 layers drawn over the depth of ours."

_PER_LAYER = " Its shares are of as much depth as one layer of ours has."


def _caption(means: pd.DataFrame, texts: bool) -> str:
    """What lines, shades and whiskers (or triangles) stand for. ``texts``: whether there are intervals over texts."""
    count = means[means["task"] != ""]["seeds"]
    few, many = count.min(), count.max()
    if count.empty or many == 1:
        seeds = "" if count.empty else "One seed per task. "
        return f"{seeds}{'Shades: 95 % interval over texts' if texts else 'Triangles: mean layer'}."
    rest = "Whiskers (single runs: shades): 95 % interval over texts" if texts else "Triangles: mean layer; dots: seeds"
    return f"Lines: mean of {many if few == many else f'{few}–{many}'} seeds; shades: lowest to highest. {rest}."


def _grid(
    titles: dict[str, str], ylabels: list[str], own_scales: Collection[int] = (), **layout: Any
) -> tuple[Figure, np.ndarray]:
    """``panels``, one column per study, with layers along the x axis; each row but ``own_scales`` shares its y axis."""
    width = max(6.4 / len(titles), 3.6)
    figure, axes = panels(titles.values(), ylabels, width, sharex="col", **layout)
    for number, row in enumerate(axes):
        for ax in row[1:] if number not in own_scales else []:
            ax.sharey(row[0])
            ax.tick_params(labelleft=False)
    for ax in axes[-1]:
        layers_axis(ax)
    return figure, axes
