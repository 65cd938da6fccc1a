# SPDX-License-Identifier: Apache-2.0
"""Runs several configs one after the other and goes on after the last finished one."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from scripts.errors import InputError
from scripts.io.whole_file import write_json

logger = logging.getLogger(__name__)


def claim_workdir(workdir: str | Path, settings: Mapping[str, Any]) -> None:
    """Write what a working folder belongs to, or check that it belongs to this run.

    Args:
        workdir: made if missing.
        settings: primitives, written to ``run.json``.

    Raises:
        InputError: if the folder holds a run with other settings, or cannot be written.
    """
    check_workdir(workdir, settings)
    write_json(Path(workdir) / "run.json", settings)


def check_workdir(workdir: str | Path, settings: Mapping[str, Any]) -> None:
    """Check that a working folder, if it is there, belongs to this run.

    Raises:
        InputError: if the folder holds a run with other settings.
    """
    path = Path(workdir) / "run.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if stored.get(name) != value:
                raise InputError(
                    f"--workdir {workdir} holds a run with {name} {stored.get(name)}, not {value}: "
                    "give another --workdir, or the same options to go on"
                )


def run_stages(config_dir: str | Path, stages: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Run each stage whose result is not there yet.

    Args:
        config_dir: folder of the configs.
        stages: mappings with "title", "config" (file name), "result" (the file that shows that the stage is done), "skip"
            (true leaves the stage out) and "options" (overrides by name; those that are None are left at their default).

    Returns:
        Title of each stage that was run -> seconds that it took.
    """
    seconds: dict[str, float] = {}
    wanted = [stage for stage in stages if not stage["skip"]]
    for number, stage in enumerate(wanted, 1):
        title = f"{number} of {len(wanted)}: {stage['title']}"
        if Path(stage["result"]).is_file():
            logger.info(f"{title}: done before ({stage['result']})")
            continue
        logger.info(title)
        begin = time.monotonic()
        options = {name: value for name, value in stage["options"].items() if value is not None}
        workflow = ConfigWorkflow(
            config_file=str(Path(config_dir) / stage["config"]), workflow_type=None, logging_file=False, **options
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        del workflow
        gc.collect()  # what the stage held on the GPU is the next one's
        seconds[stage["title"]] = time.monotonic() - begin
        logger.info(f"took {seconds[stage['title']]:.1f} s: {stage['title']}")
    return seconds


def choose_preset(presets: Mapping[str, Any], preset: str) -> Mapping[str, Any]:
    """The sizes and lengths of a preset.

    Raises:
        InputError: if there is none of that name.
    """
    if preset not in presets:
        raise InputError(f"--preset {preset}: there is none of that name; choose one of {', '.join(presets)}")
    return presets[preset]


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One mapping of several; later ones win."""
    return {name: value for part in parts for name, value in part.items()}
