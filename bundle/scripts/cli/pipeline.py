# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Runs several configs one after the other, and continues after the last finished one."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.reference_resolver import ReferenceResolver
from scripts.cli.failures import input_error
from scripts.cli.finished import Finished
from scripts.cli.option_help import read_help
from scripts.cli.option_types import kept_as_typed
from scripts.cli.renamed import check_renamed
from scripts.errors import InputError
from scripts.provenance import difference, read_record, resolve
from scripts.volumes.header import Header
from scripts.volumes.outputs import check_space
from torch import nn

logger = logging.getLogger(__name__)

_RECORD = "run.json"
_PARTS = ("prior", "prior_network", "generate", "teacher", "aenet", "aenet_network")  # of a preset
_PLACES = {
    "volume",
    "spacing",
    "weights",
    "output",
    "output_dir",
    "overwrite",
    "device",
    "axes",
    "array",
    "time",
    "channel",
    "axis",
    "slice_table",
    "ome_zarr_version",
    "chunk",
    "shard",
    "compression",
    "block",
}  # options that say where, not what


def claim_workdir(
    workdir: str | Path, resume_must_match: Mapping[str, Any], stages: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write what a working folder belongs to, or check that it belongs to this run.

    Args:
        workdir: made if missing.
        resume_must_match: see :func:`scripts.provenance.resolve`; written to ``run.json`` as primitives.
        stages: as in :func:`run_stages`; what their options say beside places is written and compared as well.

    Raises:
        InputError: if the folder holds another run, or cannot be written.
    """
    check_workdir(workdir, resume_must_match, stages)
    finished = _results_of(workdir)
    if not finished.record.exists():
        finished.write(resolve({**resume_must_match, "stages": _options_of(stages), "finished": {}}))


def check_workdir(
    workdir: str | Path, resume_must_match: Mapping[str, Any], stages: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Check that a working folder, if it is there, belongs to this run.

    Raises:
        InputError: if the folder holds another run, or what it holds is damaged.
    """
    finished = _results_of(workdir)
    if not finished.record.exists():
        return
    stored = read_record(finished.record, finished.advice)
    inputs = {name: value for name, value in resume_must_match.items() if callable(value)}
    rest = {name: value for name, value in resume_must_match.items() if name not in inputs}
    other = difference(stored, {**rest, **inputs, "stages": _options_of(stages)})  # inputs late: they have to be read
    if other is not None:
        go_on = f", or {other.same} to go on" if other.same else ""
        raise InputError(f"--workdir {workdir} holds a run {other.run}: give another --workdir{go_on}")


def is_done(workdir: str | Path, output: str | Path, overwrite: bool = False) -> bool:
    """Whether the final result of a run is in its place, as the run wrote it.

    Args:
        workdir: of the run.
        output: file.
        overwrite: whether it is made again in any case.

    Raises:
        InputError: what the working folder holds is damaged.
    """
    return not overwrite and _results_of(workdir).holds(output)


def check_stages(
    config_dir: str | Path, stages: Sequence[Mapping[str, Any]], workdir: str | Path, header: Header
) -> None:
    """Find options with which one of the remaining stages would fail, before the first one begins and the working
    folder is claimed; arguments and errors are those of :func:`trials_of`.
    """
    trials_of(config_dir, stages, workdir, header)


def trials_of(
    config_dir: str | Path, stages: Sequence[Mapping[str, Any]], workdir: str | Path, header: Header
) -> dict[str, Any]:
    """The trials of the remaining stages, after a check that none of them would fail by its options.

    Args:
        config_dir, stages, workdir: as in :func:`run_stages`; each config has a section ``trial``, whose parts
            refuse options that cannot be; and each stage a "factor", that of the volume it reads over the input.
        header: of the input.

    Returns:
        Title of each remaining stage -> its ``trial``.

    Raises:
        InputError: there is such an option, and the line names the stage; or a result is there that the run did not
            write.
    """
    trials: dict[str, Any] = {}
    trained: dict[str, nn.Module] = {}
    for stage in stages:
        if stage["skip"] or stage_is_done(stage, workdir):
            continue
        if "output" in stage["options"]:
            factor = stage["options"]["factor"]
            check_space(stage["options"]["output"], header.refined(factor).shape, header.dtype, factor)
        try:
            _check_names(stage, config_dir)
            workflow = stage_workflow(stage, config_dir, trained)
            trials[stage["title"]] = trial = workflow.parser.get_parsed_content("trial")
            trial.check(header.refined(stage["factor"]))
            trained[stage["result"]] = trial.network
        except Exception as error:
            mistake = input_error(error)
            if mistake is None:
                raise
            # from None, or the innermost, which names no stage, would be shown
            raise InputError(f"{stage['title']}: {mistake}") from None
        gc.collect()
    return trials


def _check_names(stage: Mapping[str, Any], config_dir: str | Path) -> None:
    """Check that the config of a stage has its options."""
    file = Path(config_dir) / stage["config"]
    sections = ConfigParser.load_config_file(file)
    for name in _given(stage):
        if ReferenceResolver.split_id(name)[0] not in sections:
            check_renamed(name)
            known = ", ".join(option.name for option in read_help(file).options)
            raise InputError(f"{stage['config']} has no option {name}; it has {known}")


def stage_workflow(
    stage: Mapping[str, Any], config_dir: str | Path, trained: Mapping[str, nn.Module] | None = None
) -> ConfigWorkflow:
    """The workflow of a stage, see :func:`run_stages`, with its options.

    Args:
        stage, config_dir: as there.
        trained: networks by the weights that an earlier stage is still to write, for what looks ahead.

    Raises:
        InputError: an option is of another type, or out of its range.
    """
    file = Path(config_dir) / stage["config"]
    options = _given(stage)
    for option in read_help(file).options:
        if option.name in options and option.type is not None:
            value = option.type.check(option.name, options[option.name], default=yaml.safe_load(option.default))
            options[option.name] = kept_as_typed(value) if option.type.kind == "path" else value
    network = (trained or {}).get(stage["options"].get("weights", ""))
    if network is not None:
        options["network_def"] = network
    return ConfigWorkflow(config_file=str(file), workflow_type=None, logging_file=False, **options)


def _given(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stage["options"].items() if value is not None}


def stage_is_done(stage: Mapping[str, Any], workdir: str | Path | None) -> bool:
    """Whether the result of a stage is there and is the one that the run wrote.

    Raises:
        InputError: if another file is there in its place.
    """
    result = Path(stage["result"])
    if workdir is None:
        return result.exists()
    if stage.get("overwrite") or not result.exists():
        return False
    finished = _results_of(workdir)
    if finished.holds(result):
        return True
    if finished.knows(result):
        raise InputError(f"{result}: is no longer the file that this run wrote; delete it to have it made anew")
    guard = stage.get("guard")
    if guard is None or not Path(guard).exists():  # without one the stage could not tell whether the file is its own
        raise InputError(f"{result}: was not written by this run; move it away, or delete it to have it made")
    return False


def run_stages(
    config_dir: str | Path, stages: Sequence[Mapping[str, Any]], workdir: str | Path | None = None
) -> dict[str, float]:
    """Run each stage whose result is not there yet.

    Args:
        config_dir: folder of the configs.
        stages: mappings with "title", "config" (file name), "result" (the file that shows that the stage is done),
            "skip" (true leaves the stage out) and "options" (overrides by name; those that are None are left at their
            default); perhaps "overwrite" (true makes the result anew) and "guard" (a file beside the result from which
            the stage itself continues).
        workdir: folder whose ``run.json`` records what the results are; without one any file of the name is a result.

    Returns:
        Title of each stage that was run -> seconds that it took.

    Raises:
        InputError: as the stages; or a result is there that the run did not write.
    """
    seconds: dict[str, float] = {}
    wanted = [stage for stage in stages if not stage["skip"]]
    for number, stage in enumerate(wanted, 1):
        title = f"{number} of {len(wanted)}: {stage['title']}"
        if stage_is_done(stage, workdir):
            logger.info(f"{title}: done before ({stage['result']})")
            continue
        logger.info(title)
        begin = time.monotonic()
        finished = None if workdir is None else _results_of(workdir)
        workflow = stage_workflow(stage, config_dir)
        with nullcontext() if finished is None else finished.recording(stage["result"]):
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        if finished is not None and Path(stage["result"]).exists() and not finished.holds(stage["result"]):
            finished.keep(stage["result"])  # the stage found that it had been done before
        del workflow
        gc.collect()  # what the stage held on the GPU is the next one's
        seconds[stage["title"]] = time.monotonic() - begin
        logger.info(f"took {seconds[stage['title']]:.1f} s: {stage['title']}")
    return seconds


def _results_of(workdir: str | Path) -> Finished:
    return Finished(Path(workdir) / _RECORD, f"delete it, or give another --workdir than {workdir}")


def _options_of(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the options of each stage say, without the places."""
    wanted = [stage for stage in stages if not stage["skip"]]
    return {
        stage["title"]: {name: value for name, value in stage["options"].items() if name not in _PLACES}
        for stage in wanted
    }


def choose_preset(presets: Mapping[str, Any], preset: str) -> Mapping[str, Any]:
    """The sizes and lengths of a preset.

    Raises:
        InputError: if there is none of that name, or it lacks something.
    """
    if preset not in presets:
        raise InputError(f"--preset {preset}: there is none of that name; choose one of {', '.join(presets)}")
    for part in _PARTS:
        if not isinstance(presets[preset], Mapping) or not isinstance(presets[preset].get(part), Mapping):
            raise InputError(
                f"--presets#{preset}: has no {part}; a preset has {', '.join(_PARTS)}, each with names and values"
            )
    return presets[preset]


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge several mappings; later ones win."""
    return {name: value for part in parts for name, value in part.items()}
