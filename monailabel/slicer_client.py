# SPDX-License-Identifier: Apache-2.0
"""Asks a MONAI Label server for a reconstruction; for 3D Slicer's Python console, and any other Python with requests.

In the console of 3D Slicer, with a volume loaded:

    import sys; sys.path.insert(0, "/path/to/this/folder")
    import slicer_client
    slicer_client.reconstruct_volume("MyVolume", factor=8)
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import requests

SERVER = "http://127.0.0.1:8000"


def reconstruct(
    volume: str,
    output: str,
    factor: float | None = None,
    dtype: str | None = None,
    server: str = SERVER,
    timeout: float = 3600,
    input_slices: str = "copy",
) -> str:
    """Send a volume to the server and write what comes back.

    Args:
        volume: NIfTI or TIFF file.
        output: file to write, .nrrd, .nii or .nii.gz.
        factor: how many times finer Z becomes; None: as fine as XY.
        dtype: voxel type of the output, as "uint8"; None: float32. The values are those of the input's type anyway.
        server: address of the server.
        timeout: seconds to wait.
        input_slices: "copy" copies the input slices, "predict" has the network estimate them too.

    Returns:
        ``output``.

    Raises:
        RuntimeError: the server refused, and said why.
        requests.RequestException: the server does not answer.
    """
    name = os.path.basename(output).lower()
    extension = next((end for end in (".nii.gz", ".nii", ".nrrd") if name.endswith(end)), None)
    if extension is None:
        raise ValueError(f"{output}: name a .nrrd, .nii or .nii.gz file")
    params: dict[str, Any] = {"factor": factor, "input_slices": input_slices, "result_extension": extension}
    if dtype is not None:
        params["result_dtype"] = dtype
    with open(volume, "rb") as file:
        answer = requests.post(
            f"{server}/infer/d2r",
            params={"output": "image"},
            data={"params": json.dumps(params)},
            files={"file": (os.path.basename(volume), file)},
            timeout=timeout,
        )
    if answer.status_code != 200:
        try:
            reason = answer.json()["detail"]
        except ValueError:
            reason = answer.text[:200]
        raise RuntimeError(f"the server answered {answer.status_code}: {reason}")
    with open(output, "wb") as file:
        file.write(answer.content)
    return output


def reconstruct_volume(name: str, factor: float | None = None, server: str = SERVER) -> Any:
    """In 3D Slicer: reconstruct the loaded volume of that name, show the result as a new volume and return it."""
    import slicer

    node = slicer.util.getNode(name)
    with tempfile.TemporaryDirectory() as folder:
        volume, output = (os.path.join(folder, file) for file in ("volume.nii.gz", "result.nrrd"))
        if not slicer.util.saveNode(node, volume):
            raise RuntimeError(f"{name}: could not be saved as NIfTI")
        dtype = slicer.util.arrayFromVolume(node).dtype.name
        reconstruct(volume, output, factor, dtype, server)
        return slicer.util.loadVolume(output, properties={"name": f"{name} reconstructed"})
