"""A small grid on a real Slurm, whose jobs are cancelled, run out of time, and go back into the queue.

``make test-slurm`` runs this on a cluster of one node, which it starts on loopback. It takes some ten minutes on two
cores.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cluster
import pandas as pd
import psutil
import pytest
from conftest import CORPUS, copy_repository, environment, save_corpus, save_encoder

pytestmark = pytest.mark.slow

STUDY = (
    """
scale: slurm
title: A tiny encoder
encoder: {checkpoint: my-encoder}
tasks: [sentiment]
task_data: {train_examples: 1000, dev_examples: 200, test_examples: 200}
finetune: {epochs: 4.0, batch_size: 16, evaluations: 10}
probe: {epochs: 5}
ranking: {min_label_words: 20, mass_steps: 100, sizes: [0.1, 1.0]}
"""
    + CORPUS
)
STEPS = ("01_finetune", "02_extract", "03_probe_layers", "04_rank_neurons")

SRUN = "timeout 900 srun --ntasks=1 --mpi=pmi2"
"""A launcher that gives each process a rank, as MPI wants it, and cannot hang."""

BATCH = """#!/bin/bash
#SBATCH --job-name=whole --ntasks=2 --time=4 --requeue --signal=B:USR1@60 --open-mode=append
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
{make} -j 2 SEEDS=3 LAUNCH="srun --exact --ntasks=1" &
wait $!
wait $!  # again: the signal ends the first
"""
"""All of Make in one job, which goes back into the queue a minute before its time is up."""


@dataclass
class Place:
    """A copy of the repository with the study, beside a cluster."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return environment() | self.variables

    @property
    def command(self) -> list[str]:
        return ["make", f"PYTHON={sys.executable}", "reproduce", "SCALE=slurm"]

    def start(self, *words: str) -> subprocess.Popen:
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                [*self.command, *words], cwd=self.folder, env=self.environ, stdout=said, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def end(self, process: subprocess.Popen, good: bool = True) -> str:
        """Wait for Make; what it said."""
        process.wait(1200)
        print(said := self.said())
        assert (process.returncode == 0) == good
        return said

    def slurm(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environ, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def plan(self, *words: str) -> set[str]:
        command = ["make", f"PYTHON={sys.executable}", "plan", "SCALE=slurm", *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=True)
        _, _, names = done.stdout.partition("\nto run:\n")
        return set((names or done.stdout).split())

    def checkpoints(self, seed: int) -> dict[int, int]:
        """The update of each complete checkpoint, and when it was written."""
        place = self.folder / "runs" / "models" / "my-encoder" / f"sentiment-s{seed}"
        found = {}
        for file in place.glob(".checkpoints-*/checkpoint-*/trainer_state.json"):
            try:
                found[json.loads(file.read_text())["global_step"]] = file.stat().st_mtime_ns
            except (OSError, ValueError):  # deleted meanwhile, or not written to its end
                continue
        return found

    @contextmanager
    def held(self, seed: int) -> Iterator[dict[int, int]]:
        """Stop a training in its tracks once it has a checkpoint, so that it cannot end before Slurm ends it. Yields
        its checkpoints. Afterwards it must be gone."""
        end = time.monotonic() + 900
        while not self.checkpoints(seed):
            assert time.monotonic() < end, self.said()[-3000:]
            time.sleep(0.05)
        name = f"sentiment-s{seed}/01_finetune"
        jobs = cluster.processes(SLURM_CONF=self.variables["SLURM_CONF"])
        (papermill,) = (p for p in jobs if "papermill" in (words := cluster.words(p)) and name in words)
        (kernel,) = (p for p in papermill.children() if "ipykernel_launcher" in cluster.words(p))
        kernel.suspend()
        yield self.checkpoints(seed)
        with suppress(psutil.NoSuchProcess):
            kernel.resume()  # and meet the signals that it was sent meanwhile
            kernel.wait(30)

    def tables(self) -> dict[str, pd.DataFrame]:
        """What was counted, measured and predicted with the first seed."""
        study, found = self.folder / "runs" / "slurm", {}
        ranked = ("layers/counts", "neurons/tests", "neurons/layers")
        for variant, names in {"pretrained": ranked, "random": ranked[:1], "sentiment-s1": ranked}.items():
            for name in names:
                found[f"{variant}/{name}"] = pd.read_parquet(study / variant / f"{name}.parquet")
        (model,) = (self.folder / "runs" / "models" / "my-encoder" / "sentiment-s1").glob("[!.]*")
        return found | {name: pd.read_csv(model / name) for name in ("predictions.csv", "curve.csv")}

    def finished(self) -> dict[Path, int]:
        """Each executed notebook and table, and when it was written."""
        study = self.folder / "runs" / "slurm"
        found = [p for pattern in ("*/0*.ipynb", "*/layers/*", "*/neurons/*") for p in study.glob(pattern)]
        return {p: p.stat().st_mtime_ns for p in found if not p.name.endswith(".part.ipynb")}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``copy(name)``: a copy of the repository with the study; the encoder is the same in all."""
    encoder = tmp_path_factory.mktemp("encoder")
    save_encoder(encoder)

    def make_copy(name: str) -> Path:
        folder = copy_repository(tmp_path_factory.mktemp(name), but="models")
        (folder / "params" / "slurm.yaml").write_text(STUDY)
        shutil.copytree(encoder, folder / "my-encoder")
        save_corpus(folder)
        return folder

    return make_copy


@pytest.fixture(scope="module")
def place(copy) -> Iterator[Place]:
    with cluster.started(cpus=4) as variables:
        yield Place(copy("päth with spaces"), variables)


@pytest.fixture(scope="module")
def undisturbed(copy) -> dict[str, pd.DataFrame]:
    """The results of one seed without Slurm."""
    alone = Place(copy("alone"))
    alone.end(alone.start("-j4"))
    return alone.tables()


def resumed(place: Place, process: subprocess.Popen, seed: int, held: dict[int, int]) -> str:
    """Wait for Make, and see that the training went on from the last of the checkpoints that it ``held``. Returns what
    Make said."""
    seen: dict[int, int] = {}
    while process.poll() is None:
        seen |= place.checkpoints(seed)
        time.sleep(0.02)
    went_on(seen, held)
    return place.end(process)


def went_on(seen: dict[int, int], held: dict[int, int]) -> None:
    print(f"checkpoints when it was killed: {sorted(held)}, those seen afterwards: {sorted(seen)}")
    assert max(seen) > max(held), "no later checkpoint was seen"
    assert {step: written for step, written in seen.items() if step <= max(held)} == held, "updates were made again"


def test_a_job_of_a_launcher_computes_alone_whatever_rank_it_has(place: Place) -> None:
    script = (
        "import os; from transformers import TrainingArguments as A; a = A(output_dir='none', use_cpu=True); "
        "print(os.environ['SLURM_PROCID'], os.environ['SLURM_NTASKS'], a.world_size, a.parallel_mode.value)"
    )
    command = ["srun", "--ntasks=2", "--mpi=pmi2", sys.executable, "-I", "lib/surroundings.py", "-c", script]
    said = place.slurm("timeout", "300", *command).splitlines()
    print(*said, sep="\n")
    assert sorted(line for line in said if line[:1] in "01") == ["0 2 1 not_parallel", "1 2 1 not_parallel"]
    assert sum(line.startswith("not used here, although set: PMI_") for line in said) == 2


def test_of_a_cancelled_job_nothing_is_taken_for_done_and_the_next_make_resumes_it_alone(
    place: Place, undisturbed
) -> None:
    launch = [f"LAUNCH={SRUN} --time=30", f"LAUNCH_01_finetune={SRUN} --time=30 --job-name=training"]
    process = place.start("-k", "-j4", *launch)
    with place.held(1) as held:
        print(place.slurm("squeue"))
        place.slurm("scancel", "--name=training")
        said = place.end(process, good=False)
    assert "CANCELLED AT" in said
    assert said.count(" done, ") == 5, "all of the encoders that are not fine-tuned"
    assert not [*(place.folder / "runs" / "models").glob("*/*/[!.]*")]
    assert place.plan() == {f"slurm/sentiment-s1/{step}" for step in STEPS} | {"figures/slurm/05_figures"}

    before = place.finished()
    said = resumed(place, place.start("-j4", *launch), 1, held)
    assert said.count(" done, ") == 5
    assert {path: then for path, then in place.finished().items() if path in before} == before
    assert place.plan() == {"nothing", "to", "do:", "every", "result", "is", "there"}
    found = place.tables()
    assert found.keys() == undisturbed.keys()
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, undisturbed[name], obj=name, check_like=True)  # in any order of columns


def test_a_training_out_of_time_goes_on_from_its_last_checkpoint(place: Place) -> None:
    short = f"LAUNCH_01_finetune={SRUN} --time=1"
    process = place.start("-k", "-j4", "SEEDS=2", f"LAUNCH={SRUN}", short)
    with place.held(2) as held:
        said = place.end(process, good=False)
    assert "DUE TO TIME LIMIT" in said
    assert f"slurm/sentiment-s2/{STEPS[0]}" in place.plan("SEEDS=2")
    resumed(place, place.start("-j4", "SEEDS=2", f"LAUNCH={SRUN}"), 2, held)


def test_a_job_that_goes_back_into_the_queue_goes_on_from_the_last_checkpoint(place: Place) -> None:
    script = place.folder / "batch.sh"
    script.write_text(BATCH.format(make=shlex.join(place.command)))
    (place.folder / "said.txt").unlink(missing_ok=True)
    number = place.slurm("sbatch", "--parsable", "--output=said.txt", "batch.sh").strip()
    job = partial(place.slurm, "scontrol", "show", "job", number)
    with place.held(3) as held:
        while "Restarts=1" not in job():
            time.sleep(1)
    place.slurm("scontrol", "update", f"JobId={number}", "TimeLimit=30")
    seen: dict[int, int] = {}
    while "JobState=COMPLETED" not in (state := job()):
        assert "JobState=FAILED" not in state, place.said()[-3000:]
        for _ in range(100):
            seen |= place.checkpoints(3)
            time.sleep(0.02)
    print(place.said(), state)
    went_on(seen, held)
    assert place.plan("SEEDS=3") == {"nothing", "to", "do:", "every", "result", "is", "there"}
