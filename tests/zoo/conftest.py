# SPDX-License-Identifier: Apache-2.0
"""The zoo's unit tests keep the form that the zoo has them in, without pytest; they are slow ones here."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)
