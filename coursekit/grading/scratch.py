"""Scratch: folders in the system's temporary folder that go with their process, however it ends.

All of a process lie in one folder, which it holds a lock on. The system drops the lock when the process is
gone, killed ones too; whoever comes next clears such folders away, and leaves those that somebody holds.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
from contextlib import suppress

PREFIX = "ckg-"
_places: dict[int, str] = {}
_lock = threading.Lock()


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder; its path is short, as the paths of sockets have to be."""
    # What the student's processes write while we delete must not fail the grading.
    return tempfile.TemporaryDirectory(prefix="", dir=_place(), ignore_cleanup_errors=True)


def _place() -> str:
    """Return this process's folder of folders."""
    with _lock:
        # By process: the one that a fork inherited is its parent's to remove.
        if os.getpid() not in _places:
            _clear_away()
            _places[os.getpid()] = _held_folder()
        return _places[os.getpid()]


def _held_folder() -> str:
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX)
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # open until this process ends
            with suppress(OSError):  # no locks here: then nobody can hold one, and nothing is cleared away
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return path
            os.close(descriptor)
        # Another process found it before it was held, and cleared it away.


def _clear_away() -> None:
    """Remove folders whose process is gone."""
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for path in found:
        with suppress(OSError):  # it is gone, held, or not a folder
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Others of this machine can put into the temporary folder what they like.
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


@atexit.register
def _remove_mine() -> None:
    if path := _places.pop(os.getpid(), None):
        shutil.rmtree(path, ignore_errors=True)
