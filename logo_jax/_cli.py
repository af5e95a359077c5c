"""What the command lines share: a parser, one line for bad input, the compile cache.

Exit codes: 0 done, or stopped by SIGTERM and resumable; 130 stopped by Ctrl-C, and
resumable where the command is; 2 bad input, damaged data or a full disk (one line on
stderr); 1 anything else.
"""

import argparse
import contextlib
import faulthandler
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from logo_jax import configs


def run(main: Callable[[], Any]) -> NoReturn:
    """Runs a command and ends the process with the exit code that it returns."""
    faulthandler.enable()  # a crash in compiled code shows the lines of Python
    logging.basicConfig(format="{levelname}: {message}", style="{")  # from warnings on
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


_FIELDS_HELP = """\
--config.FIELD=VALUE sets a field, such as --config.train.num_epochs=50. A tuple is a
Python literal, such as --config.crops.global_crops="(2, 16, (0.4, 1.0))". All fields:
configs/base.py, or python -m logo_jax.doctor --config=NAME --print."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line on stderr and exit code 2.

    Flags are written `--flag=value` or `--flag value`, and never abbreviated.
    `--flagfile=FILE` stands for the flags in the file: one a line; blank lines and
    lines that begin with # are left out.

    Args:
        name: of the command.
        description: the text of `--help`: the command's docstring.
        has_fields: whether `--config.FIELD=VALUE` is taken; `parse` returns `fields`,
            values by field: strings, or True where no value is given.
    """

    def __init__(self, name: str, description: str | None, *, has_fields: bool = False):
        super().__init__(
            prog=f"python -m logo_jax.{name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._has_fields = has_fields
        self.add_argument("--flagfile", metavar="FILE", help="more flags, one a line")
        if has_fields:
            self.add_argument_group("fields of the config", _FIELDS_HELP)

    def add_config(self, help: str, *, required: bool = False) -> None:
        """Adds `--config`, which is given once."""
        self.add_argument(
            "--config",
            metavar="NAME[:VARIANT]",
            required=required,
            action=_Once,
            help=f"{help}: a file, or a name in logo_jax's configs/",
        )

    def add_workdir(self, help: str, *, required: bool = True, to: Any = None) -> None:
        """Adds `--workdir`, which is given once, to the parser or to a group of it."""
        (to or self).add_argument(
            "--workdir",
            metavar="DIR",
            type=path,
            required=required,
            action=_Once,
            help=help,
        )

    def add_out(self, help: str, *, required: bool = True) -> None:
        """Adds `--out`."""
        self.add_argument(
            "--out", metavar="PATH", type=path, required=required, help=help
        )

    def add_overwrite(self) -> None:
        """Adds `--overwrite`."""
        self.add_argument(
            "--overwrite", action="store_true", help="replace what is there"
        )

    def add_seed(self) -> None:
        """Adds `--seed`."""
        self.add_argument(
            "--seed", metavar="N", type=int, help="which, of a run of several seeds"
        )

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses a command line, by default the process's; nothing may be left over."""
        given = sys.argv[1:] if arguments is None else arguments
        options, rest = self.parse_known_args(self._expanded(given))
        options.fields, rest = _fields(rest) if self._has_fields else ({}, rest)
        if rest:
            self.error(f"{rest[0]!r} is not a flag")
        return options

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        print("error:", f"{' '.join(message.split())}; see --help", file=sys.stderr)
        sys.exit(2)

    def _expanded(self, arguments: Sequence[str]) -> list[str]:
        """The arguments with those of each `--flagfile` in its place."""
        expanded, rest = [], iter(arguments)
        for argument in rest:
            flag, equals, file = argument.partition("=")
            if flag == "--flagfile":
                expanded += self._read(file if equals else next(rest, ""))
            else:
                expanded.append(argument)
        return expanded

    def _read(self, file: str) -> list[str]:
        try:
            lines = path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, argparse.ArgumentTypeError) as error:
            self.error(f"--flagfile={file} cannot be read: {error}")
        stripped = (line.strip() for line in lines)
        return [line for line in stripped if line and not line.startswith("#")]


class _Once(argparse.Action):
    """Stores a value, and refuses a second one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string}=... must be given once; remove the others")
        setattr(namespace, self.dest, values)


def _fields(arguments: Sequence[str]) -> tuple[dict[str, str | bool], list[str]]:
    """Values by field of each `--config.FIELD`, and the other arguments.

    >>> _fields(["--config.seed", "3", "--config.data.path=/a b", "--config.x", "--y"])
    ({'seed': '3', 'data.path': '/a b', 'x': True}, ['--y'])
    """
    fields: dict[str, str | bool] = {}
    others: list[str] = []
    queue = list(arguments)
    while queue:
        flag, equals, value = queue.pop(0).partition("=")
        if not flag.startswith("--config."):
            others.append(f"{flag}{equals}{value}")
        elif equals:
            fields[flag.removeprefix("--config.")] = value
        else:
            follows = bool(queue) and not queue[0].startswith("--")
            fields[flag.removeprefix("--config.")] = queue.pop(0) if follows else True
    return fields, others


def load_config(options: argparse.Namespace) -> configs.ConfigDict:
    """The config that `--config` names, with what each `--config.FIELD` sets.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `configs.load`.
    """
    try:
        return configs.load(options.config, options.fields)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--config: {error}") from error


def default_workdir(config: str) -> pathlib.Path:
    """The folder of a run for which no `--workdir` is given.

    >>> default_workdir("configs/cifar10_simsiam.py:baseline").as_posix()
    'runs/cifar10_simsiam_baseline'
    """
    name, colon, variant = config.partition(":")
    stem = pathlib.PurePath(name).stem
    return pathlib.Path("runs") / (f"{stem}_{variant}" if colon else stem)


def path(given: str) -> pathlib.Path:
    """The path that a flag gives; shells leave the ~ of `--workdir=~/runs` to us.

    >>> path("~/runs") == pathlib.Path.home() / "runs"
    True

    Raises:
        ArgumentTypeError: if it is empty.
    """
    if not given:
        raise argparse.ArgumentTypeError("the path is missing")
    return pathlib.Path(given).expanduser()


def at_least(low: int) -> Callable[[str], int]:
    """A type of flags: whole numbers from `low` on.

    >>> at_least(1)("3")
    3
    """

    def number(text: str) -> int:
        if not (text.strip().isdecimal() and int(text) >= low):
            raise argparse.ArgumentTypeError(
                f"{text!r} must be a whole number, {low} or more"
            )
        return int(text)

    return number


@contextlib.contextmanager
def input_errors(
    kinds: tuple[type[Exception], ...] = (ValueError, TypeError, OSError),
) -> Iterator[None]:
    """Turns an error about input into one line on stderr and exit code 2.

    Args:
        kinds: of errors; by default those that reading a config or data raises.
    """
    try:
        yield
    except kinds as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def require_new(path: pathlib.Path, overwrite: bool) -> None:
    """Refuses to write where something is, or nothing can be, before work is done.

    Raises:
        ValueError: if the path exists and `overwrite` is False.
        FileNotFoundError: if the folder that it is to be written to is missing.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; say --overwrite, or another --out")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder; make it, for {path}")


def keep_compiled_code() -> None:
    """Keeps XLA's compiled code in a cache, unless the user's settings name one.

    The cache is $XDG_CACHE_HOME/logo_jax (~/.cache/logo_jax); a second run of a config
    then starts in seconds.
    """
    import jax  # takes a second that `prepare` need not wait for

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "logo_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
