"""Make the course's virtual environment, or say in one sentence why it cannot be made.

Run by the Makefile with the system's Python, before anything is installed: standard library only, and in
the syntax of Python 3.6, so that an old Python can read it and be told that it is too old.

    python tools/make_env.py --venv .venv --torch cpu
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 13)
# Measured for the CPU build of torch: 3.9 GiB in the environment, as much again while pip unpacks and caches.
NEEDED_BYTES = {"cpu": 8 * 2**30, "default": 16 * 2**30}
TORCH_INDEX = "https://download.pytorch.org/whl/"


def stop(sentence):
    """End with one sentence for a person; no traceback."""
    sys.stderr.write("make env: " + sentence + "\n")
    raise SystemExit(1)


def check_python(version, name="python3"):
    """Stop if this Python cannot run the course."""
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        stop(
            f"needs Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}, but {name} is "
            f"{version[0]}.{version[1]}; install one and run: make env PYTHON=python3.11"
        )


def check_tools():
    """Stop if a program or module that pip or the Makefile needs is missing."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop("this Python has no venv module; on Debian and Ubuntu: sudo apt install python3-venv")
    if not shutil.which("git"):
        stop("git is not installed; Debian and Ubuntu: sudo apt install git; macOS: xcode-select --install")


def check_disk(folder, torch):
    """Stop if the disk that holds `folder` is too full for an installation."""
    needed = NEEDED_BYTES["cpu" if torch == "cpu" or sys.platform == "darwin" else "default"]
    free = shutil.disk_usage(folder).free
    if free < needed:
        stop(
            f"needs {needed / 2**30:.0f} GiB of free disk to install, but {os.path.abspath(folder)} "
            f"has {free / 2**30:.1f} GiB; free some, or use TORCH=cpu, the smallest torch"
        )


def fingerprint(torch):
    """Return a hash of everything that decides what gets installed: same hash, nothing to do."""
    digest = hashlib.sha256(f"{torch} {sys.version} {sys.prefix}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        with open(name, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def pip_arguments(torch):
    """Return pip's arguments; `torch` is `default`, `cpu` or a CUDA build such as `cu126`."""
    if not re.match(r"^(default|cpu|cu\d+|rocm[\d.]+)$", torch):
        stop(f"TORCH={torch} is unknown; use TORCH=cpu, TORCH=cu126 (or another CUDA build), or leave it out")
    index = [] if torch == "default" else ["--extra-index-url", TORCH_INDEX + torch]
    return ["install", "-c", "constraints.txt", "-e", ".[dev]", *index]


def is_installed(stamp, wanted):
    """Return whether the environment was finished for exactly this fingerprint."""
    if not os.path.exists(stamp):
        return False
    with open(stamp) as file:
        return file.read() == wanted


def install(venv, torch):
    """Create `venv` and install into it; the stamp is written last, so an interrupted run continues."""
    arguments, wanted = pip_arguments(torch), fingerprint(torch)
    stamp, python = os.path.join(venv, ".coursekit-env"), os.path.join(venv, "bin", "python")
    if is_installed(stamp, wanted):
        return
    check_tools()
    # With torch already unpacked, a changed pin needs little room.
    if not os.path.exists(stamp):
        check_disk(".", torch)
    print(f"make env: installing into {venv} (a few minutes the first time)", flush=True)
    if not os.path.exists(python) or subprocess.call([python, "-c", "import pip"]) != 0:
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", venv])
    code = subprocess.call([python, "-m", "pip", "--disable-pip-version-check", *arguments])
    if code != 0:
        stop(f"pip stopped with code {code} (its message is above); mend that and run make env again")
    with open(stamp, "w") as file:
        file.write(wanted)


def main():
    """Check the machine, then install what is not yet there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", default=".venv")
    parser.add_argument("--torch", default="default", help="default, cpu, or a CUDA build such as cu126")
    arguments = parser.parse_args()
    check_python(sys.version_info, sys.executable)
    try:
        install(arguments.venv, arguments.torch)
    except KeyboardInterrupt:
        stop("interrupted; run it again and it continues")
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"{error}; free some disk space or mend the permission, then run it again")


if __name__ == "__main__":
    main()
