"""The benchmark's recorded results, as the README quotes them."""

from pathlib import Path

import pandas as pd
import pytest

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
