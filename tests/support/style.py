"""Measures of how the code is written: tokens per function, positional arguments per call, names, lines per file."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Words that do not say what they hold: a reader needs the thing itself (differences, root, match, violation).
BANNED = frozenset({"found", "own", "said", "told", "made", "one"})
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Measured:
    """One measured thing and where it is, as ``file:line name``."""

    where: str
    value: int

    @property
    def function(self) -> str:
        """The last part of its name: of a call, what is called."""
        return self.where.rpartition(" ")[2].rpartition(".")[2]


@dataclass(frozen=True, kw_only=True)
class FolderStyle:
    """What the Python files of one folder come to."""

    functions: list[Measured]  # tokens
    calls: list[Measured]  # positional arguments
    files: list[Measured]  # lines
    dataclasses: list[Measured]  # fields of those that may be called with positional arguments
    banned: list[str]  # names, and where they are assigned

    @property
    def p90_tokens(self) -> int:
        """The 90th percentile of the tokens per function."""
        sizes = [function.value for function in self.functions]
        return int(statistics.quantiles(sizes, n=10)[8]) if len(sizes) > 1 else max(sizes, default=0)


def measure(folder: Path, variadic: frozenset[str] = frozenset()) -> FolderStyle:
    """Measures every Python file below ``folder``. Calls of functions that are named in ``variadic`` are not measured:
    their arguments are a list."""
    functions: list[Measured] = []
    calls: list[Measured] = []
    files: list[Measured] = []
    dataclasses: list[Measured] = []
    banned: list[str] = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder.parent).as_posix()
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        files.append(Measured(name, source.count("\n")))
        functions += _functions(name, tree, source)
        calls += (call for call in _calls(name, tree) if call.function not in variadic)
        dataclasses += _positional_dataclasses(name, tree)
        banned += [f"{name}:{line} {text}" for text, line in _assigned(tree) if text in BANNED]
    return FolderStyle(functions=functions, calls=calls, files=files, dataclasses=dataclasses, banned=banned)


def variadic_functions(folders: Iterable[Path]) -> frozenset[str]:
    """The names of the functions below ``folders`` that take ``*arguments``, without those that another one, which does
    not, has too."""
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                names[node.args.vararg is not None].add(node.name)
    return frozenset(names[True] - names[False])


def _functions(name: str, tree: ast.Module, source: str) -> Iterator[Measured]:
    """Every function with its tokens; those of a function within it are counted in both."""
    lines = [token.start[0] for token in _tokens(source)]
    for node in ast.walk(tree):
        if isinstance(node, Function):
            first = min((decorator.lineno for decorator in node.decorator_list), default=node.lineno)
            skipped = _docstring_lines(node)
            size = sum(first <= line <= (node.end_lineno or 0) and line not in skipped for line in lines)
            yield Measured(f"{name}:{node.lineno} {node.name}", size)


def _tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    """An f-string is one, as it was before Python 3.12: the measure must not depend on who measures."""
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_END":
            depth -= 1
        if depth == 0 and kind != "FSTRING_END" and token.type not in LAYOUT:
            yield token
        if kind == "FSTRING_START":
            depth += 1


def _docstring_lines(node: Function) -> range:
    first = node.body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return range(first.lineno, (first.end_lineno or 0) + 1) if is_text else range(0)


def _calls(name: str, tree: ast.Module) -> Iterator[Measured]:
    """Every call with its positional arguments; ``*arguments`` counts as one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield Measured(f"{name}:{node.lineno} {ast.unparse(node.func)[-60:]}", len(node.args))


def _positional_dataclasses(name: str, tree: ast.Module) -> Iterator[Measured]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(_is_positional(decorator) for decorator in node.decorator_list):
            fields = sum(isinstance(line, ast.AnnAssign) and _is_argument(line) for line in node.body)
            yield Measured(f"{name}:{node.lineno} {node.name}", fields)


def _is_positional(decorator: ast.expr) -> bool:
    """Whether it is ``dataclass`` without ``kw_only=True``."""
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    if ast.unparse(call).rpartition(".")[2] != "dataclass":
        return False
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    return not any(word.arg == "kw_only" and ast.unparse(word.value) == "True" for word in keywords)


def _is_argument(line: ast.AnnAssign) -> bool:
    """Whether a field is a positional argument of the constructor: one with ``init=False`` or ``kw_only=True``, and a
    ClassVar, are not."""
    value = ast.unparse(line.value) if line.value is not None else ""
    return "init=False" not in value and "kw_only=True" not in value and "ClassVar" not in ast.unparse(line.annotation)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that is assigned, taken as an argument or looped over, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            yield node.name, node.lineno


def largest(measured: Iterable[Measured]) -> int:
    """The largest value; 0 where nothing was measured."""
    return max((thing.value for thing in measured), default=0)
