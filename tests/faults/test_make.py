"""Whole studies through Make that are killed, run out of disk, lose a kernel, are made twice at once or are damaged.

A study of a tiny encoder, with one task. ``make test-faults`` runs this; it takes some ten minutes on two cores.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import CORPUS, copy_repository, environment, save_corpus, save_encoder

pytestmark = pytest.mark.slow

STUDY = (
    """
scale: faults
title: A tiny encoder
encoder: {checkpoint: my-encoder, batch_subwords: 64}
tasks: [sentiment]
task_data: {train_examples: 1000, dev_examples: 200, test_examples: 200}
finetune: {epochs: 3.0, batch_size: 16, evaluations: 10}
probe: {epochs: 60, batch_size: 32}
ranking: {min_label_words: 20, mass_steps: 100, sizes: [0.01, 0.1, 1.0]}
"""
    + CORPUS
)
VARIANTS = ("pretrained", "random", "sentiment-s1")

GUARD = """
import socket
from pathlib import Path

connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
LOCAL = ("127.0.0.1", "::1", "localhost", None, "")


def refuse(host):
    with (Path(__file__).parent / "asked.txt").open("a") as log:
        log.write(f"{host}\\n")
    raise OSError(f"network is unreachable: {host}")


def guarded_connect(self, address):
    inet = self.family in (socket.AF_INET, socket.AF_INET6)
    return refuse(address[0]) if inet and address[0] not in LOCAL else connect(self, address)


def guarded_getaddrinfo(host, *rest, **named):
    return getaddrinfo(host, *rest, **named) if host in LOCAL else refuse(host)


socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_getaddrinfo
"""
"""Python reads this before anything else: every attempt to reach the network is noted, and fails."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``copy(name)``: a copy of the repository with the study, without a network, in a folder with spaces and letters
    beyond ASCII in its name."""
    encoder = tmp_path_factory.mktemp("encoder")
    save_encoder(encoder)

    def make_copy(name: str) -> Path:
        folder = copy_repository(tmp_path_factory.mktemp(f"päth with spaces, {name}"), but="models")
        (folder / "sitecustomize.py").write_text(GUARD)
        (folder / "params" / "faults.yaml").write_text(STUDY)
        shutil.copytree(encoder, folder / "my-encoder")
        save_corpus(folder)
        return folder

    return make_copy


def start(folder: Path, *words: str, **variables: str) -> subprocess.Popen:
    """``make reproduce`` in a group of processes of its own; what it says goes to ``said.txt``."""
    clean = {k: v for k, v in environment().items() if k != "HF_HUB_OFFLINE"} | variables
    command = ["make", f"PYTHON={sys.executable}", "reproduce", "SCALE=faults", *words]
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            command, cwd=folder, env=clean, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def end(process: subprocess.Popen, folder: Path, good: bool = True) -> str:
    """Wait for Make; what it said."""
    process.wait(1800)
    said = (folder / "said.txt").read_text()
    assert (process.returncode == 0) == good, said[-3000:]
    return said


def plan(folder: Path) -> set[str]:
    command = ["make", f"PYTHON={sys.executable}", "plan", "SCALE=faults"]
    found = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    return set(re.findall(r"(?m)^(?:  (?=\S+/))?(\S+/\d\d_\w+|nothing to do)", found.stdout))


def kill(process: subprocess.Popen) -> None:
    """``kill -9`` of Make and everything below it: shells, papermill, kernels."""
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for child in below:
        if child.is_running():
            child.kill()
    process.wait()
    psutil.wait_procs(below, timeout=20)


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """All results of the study: what was counted, measured and predicted."""
    study = folder / "runs" / "faults"
    names = [f"{v}/layers/counts" for v in VARIANTS]
    names += [f"{v}/neurons/{table}" for v in VARIANTS if v != "random" for table in ("tests", "layers")]
    found = {name: pd.read_parquet(study / f"{name}.parquet") for name in names}
    (model,) = (folder / "runs" / "models" / "my-encoder" / "sentiment-s1").glob("[!.]*")
    found["predictions"] = pd.read_csv(model / "predictions.csv")
    found["summary"] = pd.read_csv(folder / "runs" / "figures" / "faults" / "summary.csv")
    return found


def same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name], obj=name)


def written(folder: Path) -> dict[Path, int]:
    """When the folder and everything in it was last written to."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.fixture(scope="module")
