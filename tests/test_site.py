# SPDX-License-Identifier: Apache-2.0
"""The documentation site builds without a warning and shows what its sources say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from bundle_run import PATIENCE
from scripts.cli.option_help import read_help

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def text(page: Path) -> str:
    """What a reader sees of a page, with single spaces."""
    return text_of(page.read_text(encoding="utf-8"))


def text_raw(markup: str) -> str:
    """What a reader sees of HTML, line by line."""
    return unescape(re.sub(r"<[^>]+>", "", markup))


def text_of(markup: str) -> str:
    """What a reader sees of HTML."""
    return " ".join(text_raw(markup).split())


def test_every_page_of_the_navigation_is_there(site):
    sources = [path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")]
    index = (site / "index.html").read_text(encoding="utf-8")
    for source in sources:
        page = source.with_suffix(".html")
        assert (site / page).is_file()
        assert f'href="{page}"' in index, f"{page} is not in the navigation"


def test_documents_of_the_repository_are_included(site):
    assert "make demo" in text(site / "index.html")
    version = json.loads((REPOSITORY / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    assert version in text(site / "changelog.html")
    assert "Limitations" in text(site / "model.html")
    for page in ("index", "model", "changelog", "concepts/scores", "concepts/speed", "reference/options"):
        article = (site / f"{page}.html").read_text(encoding="utf-8").split("<article")[1]
        assert "<!-- " not in article and "--8" not in article and "8<-" not in article, page


def test_links_of_included_documents_lead_to_pages_and_files_of_the_site(site):
    for page, target in (
        ("index", "benchmarks.html"),
        ("concepts/scores", "../files/bundle/docs/figures/fib25_test_x8.json"),
        ("concepts/scores", "../model.html#training-configuration"),
        ("changelog", "benchmarks.html#how-stage-ii-restores"),
    ):
        assert f'href="{target}"' in (site / f"{page}.html").read_text(encoding="utf-8").split("<article")[1], target
        assert (site / page).parent.joinpath(target.split("#")[0]).is_file(), target
    figure = "files/bundle/docs/figures/fib25_test_x8.png"
    assert f'src="{figure}"' in (site / "index.html").read_text(encoding="utf-8") and (site / figure).is_file()


def test_long_commands_of_included_documents_are_broken(site):
    code = re.findall(r"<code>(.*?)</code>", (site / "model.html").read_text(encoding="utf-8"), re.DOTALL)
    assert any("--config_file configs/inference.yaml" in block and "\\\n" in block for block in map(text_raw, code))


def test_every_option_is_in_the_reference(site):
    page = text(site / "reference" / "options.html")
    for config in (REPOSITORY / "bundle" / "configs").glob("*.yaml"):
        assert config.name in page
        for option in read_help(config).options:
            assert f"--{option.name} " in page, f"{config.name}: {option.name}"


@pytest.mark.parametrize(
    "page, name",
    [
        ("lattice", "scripts.lattice.positions"),
        ("networks", "scripts.networks.aenet.AENet"),
        ("reconstruction", "scripts.reconstruction.axial_inferer.AxialInferer"),
        ("volumes", "scripts.volumes.reading.read_volume"),
        ("transforms", "scripts.transforms.load_volume.LoadVolumed"),
    ],
)
def test_reference_comes_from_docstrings(site, page, name):
    assert f'id="{name}"' in (site / "reference" / f"{page}.html").read_text(encoding="utf-8")


def test_every_module_is_in_the_reference(site):
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    # what the command line and single steps of the configs need is told on the pages about them
    inner = {"cli", "phantom", "provenance", "version"}
    for path in (REPOSITORY / "bundle" / "scripts").rglob("*.py"):
        module = ".".join(path.relative_to(REPOSITORY / "bundle").with_suffix("").parts).removesuffix(".__init__")
        if path.stem != "__init__" and module.split(".")[1] not in inner:
            assert f'id="{module}"' in pages, module


def test_names_that_share_an_entry_of_a_docstring_are_told_apart(site):
    page = (site / "reference" / "lattice.html").read_text(encoding="utf-8")
    span = page.split('id="scripts.lattice.Span"')[1].split('id="scripts.lattice.Span.core"')[0]
    for name in ("begin", "end", "core_begin", "core_end"):
        row = text_of(span.split(f'title="scripts.lattice.Span.{name}"')[1].split("</tr>")[0])
        assert row.split(">", 1)[1].split()[:2] == [name, "int"], row
    for file in (site / "reference").glob("*.html"):
        assert not re.search(
            r"<code>\w+,</code>", file.read_text(encoding="utf-8")
        ), file  # a name and a type that is none


@pytest.mark.parametrize(
    "docstring, shown",
    [
        (
            "Args:\n    x, y: sides\n        in voxels.\n    z: depth.",
            ["x: sides", "in voxels.", "y: sides", "in voxels.", "z: depth."],
        ),
        (
            "Attributes:\n    a, b, c: same.\n\nRaises:\n    E: if a, b: no.",
            ["a: same.", "b: same.", "c: same.", "E: if a, b: no."],
        ),
        ("Takes two, three: not entries.\n\n    x, y: neither", ["Takes two, three: not entries.", "x, y: neither"]),
    ],
)
def test_names_apart(docstring, shown):
    words = (
        "import sys; sys.path.insert(0, 'docs'); from names_apart import names_apart; print(names_apart(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", words, docstring], cwd=REPOSITORY, capture_output=True, text=True)
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if line not in ("", "Args:", "Attributes:", "Raises:")] == shown, done.stderr


def test_long_lines_are_broken_and_no_button_searches_in_vain(site):
    style = (site / "style.css").read_text(encoding="utf-8")
    rules = {rule[0].strip(): rule[1] for rule in re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", style))}
    assert "white-space: pre-wrap" in rules[".md-typeset pre > code"]
    # the theme hides the search of a page that was opened from the disk; its button stands beside it
    assert "display: none" in rules['.md-header__button[for="__search"]:has(~ .md-search[hidden])']
    page = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<label class="md-header__button[^>]*for="__search"', page)
    assert page.index('for="__search"') < page.index('<div class="md-search" data-md-component="search"')


def test_lattice_is_drawn(site):
    assert 'src="lattice.svg"' in (site / "concepts" / "lattice.html").read_text(encoding="utf-8")
    assert "<svg" in (site / "concepts" / "lattice.svg").read_text(encoding="utf-8")


def test_python_page_shows_the_code_of_the_notebook_and_links_to_it(site):
    page = site / "how-to" / "python.html"
    cells = json.loads((REPOSITORY / "examples" / "reconstruct_in_memory.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = [cell for cell in cells if "page" in cell["metadata"].get("tags", [])]
    assert shown
    for cell in shown:
        assert " ".join("".join(cell["source"]).split()) in text(page)
    for name in ("reconstruct_in_memory.ipynb", "napari_layers.py"):
        assert (site / "files" / "examples" / name).read_bytes() == (REPOSITORY / "examples" / name).read_bytes()
    assert 'href="../files/examples/reconstruct_in_memory.ipynb"' in page.read_text(encoding="utf-8")
    assert 'href="../files/examples/napari_layers.py"' in (site / "how-to" / "napari.html").read_text(encoding="utf-8")


def test_site_needs_no_network_to_be_read(site):
    for page in site.rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        for attribute in ('<script src="http', '<img src="http', 'rel="stylesheet" href="http', '@import url("http'):
            assert attribute not in content, f"{page.relative_to(site)}: {attribute}"
