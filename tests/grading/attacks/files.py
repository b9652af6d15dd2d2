"""What lies in the submission's folder is no notebook, or not the student's.

The undefended grader opens the path and believes what it reads.
"""

import os
import shutil

from .corpus import Desk, Family

attack = ATTACKS = Family("files")


@attack("points")
def link_to_anothers_notebook(desk: Desk):
    """Hand in a link to the neighbour's notebook, which is good."""
    os.symlink(desk.target.course / "submitted/z_neighbour/toy_guarded/toy_guarded.ipynb", desk.path)


@attack("points")
def folder_that_is_a_link(desk: Desk):
    """Hand in a folder that is a link to the neighbour's."""
    shutil.rmtree(desk.folder)
    os.symlink(desk.target.course / "submitted/z_neighbour/toy_guarded", desk.folder)


@attack("points")
def link_to_the_solution(desk: Desk):
    """Hand in a link to the instructor's notebook."""
    os.symlink(desk.target.course / "source/toy_guarded/toy_guarded.ipynb", desk.path)


@attack("no_grade")
def pipe_that_nobody_writes_to(desk: Desk):
    """Hand in a FIFO: whoever opens it waits."""
    os.mkfifo(desk.path)


@attack("no_grade")
def folder_where_a_file_belongs(desk: Desk):
    """Hand in a folder of the notebook's name."""
    desk.path.mkdir()


@attack("no_grade")
def link_to_a_device(desk: Desk):
    """Hand in a link to a device that never ends."""
    os.symlink("/dev/zero", desk.path)


@attack("no_grade")
def link_to_itself(desk: Desk):
    """Hand in a link that leads to itself."""
    os.symlink(desk.path, desk.path)


@attack("no_grade")
def no_json(desk: Desk):
    """Hand in a PDF file."""
    desk.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")


@attack("no_grade")
def brackets_without_end(desk: Desk):
    """Hand in JSON that is nested deeper than a parser can go."""
    desk.write(b'{"cells": ' + b"[" * 200_000)


@attack("no_grade")
def numbers_too_long_to_read(desk: Desk):
    """Hand in JSON with a number of a hundred thousand digits."""
    desk.write(b'{"cells": [], "nbformat": ' + b"9" * 100_000 + b"}")


@attack("no_grade")
def text_that_is_no_text(desk: Desk):
    """Hand in a notebook with a lone surrogate in the answer, which no file can carry."""
    desk.write(desk.notebook(double="# \ud800\ndef double(number):\n    return 0.0"))


@attack("no_grade")
def timestamp_that_is_none(desk: Desk):
    """Hand in a time that is no time: stock nbgrader stops the batch."""
    desk.write(desk.notebook())
    (desk.folder / "timestamp.txt").write_text("the day after tomorrow")


@attack("no_grade")
def name_that_is_no_text(desk: Desk):
    """Hand in a notebook whose file's name no report can be written with."""
    desk.write(desk.notebook())
    desk.path.rename(desk.folder / os.fsdecode(b"\xff\xfe.ipynb"))


@attack("no_grade")
def sixty_megabytes_of_brackets(desk: Desk):
    """Hand in JSON that takes thirty times its size in memory."""
    desk.write(b'{"cells": [' + b"[]," * (20 * 2**20) + b"0]}")
