"""The paper's studies as they stand, through a double of the hub at full width: one online, all from the cache alone.

The double's encoders have 12 layers of 768 with random weights, so that what comes out says nothing. What is tested is
that it comes out, from which files, and without a changed study. ``make test-hub`` runs this; it takes half an hour on
two cores, and 5 GB of disk.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import double
import pandas as pd
import pytest
import yaml
from conftest import ROOT, copy_repository, environment
from double import BERT, GLUE, REVISIONS, ROBERTA, WEIGHTS, XLNET, Fault, Hub

from lib import sources

pytestmark = pytest.mark.slow

REDUCED = ["SCALE=paper", "TASKS=rte-8", "SEEDS=1", "PROPERTIES=chunk", "SIZE=lesson", "DEVICE=cpu"]
"""The reduction: one task with 8 examples, one property on 4,000 words, one seed."""

STUDIES = ("bert-base-cased", "roberta-base", "xlnet-base-cased")

GRID = """
from lib import grid
grid.fetch(grid.selected("paper", [], [], [1, 2, 3], {"device": "cpu"}))
"""


@pytest.fixture(scope="module")
def mirror() -> Path:
    folder = Path(os.environ.get("MIRROR") or ROOT.parent / "shared" / "data")
    if not (folder / "glue").is_dir():
        pytest.fail(f"{folder} has no copies of GLUE and the corpora: make test-hub MIRROR=folder", pytrace=False)
    return folder


@pytest.fixture(scope="module")
def hub(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The three encoders at full width, and the mirror's GLUE."""
    made = double.make(tmp_path_factory.mktemp("hub"), double.sentences_of(mirror / "glue", 500))
    with Hub(made | {GLUE: mirror / "glue"}) as served:
        yield served


@pytest.fixture(scope="module")
def checkout(hub: Hub, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which one file differs: the pins are those of the double."""
    folder = copy_repository(tmp_path_factory.mktemp("checkout"))
    (folder / "lib" / "hub.yaml").write_text(yaml.safe_dump(double.pins(hub.repositories)))
    (folder / "data").unlink()
    (folder / "data").mkdir()
    here = [place for place in sources.home().iterdir() if not place.name.startswith(".")]
    for place in {p.name: p for p in (*here, *(mirror / "corpora").iterdir())}.values():
        (folder / "data" / place.name).symlink_to(place)
    return folder


@pytest.fixture(scope="module")
def ask(checkout: Path, hub: Hub, tmp_path_factory: pytest.TempPathFactory):
    """``ask(*command, **variables)`` in the copy, with a cache of the hub that all share."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        own = {"HF_HOME": str(cache), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "", "NO_PROXY": "127.0.0.1"}
        environ = environment() | own | {"PYTHONPATH": str(checkout)} | variables
        done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True)
        print(f"{' '.join(command)}\n{done.stdout}")
        return done

    return run


