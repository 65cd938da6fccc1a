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

"""The folder that a training writes to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from scripts.networks.weights import save_weights
from scripts.provenance import PROVENANCE, write_provenance
from scripts.training.checkpoint import read_checkpoint
from scripts.volumes.claim import Claim
from scripts.volumes.identity import identify
from scripts.volumes.outputs import check_folder
from scripts.volumes.paths import as_path
from scripts.volumes.read_options import AS_STORED, ReadOptions
from torch import nn
from torch.utils.tensorboard import SummaryWriter


class OutputFolder:
    """Folder of a training: checkpoint, weights, curves and provenance. One run at a time writes there.

    Args:
        folder: made if missing.
        weights: name of the file of weights.
        inputs: volumes by name, which are read and never replaced; None for one that a run does without.
        resume_must_match: what a continued run must share beside its inputs, see :func:`scripts.provenance.resolve`.
        max_epochs: of the run.
        reading: how the inputs are read.

    Attributes:
        checkpoint: path of the checkpoint.
        weights: path of the weights.
        resume_must_match: what a continued run must share. The inputs come last: comparing them means reading them.
        curves: TensorBoard's writer, whose file is made when something is first written.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        weights: str,
        inputs: Mapping[str, str | os.PathLike | None],
        resume_must_match: Mapping[str, Any],
        max_epochs: int,
        reading: ReadOptions = AS_STORED,
    ) -> None:
        self.folder = as_path(folder)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.weights = self.folder / weights
        self.inputs = list(inputs.values())
        identities = {name: partial(identify, path, reading) for name, path in inputs.items()}
        self.resume_must_match = {**resume_must_match, **identities}
        self.max_epochs = max_epochs
        self.curves = _LazyWriter(self.folder)
        self._claim = Claim(self.folder, folder=True)

    def begin(self) -> None:
        """Claim the folder, check that this run may write there, and write its provenance.

        Raises:
            InputError: another run works there, the folder holds something else or a checkpoint that this run cannot go
                on from, or it cannot be written.
        """
        self._claim.take()
        self.check()
        write_provenance(self.folder, self.resume_must_match)

    def check(self) -> None:
        """Check that this run may write to the folder.

        Raises:
            InputError: the folder holds something else or a checkpoint that this run cannot go on from, or it cannot be
                written.
        """
        check_folder(
            self.folder,
            files=[self.weights.name, self.checkpoint.name, PROVENANCE],
            inputs=self.inputs,
            results=[self.weights.name],
            unless=self.checkpoint.name,
        )
        read_checkpoint(self.checkpoint, self.resume_must_match, self.max_epochs)

    def finish(self, network: nn.Module) -> None:
        """Write the weights of a network, and release the folder.

        Raises:
            InputError: the weights are not finite, or cannot be written.
        """
        save_weights(network, self.weights)
        self._claim.release()


class _LazyWriter:
    """TensorBoard's writer, which would otherwise make its file when a training is built."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _writer(self) -> SummaryWriter:
        return SummaryWriter(str(self._folder))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)
