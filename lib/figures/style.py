"""Style: colours, markers, fonts, axes and legends that all figures share; and how a figure is kept."""

import itertools
import math
import textwrap
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from lib import disk
from lib.results.summary import pick

TASKS = ["sentiment", "acceptability", "shuffled", "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]

COLOURS = sns.color_palette("colorblind", 10).as_hex()

MARKERS = "osD^vP*Xhd"

RANDOM, PRETRAINED, PLAIN, BASELINE = "#8a8a8a", "#000000", "#4c72b0", "#b5473c"

PAPER = {"color": "#777777", "linewidth": 1.0}
"""How the paper's own numbers are drawn, wherever they stand beside ours."""

HOLLOW = {"linestyle": "--", "markerfacecolor": "white"}

ENCODER_LOOKS = {"roberta": ("#aa3377", "s"), "xlnet": ("#8a8a1a", "^"), "bert": ("#5e2ca5", "o")}
"""``model_type`` of an encoder's config.json → its colour and marker."""

OTHER_LOOKS = [("#6b4423", "D"), ("#1f98ab", "v")]

ASIAN = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
"""Fonts with the letters that Matplotlib's own DejaVu Sans lacks; those that are installed are used."""

plt.switch_backend(matplotlib.get_backend())  # before the style: a notebook's backend may bring the user's settings
matplotlib.rcdefaults()  # nothing of a matplotlibrc is left: a figure is the same for everybody
sns.set_theme("notebook", "ticks", rc={
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "font.family": ["DejaVu Sans", *(font for font in ASIAN if font in get_font_names())],
    "text.parse_math": False,  # a name may hold $, _ and ^; formulas are marked (``accuracy_by_neurons``)
})  # fmt: skip

STYLE = {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


def colour(name: str) -> str:
    """The colour of a task, the same everywhere; black for ``pretrained``, grey for ``random``."""
    return {"pretrained": PRETRAINED, "random": RANDOM}.get(name) or COLOURS[_task_number(name) % len(COLOURS)]


def encoder_look(architecture: str, name: str) -> tuple[str, str]:
    """Colour and marker of an encoder, the same in every figure: by its ``model_type``, or else by its name."""
    return ENCODER_LOOKS.get(architecture) or OTHER_LOOKS[zlib.crc32(name.encode()) % len(OTHER_LOOKS)]


def line_style(rows: pd.DataFrame) -> dict:
    """How the line of the rows of one condition is drawn: dashed and hollow if its training was reduced."""
    name = subject(rows)
    marker = {"pretrained": "o", "random": ""}.get(name, MARKERS[(_task_number(name) + 1) % len(MARKERS)])
    dashes = ":" if name == "random" else "-"
    look = {"color": colour(name), "linestyle": dashes, "marker": marker, "markersize": 5, "linewidth": 1.8}
    usual = {"amount": "", "dropped": "", "rate": "", "checkpoint": -1}
    otherwise = any(rows[column].iloc[0] != value for column, value in usual.items() if column in rows)
    return look | HOLLOW if otherwise else look


def subject(rows: pd.DataFrame) -> str:
    """The task of the rows of one condition, or ``pretrained`` or ``random``: it decides their colour."""
    return rows["task"].iloc[0] or rows["condition"].iloc[0]


def lines(table: pd.DataFrame, by: str = "variant") -> dict[str, pd.DataFrame]:
    """The rows of each line, which the column ``by`` names: before fine-tuning first, then the tasks, random weights
    last."""

    def place(line: tuple[str, pd.DataFrame]) -> tuple[int, int, str]:
        name = subject(line[1])
        return {"pretrained": 0, "random": 2}.get(name, 1), _task_number(name), line[0]

    return dict(sorted(table.groupby(by), key=place))


def _task_number(task: str) -> int:
    return TASKS.index(task) if task in TASKS else zlib.crc32(task.encode())


def save(figure: Figure, folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a figure as PDF and PNG beside the CSV that it is drawn from."""
    for suffix in ("pdf", "png"):
        with disk.atomic_write(folder / f"{name}.{suffix}") as part, matplotlib.rc_context(STYLE):
            figure.savefig(part, format=suffix, metadata={"CreationDate": None} if suffix == "pdf" else None)
    save_table(folder, name, table)


def save_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a table as CSV, with four decimals."""
    with disk.atomic_write(folder / f"{name}.csv") as part:
        table.to_csv(part, index=False, float_format="%.4f")


def panels(
    titles: Collection[str], ylabels: Sequence[str], width: float = 4.2, height: float | None = None, **layout: Any
) -> tuple[Figure, np.ndarray]:
    """Panels [ylabels, titles]: a column per title, a row per label of the y axis.

    ``width`` of a panel, ``height`` of the figure: in inches. ``layout`` : as of ``plt.subplots``.
    """
    size = width * len(titles), height or 1 + 2.6 * len(ylabels)
    figure, axes = plt.subplots(len(ylabels), len(titles), figsize=size, squeeze=False, **layout)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], ylabels, strict=True):
        ax.set_ylabel(label)
    return figure, axes


def line(ax: Axes, rows: pd.DataFrame, y: str, label: str, **look: str) -> None:
    """Fractions ``y`` per layer, in per cent, with their intervals shaded; ``look`` is laid over ``line_style``."""
    rows = rows.sort_values("layer")
    drawn = line_style(rows) | look
    ax.plot(rows["layer"], rows[y] * 100, label=named(label), **drawn)
    if {"low", "high"} <= set(rows.columns):
        ax.fill_between(rows["layer"], rows["low"] * 100, rows["high"] * 100, color=drawn["color"], alpha=0.15, lw=0)


def named(label: str) -> str:
    """A name as the label of a line: Matplotlib's legends leave out labels that begin with an underscore."""
    return f"\u200b{label}" if label.startswith("_") else label


def layers_axis(ax: Axes) -> None:
    """Layers, in whole numbers, along the x axis."""
    ax.set_xlabel("layer (0 = embedding output)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


MANY = 10
"""Points from which losses are drawn on a scale that is logarithmic above one point."""


def logarithmic_points(ax: Axes) -> None:
    """Points along the y axis, evenly up to one point on both sides of zero, and logarithmically beyond."""
    below, above = ax.get_ylim()
    ax.set_yscale("symlog", linthresh=1)
    places = [place for size in (0, 0.5, 1, 3, 10, 30) for place in {-size, size} if below <= place <= above]
    ax.set_yticks(places, [f"{place:g}".replace("-", "−") for place in places])
    ax.yaxis.set_minor_locator(NullLocator())


def percent_axis(ax: Axes) -> None:
    """Per cent along the y axis."""
    ax.yaxis.set_major_formatter(PercentFormatter(decimals=0))


def finish(figure: Figure, title: str = "", caption: str = "") -> Figure:
    """Title above; below, a caption and one legend of all lines of all panels, in as few rows as the width allows. The
    figure grows with a legend of more than three rows: the panels keep their height."""
    entries = {}
    for ax in figure.axes:
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    caption = textwrap.fill(caption, int(figure.get_figwidth() * 10.4))
    for rows in itertools.count(1):
        columns = math.ceil(len(entries) / rows)
        legend = figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, title=caption)
        legend.get_title().set_multialignment("center")
        if columns == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + 0.3 * max(0, rows - 3))
    if title:
        figure.suptitle(textwrap.fill(title, int(figure.get_figwidth() * 8)))
    return figure


def accuracy_panel(ax: Axes, table: pd.DataFrame, by: str = "variant") -> None:
    """Accuracy per layer, one line per value of the column ``by``; the baselines across."""
    for name, rows in lines(pick(table, target="real"), by).items():
        line(ax, rows, "accuracy", name)
    lookup, majority = pick(table, target="lookup")["accuracy"], pick(table, target="majority")["accuracy"]
    if len(lookup):
        ax.axhline(lookup.iloc[0] * 100, color=BASELINE, ls="--", lw=1.2, label="most frequent tag of the word type")
    if len(majority):
        value, (low, high) = majority.iloc[0] * 100, ax.get_ylim()
        if value > low - 10:
            ax.axhline(value, color=BASELINE, linestyle=":", lw=1.2)
            low = ax.get_ylim()[0]
        ax.set_ylim(low - 0.06 * (high - low), high)  # a line far below is only named: differences stay visible
        ax.text(0.02, 0.02, f"majority tag: {value:.0f}%", color=BASELINE, transform=ax.transAxes, size=9)
    percent_axis(ax)
