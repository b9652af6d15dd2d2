"""Exported versions are complete, immutable and load in a process that knows nothing of the model."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from coursekit.errors import InputError
from coursekit.tf import (
    PredictionError,
    export_savedmodel,
    latest_version,
    predict,
    predict_in_new_process,
    read_signature,
)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,), name="pixels"), keras.layers.Dense(2, activation="softmax")])


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export_savedmodel(model, tmp_path_factory.mktemp("served") / "digits", version=3)


X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def by_hand(model, x):
    """Softmax regression in numpy, float64."""
    kernel, bias = (np.asarray(w, dtype=np.float64) for w in model.get_weights())
    scores = np.exp(x.astype(np.float64) @ kernel + bias)
    return scores / scores.sum(axis=1, keepdims=True)


def test_a_second_process_gives_the_models_outputs(model, exported):
    np.testing.assert_allclose(predict_in_new_process(exported, X), by_hand(model, X), rtol=1e-5)  # float32
    np.testing.assert_array_equal(predict(exported, X), predict_in_new_process(exported, X))


def test_another_models_outputs_are_told_apart(model, exported, tmp_path):
    other = keras.models.clone_model(model)
    assert not np.allclose(predict(export_savedmodel(other, tmp_path, version=1), X), predict(exported, X))


def test_the_layout_is_a_number_that_holds_a_saved_model_and_nothing_unfinished(exported):
    assert exported.name == "3"
    assert (exported / "saved_model.pb").is_file()
    assert [p.name for p in exported.parent.iterdir()] == ["3"]


def test_a_version_is_never_overwritten(model, exported):
    before = (exported / "saved_model.pb").read_bytes()
    with pytest.raises(InputError, match=r"this version exists.*export version 4"):
        export_savedmodel(model, exported.parent, version=3)
    assert (exported / "saved_model.pb").read_bytes() == before


def test_a_failed_export_leaves_nothing_behind(tmp_path):
    class Failing:
        def export(self, path, **_):
            (tmp_path / "seen").mkdir()
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        export_savedmodel(Failing(), tmp_path, version=1)
    assert [p.name for p in tmp_path.iterdir()] == ["seen"]


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0])
def test_a_version_is_a_positive_integer(model, tmp_path, version):
    with pytest.raises(InputError, match="integer from 1"):
        export_savedmodel(model, tmp_path, version=version)


def test_the_latest_version_is_the_highest_number_not_the_last_word(tmp_path):
    for name in ("9", "10", ".11-unfinished", "notes"):
        (tmp_path / name).mkdir()
    assert latest_version(tmp_path).name == "10"
    with pytest.raises(InputError, match="no version"):
        latest_version(tmp_path / "notes")


def test_the_signature_names_shapes_and_dtypes(exported):
    signature = read_signature(exported)
    assert signature.inputs == {"pixels": ((None, 3), "float32")}
    assert list(signature.outputs.values()) == [((None, 2), "float32")]


def test_a_batch_of_another_shape_is_refused(exported):
    with pytest.raises(InputError, match="does not fit the signature"):
        predict(exported, X[:, :2])


def test_a_process_that_fails_says_why(exported, tmp_path):
    with pytest.raises(PredictionError, match="no SavedModel here"):
        predict_in_new_process(tmp_path, X)
    with pytest.raises(PredictionError, match="no prediction within"):
        predict_in_new_process(exported, X, timeout_seconds=0.01)


def test_without_tensorflow_the_extra_is_named():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import coursekit.tf\n"
        "from coursekit.errors import MissingExtraError\n"
        "for name in ('get_files', 'export_savedmodel'):\n"
        "    try:\n"
        "        getattr(coursekit.tf, name)\n"
        "    except MissingExtraError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'coursekit[tf]'") == 2


def test_coursekit_tf_never_imports_torch():
    code = "import sys, coursekit.tf as c; c.get_files, c.predict; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
