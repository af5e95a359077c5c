"""Every command line in the README, docs, configs and runbooks is valid."""

import argparse
import importlib
import io
import pathlib
import re
import shlex
import sys
import tokenize
import tomllib

import pytest

from logo_jax import _cli, configs

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGS = sorted(configs.FOLDER.rglob("*.py"))
RUNBOOKS = [ROOT / "benchmarks" / "gpu.sh", ROOT / "benchmarks" / "tpu.sh"]
PREFIXES = ("taskset", "-c", "0", ".venv/bin/python", "python")


def lines_of(text):
    """Returns the command lines of a page: bash blocks, indented lines, inline code."""
    text = text.replace("\\\n", " ")
    fenced = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    other = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    after_a_blank = re.findall(r"\n\n((?: {4}\S.*\n)+)", other)
    indented = "".join(after_a_blank).splitlines()
    spans = re.findall(r"`((?:python|bash|make|pip)\s[^`]+)`", other)
    return [*fenced.splitlines(), *indented, *spans]


def docstring(file):
    """Returns the source text of the first string of a Python file."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    found = next((t.string for t in tokens if t.type == tokenize.STRING), "")
    return found.replace("\\\n", " ")


def documented():
    """Yields (file, command) for every command line."""
    texts = {page: page.read_text() for page in PAGES}
    texts |= {
        file: "\n".join(re.findall(r"^ *python .*$", docstring(file), re.M))
        for file in CONFIGS
    }
    texts |= {
        file: "\n".join(re.findall(r"run \w+ (python -m .*)", file.read_text()))
        for file in RUNBOOKS
    }
    for file, text in texts.items():
        found = lines_of(text) if file in PAGES else text.splitlines()
        for line in found:
            for part in re.sub(r"\[(-[^]]*)\]", r"\1", line).split(" && "):
                yield file.relative_to(ROOT), " ".join(part.split())


COMMANDS = list(dict.fromkeys(line for _, line in documented()))


class ParsedError(Exception):
    """Raised after a command line is parsed; the argument is the options."""


@pytest.fixture(name="only_parse", autouse=True)
def fixture_only_parse(monkeypatch):
    """Programs end after their arguments are parsed, and reach no bucket."""
    monkeypatch.setattr("logo_jax.storage.paths._reach", lambda *arguments: None)
    for parser, name in (
        (argparse.ArgumentParser, "parse_args"),
        (_cli.Parser, "parse"),
    ):
        parse = getattr(parser, name)

        def parse_only(self, arguments=None, parse=parse):
            raise ParsedError(parse(self, arguments))

        monkeypatch.setattr(parser, name, parse_only)


def check(line, monkeypatch):
    """Fails if a command would be refused, or is of an unknown kind."""
    words = shlex.split(line, comments=True)
    while words and (words[0] in PREFIXES or re.match("[A-Z_]+=", words[0])):
        words = words[1:]
    match words:
        case ["-m", module, *arguments] if module.startswith(("logo_jax", "bench")):
            check_module(module, arguments, monkeypatch)
        case ["bash", script, *_] | ["source", script] if script.startswith("bench"):
            assert (ROOT / script).is_file()
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
        case ["pip" | ".venv/bin/pip", "install" | "wheel", *rest]:
            check_extras(rest)
        case ["-m", "pytest", "-n", "2"] | ["python3", "-m", "venv", ".venv"]:
            pass
        case _:
            pytest.fail(f"this test does not know the kind of command {line!r}")


def check_module(module, arguments, monkeypatch):
    package, _, name = module.partition(".")
    program = importlib.import_module(module)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(ParsedError) as parsed:
        program.main()
    (options,) = parsed.value.args
    if package == "logo_jax":
        with _cli.input_errors():
            check_files(options)
    if name == "compare" and "--" in arguments:
        inner = arguments[arguments.index("--") + 1 :]
        check(shlex.join(inner), monkeypatch)


def check_files(options):
    """Reads the sweep or the config of the options, with the changed fields."""
    if "sweep" in options:
        assert configs.find(options.sweep).is_file()
        configs.load("cifar10_simsiam", options.fields)
    elif getattr(options, "config", None) is not None:
        _cli.load_config(options)


def check_extras(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {x for word in words for x in re.findall(r"(?<=\[)[\w,]+", word)}
    known = project["optional-dependencies"]
    assert {name for extra in extras for name in extra.split(",")} <= set(known)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_is_accepted(line, monkeypatch):
    check(line, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "python -m logo_jax.main --config=quickstart --workdir=RUN --config.seed=x",
        "python -m logo_jax.main --config=quickstart --workdir=RUN --config.sed=1",
        "python -m logo_jax.main --config=quickstart:new --workdir=RUN",
        "python -m logo_jax.main --config=quickstart --workdir=RUN --protocol=knn",
        "python -m logo_jax.evaluate --workdir=RUN --protocol=new",
        "python -m logo_jax.report RUN --config=new",
        "python -m logo_jax.sweep --sweep=sweeps/new --out=OUT",
        "python -m logo_jax.sweep --sweep=study/cifar10_cpu --out=OUT --config.sed=1",
        "python -m benchmarks.knn --peer=new",
        "python -m benchmarks.new",
        "python -m benchmarks.compare main HEAD -- -m benchmarks.knn --new=1",
        "bash benchmarks/new.sh",
        "make new",
        'pip install -e ".[new]"',
        "rm -r runs",
    ],
)
def test_a_command_that_would_be_refused_is_detected(line, monkeypatch):
    refused = (SystemExit, AssertionError, pytest.fail.Exception, OSError, ImportError)
    with pytest.raises(refused):
        check(line, monkeypatch)


def test_commands_are_found_on_every_page_with_commands():
    files = {str(file) for file, _ in documented()}
    pages = {"performance", "results", "runs", "robustness", "reproduce", "start"}
    assert {"README.md", *(f"docs/{page}.md" for page in pages)} <= files
    assert len(COMMANDS) > 50
