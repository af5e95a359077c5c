"""What the command lines share: one clear line for bad input, where compiled code goes.

Exit codes: 0 done, or stopped by SIGTERM and resumable; 130 stopped by Ctrl-C and
resumable; 2 bad input, damaged data or a full disk (one line on stderr); 1 anything
else.
"""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging


def run(main: Callable[[Sequence[str]], Any], required: Sequence[str]) -> None:
    """Parses flags and runs main; a flag that is wrong or missing ends with exit 2.

    Args:
        main: gets what is left of the command line.
        required: flags that must be given.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        with input_errors():
            try:
                rest = flags.FLAGS(argv)
            # ml_collections raises AttributeError and KeyError for unknown fields
            except (flags.Error, AttributeError, KeyError) as error:
                # ml_collections quotes the traceback of a config file that raises
                text = str(error.args[0] if error.args else error)
                raise ValueError(text.rpartition("Error: ")[2]) from error
            for name in required:
                if not flags.FLAGS[name].present:
                    raise ValueError(f"--{name}=... is missing; see --help")
            if rest[1:]:
                raise ValueError(f"{rest[1]!r} is not a flag; see --help")
        return rest

    logging.set_verbosity(logging.WARNING)
    app.run(main, flags_parser=parse)


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
