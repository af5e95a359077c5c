"""MkDocs hook that adds the pages from outside docs/."""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages to the files of the site."""
    known = set(files.src_uris) | set(PAGES.values())

    def within_site(link: re.Match[str]) -> str:
        """Returns the link for the site, or its text if the site has no such file."""
        text, target = link.groups()
        path, _, anchor = target.partition("#")
        path = PAGES.get(path, path.removeprefix("docs/"))
        address = f"{path}#{anchor}" if anchor else path
        return f"[{text}]({address})" if path in known else text

    for source, page in PAGES.items():
        text = LINK.sub(within_site, (ROOT / source).read_text())
        files.append(File.generated(config, page, content=text))
    return files
