"""Files: a kernel reads its own box, the interpreter and libraries; it writes its box."""

import json
import os
from pathlib import Path

import pytest

from coursekit.grading.sandbox.policy import readable_paths

# What gives a process a view of files of its own, and the user that goes with it.
ROOT = ("files", "processes", "account")


@pytest.fixture
def secret(tmp_path):
    """A file that anybody on the machine may read and write, were it not for the box."""
    path = tmp_path / "gradebook.db"
    path.write_text("grades")
    path.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(folder, 0o755)
    yield path
    assert path.read_text() == "grades" or path.read_text() == "grades!"


@pytest.mark.parametrize("layer", ["files", "landlock"])
@pytest.mark.parametrize(
    "code",
    [
        "open({path!r}).read()",
        "open({path!r}, 'a')",
        "import os; os.symlink({path!r}, 'l'); open('l').read()",
    ],
    ids=["read", "write", "through_a_link"],
)
def test_a_file_outside_cannot_be_opened(attempt, secret, layer, code):
    if not attempt.refused(layer):
        attempt.fails_with(layer, code=code.format(path=str(secret)))


@pytest.mark.parametrize("code", ["open({path!r}).read()", "open({path!r}, 'a').write('!')"])
def test_without_both_layers_of_files_it_is_open(attempt, secret, code):
    attempt.works_without(*ROOT, "landlock", code=code.format(path=str(secret)))


def test_permissions_of_a_file_outside_cannot_be_changed(attempt, secret):
    if attempt.refused("system_calls"):
        return
    code = f"import os, shutil; os.chmod({str(secret)!r}, 0o600); shutil.copy(os.__file__, 'copy.py')"
    assert attempt.run(code, {"system_calls"})[0] == ("ok",)  # nobody is told, and copies can be made
    assert secret.stat().st_mode & 0o777 == 0o666
    attempt.works_without(*ROOT, "landlock", "system_calls", code=code)
    assert secret.stat().st_mode & 0o777 == 0o600


def test_nothing_can_be_left_in_the_machine_s_shared_memory(attempt, tmp_path):
    if attempt.refused("landlock"):
        return
    path = Path("/dev/shm", f"{tmp_path.parent.name}-left")
    code = f"open({str(path)!r}, 'w').write('x')"
    assert attempt.run(code, {"landlock"})[0] == ("error",)
    assert attempt.run(code, attempt.granted)[0] == ("ok" if "files" in attempt.granted else "error",)
    assert not path.exists()
    assert attempt.run(code, {"limits"})[0] == ("ok",)
    path.unlink()


def test_the_grader_s_own_files_are_closed(attempt):
    code = "import numpy; open(numpy.__file__, 'a')"
    for layer in ("files", "landlock"):
        if not attempt.refused(layer):
            attempt.fails_with(layer, code=code)


def test_another_kernel_s_box_and_sockets_are_not_there(attempt, tmp_path):
    if attempt.refused("files"):
        return
    code = "import os, json; print(json.dumps([os.listdir('/tmp'), os.listdir('/box'), os.listdir('/')]))"
    states, outputs = attempt.run(code, attempt.granted)
    temporary, box, root = json.loads(outputs[0][0])
    assert states == ("ok",)
    # What leads to the interpreter is there, wherever this checkout lies, and nothing beside it.
    ways = {Path(path).parts for path in readable_paths()}
    assert set(temporary) == {way[2] for way in ways if way[:2] == ("/", "tmp")}  # the grader's own lie there
    assert sorted(box) == ["home", "tmp", "work"]
    assert ({"home", "var", "run", "srv", "mnt", "boot"} - {way[1] for way in ways}).isdisjoint(root)


def test_files_handed_along_are_in_the_box_and_may_be_changed(code_notebook, attempt):
    from .conftest import Policy, run_inside

    policy = Policy(attempt.granted, preload=())
    code = "open('data/x.txt', 'a').write('!'); open('data/x.txt').read()"
    states, outputs = run_inside(code_notebook, code, policy=policy, files={"data/x.txt": b"3"})
    assert (states, outputs[0][-1]) == (("ok",), "'3!'")


def test_a_box_is_full_at_its_size(attempt):
    if attempt.refused("files"):
        return
    code = "for i in range(8): open(f'f{i}', 'wb').write(b'x' * 2**20)"
    said = attempt.fails_with("files", code=code, box_bytes=4 * 2**20)
    assert all("No space left" in text for text in said)
    states, _ = attempt.run(code, attempt.granted, box_bytes=16 * 2**20)
    assert states == ("ok",)


def test_the_sockets_folder_takes_no_files(attempt):
    if attempt.refused("files", "landlock"):
        return
    code = "open('/sockets/fill', 'w').write('x')"
    attempt.fails_with("files", "landlock", code=code)
    attempt.works_without("landlock", code=code)
