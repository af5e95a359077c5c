"""Sets the address of the repository in all files that contain it.

python docs/address.py https://github.com/ME/logo_jax

`pyproject.toml` has the present address.
"""

import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
FILES = (
    "pyproject.toml",
    "README.md",
    "CITATION.cff",
    "colabs/tour.py",
    "docs/launch/tpu_pod.sh",
)
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def set_address(address: str, root: pathlib.Path = ROOT) -> None:
    """Replaces the present address by another one, as `OWNER/NAME` in any URL.

    Raises:
      ValueError: if `address` is not that of a repository on GitHub.
    """
    new = ADDRESS.fullmatch(address)
    if new is None:
        raise ValueError(f"{address!r} must be like https://github.com/OWNER/NAME")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    old = ADDRESS.fullmatch(project["project"]["urls"]["Repository"])
    assert old is not None
    for name in FILES:
        file = root / name
        text = re.sub(
            rf"(/github(?:\.com)?/){old[1]}\b",
            rf"\g<1>{new[1]}",
            file.read_text(encoding="utf-8"),
        )
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        set_address(*sys.argv[1:])
    except (TypeError, ValueError) as error:
        sys.exit(f"error: {error}")
    subprocess.run([sys.executable, ROOT / "colabs" / "notebook.py"], check=True)
