"""Figures that compare encoders, each from a tidy table."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import figures, results
from lib.figures.style import encoder_colour, finish, lines, subject
from lib.results.claims import CENTRE_OF_GRAVITY, MIN_EFFECT
from lib.results.intervals import VARIANT, pick

NAMES = {"pretrained": "before fine-tuning", "random": "random weights", "pos": "parts of speech", "chunk": "chunks",
         "supersense": "semantic classes"}  # fmt: skip
"""Conditions and properties in plain words."""


POINTS = "after − before, points"


CELL = [c for c in results.CELL if c not in VARIANT] + ["ranking", "test", "split"]
"""What names one value, the variant apart."""


def seed_mean(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of a value over the seeds of each condition: one row per condition where there was one per seed.

    Parameters
    ----------
    table : as ``results.accuracies``, ``results.drops`` or ``results.neuron_tests`` give it, with the column ``value``.

    Returns
    -------
    ``label`` : the condition in plain words. ``min``, ``max``: over seeds; ``seeds``: how many. ``low``, ``high``,
    where the table has them: the seeds' interval ends, averaged: exact if all seeds err on the same texts, otherwise
    too wide.
    """
    ends = {end: (end, "mean") for end in ("low", "high") if end in table}
    keys = ["condition", "task", "amount", *(c for c in CELL if c in table)]
    over_seeds = {"min": (value, "min"), "max": (value, "max"), "seeds": (value, "size")}
    groups = table.groupby(keys, dropna=False, observed=True)
    return labelled(groups.agg(**{value: (value, "mean")}, **ends, **over_seeds).reset_index())


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """A table with its conditions in plain words, as ``label``: before fine-tuning, rte, rte (1k)."""
    less = table["task"] + " (" + table["amount"] + ")"
    return table.assign(label=less.where(table["amount"] != "", table["condition"].replace(NAMES)))


def encoders_side_by_side(
    accuracy: pd.DataFrame, drop: pd.DataFrame, titles: dict[str, str], name: str, word_group: str = "all"
) -> Figure:
    """Accuracy per layer before and after fine-tuning, and the difference: one column of panels per encoder.

    ``accuracy``, ``drop`` : as ``results.accuracies`` and ``results.drops`` give them, of all studies in ``titles``.
    ``titles`` : study → title of its panels. ``name`` : the property. ``word_group`` : all, ambiguous or unseen.
    If nothing was fine-tuned, there is no difference to be drawn: one row of panels.
    """
    drawn = accuracy[accuracy["target"].isin(["real", "lookup"])]
    levels = _shaded(seed_mean(pick(drawn, property=name, word_group=word_group), "accuracy"))
    changes = seed_mean(pick(drop, property=name, word_group=word_group), "drop")
    changes = changes[changes["study"].isin(list(titles))]
    figure, axes = _grid(2 if len(changes) else 1, len(titles))
    for ax, (study, title) in zip(axes[0], titles.items(), strict=True):
        figures.accuracy_panel(ax, pick(levels, study=study), "label")
        ax.set_title(title)
    axes[0, 0].set_ylabel(f"accuracy,\n{word_group} words")
    for row in axes[1:]:
        for ax, above, study in zip(row, axes[0], titles, strict=True):
            _change_panel(ax, pick(changes, study=study))
            above.set_xlabel("")
        row[0].set_ylabel(POINTS)
    return finish(figure, f"Accuracy of linear probes: {_property(accuracy, name)}", _caption(changes, texts=True))


