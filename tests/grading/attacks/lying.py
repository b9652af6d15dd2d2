"""Objects that lie about what they are or what they equal, and modules that are not what they are called."""

from .corpus import Desk, Family

attack = ATTACKS = Family("lying")


@attack("points")
def equals_everything():
    """Return an object that equals whatever it is compared with."""
    return {
        "total": "class Equal:\n    def __eq__(self, other):\n        return True\n"
        "def total(numbers):\n    return Equal()"
    }


@attack("points")
def integer_that_equals_everything():
    """The same as a subclass of int, which an `isinstance` lets pass."""
    return {
        "total": "class Equal(int):\n    def __eq__(self, other):\n        return True\n"
        "    __hash__ = int.__hash__\ndef total(numbers):\n    return Equal(0)"
    }


@attack("points", honest=0)
def array_that_answers_for_numpy():
    """Return an array whose class answers `np.allclose` itself, by numpy's own protocol."""
    return {
        "scale": """
class Liar(np.ndarray):
    def __array_function__(self, function, types, args, options):
        return True
def scale(numbers, factor):
    return np.zeros(2).view(Liar)
"""
    }


@attack("points", honest=0)
def number_that_reads_the_expected_one():
    """Return objects that, when asked for their value, look it up in the frame of the test."""
    return {
        "scale": """
import sys
class Mirror:
    def __float__(self):
        return sys._getframe(1).f_locals["want"]
    def __array__(self, dtype=None, copy=None):
        return np.zeros(())
def scale(numbers, factor):
    return [Mirror(), Mirror()]
"""
    }


@attack("points")
def tensor_by_name_only():
    """Return an object of a class that calls itself torch's Tensor, and whose numbers lie."""
    return {
        "double": """
class Zeros(np.ndarray):
    def __sub__(self, other):
        return np.zeros(self.shape)
    def astype(self, *args, **options):
        return self
class Tensor:
    requires_grad, layout, is_quantized, dtype, shape, ndim = False, "torch.strided", False, "float", (), 0
    def detach(self):
        return self
    cpu = resolve_conj = double = detach
    def numpy(self):
        return np.zeros(()).view(Zeros)
Tensor.__module__ = "torch"
def double(number):
    return Tensor()
"""
    }


@attack("points")
def class_that_hides_behind_a_metaclass():
    """Return an object whose class compares equal to `float` and is found wherever `float` is."""
    return {
        "total": """
class Meta(type):
    def __eq__(cls, other):
        return True
    def __hash__(cls):
        return hash(int)
class Any(metaclass=Meta):
    def __eq__(self, other):
        return True
    __class__ = int
def total(numbers):
    return Any()
"""
    }


@attack("points")
def fake_module_in_sys_modules():
    """Put a module under a name that a later test imports, which hands the answer over as the question."""
    return {
        "total": """
import sys
import types
sys.modules["yaml"] = types.SimpleNamespace(safe_load=lambda text: 6)
def total(numbers):
    return numbers
"""
    }


@attack("points")
def finder_that_makes_modules_up():
    """Install an import hook that answers for the module which the test imports."""
    return {
        "total": """
import importlib.abc
import importlib.machinery
import sys
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "yaml" else None
    def exec_module(self, module):
        get_ipython().user_ns["total"] = lambda numbers: 6
        module.safe_load = str
sys.modules.pop("yaml", None)
sys.meta_path.insert(0, Finder())
def total(numbers):
    return 0
"""
    }


SHADOW = "import builtins\nget_ipython().user_ns['total'] = lambda numbers: 6\nsafe_load = str\n"


@attack("points")
def module_written_into_the_folder():
    """Write a file beside the notebook that shadows the module which the test imports."""
    return {
        "total": f"""
import sys
from pathlib import Path
Path("yaml.py").write_text({("from IPython import get_ipython" + chr(10) + SHADOW)!r})
sys.path.insert(0, "")
sys.modules.pop("yaml", None)
def total(numbers):
    return 0
"""
    }


@attack("points")
def module_handed_in(desk: Desk):
    """Hand in that file beside the notebook: stock nbgrader copies what lies there."""
    desk.write(desk.notebook(total="def total(numbers):\n    return 0"))
    (desk.folder / "yaml.py").write_text("from IPython import get_ipython\n" + SHADOW)
