# SPDX-License-Identifier: Apache-2.0
"""The documentation site builds without a warning and shows what its sources say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html import unescape
from pathlib import Path
from re import sub

import pytest
from bundle_run import PATIENCE

from scripts.option_help import read_help

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
    return " ".join(unescape(sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))).split())


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
    assert "<!-- " not in (site / "concepts" / "scores.html").read_text(encoding="utf-8").split("<article")[1]


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
        ("inferers", "scripts.reconstruction.AxialInferer"),
        ("io", "scripts.io.read_volume"),
        ("transforms", "scripts.transforms.load_volume.LoadVolumed"),
    ],
)
def test_reference_comes_from_docstrings(site, page, name):
    assert f'id="{name}"' in (site / "reference" / f"{page}.html").read_text(encoding="utf-8")


def test_every_module_is_in_the_reference(site):
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    # what the command line and single steps of the configs need is told on the pages about them
    inner = {
        "command_line",
        "pipeline",
        "settings",
        "option_help",
        "options",
        "plan",
        "cost",
        "d2r",
        "phantom",
        "failures",
        "signals",
    }
    for path in (REPOSITORY / "bundle" / "scripts").rglob("*.py"):
        module = ".".join(path.relative_to(REPOSITORY / "bundle").with_suffix("").parts).removesuffix(".__init__")
        if path.stem not in inner and (path.stem != "__init__" or "\ndef " in path.read_text(encoding="utf-8")):
            assert f'id="{module}"' in pages, module


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
