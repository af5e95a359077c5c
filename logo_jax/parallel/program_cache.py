"""Compiled programs on disk, so that a start need not trace and lower them again.

JAX's compilation cache saves the compilation of a program that was traced and lowered,
which takes most of the time of a start on a CPU. A program that is kept here is found
without that, by a key of everything on which it depends: the source files of this
package, what the caller states, versions, devices, the processor and JAX's settings.

The files contain code that is run, as those of JAX's cache. Only files are read that no
other user can have written.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

_log = logging.getLogger(__name__)

MOST_BYTES = 2**29  # of all files together
PLATFORMS = ("cpu",)  # on which it was tested
_PACKAGES = ("jax", "flax", "optax", "numpy")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_CPU = Path("/proc/cpuinfo")
_ENABLED = "jax_enable_compilation_cache"

# trees like the arguments and of the results' shapes, and the serialized program
_Content: TypeAlias = tuple[Any, Any, bytes]

_settings: dict[str, Path | None] = {"folder": None}


def keep_in(folder: Path | None) -> None:
    """Keeps programs in a folder from now on; None, as before any call: nowhere."""
    _settings["folder"] = folder


def kept(function: Any, name: str, identity: str, devices: Sequence[Any]) -> Any:
    """Returns a compiled function whose program is kept on disk, if that is possible.

    Args:
        function: result of `jax.jit`. It is called with arguments of the same shapes,
            dtypes and shardings each time.
        name: beginning of the name of the file.
        identity: text of all values on which the program depends, with the arguments'
            shapes; "" if they are not known.
        devices: devices of the program, in their order.

    Returns:
        A `KeptProgram`; or `function` itself if no programs are kept, if the identity
        is not known, with several processes, or on platforms not in `PLATFORMS`.
    """
    folder = _settings["folder"]
    is_tested = jax.process_count() == 1 and devices[0].platform in PLATFORMS
    if folder is None or not identity or not is_tested or not _CPU.exists():
        return function
    sources = _sources(Path(__file__).parents[1])
    link = _name(name, identity, sources, _versions(), _environment(devices))
    return KeptProgram(function, folder / link, devices)


def load(function: Any) -> Any:
    """Returns the program of a function that is kept; None if there is none."""
    return function.load() if isinstance(function, KeptProgram) else None


def compile(function: Any, lowered: Any) -> Any:
    """Returns a lowered function compiled; its program is kept if it is to be."""
    is_kept = isinstance(function, KeptProgram)
    return function.compile(lowered) if is_kept else lowered.compile()


class KeptProgram:
    """A function of `jax.jit` whose program is read from disk, or compiled and written.

    The file is named by the traced and lowered function, as in JAX's cache, so that
    programs do not depend on fields of a config that only Python uses. A link to it is
    named by what is known before.

    Args:
        function: the function.
        link: path of the link.
        devices: devices of the program.
    """

    def __init__(self, function: Any, link: Path, devices: Sequence[Any]):
        self._function, self._link, self._devices = function, link, devices
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Runs the program; the first call reads or compiles it."""
        compiled = self.load() or self.compile(self.trace(*arguments).lower())
        return compiled(*arguments)

    def trace(self, *arguments: Any) -> Any:
        """Traces the function, as the `trace` method of a `jax.jit` function."""
        return self._function.trace(*arguments)

    def eval_shape(self, *arguments: Any) -> Any:
        """Returns shapes and dtypes of the results; a kept program is not traced."""
        return self._kept[1] if self._kept else self._function.eval_shape(*arguments)

    def load(self) -> Any:
        """Returns the program that is kept; None if there is none or it is damaged."""
        if self._compiled is None and self._kept:
            self._compiled = self._loaded(self._link, self._kept)
            self._kept = self._kept if self._compiled else None
        return self._compiled

    def compile(self, lowered: Any) -> Any:
        """Returns the lowered function compiled, after writing its program."""
        name = self._link.name.partition("-")[0]
        traced = lowered.as_text(), str(lowered.in_tree), str(lowered.out_tree)
        file = self._link.with_name(_name(name, traced, _environment(self._devices)))
        content = _read(file)
        self._compiled = self._loaded(file, content) if content else None
        if self._compiled is None:
            with _without_the_cache_of_jax():
                self._compiled = lowered.compile()
        try:
            if not file.exists():
                _write(file, _content(self._compiled))
            with contextlib.suppress(FileExistsError):  # of another process
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(file.name)
        except Exception as error:  # on a full disk, or of what JAX cannot serialize
            _warn(file, "is not written", error)
        return self._compiled

    @functools.cached_property
    def _kept(self) -> _Content | None:
        return _read(self._link)

    def _loaded(self, path: Path, content: _Content) -> Any:
        """Returns the program of a file; None if it is damaged, after deleting it."""
        arguments, results, program = content
        trees = jax.tree.structure(arguments), jax.tree.structure(results)
        try:
            return serialize_executable.deserialize_and_load(
                program, *trees, execution_devices=self._devices
            )
        except Exception as error:  # damaged programs raise errors of many types
            _delete_damaged(path, error)
        return None


