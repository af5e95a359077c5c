"""Arrow, which is imported when it is first used: most sources do not need it."""

from typing import Any

from etils import epy

with epy.lazy_imports():
    import pyarrow as pa
    from pyarrow import compute, csv, json, parquet

pc: Any = compute  # its functions are made when it is imported

__all__ = ["csv", "json", "pa", "parquet", "pc"]
