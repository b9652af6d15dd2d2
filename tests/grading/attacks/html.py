"""HTML and scripts in what the student's code shows or the student writes: they would run in a browser.

The undefended page is nbconvert's own.
"""

from .corpus import Family

attack = ATTACKS = Family("html")
SCRIPT = "<script>ATTACK_NAME()</script>"
DISPLAY = "from IPython.display import display\n"


def shows(kind: str, text: str) -> dict[str, str]:
    """Return a solution cell that displays data of a MIME type."""
    return {"double": f"{DISPLAY}display({{{kind!r}: {text!r}}}, raw=True)"}


@attack("script")
def html_output():
    """Display HTML with a script."""
    return shows("text/html", SCRIPT)


@attack("script")
def html_representation():
    """Let a class represent itself as HTML with a handler of events."""
    return {
        "double": "class Page:\n    def _repr_html_(self):\n"
        "        return '<img src=x onerror=\"ATTACK_NAME()\">'\nPage()"
    }


@attack("script")
def javascript_output():
    """Display JavaScript."""
    return shows("application/javascript", "ATTACK_NAME()")


@attack("script")
def svg_output():
    """Display a picture that is a document with a script."""
    return shows("image/svg+xml", f'<svg xmlns="http://www.w3.org/2000/svg">{SCRIPT}</svg>')


@attack("script")
def markdown_output():
    """Display Markdown, which may hold HTML."""
    return shows("text/markdown", f"hello {SCRIPT}")


@attack("script")
def latex_output():
    """Display a formula that is none."""
    return shows("text/latex", f"$x$ {SCRIPT}")


@attack("script")
def picture_with_a_large_width():
    """Display a true PNG whose width, in the metadata, ends the attribute that it is put in."""
    metadata = {"image/png": {"width": '1" onerror="ATTACK_NAME()'}}
    return {"double": f"{DISPLAY}display({{'image/png': 'AAAA'}}, metadata={metadata!r}, raw=True)"}


@attack("script")
def answer_with_a_script():
    """Write a script into the open answer."""
    return {"explain": f"It is a secret. {SCRIPT}"}


@attack("script")
def answer_with_a_link():
    """Write a link whose address is a script."""
    return {"explain": "[read this](javascript:ATTACK_NAME())"}


@attack("script")
def answer_with_a_reference():
    """The same as a reference, with the scheme's letters written as entities."""
    return {"explain": "[read this][1]\n\n[1]: &#106;avascript:ATTACK_NAME()"}


@attack("script")
def answer_with_a_picture():
    """Write an HTML picture with a handler into the answer."""
    return {"explain": 'a picture <img src=x onerror="ATTACK_NAME()"> of it'}


@attack("script")
def html_by_a_magic():
    """Show HTML by a cell of another language."""
    return {"double": f"%%html\n{SCRIPT}"}


@attack("no_grade")
def answer_that_takes_long_to_read():
    """Write an answer in which a parser of Markdown searches from each place to the end."""
    return {"explain": r"\begin{a}" * 11_000}
