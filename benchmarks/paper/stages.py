# SPDX-License-Identifier: Apache-2.0
"""Stages of a benchmark: the bundle's own configs, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.cli.pipeline import run_stages

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
Stage = dict[str, Any]


def make_stage(title: str, config: str, result: Path, options: Mapping[str, Any]) -> Stage:
    """A run of a config.

    Args:
        title: of what it does.
        config: file name.
        result: the file that shows that it is done.
        options: overrides by name.
    """
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return {"title": title, "config": config, "result": str(result), "skip": False, "options": plain}


def run(stages: Sequence[Stage]) -> dict[str, float]:
    """Run the stages whose results are not there yet; returns the title of each of them -> seconds that it took."""
    return run_stages(BUNDLE / "configs", stages)
