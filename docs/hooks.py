"""MkDocs hook that adds pages from outside docs/: the README and the changelog."""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages to the files of the site."""
    for source, page in PAGES.items():
        text = LINK.sub(_within_site, (ROOT / source).read_text())
        files.append(File.generated(config, page, content=text))
    return files


def _within_site(link: re.Match[str]) -> str:
    """Returns the link for the site, or only its text if the site has no such page."""
    text, target = link.groups()
    page = PAGES.get(target, target.removeprefix("docs/"))
    kept = ".md" in page or target.startswith("docs/figures/")
    return f"[{text}]({page})" if kept else text
