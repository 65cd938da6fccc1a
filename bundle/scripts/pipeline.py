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

import torch
import yaml
from monai.bundle import ConfigWorkflow

from scripts.errors import InputError
from scripts.failures import input_error
from scripts.io.whole_file import write_json
from scripts.option_help import read_help
from scripts.options import kept_as_typed

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


def check_stages(config_dir: str | Path, stages: Sequence[Mapping[str, Any]]) -> None:
    """Check the options of all stages before the first one begins: their types and ranges, and what they are together.

    Args:
        config_dir, stages: as in :func:`run_stages`; each config has a section ``network_def``, which is built without memory for
            its weights, and a section ``early``, the parts of it that refuse options that cannot be.

    Raises:
        InputError: an option does not exist or cannot have its value; the line names the stage.
    """
    for stage in stages:
        if stage["skip"]:
            continue
        known = {option.name: option for option in read_help(Path(config_dir) / stage["config"]).options}
        try:
            for name, value in _options_of(stage).items():
                if name not in known:
                    raise InputError(f"{stage['config']} has no option {name}; it has {', '.join(known)}")
                kind = known[name].type
                if kind is not None:
                    kind.check(name, value, default=yaml.safe_load(known[name].default))
            parser = stage_workflow(stage, config_dir).parser
            with torch.device("meta"):
                parser.get_parsed_content("network_def")
            parser.get_parsed_content("early")
        except Exception as error:
            mistake = input_error(error)
            if mistake is None:
                raise
            # from None, or the innermost, which names no stage, would be shown
            raise InputError(f"{stage['title']}: {mistake}") from None


def stage_workflow(stage: Mapping[str, Any], config_dir: str | Path) -> ConfigWorkflow:
    """The workflow of a stage, see :func:`run_stages`, with its options."""
    file = Path(config_dir) / stage["config"]
    paths = {option.name for option in read_help(file).options if option.type and option.type.kind == "path"}
    options: dict[str, Any] = {
        name: kept_as_typed(value) if name in paths else value for name, value in _options_of(stage).items()
    }
    return ConfigWorkflow(config_file=str(file), workflow_type=None, logging_file=False, **options)


def _options_of(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stage["options"].items() if value is not None}


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
        workflow = stage_workflow(stage, config_dir)
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