def _change_panel(ax: Axes, changes: pd.DataFrame) -> None:
    """Accuracy after minus before fine-tuning of one encoder; of several seeds the range, and intervals over texts."""
    figures.drop_panel(ax, _shaded(changes), "label")
    for rows in lines(changes[changes["seeds"] > 1], "label").values():
        shade = figures.colour(subject(rows))
        ax.vlines(rows["layer"], -100 * rows["high"], -100 * rows["low"], color=shade, lw=1.2)
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
    rows = rows.assign(change=-100 * rows["drop"], lost=rows["low"] > 0, gained=rows["high"] < 0)
    cells = rows.groupby(["study", "label", "layer"]).agg({"change": "mean", "lost": "all", "gained": "all"})
    tasks, layers = list(lines(rows, "label")), sorted(rows["layer"].unique())
    studies = [study for study in titles if study in cells.index]
    most = max(0.1, cells["change"].abs().max())
    size = (max(6.4, 2.7 + 0.62 * len(layers)), max(2.8, 1.1 + len(studies) * (0.45 + 0.42 * len(tasks))))
    figure, axes = plt.subplots(len(studies), 1, figsize=size, squeeze=False, sharex=True)
    for ax, study in zip(axes[:, 0], studies, strict=True):
        here = cells.loc[study].reindex(pd.MultiIndex.from_product([tasks, layers]))
        change = pd.DataFrame(here["change"].to_numpy().reshape(len(tasks), -1), tasks, layers)
        sns.heatmap(change, vmin=-most, vmax=most, cmap="RdBu", annot=change.map(_signed), fmt="", cbar=False, ax=ax,
                    linewidths=1, xticklabels=layers, yticklabels=tasks)  # fmt: skip
        _mark(ax, here)
        ax.set_title(titles[study])
        ax.tick_params(length=0, grid_alpha=0, labelrotation=0)
    several = ", in every seed" if rows["variant"].nunique() > len(tasks) else ""
    axes[-1, 0].set_xlabel("layer (0 = embedding output)")
    figure.supxlabel(f"bold: 95 % interval over texts excludes 0{several}", size="medium")
    figure.colorbar(axes[0, 0].collections[0], ax=list(axes[:, 0]), label=POINTS, aspect=30)
    figure.suptitle(f"Change of accuracy: {_property(drop, name)}")
    return figure


def _mark(ax: Axes, cells: pd.DataFrame) -> None:
    """Numbers of a heat map in bold where they are certain, white where the cell is dark. ``cells``: row by row."""
    shades = ax.collections[0].get_facecolors()[cells["change"].notna()]
    certain = (cells["lost"] | cells["gained"])[cells["change"].notna()]
    for text, shade, bold in zip(ax.texts, shades, certain, strict=True):
        dark = sns.utils.relative_luminance(shade) < 0.2
        text.set(fontweight="bold" if bold else "normal", color="white" if dark else "black")


def top_neurons(layers: pd.DataFrame, titles: dict[str, str], name: str, ranking: str = "lca") -> Figure:
    """Share of a ranking's top neurons that lies in each layer, and their mean layer (triangle; dots: single seeds).

    ``layers`` : as ``results.neuron_layers`` gives it, of all studies in ``titles``. ``name`` : the property.
    """
    figure, axes = _grid(2, len(titles), heights=(3, 1))
    per_layer = _shares(pick(layers, property=name, ranking=ranking))
    shares = _shaded(seed_mean(per_layer, "share"))
    centres = results.centres_of_gravity(per_layer, "neurons", ["study", *VARIANT]).reset_index()
    order = list(lines(shares, "label"))
    for (top, bottom), (study, title) in zip(axes.T, titles.items(), strict=True):
        for label, rows in lines(pick(shares, study=study), "label").items():
            figures.line(top, rows, "share", label)
            means = pick(centres, study=study, condition=rows["condition"].iloc[0])["centre"]
            height, shade = order.index(label), figures.colour(subject(rows))
            bottom.scatter(means, [height] * len(means), s=9 if len(means) > 1 else 0, color=shade, alpha=0.6, lw=0)
            bottom.plot(means.mean(), height, **figures.line_style(rows) | {"marker": "^", "markersize": 7})
            if subject(rows) == "pretrained":
                bottom.axvline(means.mean(), color=shade, lw=1)
        top.set_title(title)
        figures.layers_axis(bottom)
    _share_axis(axes[0, 0])
    axes[1, 0].set(ylabel="mean\nlayer", yticks=[], ylim=(len(order) - 0.3, -0.7))
    return finish(figure, f"Where the top neurons lie: {_property(layers, name)}", _caption(shares, texts=False))


