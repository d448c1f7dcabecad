"""Style: colours, markers, fonts, axes and legends that all figures share; and how a figure is kept."""

import itertools
import math
import re
import textwrap
import zlib
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib import disk
from lib.results.intervals import pick

TASKS = ["sentiment", "acceptability", "shuffled", "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]


COLOURS = sns.color_palette("colorblind", 10).as_hex()


MARKERS = "osD^vP*Xhd"


RANDOM, PRETRAINED, PLAIN, BASELINE = "#8a8a8a", "#000000", "#4c72b0", "#b5473c"


HOLLOW = {"linestyle": "--", "markerfacecolor": "white"}


DIGITS = "%.4f"


FAMILIES = {"roberta": ("#aa3377", "s"), "xlnet": ("#8a8a1a", "^"), "bert": ("#5e2ca5", "o")}
"""Colour and marker of the encoders of an architecture."""


OTHERS = [("#6b4423", "D"), ("#1f98ab", "v")]
"""Those of all other encoders."""


ASIAN = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB",
         "Microsoft YaHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback")  # fmt: skip
"""Fonts for names that DejaVu Sans, which comes with Matplotlib, has no letters for; those that are here are used."""


plt.switch_backend(matplotlib.get_backend())  # before the style: a notebook's backend may bring settings of the user's


matplotlib.rcdefaults()  # whoever draws a figure, it is the same: nothing of a matplotlibrc is left


sns.set_theme("notebook", "ticks", rc={
    "axes.grid": True, "grid.color": "#e6e6e6", "axes.spines.top": False, "axes.spines.right": False,
    "figure.dpi": 100, "savefig.dpi": 150, "legend.frameon": False, "pdf.fonttype": 42,
    "figure.constrained_layout.use": True, "font.family": ["DejaVu Sans", *(f for f in ASIAN if f in get_font_names())],
    "text.parse_math": False,  # a name may hold $, _ and ^; what is a formula says so (``powers_of_ten``)
})  # fmt: skip


