"""Figures of the lessons on one encoder, each from a tidy table."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.figures.style import (
    COLOURS,
    MARKERS,
    PLAIN,
    RANDOM,
    accuracy_panel,
    colour,
    finish,
    layers_axis,
    line,
    lines,
    named,
    panels,
    percent_axis,
    subject,
)
from lib.results.summary import pick


def learning_curve(curve: pd.DataFrame, metric: str, majority: float) -> Figure:
    """Loss and score over the updates, against the majority class."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
    for name, dashes in (("train_loss", "-"), ("dev_loss", "--")):
        left.plot(curve["step"], curve[name], dashes, marker="o", color=PLAIN, label=name.replace("_", " "))
    left.set(xlabel="updates", ylabel="loss", ylim=(0, None))
    left.legend()
    right.plot(curve["step"], curve[f"dev_{metric}"], marker="o", color=PLAIN, label=f"dev {metric}")
    right.axhline(majority, color=RANDOM, linestyle=":", label="majority class")
    right.set(xlabel="updates", ylabel=metric, ylim=(min(0, curve[f"dev_{metric}"].min()), 1))
    right.legend(loc="lower right")
    return figure


def confusion(predictions: pd.DataFrame, labels: list[str]) -> Figure:
    """Gold against predicted test labels (counts); for a regression, gold against predicted values."""
    figure, ax = plt.subplots(figsize=(4.4, 3.8))
    if labels:
        counts = pd.crosstab(predictions["gold"], predictions["predicted"])
        counts = counts.reindex(index=range(len(labels)), columns=range(len(labels)), fill_value=0)
        sns.heatmap(
            counts, annot=True, fmt="d", cmap="Blues", cbar=False, square=True, xticklabels=labels, yticklabels=labels,
            ax=ax,
        )  # fmt: skip
    else:
        ax.scatter(predictions["gold"], predictions["predicted"], s=8, alpha=0.5)
    ax.set(xlabel="predicted", ylabel="gold")
    return figure


def vector_lengths(table: pd.DataFrame) -> Figure:
    """Length of the word vectors per layer: median and the middle 90 %.

    ``table`` : as ``activations.norms`` gives it.
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.6))
    ax.plot(table["layer"], table["median"], marker="o", color=PLAIN)
    ax.fill_between(table["layer"], table["low"], table["high"], color=PLAIN, alpha=0.2, lw=0)
    ax.set(ylabel="length of the word vector", ylim=(0, None))
    layers_axis(ax)
    return figure


def accuracy_per_layer(accuracy: pd.DataFrame, names: dict[str, str], word_group: str = "all") -> Figure:
    """Probe accuracy per layer: one panel per property, one line per variant, baselines across.

    ``accuracy`` : as ``results.accuracies`` gives it, of one study. ``names`` : property → title of its panel.
    """
    figure, (axes,) = panels(names.values(), [f"accuracy, {word_group} words"])
    for ax, name in zip(axes, names, strict=True):
        accuracy_panel(ax, pick(accuracy, property=name, word_group=word_group))
        layers_axis(ax)
    return finish(figure)


def words_and_control(accuracy: pd.DataFrame, names: dict[str, str]) -> Figure:
    """One variant's accuracy on all, ambiguous and unseen words, and of the control task, per layer."""
    figure, (axes,) = panels(names.values(), ["accuracy"])
    labels = {
        ("all", "real"): "all words",
        ("ambiguous", "real"): "ambiguous words",
        ("unseen", "real"): "unseen words",
        ("all", "control"): "control task",
    }
    for ax, name in zip(axes, names, strict=True):
        for ((word_group, target), label), shade, marker in zip(labels.items(), COLOURS, MARKERS, strict=False):
            rows = pick(accuracy, property=name, word_group=word_group, target=target)
            look = {"color": RANDOM, "linestyle": "--"} if target == "control" else {"color": shade, "linestyle": "-"}
            if len(rows):
                line(ax, rows, "accuracy", label, marker=marker, linewidth=1.5, **look)
        percent_axis(ax)
        layers_axis(ax)
    return finish(figure)


def neurons_per_layer(neuron_layers: pd.DataFrame, names: dict[str, str], ranking: str = "lca") -> Figure:
    """How many of a ranking's top neurons lie in each layer: one panel per property, bars side by side per variant."""
    figure, (axes,) = panels(names.values(), ["top neurons"])
    for ax, name in zip(axes, names, strict=True):
        table = pick(neuron_layers, property=name, ranking=ranking)
        look = {named(variant): colour(subject(rows)) for variant, rows in lines(table).items()}
        sns.barplot(
            table.assign(variant=table["variant"].map(named)), x="layer", y="neurons", hue="variant", hue_order=[*look],
            palette=look, native_scale=True, legend=ax is axes[0], ax=ax,
        )  # fmt: skip
        ax.set_ylabel("top neurons" if ax is axes[0] else "")
        layers_axis(ax)
    if axes[0].get_legend():
        axes[0].get_legend().remove()
    return finish(figure)


def accuracy_by_neurons(
    tests: pd.DataFrame, names: dict[str, str], split: str = "test", ranking: str = "lca"
) -> Figure:
    """Accuracy with n neurons of a ranking: of a probe retrained on the first n, and of the all-neuron probe with all
    but n zeroed."""
    figure, (axes,) = panels(names.values(), ["accuracy"])
    looks = {
        "retrain": ("retrained on the first n", COLOURS[0], "-", "o"),
        "keep-top": ("all but the first n zeroed", COLOURS[2], "--", "s"),
        "keep-random": ("all but n random neurons zeroed", RANDOM, ":", "D"),
        "keep-bottom": ("all but the last n zeroed", COLOURS[3], "-.", "v"),
    }
    for ax, name in zip(axes, names, strict=True):
        for test, (label, shade, dashes, marker) in looks.items():
            rows = pick(tests, property=name, ranking=ranking, test=test, split=split).sort_values("neurons")
            ax.plot(rows["neurons"], rows["accuracy"] * 100, color=shade, linestyle=dashes, marker=marker, label=label)
        ax.set(xscale="log", xlabel="neurons")
        for tick in (*ax.xaxis.get_major_ticks(20), *ax.xaxis.get_minor_ticks(200)):  # more than there are
            tick.label1.set_parse_math(True)  # powers of ten are formulas
        percent_axis(ax)
    return finish(figure)
