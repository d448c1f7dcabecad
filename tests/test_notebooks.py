"""The notebooks as committed: executed in order, with cells that nbval really compares, and no trace of a machine."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS, SOLUTIONS = NOTEBOOKS[:-1], ROOT / "notebooks" / "solutions.ipynb"


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def prose(path: Path) -> str:
    return "\n".join("".join(c["source"]) for c in cells(path, "markdown"))


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def printed(cell: dict) -> str:
    return "".join("".join(o.get("text", "")) for o in cell["outputs"])


def items(section: str) -> list[str]:
    """The numbered items of a list in Markdown."""
    return re.findall(r"^\d+\. .*?(?=^\d+\. |\Z)", section, re.M | re.S)


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(params=LESSONS, ids=lambda p: p.stem)
def lesson(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_the_lessons_and_their_solutions() -> None:
    assert [p.stem[:2] for p in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "so"]


def test_every_cell_was_executed_in_order_from_a_fresh_kernel(notebook: Path) -> None:
    assert [c["execution_count"] for c in cells(notebook)] == list(range(1, len(cells(notebook)) + 1))


def test_no_error_and_no_bar_is_committed(notebook: Path) -> None:
    for cell in cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_at_least_three_cells_are_compared_and_all_of_them_print_something(notebook: Path) -> None:
    checked = [c for c in cells(notebook) if "nbval-check-output" in tags(c)]
    assert len(checked) >= 3
    for cell in checked:
        assert cell["outputs"], "a checked cell without output compares nothing"
        message = "raw floats, paths and times are not stable"
        assert not re.search(r"\d\.\d{2,}|/home/|/tmp/|\d s\b", printed(cell)), message


def test_a_checked_cell_prints_counts_and_no_verdicts(notebook: Path) -> None:
    for cell in cells(notebook):
        if "nbval-check-output" in tags(cell):
            assert not re.search(r"\b(True|False)\b", printed(cell)), "assert it silently, and print counts"


def test_a_notebook_defines_no_function_and_has_one_parameters_cell(notebook: Path) -> None:
    code = ["".join(c["source"]) for c in cells(notebook)]
    assert not any(re.search(r"^\s*(def|class) ", c, re.M) for c in code)
    assert sum("parameters" in tags(c) for c in cells(notebook)) == 1


def test_cells_and_lines_are_short(notebook: Path) -> None:
    for cell in cells(notebook):
        assert len(cell["source"]) <= 12
        assert max(len(line.rstrip("\n")) for line in cell["source"]) <= 100


def test_a_lesson_is_short_and_has_its_parts(lesson: Path) -> None:
    assert sum(len(c["source"]) for c in cells(lesson)) <= 150
    for part in ("**Aim.**", "**In:**", "**Out:**", "**Time:**", "**Predict", "## To remember", "## Exercises"):
        assert part in prose(lesson), part


def test_every_figure_is_followed_by_what_we_see(lesson: Path) -> None:
    kinds, seen = [], "**What we see"
    for cell in json.loads(lesson.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        drawn = any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
        kinds.append("figure" if drawn else "seen" if cell["cell_type"] == "markdown" and seen in text else "")
    for i, kind in enumerate(kinds):
        assert kind != "figure" or "seen" in kinds[i + 1 : i + 5], f"cell {i}"


def test_every_exercise_tells_its_difficulty_and_minutes_and_one_asks_for_code(lesson: Path) -> None:
    exercises = items(prose(lesson).split("## Exercises")[1])
    assert 3 <= len(exercises) <= 5
    for exercise in exercises:
        assert re.match(r"\d+\. (●○○|●●○|●●●) \d+ min\. ", exercise), exercise
    (code,) = [exercise for exercise in exercises if "**Write code.**" in exercise]
    assert "```python" in code and "assert " in code


def test_every_exercise_has_its_answer(lesson: Path) -> None:
    asked = [item.split(".")[0] for item in items(prose(lesson).split("## Exercises")[1])]
    found = re.search(rf"^## {int(lesson.stem[:2])} · .*?(?=^## |\Z)", prose(SOLUTIONS), re.M | re.S)
    assert found, "solutions.ipynb has no answers"
    assert [item.split(".")[0] for item in items(found[0])] == asked


def test_a_run_leaves_no_trace_of_its_machine(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    assert "papermill" not in json.loads(text)["metadata"]
    assert not re.search(r"/(home|root|Users|tmp)/", text)
