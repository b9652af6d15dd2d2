"""Rewriting the shell that runs the tests: what it reads, how it runs it, what it says of errors."""

from .corpus import Family

attack = ATTACKS = Family("shell")


@attack("points")
def ast_transformer_empties_tests():
    """Register a transformer that empties the syntax tree of every later cell: all tests pass."""
    return {
        "double": """
import ast
class Empty(ast.NodeTransformer):
    def visit_Module(self, node):
        node.body = []
        return node
get_ipython().ast_transformers.append(Empty())
"""
    }


@attack("points")
def ast_transformer_drops_asserts():
    """Turn every `assert` and every call of an `expect_` function into `pass`; solutions still run."""
    return {
        "double": """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.Pass()
    def visit_Expr(self, node):
        return ast.Pass() if "expect_" in ast.unparse(node) else node
get_ipython().ast_transformers.append(Drop())
"""
    }


@attack("points")
def input_cleanup_replaces_cells():
    """Replace the text of every later cell before it is parsed."""
    return {"double": "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])"}


@attack("points")
def input_post_transformer_replaces_cells():
    """The same in the last list of transformers, which sees finished Python."""
    return {"double": "get_ipython().input_transformers_post.append(lambda lines: ['pass\\n'])"}


@attack("points")
def transform_cell_is_replaced():
    """Replace the method itself that all transformers are called from."""
    return {"double": "get_ipython().transform_cell = lambda source: 'pass\\n'"}


@attack("points")
def run_cell_runs_nothing():
    """Replace the coroutine by which the kernel runs cells with one that runs `pass`."""
    return {
        "double": """
shell = get_ipython()
honest = shell.run_cell_async
async def run_nothing(source, *args, **options):
    options["transformed_cell"] = "pass"
    return await honest("pass", *args, **options)
shell.run_cell_async = run_nothing
"""
    }


@attack("points")
def parser_returns_nothing():
    """Replace the shell's parser: whatever the text, the tree is empty."""
    return {
        "double": """
import ast
get_ipython().compile.ast_parse = lambda *args, **options: ast.Module(body=[], type_ignores=[])
"""
    }


@attack("points")
def exceptions_are_swallowed():
    """Set a handler for all exceptions that says nothing: no error stands below a failed test."""
    return {"double": "get_ipython().set_custom_exc((Exception,), lambda *args, **options: None)"}


@attack("points")
def tracebacks_are_silenced():
    """Switch tracebacks off, with which a kernel reports errors."""
    return {"double": "get_ipython().showtraceback = lambda *args, **options: None"}


@attack("points")
def hook_renews_lies_before_each_cell():
    """Before each cell, put functions that accept everything in place of those that tests call."""
    return {
        "double": """
shell = get_ipython()
def lie(*_):
    shell.user_ns.update(expect_close=lambda *args, **options: None, probe=lambda *args: 3.5)
shell.events.register("pre_run_cell", lie)
def double(number):
    return 0.0
"""
    }


@attack("points")
def formatter_prints_full_points():
    """Print every whole number as 3: the points that a partial test earned."""
    return {
        "norm": """
formatter = get_ipython().display_formatter.formatters["text/plain"]
formatter.for_type(int, lambda value, printer, cycle: printer.text("3"))
def norm(vector):
    return 0.0
"""
    }


@attack("points")
def names_of_tests_are_taken():
    """Define functions of the names that the tests call. The oldest of all: it needs no shell."""
    return {"double": "def expect_close(*args, **options):\n    pass\ndef double(number):\n    return None"}
