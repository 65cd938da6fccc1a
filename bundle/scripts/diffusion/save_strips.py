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

"""Writing of what stage II makes, strip by strip, as a handler of MONAI's evaluator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from ignite.engine import Engine, Events
from monai.data import MetaTensor
from scripts.diffusion.strips import StripDataset, strip_of
from scripts.reconstruction.outputs import FileOutput, in_file
from scripts.transforms.channels import one_for_each
from scripts.volumes.claim import Claim
from scripts.volumes.outputs import check_output
from scripts.volumes.paths import as_path


class SaveStrips:
    """Writes the strips of volumes into their files, which appear under their names at the end, in their order.

    Args:
        dataset: that the strips come from.
        keys: of the volumes.
        path: file of each.
        overwrite: whether each may replace an existing file.

    Raises:
        ValueError: unless there is one ``path`` and one ``overwrite`` for each key.
    """

    def __init__(
        self, dataset: StripDataset, keys: Sequence[str], path: Sequence[str | os.PathLike], overwrite: Sequence[bool]
    ) -> None:
        paths, replace = one_for_each(path, keys, "path"), one_for_each(overwrite, keys, "overwrite")
        self.dataset = dataset
        self.files = {key: (as_path(each), may) for key, each, may in zip(keys, paths, replace)}
        self._claims = ExitStack()
        self._open: dict[str, FileOutput] = {}

    def attach(self, engine: Engine) -> None:
        """Register with the MONAI evaluator of stage II."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def _start(self, engine: Engine) -> None:
        self._open = {}
        for path, overwrite in self.files.values():
            self._claims.enter_context(Claim(path))
            check_output(path, overwrite)

    def _write(self, engine: Engine) -> None:
        for item in engine.state.output:  # type: ignore[union-attr]
            for key in self.files:
                strip = item[key]
                if key not in self._open:
                    self._open[key] = self._begin(key, strip)
                x, z = strip.shape[-3], strip.shape[-1]
                self._open[key].write(strip, (slice(0, x), strip_of(strip) or slice(0, strip.shape[-2]), slice(0, z)))

    def _begin(self, key: str, strip: MetaTensor) -> FileOutput:
        header = self.dataset.source.header
        turn, shape, affine = in_file(header, self.dataset.prior_factor)
        path, overwrite = self.files[key]
        return FileOutput(path, shape, str(strip.meta["dtype"]), affine, header.unit, overwrite, turn)

    def _finish(self, engine: Engine) -> None:
        for key in self.files:
            self._open[key].close()
        self._claims.close()

    def _abort(self, engine: Engine, error: BaseException) -> None:
        """Leave nothing of a file that is not complete."""
        with self._claims:
            for output in self._open.values():
                output.abort(error)
        raise error
