# SPDX-License-Identifier: Apache-2.0
"""What the site takes from the repository beside its pages: links, options of the configs, cells of a notebook, a
drawing.

pymdownx.snippets includes sections of README.md and its like. Their links lead to files of the repository, which GitHub
follows; here they are turned to where the site has those files.

``<!-- cells: examples/reconstruct_in_memory.ipynb -->`` puts in the cells of a notebook that have the tag "page", as
one block of code.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "bundle"), str(REPOSITORY / "docs")]

from draw_lattice import draw_lattice  # noqa: E402
from scripts.cli.option_help import read_help  # noqa: E402

PAGES = {
    "README.md": "/index.md",
    "CONTRIBUTING.md": "/contributing.md",
    "CHANGELOG.md": "/changelog.md",
    "bundle/docs/README.md": "/model.md",
}
"""Documents of the repository and the pages that show them."""

FILES = {
    path: f"/files/{path}"
    for path in (
        "bundle/docs/data_license.txt",
        "bundle/docs/figures/fib25_test_x8.json",
        "bundle/docs/figures/fib25_test_x8.png",
        "examples/napari_layers.py",
        "examples/reconstruct_in_memory.ipynb",
    )
} | {
    "LICENSE": "/files/LICENSE.txt"
}  # browsers take a name without a suffix for a download
"""Other files of the repository that are linked to, and where the site has a copy."""

CONFIGS = ("inference", "d2r", "train_diffusion", "generate", "train", "evaluate", "decimate", "sample")

_CELLS = re.compile(r"^<!-- cells: (?P<notebook>\S+) -->$", re.MULTILINE)
_LINK = re.compile(r"\]\((?:\.\./)*(?P<path>[^):#\s]+)(?P<anchor>#[^)\s]*)?\)")
_COMMAND = re.compile(r"^ {4,}python -m monai\.bundle run .{60,}$", re.MULTILINE)


class _Included(Extension):
    """Registers what is done to a page once its snippets are in."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (the name is Markdown's)
        """Run after snippets, whose priority is 32, and before fenced code."""
        md.preprocessors.register(_TurnLinks(md), "repository", 31)


class _TurnLinks(Preprocessor):
    """Turns links to files of the repository to the site's, and breaks long commands."""

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines of a page with its links turned."""
        text = _LINK.sub(_turned, "\n".join(lines))
        return _COMMAND.sub(lambda match: _broken(match[0]), text).split("\n")


def on_config(config: Any) -> Any:
    """Add the extension above to those of mkdocs.yml."""
    config.markdown_extensions.append(_Included())
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the drawing and copies of the files that are linked to."""
    files.append(File.generated(config, "concepts/lattice.svg", content=draw_lattice()))
    for path, target in FILES.items():
        files.append(File.generated(config, target[1:], content=(REPOSITORY / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put in the options of the configs and the cells of notebooks where a page asks for them."""
    markdown = _CELLS.sub(lambda match: f"```python\n{_cells(match['notebook'])}\n```", markdown)
    return markdown.replace("<!-- options of the configs -->", _options())


def _turned(match: re.Match[str]) -> str:
    """Return a link to a file of the repository as one from the root of the site; others as they are."""
    path = match["path"]
    target = (PAGES | FILES).get(path)
    if target is None and path.startswith("docs/"):
        target = path.removeprefix("docs")
    return f"]({target}{match['anchor'] or ''})" if target else match[0]


def _cells(notebook: str) -> str:
    """Return the code of a notebook that is tagged for the page."""
    cells = json.loads((REPOSITORY / notebook).read_text(encoding="utf-8"))["cells"]
    chosen = ["".join(cell["source"]) for cell in cells if "page" in cell["metadata"].get("tags", [])]
    if not chosen:
        raise PluginError(f"cells: {notebook} has no cell with the tag page")
    return "\n\n".join(chosen)


def _broken(command: str) -> str:
    """Return a long command on several lines, each option on the line of its value, so that nothing has to be
    scrolled."""
    first, *options = command.split(" --")
    indent = " " * (len(first) - len(first.lstrip()) + 4)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) > 88:
            lines.append(f"{indent}--{option}")
        else:
            lines[-1] += f" --{option}"
    return " \\\n".join(lines)


def _options() -> str:
    """Return a section for each config: what it does, how it is called, its options."""
    lines: list[str] = []
    for name in CONFIGS:
        texts = read_help(REPOSITORY / "bundle" / "configs" / f"{name}.yaml")
        lines += [f"## {name}.yaml", ""]
        for paragraph in texts.description:
            lines += [_escaped(paragraph), ""]
        lines += [f"    {usage}\n" for usage in texts.usage]
        lines += ["", "| option | value | default | meaning |", "|---|---|---|---|"]
        for option in texts.options:
            default = "" if option.default == "null" else "computed" if "$" in option.default else option.default
            default = "needed" if option.required else default
            shown = f"`{default}`" if default not in ("", "computed", "needed") else default
            value = _escaped(option.type.text) if option.type else ""
            lines.append(f"| `--{option.name}` | {value} | {_escaped(shown)} | {_escaped(option.meaning)} |")
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Keep what Markdown would take for a table's border, or for emphasis."""
    return text if text.startswith("`") else re.sub(r"([|*_<])", r"\\\1", text)
