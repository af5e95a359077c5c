"""How Orbax writes and reads the two items of a checkpoint, patiently."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp


class Items:
    """The items `state` and `manifest`, and the writes of the last save.

    Attributes:
        handlers: what writes and reads each item.
    """

    def __init__(self):
        self.handlers = _handlers()
        self._begun: dict[str, Sequence[Any]] = {}
        for item, handler in self.handlers.items():
            # of the instance: Orbax knows handlers by their exact class
            handler.async_save = self._remember(item, handler.async_save)

    def settle(self) -> None:
        """Returns once no write is under way, whatever came of it.

        Orbax raises the first failure and leaves the other writes to themselves, in a
        folder that the next save of this step must be able to remove.
        """
        for write in itertools.chain(*self._begun.values()):
            with contextlib.suppress(Exception):  # the first has been raised
                write.result()

    def _remember(self, item: str, save: Callable[..., Any]) -> Callable[..., Any]:
        async def async_save(*args: Any, **kwargs: Any) -> Sequence[Any]:
            self._begun[item] = await save(*args, **kwargs) or ()
            return self._begun[item]

        return async_save


class _PatientHandler(ocp.type_handlers.NumpyHandler):
    """Lets no read or write be under way any more once one has failed.

    Orbax would abandon the others, and TensorStore's threads print their tracebacks. So
    leaves are read one by one; and writes are all waited for, one at a time because
    TensorStore copies what it writes.
    """

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> list[Any]:
        args = args or [None] * len(infos)
        leaves = []
        for info, arg in zip(infos, args, strict=True):
            leaves += await super().deserialize([info], arg and [arg])
        return leaves

    async def _background_serialize(self, *args: Any, **kwargs: Any) -> None:
        self._failures: list[Exception] = []
        self._turn = asyncio.Lock()
        await super()._background_serialize(*args, **kwargs)
        if self._failures:
            raise self._failures[0]

    async def _open_and_write(self, *args: Any, **kwargs: Any) -> None:
        try:
            async with self._turn:
                await super()._open_and_write(*args, **kwargs)
        except Exception as error:  # TensorStore has no kinds of its own; raised above
            self._failures.append(error)


def _handlers() -> dict[str, Any]:
    registry = ocp.type_handlers.create_type_handler_registry(
        # what is saved is ours alone, copied by `CheckpointManager.save`
        (np.ndarray, _PatientHandler(deepcopy_host_arrays=False))
    )
    return {
        # A file a leaf: in Orbax's packed format (OCDBT) TensorStore's Spec.to_json
        # keeps 4 objects of every leaf and save for ever (0.1.78 to 0.1.86). As it is:
        # weights hardly compress, and each would be in memory twice more meanwhile.
        "state": ocp.PyTreeCheckpointHandler(
            type_handler_registry=registry, use_ocdbt=False, use_compression=False
        ),
        "manifest": ocp.JsonCheckpointHandler(),
    }