def studied(copy) -> tuple[Path, list[str]]:
    """A copy in which two makes ran at once, and what they said."""
    folder = copy("twice at once")
    before = written(folder / "figures")
    both = [start(folder, "-j8")]
    shutil.move(folder / "said.txt", folder / "first.txt")
    both.append(start(folder, "JOBS=3"))
    said = [end(both[1], folder)]
    both[0].wait(1800)
    assert both[0].returncode == 0, (folder / "first.txt").read_text()[-3000:]
    assert written(folder / "figures") == before, "the recorded figures may be read-only"
    return folder, [(folder / "first.txt").read_text(), *said]


def test_of_two_makes_at_once_each_result_is_made_by_one_and_both_are_whole(studied) -> None:
    folder, said = studied
    steps = {(v, n) for v in VARIANTS for n in ("02_extract", "03_probe_layers", "04_rank_neurons")}
    for number, name in steps - {("random", "04_rank_neurons")}:  # of random weights no neurons are ranked
        done = [text.count(f"faults/{number} {name} done") for text in said]
        waited = [text.count(f"faults/{number} {name}: made by another make") for text in said]
        assert sum(done) == 1, (number, name)
        assert sum(waited) <= 1
    assert all("in per cent" in text for text in said)
    assert len(tables(folder)["summary"]) == len(VARIANTS)
    assert plan(folder) == {"nothing to do"}


def test_with_everything_here_no_step_asks_the_network(studied) -> None:
    folder, _ = studied
    asked = folder / "asked.txt"
    assert not asked.exists(), asked.read_text()
    probe = "import socket\nsocket.create_connection(('192.0.2.1', 80))"
    guarded = subprocess.run([sys.executable, "-c", probe], env=environment() | {"PYTHONPATH": str(folder)}, cwd=folder)
    assert guarded.returncode != 0
    assert asked.read_text(), "the guard is on"
    asked.unlink()


def test_a_kernel_that_is_killed_is_started_once_more(studied) -> None:
    folder, _ = studied
    before = tables(folder)
    place = folder / "runs" / "figures" / "faults"
    (place / "05_figures.ipynb").unlink()
    process = start(folder)
    while not (place / "05_figures.part.ipynb").exists():
        assert process.poll() is None
        time.sleep(0.01)
    kernels: list[psutil.Process] = []
    while not kernels:
        below = psutil.Process(process.pid).children(recursive=True)
        kernels = [p for p in below if "ipykernel_launcher" in " ".join(p.cmdline())]
    kernels[0].kill()
    said = end(process, folder)
    assert "figures/faults 05_figures: the kernel was lost, once more" in said
    assert said.count(" done, ") == 1
    same(tables(folder), before)


def test_a_damaged_result_is_noticed_and_made_again_and_nothing_else_is(studied) -> None:
    folder, _ = studied
    before, study = tables(folder), folder / "runs" / "faults"
    layers = study / "pretrained" / "layers" / "counts.parquet"
    neurons = study / "sentiment-s1" / "neurons" / "rankings.npz"
    content = bytearray(layers.read_bytes())
    content[len(content) // 3] ^= 1
    layers.write_bytes(content)
    os.truncate(neurons, neurons.stat().st_size - 1)
    assert plan(folder) == {
        "faults/pretrained/02_extract", "faults/pretrained/03_probe_layers", "faults/sentiment-s1/02_extract",
        "faults/sentiment-s1/04_rank_neurons", "figures/faults/05_figures",
    }  # fmt: skip
    said = end(start(folder), folder)
    assert said.count(" done, ") == 5
    same(tables(folder), before)


def test_no_variable_of_the_shell_or_of_a_launcher_changes_a_result(copy, studied) -> None:
    folder = copy("hostile")
    (folder / "start.py").write_text("import torch\ntorch.set_default_dtype(torch.float64)\n")
    profile = folder / "home" / ".ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    shutil.copy(folder / "start.py", profile)
    hostile = {
        "ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "PMI_SIZE": "4",
        "ATEN_CPU_CAPABILITY": "default", "NPY_DISABLE_CPU_FEATURES": "AVX2", "PYTHONSTARTUP": str(folder / "start.py"),
        "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "MPLBACKEND": "Agg", "MATPLOTLIBRC": "nowhere",
        "IPYTHONDIR": str(profile.parents[1]), "OMP_NUM_THREADS": "2", "RUNS": str(folder / "elsewhere"),
    }  # fmt: skip
    launcher = folder / "launch"
    launcher.write_text("\n".join(["#!/bin/sh", *(f"export {k}='{v}'" for k, v in hostile.items()), 'exec "$@"\n']))
    launcher.chmod(0o755)
    said = end(start(folder, "LAUNCH=./launch", **hostile, HOME=str(folder / "home")), folder)
    assert "not used here, although set: ACCELERATE_MIXED_PRECISION ATEN_CPU_CAPABILITY LOCAL_RANK" in said
    same(tables(folder), tables(studied[0]))
    assert "image/png" in (folder / "runs" / "figures" / "faults" / "05_figures.ipynb").read_text()
    assert not (folder / "elsewhere").exists()


def test_a_file_where_results_belong_is_one_error_before_any_work(copy) -> None:
    folder = copy("no folder")
    (folder / "runs").mkdir()
    (folder / "runs" / "figures").write_text("")
    said = end(start(folder), folder, good=False)
    assert f"'{folder / 'runs' / 'figures'}" in said.splitlines()[-2]
    assert not [*folder.glob("runs/*/*/*.ipynb")]
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def narrow(copy) -> Iterator[Path]:
    """A copy whose ``runs/`` may be on a disk of its own."""
    folder = copy("killed")
    (folder / "runs").mkdir()
    yield folder
    subprocess.run(["umount", "--lazy", folder / "runs"], capture_output=True)


def test_a_full_disk_is_named_and_with_space_again_the_study_goes_on(narrow: Path) -> None:
    place = narrow / "runs"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "none", place], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here (that takes root on Linux)")
    said = end(start(narrow, "-k"), narrow, good=False)
    assert "FAILED: " in said
    assert "free some space" in said.lower()
    assert "Traceback" not in said
    assert not [*place.glob("models/*/*/[!.]*")]
    assert not [p for p in place.glob("faults/*/0*.ipynb") if not p.name.endswith(".part.ipynb")]
    subprocess.run(["mount", "-o", "remount,size=500m", place], check=True)