def _content(compiled: Any) -> _Content:
    program, inputs, _ = serialize_executable.serialize(compiled)
    results = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), compiled.out_info
    )
    return inputs.unflatten([0] * inputs.num_leaves), results, program


def _read(path: Path) -> _Content | None:
    """Returns the content of a file; None if there is none or it cannot be used."""
    try:
        if not path.exists():
            return None
        _require_own(path)
        content = pickle.loads(zlib.decompress(path.read_bytes()))
    except PermissionError as error:
        _warn(path, "is not read, so the program is compiled again", error)
        return None
    except Exception as error:  # damaged pickles raise errors of many types
        _delete_damaged(path, error)
        return None
    with contextlib.suppress(OSError):  # of a disk that cannot be written
        for used in (path, path.resolve()):  # what was not used is deleted first
            os.utime(used, follow_symlinks=False)
    return content


def _require_own(path: Path) -> None:
    """Raises an error if another user can have written a file, or can replace it."""
    for status in (path.stat(), path.parent.stat()):
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PermissionError(
                f"another user can write the file or its folder; delete {path.parent}"
            )


def _write(path: Path, content: _Content) -> None:
    data = zlib.compress(pickle.dumps(content), level=1)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix="partial-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise
    _delete_oldest(path.parent)


def _delete_damaged(path: Path, error: Exception) -> None:
    _warn(path, "cannot be read, so the program is compiled again", error)
    with contextlib.suppress(OSError):
        path.resolve().unlink(missing_ok=True)


def _warn(path: Path, what: str, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    _log.warning("%s %s: %s", path, what, reason)


@contextlib.contextmanager
def _without_the_cache_of_jax() -> Iterator[None]:
    """Lets JAX compile what its cache may have.

    On a CPU, a program that JAX has read from its cache cannot be serialized: a copy of
    it lacks functions, and calls of it fail.
    """
    before = jax.config.values[_ENABLED]
    try:
        jax.config.update(_ENABLED, False)
        compilation_cache.reset_cache()  # JAX would not look at the setting again
        yield
    finally:
        jax.config.update(_ENABLED, before)
        compilation_cache.reset_cache()


def _delete_oldest(folder: Path) -> None:
    """Deletes the files that were unused for the longest time, beyond MOST_BYTES."""
    files, total = [], 0
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has renamed it
            files.append((file.lstat(), file))
    for status, file in sorted(files, key=lambda x: x[0].st_mtime, reverse=True):
        total += status.st_size
        if total > MOST_BYTES:
            file.unlink(missing_ok=True)


def _name(name: str, *parts: Any) -> str:
    """Returns the name of a file, with a digest of everything that it depends on."""
    return f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()}"


def _environment(devices: Sequence[Any]) -> tuple[Any, ...]:
    """Returns what a lowered program depends on: compiler, settings and machine."""
    return (
        importlib.metadata.version("jaxlib"),
        sorted((name, repr(x)) for name, x in jax.config.values.items()),
        [os.environ.get(name) for name in _VARIABLES],
        [(x.platform, x.device_kind, x.id) for x in devices],
        len(jax.devices()),
        len(os.sched_getaffinity(0)),
        _processor(),
    )


def _versions() -> list[str]:
    """Returns the versions of what traces and lowers programs."""
    packages = map(importlib.metadata.version, _PACKAGES)
    return [platform.python_version(), *packages]


@functools.cache
def _sources(folder: Path) -> str:
    """Returns a digest of the names and contents of the source files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _processor() -> list[str]:
    """Returns the model and the instructions of the first core."""
    core = _CPU.read_text().partition("\n\n")[0].splitlines()
    return [x for x in core if x.startswith(("model", "flags", "CPU ", "Features"))]
