"""Runs command lines in this process."""

import json

from logo_jax import evaluate


def evaluated(folder, *arguments):
    """Runs `logo_jax.evaluate` on a run and returns the report that it writes."""
    before = set(folder.rglob("evaluations/*.json"))
    times = {file: file.stat().st_mtime_ns for file in before}
    evaluate.main([f"--workdir={folder}", *arguments])
    (file,) = (
        file
        for file in folder.rglob("evaluations/*.json")
        if times.get(file) != file.stat().st_mtime_ns
    )
    return json.loads(file.read_text())


def write_config(file, config):
    """Writes the fields of a config to a file for `--config`."""
    file.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({config.to_dict()!r})\n"
    )
    return file
