"""Code shared by the commands: argument parser, errors in one line, compile cache.

Exit codes: 0 done, or stopped by SIGTERM and resumable; 130 stopped by Ctrl-C (and
resumable, if the command is); 2 for bad input, corrupt data or a full disk, which is
reported in one line on stderr; 1 for any other error.
"""

import argparse
import contextlib
import difflib
import faulthandler
import gc
import io
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from logo_jax import configs
from logo_jax.storage import paths
from logo_jax.storage.paths import as_path, in_bucket


def run(main: Callable[[], Any]) -> NoReturn:
    """Runs a command, then ends the process with the exit code that it returns."""
    faulthandler.enable()  # a crash in compiled code prints the Python traceback
    # Tracing makes many objects that stay: after every 700 of them, the default, Python
    # would look for garbage.
    gc.set_threshold(10_000)
    # for warnings and errors; replaces the handlers that imported libraries have added,
    # with which a warning would be printed again
    logging.basicConfig(format="{levelname}: {message}", style="{", force=True)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # names of files need not be UTF-8; stderr writes them in this way, too
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


_FIELDS_HELP = """\
--config.FIELD=VALUE sets a field, such as --config.train.num_epochs=50. A tuple is a
Python literal, such as --config.crops.global_crops="(2, 16, (0.4, 1.0))". All fields:
configs/base.py, or python -m logo_jax.doctor --config=NAME --print."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line on stderr, with exit code 2.

    Flags are written `--flag=value` or `--flag value`, and cannot be abbreviated.
    `--flagfile=FILE` is replaced by the flags in the file, one a line; blank lines and
    lines that begin with # are ignored.

    Args:
        name: name of the command.
        description: text of `--help`: the docstring of the command's module.
        has_fields: whether `--config.FIELD=VALUE` is accepted. `parse` then returns
            `fields`, the values by field: strings, or True if a flag has no value.
    """

    def __init__(self, name: str, description: str | None, *, has_fields: bool = False):
        super().__init__(
            prog=f"python -m logo_jax.{name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._has_fields = has_fields
        self.add_argument("--flagfile", metavar="FILE", help="file with more flags")
        if has_fields:
            self.add_argument_group("fields of the config", _FIELDS_HELP)

    def add_config(self, help: str, *, required: bool = False) -> None:
        """Adds `--config`, which can be given only once."""
        self.add_argument(
            "--config",
            metavar="NAME[:VARIANT]",
            required=required,
            action=_Once,
            help=f"{help}: a file, or a name in logo_jax's configs/",
        )

    def add_workdir(self, help: str, *, required: bool = True, to: Any = None) -> None:
        """Adds `--workdir`, to be given only once, to the parser or to a group."""
        (to or self).add_argument(
            "--workdir",
            metavar="DIR",
            type=path,
            required=required,
            action=_Once,
            help=help,
        )

    def add_out(self, help: str, *, required: bool = True, local: bool = False) -> None:
        """Adds the flag `--out`, the path to write to, which may be in a bucket."""
        kind = local_path if local else path
        self.add_argument(
            "--out", metavar="PATH", type=kind, required=required, help=help
        )

    def add_overwrite(self) -> None:
        """Adds the flag `--overwrite`, which allows replacing existing files."""
        self.add_argument(
            "--overwrite", action="store_true", help="replace existing files"
        )

    def add_seed(self) -> None:
        """Adds the flag `--seed`, which selects one seed of a run with several."""
        self.add_argument(
            "--seed",
            metavar="N",
            type=int,
            help="the seed to use, if the run has several",
        )

    def add_checkpoint(self, encoders: Iterable[str]) -> None:
        """Adds `--step` and `--encoder`, which select an encoder of a run.

        Args:
            encoders: the names of encoders, the default first.
        """
        self.add_argument(
            "--step",
            metavar="STEP",
            type=at_least(0),
            help="training step of the run's checkpoint; default: the newest one",
        )
        self.add_argument(
            "--encoder",
            choices=tuple(encoders),
            help="encoder of the checkpoint: the trained one (online, the default), "
            "the momentum encoder of MoCo or BYOL (target), or the average that "
            "config.train.ema keeps (ema)",
        )

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses a command line, by default that of the process."""
        given = sys.argv[1:] if arguments is None else arguments
        options, rest = self.parse_known_args(self._expanded(given))
        options.fields, rest = _fields(rest) if self._has_fields else ({}, rest)
        if rest:
            self.error(f"{rest[0]!r} is not a flag{self._nearest(rest[0])}")
        return options

    def error(self, message: str) -> NoReturn:
        """Prints an error and ends the process with exit code 2."""
        print("error:", f"{' '.join(message.split())}; see --help", file=sys.stderr)
        sys.exit(2)

    def _nearest(self, given: str) -> str:
        """Names the flag, or the field of a config, that is nearest to what is none."""
        name = given.partition("=")[0]
        flags = [x for x in self._option_string_actions if x not in ("-h", "--help")]
        names = configs.field_names() if self._has_fields else []
        fields = [f"--config.{field}" for field in names]
        ends = [field for field in fields if field.endswith(f".{name.lstrip('-')}")]
        near = ends or difflib.get_close_matches(name, [*flags, *fields], n=1)
        return f"; the nearest is {near[0]}" if near and name.startswith("-") else ""

    def _expanded(self, arguments: Sequence[str]) -> list[str]:
        """The arguments, with each `--flagfile` replaced by the flags in the file."""
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
            lines = local_path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, argparse.ArgumentTypeError) as error:
            self.error(f"--flagfile={file} cannot be read: {error}")
        stripped = (line.strip() for line in lines)
        return [line for line in stripped if line and not line.startswith("#")]


class _Once(argparse.Action):
    """Stores a flag's value; reports an error if the flag is given twice."""

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
    """Splits arguments into the values of `--config.FIELD` flags and the rest.

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
    """The config that `--config` names, with the fields that the flags set.

    Raises:
        FileNotFoundError: if there is no config file with that name.
        ValueError: if the file, its variant or the name or text of a field is wrong.
        TypeError: if the file does not define a config.
    """
    try:
        return configs.load(options.config, options.fields)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--config: {error}") from error


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The values of those options that the command line gives, by name.

    >>> given(argparse.Namespace(crop=0, seed=None, untrained=False), ["crop", "seed"])
    {'crop': 0}
    """
    values = {name: getattr(options, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False
    }


def path(given: str) -> pathlib.Path:
    """Converts a flag's value to a path, for the argument `type` of `argparse`.

    A leading ~ is expanded, because shells do not expand that of `--workdir=~/runs`.

    >>> path("~/runs") == pathlib.Path.home() / "runs"
    True

    Raises:
        ArgumentTypeError: if the value is empty, or a URL that is not of a bucket, or
            the bucket cannot be reached.
    """
    return _path(given, as_path)


def local_path(given: str) -> pathlib.Path:
    """A flag type for `argparse`: as `path`, but not in a bucket.

    Raises:
        ArgumentTypeError: if the value is empty, or a URL.
    """
    return _path(given, paths.local_path)


def _path(given: str, convert: Callable[[str], pathlib.Path]) -> pathlib.Path:
    if not given:
        raise argparse.ArgumentTypeError("the path is empty; give a path")
    try:
        return convert(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def at_least(low: int) -> Callable[[str], int]:
    """A flag type for `argparse`: whole numbers that are not below `low`.

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


def duration(text: str) -> float:
    """A flag type for `argparse`: hours, minutes and seconds, converted to seconds.

    >>> duration("3h50m"), duration("90s")
    (13800.0, 90.0)
    """
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    h, m, s = (int(part or 0) for part in (parts.groups() if parts else "000"))
    seconds = 3600.0 * h + 60 * m + s
    if not 0 < seconds < 1e8:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be hours, minutes and seconds, such as 3h50m, 30m or "
            "1h30m20s"
        )
    return seconds


@contextlib.contextmanager
def input_errors(
    kinds: tuple[type[Exception], ...] = (ValueError, TypeError, OSError),
) -> Iterator[None]:
    """Turns an error about input into one line on stderr and exit code 2.

    Args:
        kinds: types of errors; by default those that reading a config or data raises.
    """
    try:
        yield
    except kinds as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def require_new(path: pathlib.Path, overwrite: bool) -> None:
    """Raises an error if `path` must not or cannot be written, before work is done.

    Raises:
        ValueError: if the path exists and `overwrite` is False.
        FileNotFoundError: if the parent folder of the path does not exist.
        PermissionError: if the parent folder is write-protected.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; give --overwrite, or another path")
    if in_bucket(path):
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent} must be a folder, to write {path}; create it"
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"{path.parent} is write-protected; write {path.name} to another folder"
        )


def keep_compiled_code() -> None:
    """Enables JAX's persistent compile cache, unless the user has set one.

    The cache is $XDG_CACHE_HOME/logo_jax (~/.cache/logo_jax). With it, the second run
    of a config starts in seconds. Its folder `programs` has programs that are not even
    traced again (`program_cache`), unless the user has disabled JAX's cache.
    """
    import jax  # takes a second, and `prepare` does not use it

    from logo_jax.parallel import program_cache

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home) / "logo_jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if jax.config.values["jax_enable_compilation_cache"]:
        program_cache.keep_in(folder / "programs")
