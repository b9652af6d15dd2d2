"""Open answers on one page: by keyboard, stored as it is typed, and nobody else can reach it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from nbgrader.api import Gradebook

from coursekit.errors import InputError
from coursekit.grading import journal
from coursekit.grading.backup import backups
from coursekit.grading.by_hand import OpenAnswers, read_questions
from coursekit.grading.by_hand_server import Desk, serve_answers
from tests.grading.conftest import copied

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind itself ignores it
from coursekit.cli import main
main()
"""
EVIL = "<script>document.title='planted'</script><img src=x onerror=\"document.title='planted'\"> **bold**"
WRITTEN = {"ada": "Because groups differ.", "bob": EVIL, "cyd": "I do not know."}


@pytest.fixture(scope="module")
def graded_course(toy_course, tmp_path_factory):
    classroom = copied(toy_course, tmp_path_factory.mktemp("written"))
    for student, text in WRITTEN.items():
        classroom.hand_in(student, explain=text)
    classroom.hand_in("idle")
    classroom.grade()
    return classroom.course


@pytest.fixture
def written(graded_course, tmp_path):
    return copied(graded_course, tmp_path)


@pytest.fixture
def answers(written):
    question = read_questions(written.course, written.slug)["explain"]
    answers = OpenAnswers(written.course, written.slug, question=question)
    yield answers
    answers.close()


@pytest.fixture
def served(written):
    """The command as a person starts it: (address, a function that stops it and returns what it said, it)."""
    command = [sys.executable, "-c", MAIN, "course", "answers", str(written.course.root), written.slug]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        address = re.search(r"http://\S+", process.stdout.readline())[0]

        def stop():
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=60)[0]

        yield address, stop, process
        process.kill()


def in_gradebook(classroom, student):
    """(points, whether it waits, comment), from nbgrader itself."""
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        where = ("explain", classroom.slug, classroom.slug, student)
        grade, comment = book.find_grade(*where), book.find_comment(*where)
        return grade.manual_score, grade.needs_manual_grade, comment.manual_comment


def test_the_question_and_the_rubric_come_from_the_instructors_notebook(written):
    question = read_questions(written.course, written.slug)["explain"]
    assert question.max_score == 2
    assert question.text.endswith("Why is the mean of means not the mean?")
    assert question.rubric == "Because groups differ in size."


def test_answers_are_read_and_points_are_nbgraders(written, answers):
    assert {answer.student: answer.text for answer in answers.read()} == WRITTEN
    assert all(answer.waiting and answer.points is None for answer in answers.read())
    stored = answers.store("ada", points=1.5, comment="Good.")
    assert (stored.points, stored.comment, stored.waiting) == (1.5, "Good.", False)
    assert in_gradebook(written, "ada") == (1.5, False, "Good.")
    assert {who for who, _ in journal.waiting(written.course.gradebook, written.slug)} == {"bob", "cyd"}
    answers.store("ada", points=None, comment="")
    assert in_gradebook(written, "ada") == (None, True, None)


@pytest.mark.parametrize("points", [-0.5, 2.5, float("nan"), float("inf")])
def test_points_out_of_range_and_unknown_students_change_nothing(written, answers, points):
    with pytest.raises(InputError, match="out of range"):
        answers.store("ada", points=points, comment="")
    with pytest.raises(InputError, match="no such answer"):
        answers.store("nobody", points=1, comment="")
    assert in_gradebook(written, "ada") == (None, True, None)


def test_what_the_formgrader_writes_meanwhile_is_seen(written, answers):
    answers.read()
    with Gradebook(f"sqlite:///{written.course.gradebook}") as book:
        grade = book.find_grade("explain", written.slug, written.slug, "cyd")
        grade.manual_score, grade.needs_manual_grade = 0.5, False
        book.db.commit()
    assert {answer.student: answer.points for answer in answers.read()}["cyd"] == 0.5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"points": "2", "comment": ""}',
        b'{"points": true, "comment": ""}',
        b'{"points": 1}',
    ],
)
def test_a_body_that_is_no_grade_is_refused(written, answers, body):
    status, _, said = Desk(answers).post("ada", body)
    assert status == 400
    assert json.loads(said)["error"]
    assert in_gradebook(written, "ada") == (None, True, None)


