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

"""Checkpoints: the whole state of a training, saved after each epoch, from which the same command resumes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from scripts.errors import InputError, one_line
from scripts.networks.finite import first_not_finite
from scripts.networks.tensor_file import check_zip, write_tensors
from scripts.provenance import difference, resolve

logger = logging.getLogger(__name__)


class CheckpointHandler:
    """Saves the whole state of a training after each epoch, and loads it when the training is started again.

    Args:
        path: of the checkpoint; replaced atomically, so that a kill at any moment leaves a whole one.
        save_dict: name -> object with ``state_dict`` and ``load_state_dict`` (networks, optimizer, schedule, EMA).
        resume_must_match: what a run must share with the one that it continues, see :func:`scripts.provenance.resolve`.
        device: that the state is loaded to.
    """

    def __init__(
        self,
        path: str | Path,
        save_dict: Mapping[str, Any],
        resume_must_match: Mapping[str, Any],
        device: str | torch.device = "cpu",
    ) -> None:
        self.path = Path(path)
        self.device = device
        self.save_dict = dict(save_dict)
        self.resume_must_match = dict(resume_must_match)
        self._resolved: dict[str, Any] | None = None  # resume_must_match, once inputs have been read for it

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Load the checkpoint, if there is one.

        Raises:
            InputError: if it is of a run with other options or inputs or of a longer one, is damaged, or holds a number
                that is NaN or infinite.
        """
        self._resolved = resolve(self.resume_must_match)
        checkpoint = read_checkpoint(
            self.path, self._resolved, engine.state.max_epochs, self.save_dict, device=self.device
        )
        if checkpoint is None:
            return
        name = first_not_finite({name: checkpoint[name] for name in self.save_dict})
        if name is not None:
            raise InputError(
                f"{self.path}: {name} is NaN or infinite: the training diverged; delete it to begin this stage anew"
            )
        for name, target in self.save_dict.items():
            try:
                target.load_state_dict(checkpoint[name])
                _check_state(target, checkpoint[name])
            except Exception as error:  # each kind of object has its own
                raise _damaged(self.path, f"its {name} does not fit: {one_line(error)}") from error
        engine.state.epoch = checkpoint["epoch"]
        engine.state.iteration = checkpoint["iteration"]
        logger.info(f"going on after epoch {engine.state.epoch} of {engine.state.max_epochs} ({self.path})")

    def save(self, engine: Engine) -> None:
        """Save the state.

        Raises:
            InputError: if the file cannot be written; the previous one is kept.
        """
        if self._resolved is None:
            self._resolved = resolve(self.resume_must_match)
        checkpoint = {name: target.state_dict() for name, target in self.save_dict.items()}
        checkpoint.update(resume_must_match=self._resolved, epoch=engine.state.epoch, iteration=engine.state.iteration)
        write_tensors(self.path, checkpoint)


def read_checkpoint(
    path: str | Path,
    resume_must_match: Mapping[str, Any],
    max_epochs: int | None = None,
    names: Iterable[str] = (),
    device: str | torch.device = "cpu",
) -> dict[str, Any] | None:
    """Read a checkpoint, if there is one, and check that it is whole and belongs to a run.

    Args:
        path: of the file.
        resume_must_match: of the run, see :func:`scripts.provenance.resolve`.
        max_epochs: of the run.
        names: of the states that it must hold.
        device: that the states are loaded to.

    Returns:
        States by name, "resume_must_match", "epoch" and "iteration"; None if there is no such file.

    Raises:
        InputError: if it is damaged, was made with other options or on other inputs, or has more epochs than the run.
    """
    path = Path(path)
    if not path.exists():
        return None
    if not path.is_file():
        raise _damaged(path, "it is no file")
    try:
        check_zip(path)
    except Exception as error:  # zipfile raises a dozen types for damaged names, offsets and sizes
        raise _damaged(path, one_line(error)) from error
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises a dozen types for files that are not its own
        raise _damaged(path, "it cannot be read") from error
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    for name in ("resume_must_match", *names):
        if not isinstance(checkpoint.get(name), Mapping):
            raise _damaged(path, f"it has no {name}")
    for name in ("epoch", "iteration"):
        if type(checkpoint.get(name)) is not int or checkpoint[name] < 0:
            raise _damaged(path, f"it has no {name}")
    other = difference(checkpoint["resume_must_match"], resume_must_match)
    if other is not None:
        same = f"give {other.same}, or another output folder" if other.same else "give another output folder"
        raise InputError(f"{path} belongs to a run {other.run}: {same} to begin anew")
    if max_epochs is not None and checkpoint["epoch"] > max_epochs:
        raise InputError(
            f"{path} belongs to a run with {checkpoint['epoch']} epochs, more than --max_epochs {max_epochs}: "
            "give as many or more, or another output folder to begin anew"
        )
    return checkpoint


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: damaged checkpoint; delete it to begin this stage anew ({what})")


def _check_state(target: Any, stored: Mapping[str, Any]) -> None:
    """Find what ``load_state_dict`` accepts silently: missing names, and states of an optimizer of other shapes."""
    missing = set(target.state_dict()) - set(stored)
    if missing:
        raise ValueError(f"it has no {min(missing)}")
    if isinstance(target, torch.optim.Optimizer):
        states = {
            parameter: target.state.get(parameter, {}) for group in target.param_groups for parameter in group["params"]
        }
        if len({frozenset(state) for state in states.values() if state}) > 1:
            raise ValueError("a part of its state is missing")
        for parameter, state in states.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(f"{name} has the shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
