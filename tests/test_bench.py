"""The benchmark's recorded results, as the README quotes them."""

from pathlib import Path

import pandas as pd
import pytest

from bench import precision
from bench.bench import HERE, ROOT, quoted


def test_the_readme_quotes_the_recorded_benchmark() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- bench -->" in page
    assert quoted(page, (HERE / "results.md").read_text(encoding="utf-8")) == page


def test_the_table_is_of_the_recorded_measurements() -> None:
    rows = pd.read_csv(HERE / "results.csv")
    median = rows[rows["size"] == "1 x words"].groupby(["toolkit", "what"])["value"].median()
    line = next(x for x in Path(HERE / "results.md").read_text().splitlines() if x.startswith("| extraction (s)"))
    _, _, peer, ours, ratio, *_ = line.split("|")
    seconds = [median[toolkit, "extraction (s)"] for toolkit in ("NeuroX", "ours")]
    assert [float(peer), float(ours)] == pytest.approx(seconds, abs=0.006)
    assert float(ratio) == pytest.approx(seconds[0] / seconds[1], abs=0.051)


def test_the_table_of_precisions_is_of_the_recorded_measurements() -> None:
    rows = pd.read_csv(HERE / "precision.csv")
    assert precision.report(rows) == (HERE / "precision.md").read_text(encoding="utf-8")


def test_precisions_are_compared_before_and_after_fine_tuning() -> None:
    rows = [
        ("s", variant, "pos", layer, kind, 90 - drop * (layer > 1) - low * (layer == 1) * (kind != "float32"), 9, 4, "")
        for variant, drop, low in (("pretrained", 0, 0.3), ("own-s1", 1, 0), ("own-s2", 3, 0))
        for layer in range(3) for kind in precision.PRECISIONS
    ]  # fmt: skip
    columns = ["study", "variant", "property", "layer", "precision", "accuracy", "training", "extraction", "by"]
    told = precision.report(pd.DataFrame(rows, columns=columns))
    assert "| s | pos | -0.10 | 0.30 | 1.0 |" in told
    assert "| s | pos | 2.00 ± 1.41 | 2.00 ± 1.41 | +0.00 | 1.0 |" in told
