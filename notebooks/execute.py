"""Execute notebooks in place, each in a fresh kernel, as they are committed: ``python notebooks/execute.py [NAME …]``.

Progress bars are not stored. If a cell fails, CellExecutionError is raised and the file stays as it was.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"

for path in map(Path, sys.argv[1:] or sorted(Path(__file__).parent.glob("*.ipynb"))):
    print(path.stem, flush=True)
    book, resources = nbformat.read(path, 4), {"metadata": {"path": path.resolve().parent}}
    NotebookClient(book, timeout=2000, kernel_name="python3", resources=resources).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in shown if WIDGET not in output.get("data", {})]
    book.metadata.pop("widgets", None)
    book.metadata.language_info = {"name": "python"}
    nbformat.write(book, path)
