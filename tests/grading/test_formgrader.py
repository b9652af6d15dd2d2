"""nbgrader's formgrader in a real browser, on a folder that we graded."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

PLANT = "document.body.dataset.planted=1"
SHOWN = f"from IPython.display import HTML, display\ndisplay(HTML('<script>{PLANT}</script>'))\n"
WRITTEN = f"Because groups differ. <script>{PLANT}</script><img src=x onerror={PLANT}>"


@pytest.fixture
def server(classroom):
    classroom.hand_in("ada", add=f"{SHOWN}def add(left, right):\n    return 0", explain=WRITTEN)
    classroom.grade()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "server", "--allow-root", "--no-browser", f"--port={port}"]
    command += [
        "--ServerApp.token=",
        "--ServerApp.password=",
        f"--ServerApp.root_dir={classroom.course.root}",
    ]
    with subprocess.Popen(
        command, cwd=classroom.course.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/api")
            yield f"http://127.0.0.1:{port}/formgrader"
        finally:
            process.terminate()


def _wait_for(address):
    for _ in range(300):
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_formgrader_shows_our_scores_and_its_autograde_button_gives_the_same(server, classroom):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"{server}/manage_submissions/toy_adding")
        row = page.locator("tr", has_text="ada")
        row.wait_for()
        assert "3 / 8" in row.inner_text()
        stamp = classroom.course.autograded("ada", "toy_adding").stat().st_mtime_ns
        row.locator(".autograde a").click()
        page.locator(".modal-title", has_text="Success").wait_for(timeout=90_000)
        assert classroom.course.autograded("ada", "toy_adding").stat().st_mtime_ns > stamp
        page.goto(f"{server}/manage_submissions/toy_adding")
        row.wait_for()
        assert "3 / 8" in row.inner_text()
        page.goto(f"{server}/gradebook/toy_adding/toy_adding")
        page.locator("a[href*='/formgrader/submissions/']").first.click()
        page.locator("text=Because groups differ.").wait_for()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.body.dataset.planted") is None  # the page could change every grade
        browser.close()