def look(done: subprocess.CompletedProcess[str], checkout: Path, *studies: str) -> None:
    """Whether the runs of these studies are whole, and of encoders of the paper's size."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for study, variant in product(studies, ("pretrained", "random", "rte-8-s1")):
        counts = pd.read_parquet(checkout / "runs" / study / variant / "layers" / "counts.parquet")
        assert {*counts["layer"]} - {-1} == {*range(13)}  # -1: the table of word types
        if variant != "random":
            neurons = pd.read_parquet(checkout / "runs" / study / variant / "neurons" / "layers.parquet")
            assert {*neurons["layer"]} == {*range(13)}
    summary = pd.read_csv(checkout / "runs" / "figures" / "paper" / "summary.csv")
    assert {*summary["study"]} == {*studies}
    for file in (ROOT / "params").glob("*.yaml"):
        assert (checkout / "params" / file.name).read_bytes() == file.read_bytes(), "no parameter file was changed"


def test_nothing_cached_and_offline_is_one_error_that_lists_all_before_any_work(ask, checkout: Path, hub: Hub) -> None:
    done = ask("make", f"PYTHON={sys.executable}", "reproduce", "SCALE=paper", HF_HUB_OFFLINE="1")
    assert done.returncode != 0
    for name in (BERT, ROBERTA, XLNET):
        assert done.stderr.count(f"'{name}' is no folder here, and from the model hub it did not come") == 1
    for task in ("sst2", "mnli", "qnli", "rte", "mrpc", "stsb"):
        assert f"task '{task}' could not be read from {GLUE}" in done.stderr
    assert "Nothing was started" in done.stderr
    assert not [*(checkout / "runs").glob("*/*")]
    assert not hub.requests


def test_a_study_runs_through_the_hub(ask, checkout: Path, hub: Hub) -> None:
    weights = hub.repositories[BERT] / WEIGHTS[BERT]
    assert weights.stat().st_size > 300e6
    hub.faults.append(Fault(WEIGHTS[BERT], times=1))
    command = [*REDUCED, "STUDIES=bert-base-cased", "PROPERTIES=pos chunk"]
    look(ask("make", f"PYTHON={sys.executable}", "reproduce", *command), checkout, "bert-base-cased")
    drawn = pd.read_csv(checkout / "runs" / "figures" / "paper" / "summary.csv")
    assert {*drawn["property"]} == {"pos", "chunk"}, "of two corpora"
    told = (checkout / "runs" / "figures" / "paper" / "05_figures.ipynb").read_text(encoding="utf-8")
    assert "BERT-base (pos: UD-EWT XPOS)" in told, "there is no Penn Treebank here"
    asked = [part for method, path, part in hub.requests if method == "GET" and path.endswith(WEIGHTS[BERT])]
    assert len(asked) == 2, "it was cut once"
    assert weights.stat().st_size / 3 < int(asked[1].removeprefix("bytes=").rstrip("-")) < weights.stat().st_size
    others = {path for _, path, _ in hub.requests if ROBERTA in path or XLNET in path or "sst2" in path}
    assert not others, "only what the selected studies need is fetched"


def test_the_whole_grid_is_fetched_and_tried(ask, hub: Hub) -> None:
    done = ask(sys.executable, "-c", GRID)
    assert done.returncode == 0, done.stderr[-3000:]
    hub.requests.clear()
    done = ask(sys.executable, "-c", GRID)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.requests == [], "what is cached asks nobody"


def test_the_three_and_a_pruned_one_run_from_the_cache_alone(ask, checkout: Path, hub: Hub) -> None:
    hub.requests.clear()
    reduced = [*REDUCED, "TASKS=rte-8 rte-droptop6-8"]
    done = ask("make", f"PYTHON={sys.executable}", "reproduce", *reduced, HF_HUB_OFFLINE="1")
    look(done, checkout, *STUDIES)
    assert hub.requests == []
    folder = checkout / "runs" / "figures" / "paper"
    judged = pd.read_csv(folder / "claims.csv", keep_default_na=False)
    assert {*judged["architecture"]} - {""} == {"bert", "roberta", "xlnet"} and {"P1", "P7", "P8"} <= {*judged["claim"]}
    assert {*pd.read_csv(folder / "layers_chunk.csv")["study"]} == {*STUDIES}
    for study in STUDIES:
        pruned = pd.read_parquet(checkout / "runs" / study / "rte-droptop6-8-s1" / "layers" / "counts.parquet")
        assert pruned["layer"].max() == 6


def test_under_the_real_pins_the_doubles_files_are_refused(ask, checkout: Path) -> None:
    own = (checkout / "lib" / "hub.yaml").read_bytes()
    (checkout / "lib" / "hub.yaml").write_bytes((ROOT / "lib" / "hub.yaml").read_bytes())
    try:
        done = ask("make", f"PYTHON={sys.executable}", "reproduce", *REDUCED)
    finally:
        (checkout / "lib" / "hub.yaml").write_bytes(own)
    assert done.returncode != 0
    real = yaml.safe_load((ROOT / "lib" / "hub.yaml").read_text())
    for name in (BERT, ROBERTA, XLNET):
        file = f"{REVISIONS[name]}{os.sep}{WEIGHTS[name]} is truncated or not the pinned file"
        assert file in done.stderr
        assert real[name]["files"][WEIGHTS[name]] in done.stderr
    assert "Nothing was started" in done.stderr
