"""Engine file -> engine."""

from __future__ import annotations

import os
from pathlib import Path

from restorert.backends import backend_of
from restorert.engine.sidecar import check_engine_file, check_host, read_sidecar
from restorert.errors import EngineMismatchError, InputError
from restorert.export.onnx_file import spec_of
from restorert.runtime.engine import Engine
from restorert.spec import check_shape


def load_engine(path: str | os.PathLike[str]) -> Engine:
    """Load an engine file.

    Its sidecar is checked first: file complete, same runner and version, same device and plugins.

    Raises:
        EngineMismatchError: it was built for something else; the message says for what, and the
            command that builds it again.
        RunnerUnavailableError: its runner is not installed.
    """
    sidecar = read_sidecar(path)
    try:
        backend = backend_of(sidecar.runner)
        spec = spec_of(sidecar.network)
        for bound in (sidecar.profile.min, sidecar.profile.max):
            check_shape(spec, bound)
    except InputError as error:
        raise EngineMismatchError(
            f"the sidecar of {os.fspath(path)} is damaged ({error}); {sidecar.cure}"
        ) from None
    backend.check_runnable()
    check_host(path, sidecar, backend.host())
    check_engine_file(path, sidecar)
    return Engine(backend.load(Path(path), sidecar), spec, sidecar)
