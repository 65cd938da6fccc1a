# SPDX-License-Identifier: Apache-2.0
"""Writes what a result was made with next to the result."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import torch

from scripts.io.whole_file import write_json


def bundle_root() -> str:
    """Folder of the bundle, wherever the command was started from."""
    return str(Path(__file__).resolve().parents[1])


def machine() -> str:
    """Kind of machine, for tables: the GPU's name, or the number of CPU threads in use."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def write_settings(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Write ``settings.json`` with the settings, the machine kind and the versions of Python, torch and MONAI.

    Raises:
        InputError: if the folder cannot be written.
    """
    document = {
        "settings": dict(settings),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
    }
    write_json(Path(folder) / "settings.json", document)