def depth(judged: pd.DataFrame, name: str) -> Figure:
    """Shift of the centre of gravity by fine-tuning, in layers: one row per task and encoder, in the encoder's colour.

    ``judged`` : as ``claims.judge`` gives it; drawn are mean, interval over texts and single seeds of the property
    ``name``. Raises ValueError if none could be judged.
    """
    rows = pick(judged, measure=CENTRE_OF_GRAVITY.name, property=name).reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"no shift of the centre of gravity was judged for '{name}'")
    tasks = list(lines(rows.assign(task=rows["condition"]), "task"))
    encoders = rows.groupby("encoder", sort=False)
    figure, ax = plt.subplots(figsize=(8, 1.9 + len(tasks) * (0.3 + 0.3 * len(encoders))))
    ax.axvline(0, color=figures.PRETRAINED, lw=1)
    step, first = 0.8 / len(encoders), 0.4 - 0.4 / len(encoders)
    for i, (encoder, here) in enumerate(encoders):
        shade, marker = encoder_colour(encoder)
        heights = here["condition"].map(tasks.index) + (step * i - first)
        ax.hlines(heights, here["low"], here["high"], color=shade, lw=2)
        ax.plot(here["effect"], heights, linestyle="", marker=marker, color=shade, markersize=8,
                label=figures.named(encoder))  # fmt: skip
        single = here["per_seed"].str.split().explode().astype(float)
        ax.scatter(single, heights[single.index] + 0.3 * step, s=14, color=shade, alpha=0.7, lw=0)
    margin = MIN_EFFECT["layers"]
    for side in (-margin, margin):
        ax.axvline(side, color="#555555", lw=1.2, linestyle="--", label=f"±{margin} layer", zorder=0)
    for edge in range(1, len(tasks)):
        ax.axhline(edge - 0.5, color="#cccccc", lw=1)
    ax.grid(False, axis="y")
    ax.set(yticks=range(len(tasks)), ylim=(len(tasks) - 0.5, -0.5), yticklabels=tasks)
    ax.set_xlabel("shift of the centre of gravity, layers (← towards lower layers)")
    caption = "Bars: 95 % interval over texts. Small dots: single seeds."
    return finish(figure, "Does fine-tuning move the knowledge to lower layers?", caption)


def raw_and_standardised(
    layers: pd.DataFrame,
    accuracy: pd.DataFrame,
    titles: dict[str, str],
    raw: dict[str, str],
    name: str,
    ranking: str = "lca",
) -> Figure:
    """The pre-trained encoders probed with raw and with standardised neurons: accuracy, and share of the top neurons.

    ``layers``, ``accuracy`` : as ``results.neuron_layers`` and ``results.accuracies`` give them, of both studies.
    ``titles`` : study with standardised neurons → title of its panels. ``raw`` : the same study → that with raw ones.
    """
    figure, axes = _grid(2, len(titles))
    levels = pick(accuracy, property=name, variant="pretrained", target="real", word_group="all")
    before = pick(layers, property=name, ranking=ranking, variant="pretrained")
    for (top, bottom), (standardised, title) in zip(axes.T, titles.items(), strict=True):
        for kind, study in (("standardised", standardised), ("raw", raw[standardised])):
            shares, look = _shares(pick(before, study=study)), figures.HOLLOW if kind == "raw" else {}
            figures.line(top, pick(levels, study=study), "accuracy", f"{kind} neurons", **look)
            figures.line(bottom, shares, "share", f"{kind} neurons", **look)
            bottom.plot(
                results.centres_of_gravity(shares, "neurons"), [0], "k^", markersize=9, clip_on=False, zorder=5, **look
            )
        top.set_title(title)
        figures.layers_axis(bottom)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes[0, 0].set_ylabel("accuracy, all words")
    _share_axis(axes[1, 0])
    caption = "Before fine-tuning. Shades: 95 % interval over texts. Triangles: mean layer."
    return finish(figure, f"Raw and standardised neurons: {_property(accuracy, name)}", caption)


