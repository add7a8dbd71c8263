"""Documents of a packaged bundle: its own and the shared ones, with its name, its keys, and links that work there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from config_reference import configs_of, key_tables, with_key_tables
from sync_bundles import BUNDLES, REFERENCE

SHARED = "shared/docs"
DOCUMENTS = BUNDLES.parent / SHARED
PACKAGED = (
    *("tutorial.md", "how_to.md", "reference.md", "explanation.md"),
    *("slurm.sh", "kubernetes.yaml", "method.png", "phantoms.png"),
)
TEXT = (".md", ".sh", ".yaml")
FENCED = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def packaged_documents(bundle: str, files: Mapping[str, bytes], documents: Path = DOCUMENTS) -> dict[str, bytes]:
    """Fill in the documents of a bundle as its package holds them.

    Args:
        bundle: Name of the bundle.
        files: Files of its folder, by path below it.
        documents: Folder of the shared documents.

    Returns:
        Contents by path below the package's folder: the bundle's ``README.md`` and all shared documents.

    Raises:
        ValueError: If a document shows a picture that the package lacks.
    """
    places = {f"bundles/{bundle}/{path}": path for path in files}
    places |= {f"{SHARED}/{name}": f"docs/{name}" for name in PACKAGED}
    made = {f"docs/{name}": (documents / name).read_bytes() for name in PACKAGED}
    texts = {path: renamed(data.decode(), REFERENCE, bundle) for path, data in made.items() if path.endswith(TEXT)}
    texts["docs/reference.md"] = with_key_tables(texts["docs/reference.md"], key_tables(bundle, configs_of(files)))
    texts["docs/README.md"] = files["docs/README.md"].decode()
    sources = {path: source for source, path in places.items()}
    for path, text in texts.items():
        relinked = _relinked(text, sources[path], places) if path.endswith(".md") else text
        made[path] = _moved(relinked, bundle).encode()
    return made


def renamed(text: str, old: str, new: str) -> str:
    """Replace the name of a bundle where it is a word of its own: not in that of another bundle or of a zip."""
    return re.sub(rf"\b{old}\b", new, text)


def _moved(text: str, bundle: str) -> str:
    """Make commands and paths start in the package's folder instead of the repository's root."""
    text = re.sub(rf"\bbundles/{bundle}/", "", text)
    text = re.sub(rf"\bbundles/{bundle}\b", ".", text)
    return text.replace(SHARED, "docs").replace("the repository's root", "the bundle's folder")


def _relinked(text: str, source: str, places: Mapping[str, str]) -> str:
    """Point links at the package's files; of those to other files of the repository only the words stay."""

    def link(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups(default="")
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in places:
            return f"{picture}[{words}]({posixpath.relpath(places[path], 'docs')}{anchor})"
        if picture:
            raise ValueError(f"{source} shows {target}, which is not packaged with it.")
        return words

    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)
