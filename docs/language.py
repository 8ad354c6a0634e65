"""Finds phrases that the project avoids, in the documents and in the strings and docstrings of the rooms.

    python docs/language.py            what make check asks: lists the hits in the enforced parts, counts the others
    python docs/language.py tracer     lists the hits in these parts, enforced or not

The phrases, what to write instead, and the enforced parts are in ``banned-phrases.txt``. Exits with 1 after a hit in a
listed part. Code blocks and generated tables of documents are not read: their words are written in the code. Nor are
comments in the code. Needs only the standard library.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("banned-phrases.txt")
ROOMS = ("schemas", "tracer", "adapters", "engine", "viewer")
PARTS = ("documents", *ROOMS)
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "sample_traces/*.md")
#: Parts of a document that are not its prose: fenced blocks, tables that a program writes, code, and targets of links.
NOT_PROSE = re.compile(r"^```.*?^```|<!-- table.*?<!-- end -->|`[^`\n]*`|\]\([^)\n]*\)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Banned:
    """The list of phrases."""

    better: dict[str, str]  # by phrase, in lower case
    enforced: frozenset[str]  # parts

    def pattern(self) -> re.Pattern[str]:
        """Matches any of the phrases as whole words, the longest first."""
        phrases = sorted(self.better, key=len, reverse=True)
        alternatives = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
        return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])", re.IGNORECASE)


@dataclass(frozen=True)
class Hit:
    """A phrase of the list in a file."""

    path: Path
    line: int  # from 1
    phrase: str
    better: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r}; better: {self.better!r}"


def read_list(text: str) -> Banned:
    """The list in ``banned-phrases.txt``.

    Raises:
        ValueError: at a line that is not a comment, ``enforced: PART...`` or ``phrase => better``, at a phrase that is
            listed twice, and at a part that does not exist.
    """
    better: dict[str, str] = {}
    enforced: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("enforced:"):
            enforced += line.removeprefix("enforced:").split()
            continue
        phrase, arrow, replacement = (part.strip() for part in line.partition("=>"))
        phrase = phrase.lower()
        if not arrow or not phrase or not replacement:
            raise ValueError(f"line {number}: got {line!r}, wanted 'phrase => better'")
        if phrase in better:
            raise ValueError(f"line {number}: {phrase!r} is listed twice")
        better[phrase] = replacement
    if unknown := set(enforced) - set(PARTS):
        raise ValueError(f"got enforced {sorted(unknown)}, wanted some of {', '.join(PARTS)}")
    return Banned(better, frozenset(enforced))


def prose(markdown: str) -> str:
    """The document with everything that is not prose blanked out; lines stay where they are."""
    return NOT_PROSE.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), markdown)


def strings(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string in Python code, docstrings and the fixed parts of f-strings included."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def files_of(part: str, root: Path = ROOT) -> list[Path]:
    """The files of a part, in order."""
    if part == "documents":
        return sorted({path for pattern in DOCUMENTS for path in root.glob(pattern)})
    return sorted((root / part).rglob("*.py"))


def hits_in(path: Path, banned: Banned, root: Path = ROOT) -> list[Hit]:
    """The phrases in a file, in order. In code, lines are counted from the line where the string begins."""
    text = path.read_text(encoding="utf-8")
    texts = strings(text) if path.suffix == ".py" else [(1, prose(text))]
    pattern = banned.pattern()
    hits = []
    for first_line, passage in texts:
        for match in pattern.finditer(passage):
            phrase = " ".join(match[0].split())
            line = first_line + passage.count("\n", 0, match.start())
            hits.append(Hit(path.relative_to(root), line, phrase, banned.better[phrase.lower()]))
    return sorted(hits, key=lambda hit: hit.line)


def main(arguments: list[str]) -> int:
    """Prints what it finds. Returns the exit code: 1 for a hit in a listed part, 2 for a part that does not exist."""
    if unknown := set(arguments) - set(PARTS):
        print(f"got {', '.join(sorted(unknown))}, wanted some of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    banned = read_list(LIST.read_text(encoding="utf-8"))
    listed = set(arguments) or banned.enforced
    is_clean = True
    for part in PARTS:
        hits = [hit for path in files_of(part) for hit in hits_in(path, banned)]
        if part in listed:
            print(*hits, sep="\n", end="\n" if hits else "")
            is_clean &= not hits
        elif hits and not arguments:
            print(f"{part}: {len(hits)} phrases to avoid, not enforced yet; python docs/language.py {part} lists them")
    return int(not is_clean)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
