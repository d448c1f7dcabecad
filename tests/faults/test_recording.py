"""A recording through Make that stops and goes on: recorded steps are not computed again, only drawn."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import CORPUS, make, save_corpus, save_encoder

pytestmark = pytest.mark.slow

STUDY = (
    """
scale: kept
title: A tiny encoder
encoder: {checkpoint: my-encoder}
tasks: []
"""
    + CORPUS
)


def test_a_recording_goes_on_where_it_stopped_and_is_drawn_without_its_runs(copy: Path) -> None:
    (copy / "params" / "kept.yaml").write_text(STUDY)
    save_corpus(copy)
    save_encoder(copy / "my-encoder")
    command = ["record", "SCALE=kept", "JOBS=2"]
    first = make(copy, *command)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    kept = copy / "results" / "kept" / "kept"
    assert sorted(p.relative_to(kept).as_posix() for p in kept.glob("*/[!.]*")) == [
        "pretrained/layers",
        "pretrained/neurons",
        "random/layers",
    ]
    figures = copy / "figures" / "kept"
    drawn = {p.name: p.read_bytes() for p in figures.glob("*.csv")}
    assert {"summary.csv", "claims.csv", "layers_pos.csv"} <= set(drawn)

    shutil.rmtree(copy / "runs" / "kept")
    shutil.rmtree(figures)
    shutil.rmtree(kept / "random" / "layers")
    assert make(copy, "figures", "SCALE=kept").returncode != 0
    again = make(copy, *command)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert sorted(re.findall(r"^  (\S+ \S+) done,", again.stdout, re.M)) == [
        "kept/random 02_extract", "kept/random 03_probe_layers", "recorded/kept 05_figures",
    ]  # fmt: skip
    assert {p.name: p.read_bytes() for p in figures.glob("*.csv")} == drawn
