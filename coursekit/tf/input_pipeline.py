"""Input pipelines from files on disk: find, decode, cache, shuffle, batch, prefetch; measure each stage."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coursekit.errors import InputError, require

tf = require("tensorflow", extra="tf")

AUTOTUNE = tf.data.AUTOTUNE
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


class LabelledFiles(NamedTuple):
    """Paths of the images, an int32 label for each, and the class names that the labels index."""

    files: list[str]
    labels: np.ndarray
    class_names: list[str]


class Throughput(NamedTuple):
    """Median examples per second over the measured epochs, and the seconds of each epoch."""

    examples_per_second: float
    epoch_seconds: tuple[float, ...]


def write_image_folder(directory: str | Path, images: np.ndarray, *, labels: Sequence[Any]) -> Path:
    """Write each image as `directory/<label>/<index>.png` and return the directory.

    Args:
        directory: made if it is not there.
        images: uint8, (n, height, width) or (n, height, width, channels).
        labels: n of them; `str(label)` names the class folder.
    Raises: InputError if the dtype is not uint8 or the counts differ.
    """
    if images.dtype != np.uint8:
        # A cast would wrap or truncate: floats from 0 to 1 would all become black.
        fix = "scale to 0..255 and cast with .astype(np.uint8)"
        raise InputError("a PNG holds bytes", expected="uint8", got=images.dtype, fix=fix)
    if len(images) != len(labels):
        raise InputError("every image needs a label", expected=len(images), got=len(labels))
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = Path(directory) / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        png = tf.io.encode_png(image if image.ndim == 3 else image[..., np.newaxis])
        (folder / f"{index:05d}.png").write_bytes(png.numpy())
    return Path(directory)


def get_files(directory: str | Path, *, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> LabelledFiles:
    """Return the files of a tree with one folder a class, their labels, and the class names.

    Classes and files are sorted as text, so every machine gives a class the same number ("10" sorts before
    "2"), whatever order the file system lists them in. Names that begin with a dot are passed over.

    Raises: InputError if there is no class folder, a class is empty, or a file has an unknown suffix.
    """
    root = Path(directory)
    folders = sorted((p for p in _visible(root) if p.is_dir()), key=lambda p: p.name)
    if not folders:
        fix = "put the files of each class into a folder named after it"
        raise InputError("no class folders", expected=f"{root}/<class>/<file>", got="none", fix=fix)
    found = [_class_files(folder, tuple(s.lower() for s in suffixes)) for folder in folders]
    labels = np.repeat(np.arange(len(folders), dtype=np.int32), [len(files) for files in found])
    return LabelledFiles([str(f) for files in found for f in files], labels, [f.name for f in folders])


def decode_image(path: Any, *, channels: int = 1) -> Any:
    """Return the image at `path` as float32 in 0..1, (height, width, channels). Runs inside tf.data."""
    image = tf.io.decode_image(tf.io.read_file(path), channels=channels, expand_animations=False)
    return tf.image.convert_image_dtype(image, tf.float32)


def get_batch(
    files: Sequence[str],
    labels: Sequence[int],
    *,
    batch_size: int,
    load: Callable[[Any], Any] = decode_image,
    shuffle_seed: int | None = None,
    cache: bool = False,
    prefetch: bool = True,
    num_parallel_calls: int | None = AUTOTUNE,
    as_written: bool = False,
) -> Any:
    """Return a tf.data.Dataset of (images, labels) batches, each stage where it keeps its promise.

    cache:      load → cache → shuffle → batch → prefetch. Decoded once, in a new order every epoch.
    no cache:   shuffle → load → batch → prefetch. The shuffle buffer holds paths, not pictures.

    Shuffle before cache would freeze the first epoch's order; batch before shuffle would keep the same
    examples together. The shuffle buffer holds all examples: a smaller one mixes only neighbours, and the
    files come sorted by class. With one seed, both orders give the same examples in the same sequence.

    Args:
        files: paths, as `get_files` gives them.
        labels: an integer for each file.
        batch_size: examples a batch; the last one may be smaller.
        load: maps a path (a string tensor) to an image tensor; all of one shape.
        shuffle_seed: None leaves the order of the files.
        cache: keep the loaded images in memory after the first epoch.
        prefetch: prepare the next batches while the caller works on this one.
        num_parallel_calls: `load` calls at once; AUTOTUNE chooses as it runs, None loads one by one.
        as_written: True keeps tf.data from adding stages of its own, so that leaving one out can be measured.
            By default it works ahead of the caller whether or not you wrote a prefetch.
    Raises: InputError if there are no files, labels do not match, or batch_size is not positive.
    Source: Murray et al. 2021 (arXiv:2101.12127).
    """
    _check_batch_arguments(files, labels, batch_size)
    dataset = tf.data.Dataset.from_tensor_slices((list(files), np.asarray(labels, dtype=np.int32)))
    shuffle = [] if shuffle_seed is None else [lambda d: d.shuffle(len(files), seed=shuffle_seed)]
    loading = [
        lambda d: d.map(lambda path, label: (load(path), label), num_parallel_calls=num_parallel_calls)
    ]
    stages = [*loading, lambda d: d.cache(), *shuffle] if cache else [*shuffle, *loading]
    stages.append(lambda d: d.batch(batch_size))
    if prefetch:
        stages.append(lambda d: d.prefetch(tf.data.AUTOTUNE))
    for stage in stages:
        dataset = stage(dataset)
    return dataset.with_options(as_written_options()) if as_written else dataset


def as_written_options() -> Any:
    """Return tf.data.Options under which the written stages run and no others: nothing injected or fused."""
    options = tf.data.Options()
    # inject_prefetch=False alone is not enough: a fused map-and-batch works ahead as well.
    options.experimental_optimization.apply_default_optimizations = False
    return options


def measure_throughput(
    dataset: Iterable[Any],
    *,
    step: Callable[[Any], Any] = lambda batch: None,
    repeats: int = 3,
    warmup: int = 1,
) -> Throughput:
    """Return how many examples a second `dataset` gives to `step`: the median of `repeats` whole epochs.

    Args:
        dataset: batches, or tuples whose first part is a batch; examples are counted along its first dim.
        step: called with each batch, as a training step would be.
        repeats: epochs that are timed.
        warmup: epochs run first and not counted (they fill a cache and start the threads).
    Raises: InputError if the dataset is empty, or repeats is not positive or warmup negative.
    """
    if repeats < 1 or warmup < 0:
        raise InputError("nothing to measure", expected="repeats >= 1, warmup >= 0", got=(repeats, warmup))
    runs = [_timed_epoch(dataset, step) for _ in range(warmup + repeats)][warmup:]
    if runs[0][1] == 0:
        raise InputError("the dataset is empty", expected="at least one batch", got=0)
    seconds = tuple(s for s, _ in runs)
    return Throughput(statistics.median(n / s for s, n in runs), seconds)


def _timed_epoch(dataset: Iterable[Any], step: Callable[[Any], Any]) -> tuple[float, int]:
    num_examples, start = 0, time.perf_counter()
    for batch in dataset:
        step(batch)
        num_examples += len(batch[0] if isinstance(batch, tuple) else batch)
    return time.perf_counter() - start, num_examples


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError("no such folder", expected="a folder with one folder a class", got=folder)
    return [p for p in folder.iterdir() if not p.name.startswith(".")]


def _class_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    files = sorted(p for p in _visible(folder) if p.is_file())
    if not files:
        fix = "remove the folder, or its label would never be seen in training"
        raise InputError(f"class {folder.name!r} is empty", expected="at least one file", got=0, fix=fix)
    for file in files:
        if file.suffix.lower() not in suffixes:
            fix = "convert or move it, or name the suffix in `suffixes`"
            raise InputError(f"cannot read {file}", expected=f"one of {suffixes}", got=file.suffix, fix=fix)
    return files


def _check_batch_arguments(files: Sequence[str], labels: Sequence[int], batch_size: int) -> None:
    if len(files) == 0:
        raise InputError("no files", expected="at least one path", got=0)
    if len(files) != len(labels):
        raise InputError("every file needs a label", expected=len(files), got=len(labels))
    if batch_size < 1:
        raise InputError("a batch holds examples", expected="batch_size >= 1", got=batch_size)
