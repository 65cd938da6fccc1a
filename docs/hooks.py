# SPDX-License-Identifier: Apache-2.0
"""What the site takes from the repository: included documents, the options of the configs, the drawing of the lattice.

A page includes a document of the repository, or one section of it, by a line of its own::

    <!-- include: CHANGELOG.md -->
    <!-- include: README.md#scores -->
    <!-- include: README.md# -->

The headings that name the document and the section are left out, for the page has its own; nothing after the ``#`` means what
stands before the first section. Links are turned to where their targets are on the site.

``<!-- cells: examples/reconstruct_in_memory.ipynb -->`` puts in the cells of a notebook that have the tag "page", as one block
of code.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "bundle"), str(REPOSITORY / "docs")]

from draw_lattice import draw_lattice  # noqa: E402

from scripts.cli.option_help import read_help  # noqa: E402

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bundle/docs/README.md": "model.md",
}
"""Documents of the repository and the pages that a link to them leads to."""

EXAMPLES = ("examples/reconstruct_in_memory.ipynb", "examples/napari_layers.py")
"""Files that pages of the site link to."""

CONFIGS = ("inference", "d2r", "train_diffusion", "generate", "train", "evaluate", "decimate", "sample")

_INCLUDE = re.compile(r"^<!-- include: (?P<document>[^#\s]+?)(?P<hash>#(?P<section>\S*))? -->$", re.MULTILINE)
_CELLS = re.compile(r"^<!-- cells: (?P<notebook>\S+) -->$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
_COMMAND = re.compile(r"^ {4,}python -m monai\.bundle run .{60,}$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~)")


def on_files(files: Files, config: Any) -> Files:
    """Add the drawing, the examples, and the files that included documents link to, such as figures and licences."""
    files.append(File.generated(config, "concepts/lattice.svg", content=draw_lattice()))
    for path in EXAMPLES:
        files.append(File.generated(config, _on_site(path), content=(REPOSITORY / path).read_bytes()))
    for document in PAGES:
        for target, _ in _LINK.findall((REPOSITORY / document).read_text(encoding="utf-8")):
            path = _in_repository(document, target)
            if (REPOSITORY / path).is_file() and files.get_file_from_path(_on_site(path)) is None:
                files.append(File.generated(config, _on_site(path), content=(REPOSITORY / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put in what a page asks for."""

    def include(match: re.Match) -> str:
        text = _part(match["document"], match["section"] if match["hash"] else None)
        return _turn_links(text, match["document"], page.file.src_uri)

    markdown = _INCLUDE.sub(include, markdown)
    markdown = _CELLS.sub(lambda match: f"```python\n{_cells(match['notebook'])}\n```", markdown)
    markdown = markdown.replace("<!-- options of the configs -->", _options())
    return _COMMAND.sub(lambda match: _broken(match[0]), markdown)


def _part(document: str, section: str | None) -> str:
    """Return a document without its title, or a section of it without its heading."""
    path = REPOSITORY / document
    if not path.is_file():
        raise PluginError(f"include: there is no {document} in the repository")
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    whole: list[str] = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else re.match(r"(#{1,2}) (.+)", line)
        if heading:
            # the text between the title and the first section has the empty name
            lines = found.setdefault("" if not found else _anchor(heading[2]), [])
        if not heading or len(found) > 1:
            whole.append(line)
        if not heading:
            lines.append(line)
    if section is None:
        return "\n".join(whole)
    if section not in found:
        raise PluginError(f"include: {document} has no section #{section}; it has {', '.join(map(repr, found))}")
    return "\n".join(found[section])


def _cells(notebook: str) -> str:
    """Return the code of a notebook that is tagged for the page."""
    cells = json.loads((REPOSITORY / notebook).read_text(encoding="utf-8"))["cells"]
    chosen = ["".join(cell["source"]) for cell in cells if "page" in cell["metadata"].get("tags", [])]
    if not chosen:
        raise PluginError(f"cells: {notebook} has no cell with the tag page")
    return "\n\n".join(chosen)


def _broken(command: str) -> str:
    """Return a long command on several lines, each option on the line of its value, so that nothing has to be scrolled."""
    first, *options = command.split(" --")
    indent = " " * (len(first) - len(first.lstrip()) + 4)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) > 88:
            lines.append(f"{indent}--{option}")
        else:
            lines[-1] += f" --{option}"
    return " \\\n".join(lines)


def _anchor(heading: str) -> str:
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def _turn_links(text: str, document: str, page: str) -> str:
    """Return the text with links that are relative to a document made relative to a page."""

    def turn(match: re.Match) -> str:
        path = _in_repository(document, match[1])
        return f"]({relpath(_on_site(path), str(PurePosixPath(page).parent))}{match[2] or ''})"

    return _LINK.sub(turn, text)


def _in_repository(document: str, target: str) -> str:
    return normpath(str(PurePosixPath(document).parent / target))


def _on_site(path: str) -> str:
    """Return the page that shows a file of the repository, or where a copy of it lies."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    # a name without an ending would be shown as a download
    return f"files/{path}" if PurePosixPath(path).suffix else f"files/{path}.txt"


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
