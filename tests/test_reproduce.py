"""What a stranger does: follow the README, in a copy of the repository, through Make."""

import re
from pathlib import Path

import pytest
from conftest import make, save_corpus, save_encoder

pytestmark = pytest.mark.slow


def test_the_readme_is_enough_to_study_another_encoder_and_another_corpus(copy: Path) -> None:
    readme = (copy / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(# params/mine\.yaml\n.*?)```", readme, re.S)
    (command,) = re.findall(r"^make (reproduce SCALE=mine.*)$", readme, re.M)
    (copy / "params" / "mine.yaml").write_text(block, encoding="utf-8")
    save_corpus(copy)
    save_encoder(copy / "my-encoder")

    plan = make(copy, "plan", "SCALE=mine")
    assert "mine/sentiment-s1/01_finetune" in plan.stdout, plan.stdout + plan.stderr
    first = make(copy, *command.split())
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    done, headline = first.stdout.split("in per cent")
    assert "sentiment-s1" in headline
    left_out = "left out of figures and verdicts, because it did not learn its task: mine, sentiment-s1" in done
    assert left_out != (copy / "runs" / "figures" / "mine" / "change_pos.png").exists()
    for name in ("summary.csv", "claims.csv", "layers_pos.pdf", "layers_pos.png", "layers_pos.csv"):
        assert (copy / "runs" / "figures" / "mine" / name).stat().st_size > 0

    again = make(copy, *command.split())
    assert again.returncode == 0 and " done, " not in again.stdout, again.stdout
    assert "nothing to do" in make(copy, "plan", "SCALE=mine").stdout

    yaml = block + "ranking:\n  top: 0.1\n"
    (copy / "params" / "mine.yaml").write_text(yaml, encoding="utf-8")
    changed = re.findall(r"(?m)^  (\S+/\S+)$", make(copy, "plan", "SCALE=mine").stdout)
    assert {c.split("/")[-1] for c in changed} == {"02_extract", "04_rank_neurons", "05_figures"}


def test_a_parameter_that_does_not_exist_stops_make_before_any_work(copy: Path) -> None:
    good = (copy / "params" / "minilm.yaml").read_text(encoding="utf-8")
    (copy / "params" / "wrong.yaml").write_text(
        good.replace("minilm", "wrong") + "prob:\n  epochs: 3\n", encoding="utf-8"
    )
    found = make(copy, "reproduce", "SCALE=wrong")
    assert found.returncode != 0
    assert "unknown parameter; did you mean 'probe'?" in found.stderr
    assert not (copy / "runs" / "wrong").exists()


def test_help_lists_targets_and_selectors(copy: Path) -> None:
    found = make(copy)
    assert found.returncode == 0
    for word in (
        "reproduce",
        "test",
        "doctor",
        "lab",
        "clean",
        "SCALE",
        "STUDIES",
        "SEEDS",
        "DEVICE",
        "KEEP",
        "LAUNCH",
    ):
        assert word in found.stdout
