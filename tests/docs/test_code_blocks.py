"""Programs in the README and docs are Python, and call what exists as it is defined.

Those of the README, of the methods' pages and of the tutorials also run in other tests.
"""

import ast
import importlib
import inspect
import pathlib
import re
import textwrap

import pytest

import logo_jax

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = [
    (page, textwrap.dedent(program))
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    for program in re.findall(r"^ *```python\n(.*?)```", page.read_text(), re.M | re.S)
]
# what variables are in programs that use the library, not in those that extend it
OBJECTS = {
    "run": logo_jax.Run,
    "encoder": logo_jax.ImageEncoder,
    "classifier": logo_jax.ImageClassifier,
}


def check(program):
    """Raises an error if a name of the library is wrong or a call does not fit."""
    tree = ast.parse(program)
    extends = any(isinstance(node, ast.ClassDef) for node in tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("logo_jax"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
        if isinstance(node, ast.Call) and not extends:
            check_call(node)


def check_call(node):
    owner, _, name = ast.unparse(node.func).rpartition(".")
    if owner == "logo_jax":
        function, itself = getattr(logo_jax, name), []
    elif owner in OBJECTS:
        function, itself = getattr(OBJECTS[owner], name), [None]
    elif name in OBJECTS and not owner:
        function, itself = OBJECTS[name].__call__, [None]
    else:
        return
    names = [keyword.arg for keyword in node.keywords if keyword.arg]
    inspect.signature(function).bind(*itself, *node.args, **dict.fromkeys(names))


@pytest.mark.parametrize(
    "program", [program for _, program in PROGRAMS], ids=[p.stem for p, _ in PROGRAMS]
)
def test_a_program_is_python_and_its_calls_fit(program):
    check(program)


@pytest.mark.parametrize(
    "program",
    [
        "from logo_jax.losses import info_mce",
        "logo_jax.pretrian('photos')",
        "run.metric()",
        "logo_jax.load_encoder('a', fold=3)",
        "a = = 1",
    ],
)
def test_a_wrong_program_is_detected(program):
    with pytest.raises((ImportError, AttributeError, TypeError, SyntaxError)):
        check(program)


def test_programs_were_found():
    pages = {page.name for page, _ in PROGRAMS}
    assert {"README.md", "python.md", "weights.md", "extending.md", "logo.md"} <= pages
