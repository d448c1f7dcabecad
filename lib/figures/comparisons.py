"""Figures that compare encoders, each from a tidy table. Tasks have the colours of ``figures``, encoders their own."""

import math
import re
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import figures, results
from lib.figures.style import finish
from lib.results.claims import CENTRE, LAYER
from lib.results.intervals import pick

FAMILIES = {"roberta": ("#aa3377", "s"), "xlnet": ("#8a8a1a", "^"), "bert": ("#5e2ca5", "o")}


OTHERS = [("#6b4423", "D"), ("#1f98ab", "v")]


PLAIN = {"pretrained": "before fine-tuning", "random": "random weights", "pos": "parts of speech", "chunk": "chunks",
         "supersense": "semantic classes"}  # fmt: skip


POINTS = "after − before, points"


CELL = [c for c in results.CELL if c != "variant"] + ["kind", "split"]
"""What names one value, the variant apart."""


def encoder_colour(study: str) -> tuple[str, str]:
    """Colour and marker of an encoder, the same in every figure: those of a family if the first word of its name (or
    title) is that family, e.g. ``bert-mini``. It is a look only: no claim rests on it."""
    name = study.lower()
    (first,) = re.findall(r"^[a-z]*", name)
    return FAMILIES.get(first) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def seed_mean(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of a value over the seeds of each task: one row per task where there was one per seed.

    Parameters
    ----------
    table : as ``results.accuracies``, ``results.drops`` or ``results.neuron_tests`` give it, with the column ``value``.

    Returns
    -------
    ``variant`` is the task with its amount (pretrained and random stay). ``min``, ``max``: over seeds; ``seeds``: how
    many. ``low``, ``high``, where the table has them: the means of the seeds' ends, an interval over texts as wide as
    that of the mean if the seeds err on the same texts, else wider.
    """
    ends = {end: (end, "mean") for end in ("low", "high") if end in table}
    named = table.assign(variant=table["variant"].map(_task))
    groups = named.groupby(["variant", *(c for c in CELL if c in table)], dropna=False, observed=True)
    over_seeds = {"min": (value, "min"), "max": (value, "max"), "seeds": (value, "size")}
    return groups.agg(**{value: (value, "mean")}, **ends, **over_seeds).reset_index()


def encoders_side_by_side(
    accuracy: pd.DataFrame, drop: pd.DataFrame, titles: dict[str, str], name: str, words: str = "all"
) -> Figure:
    """Accuracy per layer before and after fine-tuning, and the difference: one column of panels per encoder.

    ``accuracy``, ``drop`` : as ``results.accuracies`` and ``results.drops`` give them, of all studies in ``titles``.
    ``titles`` : study → title of its panels. ``name`` : the property. ``words`` : all, ambiguous or unseen.
    If nothing was fine-tuned, there is no difference to be drawn: one row of panels.
    """
    drawn = accuracy[accuracy["labels"].isin(["real", "lookup"])]
    levels = _shaded(seed_mean(pick(drawn, property=name, words=words), "accuracy"))
    changes = seed_mean(pick(drop, property=name, words=words), "drop")
    changes = changes[changes["study"].isin(list(titles))]
    figure, axes = _grid(2 if len(changes) else 1, len(titles))
    for (top, *bottom), (study, title) in zip(axes.T, titles.items(), strict=True):
        figures.accuracy_panel(top, pick(levels, study=study), plain)
        top.set_title(title)
        here = pick(changes, study=study)
        for ax in bottom:
            figures.drop_panel(ax, _shaded(here), plain)
            for variant, mine in here[here["seeds"] > 1].groupby("variant"):
                ax.vlines(mine["layer"], -100 * mine["high"], -100 * mine["low"], color=figures.colour(variant), lw=1.2)
            if here.empty:
                ax.text(0.5, 0.7, "not fine-tuned", ha="center", transform=ax.transAxes)
            top.set_xlabel("")
    axes[0, 0].set_ylabel(f"accuracy,\n{words} words")
    if len(changes):
        axes[1, 0].set_ylabel(POINTS)
    return finish(figure, f"Accuracy of linear probes: {_property(accuracy, name)}", _caption(changes, texts=True))


def drop_heatmap(drop: pd.DataFrame, titles: dict[str, str], name: str, words: str = "all") -> Figure:
    """Accuracy after minus before fine-tuning, as numbers: one heat map of tasks by layers per encoder, on one scale.

    Bold: the interval over texts excludes 0, on the same side in every seed. ``drop`` : as ``results.drops`` gives it.
    Raises ValueError if nothing was fine-tuned.
    """
    mine = pick(drop, property=name, words=words)
    titles = {study: title for study, title in titles.items() if study in set(mine["study"])}
    if not titles:
        raise ValueError(f"no change of '{name}' on {words} words can be drawn: none of these encoders was fine-tuned")
    mine = mine[mine["study"].isin(list(titles))].assign(
        task=mine["variant"].map(_task), change=-100 * mine["drop"], lost=mine["low"] > 0, won=mine["high"] < 0
    )
    cells = mine.groupby(["study", "task", "layer"]).agg({"change": "mean", "lost": "all", "won": "all"})
    tasks, layers = figures.ordered(mine["task"].unique()), sorted(mine["layer"].unique())
    most = max(0.1, cells["change"].abs().max())
    size = (max(6.4, 2.7 + 0.62 * len(layers)), max(2.8, 1.1 + len(titles) * (0.45 + 0.42 * len(tasks))))
    figure, axes = plt.subplots(len(titles), 1, figsize=size, squeeze=False, sharex=True)
    for ax, (study, title) in zip(axes[:, 0], titles.items(), strict=True):
        here = cells.reindex(pd.MultiIndex.from_product([[study], tasks, layers]))
        change = pd.DataFrame(here["change"].to_numpy().reshape(len(tasks), -1), tasks, layers)
        sns.heatmap(change, vmin=-most, vmax=most, cmap="RdBu", annot=change.map(_signed), fmt="", cbar=False, ax=ax,
                    linewidths=1, xticklabels=layers, yticklabels=[plain(t) for t in tasks])  # fmt: skip
        shades = [sns.utils.relative_luminance(c) for c in ax.collections[0].get_facecolors()]
        there = here.assign(dark=np.array(shades) < 0.2).dropna()
        for text, (*sure, dark) in zip(ax.texts, there[["lost", "won", "dark"]].to_numpy(), strict=True):
            text.set(fontweight="bold" if any(sure) else "normal", color="white" if dark else "black")
        ax.set_title(title)
        ax.tick_params(length=0, grid_alpha=0, labelrotation=0)
    several = ", in every seed" if mine["variant"].nunique() > len(tasks) else ""
    axes[-1, 0].set_xlabel("layer (0 = embedding output)")
    figure.supxlabel(f"bold: 95 % interval over texts excludes 0{several}", size="medium")
    figure.colorbar(axes[0, 0].collections[0], ax=list(axes[:, 0]), label=POINTS, aspect=30)
    figure.suptitle(f"Change of accuracy: {_property(drop, name)}")
    return figure


def top_neurons(tests: pd.DataFrame, titles: dict[str, str], name: str) -> Figure:
    """Share of the top neurons that lies in each layer, and their mean layer (triangle; dots: single seeds).

    ``tests`` : as ``results.neuron_tests`` gives it (the rows of kind layer), of all studies in ``titles``.
    """
    figure, axes = _grid(2, len(titles), heights=(3, 1))
    mine = _shares(pick(tests, property=name))
    shares = _shaded(seed_mean(mine, "share"))
    middle = results.centre(mine, "neurons").reset_index().assign(task=lambda t: t["variant"].map(_task))
    order = figures.ordered(shares["variant"].unique())
    for (top, bottom), (study, title) in zip(axes.T, titles.items(), strict=True):
        here = pick(shares, study=study)
        for row, task in enumerate(order):
            figures.line(top, here[here["variant"] == task], "share", task, plain(task))
            places, shade = pick(middle, study=study, task=task)["centre"], figures.colour(task)
            bottom.scatter(places, [row] * len(places), s=9 if len(places) > 1 else 0, color=shade, alpha=0.6, lw=0)
            bottom.plot(places.mean(), row, **figures.style(task) | {"marker": "^", "markersize": 7})
            if task == "pretrained":
                bottom.axvline(places.mean(), color=shade, lw=1)
        top.set_title(title)
        figures.layers_axis(bottom)
    _share_axis(axes[0, 0])
    axes[1, 0].set(ylabel="mean\nlayer", yticks=[], ylim=(len(order) - 0.3, -0.7))
    return finish(figure, f"Where the top neurons lie: {_property(tests, name)}", _caption(shares, texts=False))


def depth(judged: pd.DataFrame, name: str) -> Figure:
    """Shift of the centre of gravity by fine-tuning, in layers: one row per task and encoder, in the encoder's colour.

    ``judged`` : as ``claims.judge`` gives it; drawn are mean, interval over texts and single seeds of the property
    ``name``. Raises ValueError if none could be judged.
    """
    mine = pick(judged, measure=CENTRE.name, property=name)
    if mine.empty:
        raise ValueError(f"no shift of the centre of gravity was judged for '{name}'")
    mine = mine.assign(task=mine["compared"].str.removesuffix(" vs pretrained"))
    tasks, encoders = figures.ordered(mine["task"].unique()), list(dict.fromkeys(mine["encoder"]))
    figure, ax = plt.subplots(figsize=(8, 1.9 + len(tasks) * (0.3 + 0.3 * len(encoders))))
    ax.axvline(0, color=figures.PRETRAINED, lw=1)
    step, first = 0.8 / len(encoders), 0.4 - 0.4 / len(encoders)
    for i, encoder in enumerate(encoders):
        shade, marker = encoder_colour(encoder)
        here = pick(mine, encoder=encoder)
        rows = [tasks.index(task) + step * i - first for task in here["task"]]
        ax.hlines(rows, here["low"], here["high"], color=shade, lw=2)
        ax.plot(here["effect"], rows, linestyle="", marker=marker, color=shade, markersize=8,
                label=figures.named(encoder))  # fmt: skip
        single = [
            (float(v), row + 0.3 * step) for row, text in zip(rows, here["per_seed"], strict=True) for v in text.split()
        ]
        ax.scatter(*zip(*single, strict=True), s=14, color=shade, alpha=0.7, lw=0)
    for side in (-LAYER, LAYER):
        ax.axvline(side, color="#555555", lw=1.2, linestyle="--", label=f"±{LAYER} layer", zorder=0)
    for edge in range(1, len(tasks)):
        ax.axhline(edge - 0.5, color="#cccccc", lw=1)
    ax.grid(False, axis="y")
    ax.set(yticks=range(len(tasks)), ylim=(len(tasks) - 0.5, -0.5), yticklabels=[plain(t) for t in tasks])
    ax.set_xlabel("shift of the centre of gravity, layers (← towards lower layers)")
    caption = "Bars: 95 % interval over texts. Small dots: single seeds."
    return finish(figure, "Does fine-tuning move the knowledge to lower layers?", caption)


def raw_and_standardised(
    tests: pd.DataFrame, accuracy: pd.DataFrame, titles: dict[str, str], raw: dict[str, str], name: str
) -> Figure:
    """The pre-trained encoders probed with raw and with standardised neurons: accuracy, and share of the top neurons.

    ``tests``, ``accuracy`` : as ``results.neuron_tests`` and ``results.accuracies`` give them, of both studies.
    ``titles`` : study with standardised neurons → title of its panels. ``raw`` : the same study → that with raw ones.
    """
    figure, axes = _grid(2, len(titles))
    levels = pick(accuracy, property=name, variant="pretrained", labels="real", words="all")
    mine = pick(tests, property=name, variant="pretrained")
    for (top, bottom), (standardised, title) in zip(axes.T, titles.items(), strict=True):
        for kind, study in (("standardised", standardised), ("raw", raw[standardised])):
            shares, look = _shares(pick(mine, study=study)), figures.HOLLOW if kind == "raw" else {}
            figures.line(top, pick(levels, study=study), "accuracy", "pretrained", f"{kind} neurons", **look)
            figures.line(bottom, shares, "share", "pretrained", f"{kind} neurons", **look)
            bottom.plot(results.centre(shares, "neurons"), [0], "k^", markersize=9, clip_on=False, zorder=5, **look)
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


def quality(accuracy: pd.DataFrame, words: str = "ambiguous") -> Figure:
    """Probe accuracy per layer of encoders and of random weights: one panel per study.

    ``accuracy`` : as ``results.accuracies`` gives it, of one property.
    """
    studies = accuracy["study"].unique()
    figure, axes = plt.subplots(
        1, len(studies), figsize=(max(6.4, 3.6 * len(studies)), 3.8), squeeze=False, sharey=True
    )
    for ax, study in zip(axes[0], studies, strict=True):
        figures.accuracy_panel(ax, pick(accuracy, study=study, words=words), plain)
        ax.set_title(study)
    axes[0, 0].set_ylabel(f"accuracy,\n{words} words")
    caption = "Shades: 95 % interval over texts."
    return finish(figure, "Parts of speech, read off each layer by linear probes", caption)


def plain(name: str) -> str:
    """A variant, task or property in plain words."""
    return PLAIN.get(name) or figures.AMOUNT.sub(r" (\1)", name)


def _task(variant: str) -> str:
    return re.sub(r"-s\d+$", "", variant)


def _property(table: pd.DataFrame, name: str) -> str:
    silver = "source" in table and (pick(table, property=name)["source"] == "silver").any()
    return f"{plain(name)} (silver)" if silver else plain(name)


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}".replace("+0.0", "0.0").replace("-", "−")


def _shares(tests: pd.DataFrame) -> pd.DataFrame:
    mine = pick(tests, kind="layer")
    return mine.assign(share=mine["neurons"] / mine.groupby(results.NAMED)["neurons"].transform("sum"))


def _shaded(means: pd.DataFrame) -> pd.DataFrame:
    """``low`` and ``high`` for the shade: lowest and highest of several seeds, else the interval over texts, if any."""
    low, high = (means.get(end, means[value]) for end, value in (("low", "min"), ("high", "max")))
    one = means["seeds"] == 1
    return means.assign(low=low.where(one, means["min"]), high=high.where(one, means["max"]))


def _caption(means: pd.DataFrame, texts: bool) -> str:
    """What lines, shades and whiskers (or triangles) stand for. ``texts``: whether there are intervals over texts."""
    count = means[~means["variant"].isin(["pretrained", "random"])]["seeds"]
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