def test_without_the_token_or_under_another_host_name_nothing_is_answered(served):
    address = served[0]
    parts = urlsplit(address)

    def status(path, *, host=parts.netloc, method="GET", length=0):
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
        connection.request(method, path, headers={"Host": host, "Content-Length": str(length)})
        answer = connection.getresponse().status
        connection.close()
        return answer

    assert status(f"{parts.path}answers") == 200  # the control
    for path in ("/", "/answers", f"{parts.path[:-2]}x/answers", "/%C3%A9/", "//answers"):
        assert status(path) == 403
    assert status(f"{parts.path}answers", host=f"evil.example:{parts.port}") == 403
    assert status(f"{parts.path}nothing") == 404
    assert status(f"{parts.path}ada", method="POST", length=300_000) == 413
    assert status(f"{parts.path}ada", method="POST") == 400


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_question_is_graded_by_keyboard_alone_and_nothing_is_lost_on_reload(written, served):
    from playwright.sync_api import expect, sync_playwright

    address, stop, _ = served
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        held = []
        page.route("**/answers", lambda route: held.append(route))  # it marks its handlers
        page.goto(address)
        expect(page.locator("#state")).to_have_text("reading the answers …")
        expect(page.locator("#points")).to_be_disabled()
        while not held:
            page.wait_for_timeout(10)
        held[0].continue_()
        page.unroute("**/answers")
        expect(page.locator("#student")).to_have_text("ada")
        expect(page.locator("#rubric")).to_have_text("Because groups differ in size.")
        press = page.keyboard
        press.type("1.5")
        press.press("Tab")
        press.type("Say which groups.")
        press.press("Control+Enter")
        expect(page.locator("#student")).to_have_text("bob")
        assert page.locator("#answer").inner_text() == EVIL
        press.type("15")  # the 1 alone would have been 1 of 2 points
        expect(page.locator("#state")).to_contain_text("not stored")
        press.press("Enter")
        expect(page.locator("#student")).to_have_text("bob")
        expect(page.locator("#state")).to_contain_text("not stored")
        press.press("Backspace")
        press.type("0")
        page.reload()  # at once, without waiting for "stored"
        expect(page.locator("#student")).to_have_text("bob")
        expect(page.locator("#points")).to_have_value("0")
        press.press("Shift+Enter")
        expect(page.locator("#student")).to_have_text("ada")
        expect(page.locator("#points")).to_have_value("1.5")
        expect(page.locator("#comment")).to_have_value("Say which groups.")
        expect(page.locator("#progress")).to_have_text("1 wait")
        assert "planted" not in page.title()
        assert all(url.startswith(address.rsplit("/", 2)[0]) for url in asked)
        browser.close()
    assert in_gradebook(written, "ada") == (1.5, False, "Say which groups.")
    assert in_gradebook(written, "bob") == (0, False, None)
    assert in_gradebook(written, "cyd") == (None, True, None)
    assert "points of 2 students stored" in stop()
    feedback = written.course.feedback("ada", written.slug).read_text("utf-8")
    assert "Say which groups." in feedback
    assert "not read yet" not in feedback
    assert backups(written.course)


def give(address, student, *, points, comment):
    """Store points as the page does."""
    body = json.dumps({"points": points, "comment": comment}).encode()
    with urlopen(Request(f"{address}{student}", data=body)) as reply:
        assert reply.status == 200


def test_after_a_closed_terminal_no_old_page_is_left_and_grading_writes_the_new_one(written, served):
    address, _, process = served
    page = written.course.feedback("ada", written.slug)
    assert "not read yet" in page.read_text("utf-8")
    give(address, "ada", points=1.5, comment="Say which groups.")
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == -signal.SIGHUP
    assert not page.exists()
    written.grade()
    assert "Say which groups." in page.read_text("utf-8")
    assert "not read yet" not in page.read_text("utf-8")


def test_an_answer_that_is_no_notebook_any_more_costs_nobody_the_new_page(written, answers):
    answers.store("ada", points=1.5, comment="")
    written.hand_in("ada", b"no notebook")
    assert written.grade("ada")["ada"].status == "rejected"
    answers.store("ada", points=1, comment="")
    answers.store("bob", points=0.5, comment="Short.")
    answers.write_pages()
    assert "not graded" in written.course.feedback("ada", written.slug).read_text("utf-8")
    assert "Short." in written.course.feedback("bob", written.slug).read_text("utf-8")


def test_a_question_that_is_not_there_is_refused(written):
    with pytest.raises(InputError, match="one of: explain"):
        serve_answers(written.course, written.slug, grade_id="explian", port=0, said=print)


def test_a_browser_that_goes_away_in_the_middle_prints_nothing_and_disturbs_nobody(served):
    address, stop, _ = served
    parts = urlsplit(address)
    with socket.create_connection(("127.0.0.1", parts.port)) as gone:
        gone.sendall(f"POST {parts.path}ada HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode())
        gone.sendall(b"Content-Length: 100\r\n\r\n{")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
    give(address, "bob", points=1, comment="")
    told = stop()
    assert "Traceback" not in told
    assert "points of 1 student stored" in told


def test_before_anything_is_graded_no_empty_page_is_served(classroom):
    classroom.hand_in("ada", explain="Because groups differ.")
    with pytest.raises(InputError, match="no answers to explain in the gradebook yet; run: coursekit grade"):
        serve_answers(classroom.course, classroom.slug, grade_id=None, port=0, said=print)