def pretraining(curves: pd.DataFrame) -> Figure:
    """Held-out loss during pre-training, against what guessing by frequency alone would cost (dotted).

    ``curves`` : encoder (study or title, shown as it is), pieces (read), held_out (loss in nats), entropy (of the
    encoder's pieces one by one, in nats: a constant). Pieces differ, so a line compares with its own dotted one only.
    """
    figure, (ax,) = figures.panels(1, 7.6, 4.8)
    for encoder, mine in curves.groupby("encoder", sort=False):
        shade, marker = encoder_colour(encoder)
        mine = mine.sort_values("pieces")
        ax.plot(mine["pieces"] / 1e6, mine["held_out"], color=shade, lw=2, marker=marker,
                markevery=math.ceil(len(mine) / 12), label=figures.named(encoder))  # fmt: skip
        ax.axhline(mine["entropy"].iloc[0], color=shade, lw=2, linestyle=":")
    ax.plot([], [], ":", color="#555555", lw=2, label="guessing by frequency")
    ax.set(xlabel="millions of pieces read", ylabel="held-out loss, nats per piece", ylim=(0, None))
    caption = "Pieces differ between encoders: a line compares with its own dotted one."
    return finish(figure, "Pre-training of the encoders", caption)


def quality(accuracy: pd.DataFrame, word_group: str = "ambiguous") -> Figure:
    """Probe accuracy per layer of encoders and of random weights: one panel per study.

    ``accuracy`` : as ``results.accuracies`` gives it, of one property.
    """
    studies = accuracy["study"].unique()
    figure, axes = plt.subplots(
        1, len(studies), figsize=(max(6.4, 3.6 * len(studies)), 3.8), squeeze=False, sharey=True
    )
    for ax, study in zip(axes[0], studies, strict=True):
        figures.accuracy_panel(ax, labelled(pick(accuracy, study=study, word_group=word_group)), "label")
        ax.set_title(study)
    axes[0, 0].set_ylabel(f"accuracy,\n{word_group} words")
    caption = "Shades: 95 % interval over texts."
    return finish(figure, "Parts of speech, read off each layer by linear probes", caption)


def _property(table: pd.DataFrame, name: str) -> str:
    silver = "source" in table and (pick(table, property=name)["source"] == "silver").any()
    return NAMES.get(name, name) + (" (silver)" if silver else "")


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}".replace("+0.0", "0.0").replace("-", "−")


def _shares(layers: pd.DataFrame) -> pd.DataFrame:
    return layers.assign(share=layers["neurons"] / layers.groupby(results.NAMED)["neurons"].transform("sum"))


def _shaded(means: pd.DataFrame) -> pd.DataFrame:
    """``low`` and ``high`` for the shade: lowest and highest of several seeds, else the interval over texts, if any."""
    several = means["seeds"] > 1
    low = means.get("low", means["min"]).mask(several, means["min"])
    return means.assign(low=low, high=means.get("high", means["max"]).mask(several, means["max"]))


def _caption(means: pd.DataFrame, texts: bool) -> str:
    """What lines, shades and whiskers (or triangles) stand for. ``texts``: whether there are intervals over texts."""
    count = means[means["task"] != ""]["seeds"]
    few, many = count.min(), count.max()
    if count.empty or many == 1:
        seeds = "" if count.empty else "One seed per task. "
        return f"{seeds}{'Shades: 95 % interval over texts' if texts else 'Triangles: mean layer'}."
    rest = "Whiskers (single runs: shades): 95 % interval over texts" if texts else "Triangles: mean layer; dots: seeds"
    return f"Lines: mean of {many if few == many else f'{few}–{many}'} seeds; shades: lowest to highest. {rest}."


def _grid(rows: int, columns: int, heights: tuple[float, ...] | None = None) -> tuple[Figure, np.ndarray]:
    """Panels of which each row shares its y axis, each column its x axis."""
    size = (max(6.4, 3.6 * columns), 1 + 2.6 * rows if heights is None else 5.2)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, sharex="col", sharey="row", height_ratios=heights)


def _share_axis(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    ax.set(ylabel="share of the\ntop neurons", ylim=(0, None))
