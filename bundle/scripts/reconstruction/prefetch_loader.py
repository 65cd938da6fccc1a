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

"""A data loader that reads ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from monai.data import DataLoader
from scripts.errors import InputError

_END = object()


class PrefetchLoader(DataLoader):
    """MONAI's ``DataLoader`` whose batches are made by a thread, some ahead of the one in use.

    MONAI's ``ThreadDataLoader`` does the same but for errors: what goes wrong in its thread ends the data early and in
    silence, and a reconstruction would lack what was not read.

    Args:
        dataset: of blocks.
        ahead: batches that may wait.
        kwargs: of ``DataLoader``. Blocks have several sizes, so a batch is one block.

    Raises:
        InputError: another batch size is asked for.
    """

    def __init__(self, dataset: Any, ahead: int = 2, **kwargs: Any) -> None:
        if kwargs.get("batch_size", 1) != 1:
            raise InputError(
                f"--dataloader#batch_size {kwargs['batch_size']}: blocks have several sizes and come one at a time; "
                "--tile changes them"
            )
        super().__init__(dataset, **kwargs)
        self.ahead = ahead

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(1, "prefetch") as pool:
            try:
                for _ in range(self.ahead):
                    waiting.append(pool.submit(next, batches, _END))
                while True:
                    batch = waiting.popleft().result()
                    if batch is _END:
                        return
                    waiting.append(pool.submit(next, batches, _END))
                    yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