STYLE = {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


def colour(name: str) -> str:
    """The colour of a task, the same everywhere; black for ``pretrained``, grey for ``random``."""
    known = {"pretrained": PRETRAINED, "random": RANDOM}
    return known.get(name) or COLOURS[_number(name) % len(COLOURS)]


def encoder_colour(study: str) -> tuple[str, str]:
    """Colour and marker of an encoder, the same in every figure: those of a family if the first word of its name (or
    title) is that family, e.g. ``bert-mini``. It is a look only: no claim rests on it."""
    name = study.lower()
    (first,) = re.findall(r"^[a-z]*", name)
    return FAMILIES.get(first) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def line_style(rows: pd.DataFrame) -> dict:
    """How the line of the rows of one condition is drawn: dashed and hollow if its task was not learnt in full."""
    name = subject(rows)
    marker = {"pretrained": "o", "random": ""}.get(name, MARKERS[(_number(name) + 1) % len(MARKERS)])
    dashes = ":" if name == "random" else "-"
    look = {"color": colour(name), "linestyle": dashes, "marker": marker, "markersize": 5, "linewidth": 1.8}
    return look | HOLLOW if rows["amount"].iloc[0] else look


def subject(rows: pd.DataFrame) -> str:
    """What gives the rows of one condition their colour: the task, or ``pretrained`` or ``random``."""
    return rows["task"].iloc[0] or rows["condition"].iloc[0]


def lines(table: pd.DataFrame, by: str = "variant") -> dict[str, pd.DataFrame]:
    """The rows of each line, which the column ``by`` names: before fine-tuning first, then the tasks, random weights
    last."""
    rank = {"pretrained": 0, "random": 2}
    found = [(name, rows, subject(rows)) for name, rows in table.groupby(by)]
    found = sorted(found, key=lambda line: (rank.get(line[2], 1), _number(line[2]), line[0]))
    return {name: rows for name, rows, _ in found}


def _number(task: str) -> int:
    return TASKS.index(task) if task in TASKS else zlib.crc32(task.encode())


def save(figure: Figure, folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a figure as PDF and PNG beside the CSV that it is drawn from."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("pdf", "png"):
        with disk.atomic_write(folder / f"{name}.{suffix}") as part, matplotlib.rc_context(STYLE):
            figure.savefig(part, format=suffix, metadata={"CreationDate": None} if suffix == "pdf" else None)
    save_table(folder, name, table)


def save_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a table as CSV, in four digits."""
    folder.mkdir(parents=True, exist_ok=True)
    with disk.atomic_write(folder / f"{name}.csv") as part:
        table.to_csv(part, index=False, float_format=DIGITS)


def panels(count: int, width: float = 4.2, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """A figure with ``count`` panels side by side, each of this width and height in inches."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False)
    return figure, axes[0]


def line(ax: Axes, rows: pd.DataFrame, y: str, label: str, **look: str) -> None:
    """Fractions ``y`` per layer, in per cent, as ``line_style`` with ``look`` over it says; intervals shaded."""
    rows = rows.sort_values("layer")
    drawn = line_style(rows) | look
    ax.plot(rows["layer"], rows[y] * 100, label=named(label), **drawn)
    if {"low", "high"} <= set(rows.columns):
        ax.fill_between(rows["layer"], rows["low"] * 100, rows["high"] * 100, color=drawn["color"], alpha=0.15, lw=0)


def named(label: str) -> str:
    """A name as the label of a line: of one that begins with an underscore, Matplotlib's legends show nothing."""
    return f"\u200b{label}" if label.startswith("_") else label


def layers_axis(ax: Axes) -> None:
    """Layers, in whole numbers, along the x axis."""
    ax.set_xlabel("layer (0 = embedding output)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def finish(figure: Figure, title: str = "", caption: str = "") -> Figure:
    """Title above; below, a caption and one legend of all that any panel shows, in as few rows as its width allows."""
    found: dict[str, Artist] = {}
    for ax in figure.axes:
        found |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    caption = textwrap.fill(caption, int(figure.get_figwidth() * 10.4))
    for rows in itertools.count(1):
        columns = math.ceil(len(found) / rows)
        legend = figure.legend(found.values(), found, loc="outside lower center", ncols=columns, title=caption)
        legend.get_title().set_multialignment("center")
        if columns == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width:
            break
        legend.remove()
    if title:
        figure.suptitle(textwrap.fill(title, int(figure.get_figwidth() * 8)))
    return figure


def accuracy_panel(ax: Axes, table: pd.DataFrame, by: str = "variant") -> None:
    """Accuracy per layer, one line per variant or what else ``by`` names; the baselines across."""
    for name, rows in lines(pick(table, target="real"), by).items():
        line(ax, rows, "accuracy", name)
    lookup, majority = pick(table, target="lookup")["accuracy"], pick(table, target="majority")["accuracy"]
    if len(lookup):
        ax.axhline(
            lookup.iloc[0] * 100, color=BASELINE, linestyle="--", lw=1.2, label="most frequent tag of the word type"
        )
    if len(majority):
        value, (low, high) = majority.iloc[0] * 100, ax.get_ylim()
        if value > low - 10:
            ax.axhline(value, color=BASELINE, linestyle=":", lw=1.2)
            low = ax.get_ylim()[0]
        ax.set_ylim(low - 0.06 * (high - low), high)  # far below it is named, not drawn: differences stay visible
        ax.text(0.02, 0.02, f"majority tag: {value:.0f}%", color=BASELINE, transform=ax.transAxes, size=9)
    ax.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    layers_axis(ax)


def powers_of_ten(axis: Axis) -> None:
    """The numbers of a logarithmic axis are formulas, 10 to a power, unlike every name."""
    for tick in (*axis.get_major_ticks(20), *axis.get_minor_ticks(200)):  # more than an axis of neurons has
        tick.label1.set_parse_math(True)


def drop_panel(ax: Axes, table: pd.DataFrame, by: str = "variant") -> None:
    """Accuracy after minus before fine-tuning per layer, one line per variant or what else ``by`` names."""
    ax.axhline(0, color=PRETRAINED, lw=1)
    for name, rows in lines(table, by).items():
        line(ax, rows.assign(change=-rows["drop"], low=-rows["high"], high=-rows["low"]), "change", name)
    layers_axis(ax)
