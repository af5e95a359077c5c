"""Lists the commands of the package: `python -m logo_jax`."""

import ast
import pathlib


def main() -> None:
    """Prints each command with the first line of its description."""
    print("logo_jax has these commands; the flag --help describes each of them:\n")
    for file in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        if file.stem != "api":
            # parsed instead of imported, which would take seconds
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
            summary = (text or "").partition("\n")[0]
            print(f"  python -m logo_jax.{file.stem:<9} {summary}")


if __name__ == "__main__":
    main()
