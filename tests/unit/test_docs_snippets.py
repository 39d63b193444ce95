"""What the documents show of Python can be pasted: it compiles, knows every name, and calls what there is."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(document: Path) -> list[ast.Module]:
    blocks = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    return [ast.parse(block) for block in blocks]


def made(node: ast.AST) -> Iterator[str]:
    """The names that a piece of syntax gives to something."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            yield name
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from ((each.asname or each.name).partition(".")[0] for each in names)
        case ast.ExceptHandler(name=str(name)):
            yield name


def called(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """What of diachunk's own is called, and how."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="diachunk"), attr=name)):
                yield name, node
            case ast.Call(func=ast.Name(id=name)) if name in diachunk.__all__:
                yield name, node


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_a_document_can_be_pasted(document: Path) -> None:
    known = set(vars(builtins))
    for tree in snippets(document):
        nodes = list(ast.walk(tree))
        compile(tree, str(document), "exec")
        known |= {name for node in nodes for name in made(node)}
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert not used - known
        for name, call in called(tree):
            signature = inspect.signature(getattr(diachunk, name))
            known_arguments = {*signature.parameters, *diachunk.LoadOptions.__annotations__}
            assert {each.arg for each in call.keywords} <= known_arguments, name
