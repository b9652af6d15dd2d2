"""Export for serving: versioned SavedModels, their signatures, and predictions made in a second process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coursekit.errors import CoursekitError, InputError, require

tf = require("tensorflow", extra="tf")

SIGNATURE = "serving_default"


class Signature(NamedTuple):
    """What a caller must send and what comes back: name → (shape, dtype); None in a shape is any size."""

    inputs: dict[str, tuple[tuple[int | None, ...], str]]
    outputs: dict[str, tuple[tuple[int | None, ...], str]]


class PredictionError(CoursekitError):
    """The second process could not load the model or predict with it; the text ends with its stderr."""


def export_savedmodel(model: Any, directory: str | Path, *, version: int) -> Path:
    """Write a Keras model as `directory/<version>/`, the layout TensorFlow Serving watches; return that path.

    The model is written beside its place under a name that is no number and renamed when complete, so that a
    server never loads half a model.

    Raises: InputError if version is no positive integer, or exists already: a served version never changes.
    """
    _check_version(version)
    target = Path(directory) / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _refuse_overwrite(target)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{version}-unfinished-", dir=target.parent))
    try:
        model.export(str(unfinished / "model"), format="tf_saved_model", verbose=False)
        os.rename(unfinished / "model", target)
    except OSError:
        # Two writers raced: the rename fails where the other's version stands, and that one stays.
        if target.exists():
            _refuse_overwrite(target)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def latest_version(directory: str | Path) -> Path:
    """Return the path of the highest version in `directory`, as a server would choose it (10 after 9).

    Raises: InputError if there is none.
    """
    folder = Path(directory)
    versions = [p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()] if folder.is_dir() else []
    if not versions:
        raise InputError("no version to serve", expected=f"{folder}/<number>", got="none")
    return max(versions, key=lambda p: int(p.name))


def read_signature(path: str | Path) -> Signature:
    """Return names, shapes and dtypes that the SavedModel at `path` takes and gives."""
    function = _load(path)
    return Signature(_specs(function.structured_input_signature[1]), _specs(function.structured_outputs))


def predict(path: str | Path, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs of the SavedModel at `path` for a batch (a model of one input and one output).

    Needs neither the Python code nor the Keras objects that made the model: the graph is in the file.

    Raises: InputError if the shape does not fit the signature.
    """
    function = _load(path)
    (name, spec), *others = function.structured_input_signature[1].items()
    if others:
        raise InputError("the model has several inputs", expected="one", got=1 + len(others))
    if not spec.shape.is_compatible_with(inputs.shape):
        raise InputError("the batch does not fit the signature", expected=spec.shape, got=inputs.shape)
    (output,) = function(**{name: tf.constant(inputs, dtype=spec.dtype)}).values()
    return output.numpy()


def predict_in_new_process(
    path: str | Path, inputs: np.ndarray, *, timeout_seconds: float = 120.0
) -> np.ndarray:
    """Return what a fresh Python process predicts with the SavedModel at `path`.

    Raises: PredictionError if that process fails or takes longer than `timeout_seconds`.
    """
    with tempfile.TemporaryDirectory() as folder:
        batch, result = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(batch, inputs)
        command = [sys.executable, "-m", "coursekit.tf.export", str(path), str(batch), str(result)]
        _run(command, timeout_seconds)
        return np.load(result)


def _run(command: list[str], timeout_seconds: float) -> None:
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, env=env, timeout=timeout_seconds, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        raise PredictionError(f"no prediction within {timeout_seconds} s") from error
    if done.returncode:
        raise PredictionError(f"exit status {done.returncode}:\n{done.stderr[-2000:]}")


def _load(path: str | Path) -> Any:
    if not (Path(path) / "saved_model.pb").is_file():
        fix = "give the folder of one version, as `latest_version` returns it"
        raise InputError("no SavedModel here", expected="a folder with saved_model.pb", got=path, fix=fix)
    loaded = tf.saved_model.load(str(path))
    if SIGNATURE not in loaded.signatures:
        raise InputError("nothing to call", expected=SIGNATURE, got=list(loaded.signatures))
    function = loaded.signatures[SIGNATURE]
    # The signature does not keep its module alive, and with the module go the variables.
    function.coursekit_owner = loaded
    return function


def _specs(named: dict[str, Any]) -> dict[str, tuple[tuple[int | None, ...], str]]:
    return {name: (tuple(spec.shape.as_list()), spec.dtype.name) for name, spec in named.items()}


def _check_version(version: int) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError("a version is a number", expected="an integer from 1", got=repr(version))


def _refuse_overwrite(target: Path) -> None:
    fix = f"export version {int(target.name) + 1}; servers cache a version for good"
    raise InputError("this version exists", expected="a new version", got=target, fix=fix)


if __name__ == "__main__":
    np.save(sys.argv[3], predict(sys.argv[1], np.load(sys.argv[2])))
