"""Report: the executed figures notebook as one HTML page that needs nothing else."""

import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from lib import runs

STYLE = """<style>
main { max-width: 62rem; margin: auto; }
img { max-width: 100%; height: auto; }
.jp-RenderedHTMLCommon table { display: block; overflow-x: auto; max-width: 100%; margin-left: 0; }
</style>"""


def write(notebook: str | Path, page: str | Path) -> None:
    """Write an executed notebook as HTML: prose, figures and tables, without code, and without anything to be loaded.

    Raises
    ------
    ValueError : the page would load something (script, style, font or picture) from elsewhere.
    """
    exporter = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    book = nbformat.read(notebook, 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    html, _ = exporter.from_notebook_node(book)
    html = re.sub(r'<script[^>]*\bsrc="[^"]*"[^>]*>\s*</script>', "", html)
    html = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.S)
    html = html.replace("</head>", STYLE + "</head>", 1)
    if loaded := re.search(r"""(?:src=|<link[^>]*href=|@import|url\()\s*["']?(https?:)?//[^"')\s]+""", html):
        raise ValueError(f"{page}: the page would load {loaded.group()}")
    with runs.being_made(Path(page)) as part:
        part.write_text(html, encoding="utf-8")
