"""Return values that harm whoever takes them: code in a pickle, sizes that lie, depth without end.

The undefended grader takes the answer to `double(2.0)` out of the student's process by pickle
and looks at it.
"""

from .corpus import Family

attack = ATTACKS = Family("poisoned")
BOMB = """
import pathlib
class Bomb:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("OUTSIDE/ATTACK_NAME"),)
"""


def returns(expression: str, before: str = "") -> dict[str, str]:
    """Return a solution cell whose `double` returns the value of an expression."""
    return {"double": f"{before}\ndef double(number):\n    return {expression}"}


@attack("mark")
def object_that_runs_code_when_unpickled():
    """Return an object whose pickle calls a function of the attacker's choice."""
    return returns("Bomb()", BOMB)


@attack("mark")
def list_that_hides_one():
    """Hide it in a list of a list."""
    return returns("[[4.0, [Bomb()]]]", BOMB)


@attack("mark")
def dict_with_a_key_that_runs_code():
    """Hide it among the keys of a dict."""
    return returns("{Bomb(): 4.0}", BOMB)


@attack("mark")
def array_of_objects():
    """Hide it in an array of objects, whose `.npy` is a pickle."""
    return returns("np.array([Bomb(), 4.0], dtype=object)", BOMB)


@attack("mark")
def float_subclass_that_runs_code():
    """Return a number of a class with a pickle of its own."""
    return returns(
        "Number(5.0)",
        BOMB + "class Number(float):\n    def __reduce__(self):\n        return Bomb().__reduce__()\n",
    )


@attack("no_grade")
def list_in_itself():
    """Return a list that contains itself."""
    return returns("value", "value = []\nvalue.append(value)")


@attack("no_grade")
def depth_without_end():
    """Return a list of a list of a list, a hundred thousand times."""
    deep = "import sys\nsys.setrecursionlimit(10**9)\nvalue = []\nfor _ in range(10**5):\n    value = [value]"
    return returns("value", deep)


@attack("no_grade")
def array_larger_than_memory():
    """Return an array of eight terabytes, which takes eight bytes where it is made."""
    wide = "class Wide:\n    def __reduce__(self):\n        return np.broadcast_to, (4.0, (10**6, 10**6))"
    return returns("[Wide(), np.broadcast_to(4.0, (10**6, 10**6))][number < 0]", wide)


@attack("no_grade")
def list_without_end():
    """Return a list of nearly a thousand million numbers that takes half a megabyte where it is made."""
    return returns("[[0.0] * 30_000] * 30_000")


@attack("output")
def text_without_end():
    """Return twenty megabytes of text, for the message that shows what was wrong."""
    return returns("'4' * 20_000_000")


@attack("no_grade")
def number_that_cannot_be_printed():
    """Return a whole number of a hundred thousand digits: Python refuses to write it down."""
    return returns("10**100_000")


@attack("no_grade")
def object_of_the_students_own_class():
    """Return an object whose class the grader does not have."""
    return returns("Mine()", "class Mine:\n    pass")


@attack("no_grade")
def keys_of_one_hash():
    """Return a dict of numbers that all have the same hash: to build it takes the square of its size."""
    return {
        "double": """
import sys
import coursekit.grading.trusted.student_side as side
keys = [sys.hash_info.modulus * number for number in range(5, 150_000)]
pairs = ",".join('[{"int":"%s"},0]' % hex(key) for key in keys)
structure = ('{"dict":[["value",{"dict":[' + pairs + "]}]]}").encode()
encode = side.encode
class Keys:
    def __reduce__(self):
        return dict, ([(key, 0) for key in keys],)
def forge(reply):
    forged = len(structure).to_bytes(8, "big") + structure
    return forged if type(reply.get("value")) is Keys else encode(reply)
side.encode, side.check_plain = forge, lambda value, where: None
def double(number):
    return Keys()
"""
    }
