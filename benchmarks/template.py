# SPDX-License-Identifier: Apache-2.0
"""Fills the templates of the pages that benchmarks write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill(template: Path, **values: Any) -> str:
    """Return the Markdown that a template and what was measured give.

    Args:
        template: Jinja file; blocks on a line of their own leave no empty line.
        **values: its variables; a missing one is an error.
    """
    loader = FileSystemLoader(template.parent)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(template.name).render(**values)
