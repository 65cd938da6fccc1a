# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's web application, with requests checked before it takes them.

By itself it answers "Internal Server Error" where ``params`` are no JSON, passes over parameters that it does not know,
and finds wrong ones of a batch only in another process.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import torchvision_operators  # noqa: F401
from fastapi import Depends, HTTPException, Request
from parameters import check
from scripts.errors import InputError

from monailabel.app import app
from monailabel.endpoints import batch_infer, infer
from monailabel.interfaces.utils.app import app_instance


async def check_infer(request: Request) -> None:
    """Refuse a request for one volume that could only fail, or that asks for what nobody would do."""
    form = await request.form()
    _check_names(request.query_params, ("image", "session_id", "output"), "query")
    _check_names(form, ("params", "file", "label"), "form")
    if not (form.get("file") or request.query_params.get("image") or request.query_params.get("session_id")):
        raise HTTPException(400, "no volume: send one as file, or name one of the server's by image")
    if not form and await request.body():
        raise HTTPException(400, "the body is no form: send the parameters as the field params of a form")
    _check(request, str(form.get("params") or "{}"))


async def check_batch(request: Request) -> None:
    """Refuse a request for a batch that could only fail, or that asks for what nobody would do."""
    if request.method == "POST":
        _check_names(request.query_params, ("images", "run_sync"), "query")
        _check(request, (await request.body()).decode(errors="replace") or "{}", batch=True)


def _check_names(given: Collection[str], known: Collection[str], where: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise HTTPException(400, f"{unknown[0]}: is no field of the {where}; parameters belong into params, as JSON")


def _check(request: Request, params: str, batch: bool = False) -> None:
    model, models = request.path_params["model"], app_instance().info()["models"]
    if model not in models:
        raise HTTPException(404, f"model {model}: there is no such model; there is {', '.join(models)}")
    try:
        check(json.loads(params), models[model]["config"]["device"], batch)
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"params: are no JSON: {error}") from None
    except InputError as error:
        raise HTTPException(400, str(error)) from None


# the same endpoints once more, before MONAI Label's own
own = len(app.router.routes)
app.include_router(infer.router, dependencies=[Depends(check_infer)])
app.include_router(batch_infer.router, dependencies=[Depends(check_batch)])
app.router.routes[:] = [*app.router.routes[own:], *app.router.routes[:own]]
