"""
A tree of Python files, parsed and measured: one item per file, one record per result.

    durabatch run durabatch.recipes.python_ast:analyse SOURCES --ledger code.db
    durabatch results --ledger code.db

A file that does not parse fails as an item, with the error and its line, and harms no other. Copy this file to measure something
else: it uses nothing but the public interface.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from typing import Any

import durabatch

__all__ = ["analyse", "measure"]

#: What opens one more path through a function, besides the operands of ``and`` and ``or`` and the conditions of a comprehension.
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.comprehension, ast.match_case)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: The kinds that are looked at one by one; all others are only counted.
NOTABLE = frozenset({*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.BoolOp, ast.comprehension})


@durabatch.handler(format="files", include="*.py")
def analyse(item: dict[str, Any]) -> dict[str, Any]:
    """
    Return the measures of the Python file at ``item["path"]``; see :func:`measure`.

    Raises:
        SyntaxError: The file does not parse; the message names the line.
        OSError: The file cannot be read.
    """
    with open(item["path"], "rb") as file:
        return measure(file.read(), item["path"])


def measure(source: bytes, path: str = "<source>") -> dict[str, Any]:
    """
    Parse *source* as Python reads it (byte order mark, coding line, or else UTF-8) and return its measures.

    Returns:
        ``bytes`` and ``lines`` of the file; ``node_count``, and ``nodes``, how many of each kind, as :func:`ast.walk` finds them;
        ``functions`` and ``classes``, how many; ``imports``, the modules named, sorted, relative ones with their dots; ``max_depth``,
        the levels of the syntax tree; ``complexity``, the cyclomatic complexity of each function by its qualified name, in the order
        of the source. A name that is defined again gets ``#2``, ``#3`` and so on.
    """
    with warnings.catch_warnings(action="ignore"):  # an invalid escape is the file's business and need not fill our stderr
        tree = ast.parse(source, path)
    survey = Survey(tree)
    kinds = survey.kinds
    return {
        "bytes": len(source),
        "lines": len(source.splitlines()),
        "node_count": kinds.total(),
        "nodes": {kind.__name__: count for kind, count in kinds.most_common()},
        "functions": sum(kinds[kind] for kind in FUNCTIONS),
        "classes": kinds[ast.ClassDef],
        "imports": sorted(survey.imports),
        "max_depth": survey.depth,
        "complexity": survey.complexity(),
    }


class Scope:
    """The body of a module, class or function. A class body has no paths of its own: they count for the function around it."""

    def __init__(self, name: str, prefix: str, line: int, paths_of: Scope | None = None) -> None:
        self.name = name
        self.prefix = prefix
        self.line = line
        self.paths = 1
        self.paths_of = paths_of or self

    def inner(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Scope:
        """Return the scope that *node* opens, named as Python names it: ``Class.method``, ``outer.<locals>.inner``."""
        name = self.prefix + node.name
        if isinstance(node, ast.ClassDef):
            return Scope(name, f"{name}.", node.lineno, self.paths_of)
        return Scope(name, f"{name}.<locals>.", node.lineno)


class Survey:
    """
    One walk over a syntax tree, a level at a time, so that the depth is the number of levels.

    Within a level the nodes of a scope lie together, so that one call counts many.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.kinds: Counter[type[ast.AST]] = Counter()
        self.imports: set[str] = set()
        self.functions: list[Scope] = []
        self.depth = 0
        level: list[tuple[Scope, list[ast.AST]]] = [(Scope("", "", 0), [tree])]
        while level:
            self.depth += 1
            level = [group for scope, nodes in level for group in self._children(scope, nodes)]

    def complexity(self) -> dict[str, int]:
        """Return the complexity of each function by its qualified name, in the order of the source."""
        times: Counter[str] = Counter()
        found: dict[str, int] = {}
        for scope in sorted(self.functions, key=lambda function: function.line):
            times[scope.name] += 1
            found[scope.name if times[scope.name] == 1 else f"{scope.name}#{times[scope.name]}"] = scope.paths
        return found

    def _children(self, scope: Scope, nodes: list[ast.AST]) -> list[tuple[Scope, list[ast.AST]]]:
        """Count *nodes* and return their children: those in the same scope, and one group for each scope that opens here."""
        kinds = Counter(map(type, nodes))
        self.kinds.update(kinds)
        scope.paths_of.paths += sum(kinds[kind] for kind in BRANCHES if kind in kinds)
        children: list[ast.AST] = []
        groups = [(scope, children)]
        for node in nodes:
            if type(node) in NOTABLE and (opened := self._notice(scope, node)):
                groups.append((opened, list(ast.iter_child_nodes(node))))
                continue
            for field in node._fields:
                value = getattr(node, field, None)
                if isinstance(value, list):
                    children += [child for child in value if isinstance(child, ast.AST)]
                elif isinstance(value, ast.AST):
                    children.append(value)
        return [group for group in groups if group[1]]

    def _notice(self, scope: Scope, node: ast.AST) -> Scope | None:
        """Note what *node* imports or how it branches, and return the scope that it opens, if it does."""
        match node:
            case ast.Import(names=names):
                self.imports.update(alias.name for alias in names)
            case ast.ImportFrom(module=module, level=dots):
                self.imports.add("." * dots + (module or ""))
            case ast.BoolOp(values=operands):
                scope.paths_of.paths += len(operands) - 1
            case ast.comprehension(ifs=conditions):
                scope.paths_of.paths += len(conditions)
            case ast.ClassDef():
                return scope.inner(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                function = scope.inner(node)
                self.functions.append(function)
                return function
        return None