def some(study: Path, what: str, but_not: str) -> bool:
    """Whether any run has something that is there while its step is under way, and not yet what the step makes."""
    return any([*(study / v).glob(what)] and not [*(study / v).glob(but_not)] for v in VARIANTS)


MIDWAY: dict[str, Callable[[Path], bool]] = {
    "01_finetune": lambda runs: some(
        runs / "models" / "my-encoder", ".checkpoints-*/checkpoint-*/trainer_state.json", "[!.]*"
    ),
    "02_extract": lambda runs: some(runs / "faults", "extract/mine/.*.part", "extract/mine/test"),
    "03_probe_layers": lambda runs: some(runs / "faults", ".layers.lock", "layers"),
    "04_rank_neurons": lambda runs: some(runs / "faults", ".neurons.lock", "neurons"),
    "05_figures": lambda runs: (
        (runs / "figures" / "faults" / "layers_pos.csv").exists()
        and not (runs / "figures" / "faults" / "summary.csv").exists()
    ),
}
"""Notebook → whether it is in the middle of its work."""


def finished(runs: Path) -> dict[Path, int]:
    """Every finished result and when it was written."""
    wanted = ("0*.ipynb", "layers/*", "neurons/*", "extract/mine/*/manifest.json")
    found = [p for v in VARIANTS for pattern in wanted for p in (runs / "faults" / v).glob(pattern)]
    trained = ("[!.]*/*", ".checkpoints-*/*/trainer_state.json")
    found += [p for pattern in trained for p in (runs / "models" / "my-encoder" / "sentiment-s1").glob(pattern)]
    return {p: p.stat().st_mtime_ns for p in found if p.suffixes[-2:] != [".part", ".ipynb"]}


def test_a_study_killed_in_the_middle_of_each_step_goes_on_to_the_same_results(narrow: Path, studied) -> None:
    runs = narrow / "runs"
    kept: dict[Path, int] = {}

    def check() -> None:
        """What was finished is as it was; stores and checkpoints may be gone once they are not needed any more."""
        for path, then in kept.items():
            if path.exists():
                assert path.stat().st_mtime_ns == then, f"{path.relative_to(runs)} was made again"
            else:
                assert "extract" in path.parts or "checkpoint" in path.parent.name, path.relative_to(runs)

    for name, midway in MIDWAY.items():
        process = start(narrow, "-j8")
        while not midway(runs):
            assert process.poll() is None, f"{name}: {(narrow / 'said.txt').read_text()[-2000:]}"
            time.sleep(0.02)
            check()
        kill(process)
        assert midway(runs), f"{name} was killed too late"
        check()
        kept |= finished(runs)
    assert {p.stem for p in kept if p.suffix == ".ipynb"} == {n for n in MIDWAY if n != "05_figures"}
    said = end(start(narrow, "-j8"), narrow)
    check()
    assert said.count(" done, ") == 1, "only the figures were left to be drawn"
    same(tables(narrow), tables(studied[0]))
    assert not [*runs.rglob("*.part")]
    assert not (narrow / "asked.txt").exists()
