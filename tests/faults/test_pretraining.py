"""`make pretrain` that is killed goes on to the same losses and the same weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import environment, make

pytestmark = pytest.mark.slow


def test_pretraining_killed_midway_resumes_to_the_same_losses(copy: Path) -> None:
    settings = {"sentences": 6000, "steps": 60, "checkpoint_every": 20, "width": 32, "stages": [[30, 2, 3e-3]]}
    settings |= {"tokenizers": "shipped", "vocabulary": 8192}
    command = ["pretrain", "SIZE=lesson", f"SETTINGS={json.dumps(settings)}"]
    place = copy / "runs" / "lesson" / "pretrain"
    with subprocess.Popen(
        ["make", f"PYTHON={sys.executable}", *command], cwd=copy, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as killed:  # fmt: skip
        while not (place / "bert" / "last.pt").exists():
            assert killed.poll() is None
            time.sleep(0.05)
        os.killpg(killed.pid, signal.SIGKILL)
    assert not (place / "roberta-mini").exists()

    resumed = make(copy, *command)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "other weights than models/bert-mini" in resumed.stdout
    logs = {f: pd.read_csv(place / f"{f}-mini" / "log.csv") for f in ("bert", "roberta", "xlnet")}
    weights = {f: (place / f"{f}-mini" / "model.safetensors").read_bytes() for f in logs}
    assert "| held-out loss |" in (place / "xlnet-mini" / "README.md").read_text(encoding="utf-8")
    refused = make(copy, "pretrain", "SIZE=lesson")
    assert refused.returncode != 0 and "holds a pre-training of other settings" in refused.stderr

    shutil.rmtree(place)
    whole = make(copy, *command)
    assert whole.returncode == 0, whole.stderr[-3000:]
    for family, log in logs.items():
        again = pd.read_csv(place / f"{family}-mini" / "log.csv")
        assert log["step"].tolist() == [20, 40, 60]
        assert again[["loss", "held_out"]].equals(log[["loss", "held_out"]])
        assert (place / f"{family}-mini" / "model.safetensors").read_bytes() == weights[family]
