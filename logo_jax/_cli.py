"""What the command lines share: one clear line for bad input, where compiled code goes.

Exit codes: 0 done, or stopped by SIGTERM and resumable; 130 stopped by Ctrl-C and
resumable; 2 bad input, damaged data or a full disk (one line on stderr); 1 anything
else.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging


def run(main: Callable[[Sequence[str]], Any], required: Sequence[str]) -> None:
    """Parses flags and runs main; a flag that is wrong or missing ends with exit 2.

    Args:
        main: gets what is left of the command line.
        required: flags that must be given.
    """
    logging.set_verbosity(logging.WARNING)
    app.run(main, flags_parser=functools.partial(parse, required=required))


def path(given: str) -> pathlib.Path:
    """What a flag names; shells leave the ~ of `--workdir=~/runs` to us.

    >>> path("~/runs") == pathlib.Path.home() / "runs"
    True
    """
    return pathlib.Path(given).expanduser()


def parse(argv: Sequence[str], required: Sequence[str]) -> list[str]:
    """Parses a command line, whose first item is the program's name.

    Args:
        argv: of the program.
        required: flags that must be given.

    Returns:
        The program's name: nothing else may be left.
    """
    with input_errors():
        given = [item.lstrip("-").partition("=")[0] for item in argv]
        for name in required:
            if given.count(name) > 1:
                raise ValueError(f"--{name}=... must be given once; remove the others")
        rest = _parse(argv)
        for name in required:
            if flags.FLAGS[name].value in (None, ""):
                raise ValueError(f"--{name}=... is missing; see --help")
        if rest[1:]:
            raise ValueError(f"{rest[1]!r} is not a flag; see --help")
    return rest


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        _require_config_dict(flags.FLAGS["config"])
    except flags.Error as error:
        raise ValueError(f"{_reason(error)}; see --help, configs/base.py") from error
    # a config file is a program, and may raise anything
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"--config: {kind}: {_reason(error)}") from error
    return rest


def _require_config_dict(flag: flags.Flag) -> None:
    # ml_collections keeps the error of a missing file until the config is looked at
    if flag.present and not hasattr(flag.value, "to_dict"):
        raise TypeError(
            f"get_config() must return a ConfigDict, not {flag.value!r}; see configs/"
        )


def _reason(error: Exception) -> str:
    """What went wrong, without the traceback that ml_collections quotes."""
    text = str(error.args[0] if error.args else error)
    *_, last = re.split(r"Error: |failure to load: |(?=\[Errno)", text)
    return last.replace(r"\n", " ").replace(r"\'", "'").strip()


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
        ValueError: where it is there and is not to be overwritten.
        FileNotFoundError: where its folder is missing.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; say --overwrite, or another --out")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder; make it, for {path}")


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside a path for a file or folder, which takes the path once it is whole.

    A file at the path is replaced, and so are a folder's files of the same names; its
    others stay. Where an error comes before, nothing has changed.
    """
    partial = path.with_name(f"partial.{path.name}")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir() and path.is_dir():
            for file in partial.iterdir():
                os.replace(file, path / file.name)
        else:
            os.replace(partial, path)
    finally:
        _remove(partial)


def write_folder(path: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files, by name: all of them or none; see `whole`."""
    with whole(path) as partial:
        partial.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line on stderr and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        print("error:", message, file=sys.stderr)
        sys.exit(2)


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
