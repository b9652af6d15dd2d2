"""The page on which open answers are graded: a small server on this machine, one question at a time."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from coursekit.errors import InputError, require
from coursekit.grading.backup import back_up
from coursekit.grading.by_hand import OpenAnswers, answers_to_json, read_questions, students_who_answered
from coursekit.grading.course import Course

MAX_BODY_BYTES = 200_000
Answer = tuple[HTTPStatus, str, bytes]  # status, type of the content, content


class Desk:
    """What the server answers: the page, the answers as JSON, and what is stored. Knows nothing of HTTP."""

    def __init__(self, answers: OpenAnswers) -> None:
        self.answers = answers
        # In the address, so that no other user and no web page can reach the answers or give points.
        self.token = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(16)
        self._thread = ThreadPoolExecutor(1)

    def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a call gives, made in the one thread that uses the gradebook, after those before it."""
        return self._thread.submit(function, *arguments).result()

    def get(self, path: str) -> Answer:
        """Return the page, or the answers as they are in the gradebook now."""
        if path == "":
            return HTTPStatus.OK, "text/html; charset=utf-8", self._page().encode()
        if path == "answers":
            return _json(HTTPStatus.OK, answers_to_json(self.answers.read()))
        return _json(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def post(self, path: str, body: bytes) -> Answer:
        """Store {"points", "comment"} for the student that `path` names."""
        try:
            given = json.loads(body)
            points, comment = given["points"], given["comment"]
            if not (points is None or type(points) in (int, float)) or type(comment) is not str:
                raise InputError("points are a number or null, the comment is text")
            stored = self.answers.store(unquote(path), points=points, comment=comment)
        except (InputError, ValueError, LookupError, TypeError) as error:
            return _json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        return _json(HTTPStatus.OK, answers_to_json([stored])[0])

    def _page(self) -> str:
        from coursekit.grading.feedback_page import given_markdown

        jinja2 = require("jinja2", extra="grading")
        loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
        template = jinja2.Environment(loader=loader, autoescape=True).get_template("open_answers.html.j2")
        question = self.answers.question
        return template.render(
            assignment=self.answers.assignment,
            question=question,
            text=given_markdown(question.text),
            rubric=given_markdown(question.rubric),
            nonce=self.nonce,
        )


def make_server(desk: Desk, *, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Return a server of this machine alone (port 0: any free one), and the address of the page."""
    # Threads, because browsers open connections in advance and say nothing on them for a while.
    server = ThreadingHTTPServer(("127.0.0.1", port), lambda *connection: _Handler(desk, *connection))
    return server, f"http://127.0.0.1:{server.server_port}/{desk.token}/"


def serve_answers(
    course: Course, assignment: str, *, grade_id: str | None, port: int, said: Callable[[str], None]
) -> int:
    """Serve the page until an interrupt, then renew the feedback of those graded; return how many those are.

    Args:
        course: the course folder.
        assignment: the exercise.
        grade_id: which question; may be None where there is one only.
        port: 0 for any free one.
        said: called with what a person should read, the address first.
    Raises: InputError if there is no such question, or nobody's answer is in the gradebook yet.
    """
    questions = read_questions(course, assignment)
    if grade_id not in questions and not (grade_id is None and len(questions) == 1):
        raise InputError(
            "which question?", expected=f"one of: {', '.join(questions) or 'none'}", got=grade_id
        )
    question = questions[grade_id or next(iter(questions))]
    if not students_who_answered(course, assignment, grade_id=question.grade_id):
        fix = f"run: coursekit grade {assignment}"
        raise InputError(f"no answers to {question.grade_id} in the gradebook yet", fix=fix)
    back_up(course)
    answers = OpenAnswers(course, assignment, question=question)
    desk = Desk(answers)
    server, address = make_server(desk, port=port)
    said(f"open {address}   (Ctrl+C when you are done)")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.2)
    if answers.touched:
        said(f"writing the feedback pages of {len(answers.touched)} students")
        desk.alone(answers.write_pages)
    desk.alone(answers.close)
    return len(answers.touched)


class _Handler(BaseHTTPRequestHandler):
    """HTTP around a desk: the token, the host that was asked for, and headers that let nothing else run."""

    protocol_version = "HTTP/1.0"
    timeout = 30

    def __init__(self, desk: Desk, *connection: Any) -> None:
        self.desk = desk
        super().__init__(*connection)

    def handle(self) -> None:
        """Answer, unless the browser has gone: a page that is reloaded asks and does not wait."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer a request for the page or the answers."""
        if (path := self._path()) is not None:
            self._send(*self.desk.alone(self.desk.get, path))

    def do_POST(self) -> None:
        """Answer a request to store points."""
        length = self.headers.get("Content-Length", "")
        if (path := self._path()) is None:
            return
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._send(*_json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "too long"}))
        else:
            self._send(*self.desk.alone(self.desk.post, path, self.rfile.read(int(length))))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the token is in every address."""

    def _path(self) -> str | None:
        """Return what follows the token, or answer 403: another host name is a page of somebody else's."""
        _, token, path = [*urlsplit(self.path).path.split("/", 2), "", ""][:3]
        here = f"127.0.0.1:{self.server.server_port}"
        if self.headers.get("Host") == here and secrets.compare_digest(
            token.encode(), self.desk.token.encode()
        ):
            return path
        self._send(*_json(HTTPStatus.FORBIDDEN, {"error": "not allowed"}))
        return None

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        nonce = self.desk.nonce
        policy = (
            f"default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", f"{policy}; base-uri 'none'; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def _json(status: HTTPStatus, value: Any) -> Answer:
    return status, "application/json", json.dumps(value).encode()
