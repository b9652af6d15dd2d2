"""Files and labels in a fixed order, stages whose order keeps its promise, throughput in examples."""

import time

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from coursekit.errors import InputError
from coursekit.tf import get_batch, get_files, measure_throughput, write_image_folder

DIGITS = load_digits()
IMAGES = (DIGITS.images[:60] * 15).astype(np.uint8)
LABELS = DIGITS.target[:60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_image_folder(tmp_path_factory.mktemp("digits"), IMAGES, labels=LABELS)


def epoch(dataset):
    """Return the labels and the images of one epoch, joined."""
    batches = list(dataset.as_numpy_iterator())
    return np.concatenate([y for _, y in batches]), np.concatenate([x for x, _ in batches])


def load_index(path):
    """Return the index in the file's name: an identity to follow through shuffles."""
    return tf.strings.to_number(tf.strings.substr(path, -9, 5))


def order(dataset):
    return np.concatenate([x for x, _ in dataset.as_numpy_iterator()]).tolist()


def test_files_come_back_with_the_label_of_their_class_folder(folder):
    files, labels, class_names = get_files(folder)
    assert class_names == sorted({str(label) for label in LABELS})
    index = [int(f[-9:-4]) for f in files]
    np.testing.assert_array_equal([int(class_names[k]) for k in labels], LABELS[index])
    assert files == sorted(files)
    assert labels.dtype == np.int32


def test_pixels_survive_the_way_to_disk_and_back_to_the_bit(folder):
    files, labels, _ = get_files(folder)
    _, images = epoch(get_batch(files, labels, batch_size=7))
    index = [int(f[-9:-4]) for f in files]
    # convert_image_dtype divides by 255 in float32: one rounding.
    np.testing.assert_allclose(images[..., 0], IMAGES[index] / 255.0, rtol=2e-7)


def test_three_channels_are_written_and_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    files, labels, _ = get_files(write_image_folder(tmp_path, images, labels=["a", "b", "a"]))
    back = [tf.io.decode_png(tf.io.read_file(f)).numpy() for f in files]
    np.testing.assert_array_equal(back, images[[0, 2, 1]])
    assert labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "no class folders"),
        (lambda d: (d / "cats").mkdir(), "class 'cats' is empty"),
        (lambda d: ((d / "cats").mkdir(), (d / "cats" / "notes.txt").touch()), "notes.txt"),
        (lambda d: d.rmdir(), "no such folder"),
    ],
)
def test_a_tree_that_is_no_image_folder_is_named(tmp_path, make, message):
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    with pytest.raises(InputError, match=message):
        get_files(root)


def test_hidden_files_are_passed_over(folder, tmp_path):
    write_image_folder(tmp_path, IMAGES[:2], labels=["a", "b"])
    (tmp_path / "a" / ".DS_Store").touch()
    (tmp_path / ".git").mkdir()
    assert get_files(tmp_path).class_names == ["a", "b"]
    assert len(get_files(tmp_path).files) == 2


def test_float_images_are_refused_instead_of_written_black(tmp_path):
    with pytest.raises(InputError, match="uint8"):
        write_image_folder(tmp_path, IMAGES / 255.0, labels=LABELS)


@pytest.mark.parametrize("cache", [True, False])
def test_every_epoch_holds_every_example_once_in_a_new_order(folder, cache):
    files, labels, _ = get_files(folder)
    dataset = get_batch(files, labels, batch_size=8, load=load_index, shuffle_seed=3, cache=cache)
    first, second, third = (order(dataset) for _ in range(3))
    assert sorted(first) == sorted(second) == sorted(third) == list(range(60))
    assert first != second != third != first


def test_shuffle_before_cache_would_freeze_the_order(folder):
    files, labels, _ = get_files(folder)
    rows = tf.data.Dataset.from_tensor_slices((files, labels)).map(lambda f, y: (load_index(f), y))
    frozen = rows.shuffle(60, seed=3).cache().batch(8)
    assert order(frozen) == order(frozen)


def test_one_seed_gives_one_sequence_with_and_without_cache(folder):
    files, labels, _ = get_files(folder)
    settings = {"batch_size": 8, "load": load_index, "shuffle_seed": 5}
    cached, uncached = (get_batch(files, labels, cache=cache, **settings) for cache in (True, False))
    assert [order(cached) for _ in range(3)] == [order(uncached) for _ in range(3)]
    assert order(get_batch(files, labels, **settings | {"shuffle_seed": 6})) != order(uncached)


def test_shuffling_moves_labels_with_their_images(folder):
    files, labels, class_names = get_files(folder)
    dataset = get_batch(files, labels, batch_size=8, load=load_index, shuffle_seed=1)
    (x, y), *_ = dataset.as_numpy_iterator()
    np.testing.assert_array_equal([int(class_names[k]) for k in y], LABELS[x.astype(int)])


def test_cache_loads_each_file_once(folder):
    files, labels, _ = get_files(folder)
    loaded = []

    def load(path):
        return tf.numpy_function(lambda p: loaded.append(p) or np.float32(0), [path], tf.float32)

    for cache, epochs in ((True, 1), (False, 3)):
        loaded.clear()
        dataset = get_batch(files, labels, batch_size=8, load=load, cache=cache)
        for _ in range(3):
            assert sum(len(y) for _, y in dataset) == 60
        assert len(loaded) == 60 * epochs


def sleepy(seconds):
    def load(path):
        return tf.numpy_function(lambda p: time.sleep(seconds) or np.float32(0), [path], tf.float32)

    return load


@pytest.mark.parametrize("as_written", [True, False])
def test_without_prefetch_times_add_up_only_if_tf_data_runs_as_written(folder, as_written):
    files, labels, _ = get_files(folder)
    # 4 loads of 10 ms, then a step of 40 ms: 80 ms in turn, 40 ms overlapped. The bound leaves 20 %.
    dataset = get_batch(
        files[:32], labels[:32], batch_size=4, load=sleepy(0.010), prefetch=False, num_parallel_calls=None,
        as_written=as_written,
    )  # fmt: skip
    # The best of three: other work on the machine can only slow a pipeline down.
    best = max(
        measure_throughput(dataset, step=lambda _: time.sleep(0.040), repeats=1, warmup=0).examples_per_second
        for _ in range(3)
    )
    in_turn = 4 / 0.080
    assert (best < 1.2 * in_turn) == as_written


def test_throughput_counts_examples_not_batches_and_takes_the_median():
    dataset = tf.data.Dataset.range(10).batch(4)
    delays = iter([0.0] * 3 + [0.02] * 3 + [0.2] * 3 + [0.02] * 3)
    measured = measure_throughput(dataset, step=lambda _: time.sleep(next(delays)), repeats=3)
    assert len(measured.epoch_seconds) == 3
    assert measured.examples_per_second == 10 / sorted(measured.epoch_seconds)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "no files"),
        ((["a", "b"], [0]), "every file needs a label"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        get_batch(*arguments, batch_size=2)
    with pytest.raises(InputError, match="batch_size >= 1"):
        get_batch(["a"], [0], batch_size=0)


def test_an_empty_dataset_has_no_throughput():
    with pytest.raises(InputError, match="empty"):
        measure_throughput(tf.data.Dataset.range(0).batch(2))
    with pytest.raises(InputError, match="repeats"):
        measure_throughput(tf.data.Dataset.range(2).batch(2), repeats=0)
