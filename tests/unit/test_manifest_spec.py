"""docs/manifest.md, the code and the tests know the same rules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from diachunk.manifest import decode

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "src/diachunk/manifest").glob("*.py")))
RULE_ROW = re.compile(r"^\| (M\d+) \| .* \| (.*) \| `(test_\w+)` \|$", re.MULTILINE)


def _attacks() -> dict[str, str]:
    """The source of each attack test by its name."""
    bodies = {}
    for path in sorted((ROOT / "tests/attack").glob("test_manifest_attacks*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                bodies[node.name] = ast.get_source_segment(source, node) or ""
    return bodies


def test_every_rule_is_in_the_spec_and_in_the_code() -> None:
    in_spec = [rule for rule, _, _ in RULE_ROW.findall(SPEC)]
    assert in_spec == [f"M{number}" for number in range(1, len(in_spec) + 1)]
    assert set(re.findall(r'rule="(M\d+)"', CODE)) == set(in_spec)


def test_every_rule_names_a_test_that_breaks_it() -> None:
    attacks = _attacks()
    for rule, _, name in RULE_ROW.findall(SPEC):
        assert f'"{rule}"' in attacks[name], (rule, name)
    known = {rule for rule, _, _ in RULE_ROW.findall(SPEC)}
    assert set(re.findall(r'"(M\d+)"', "".join(attacks.values()))) == known


def test_every_rule_names_an_error_that_the_code_raises() -> None:
    # Messages are split over lines and hold values: compare words alone, value by "...".
    code = re.sub(r'"\s+f?"', "", CODE)
    for rule, errors, _ in RULE_ROW.findall(SPEC):
        for error in errors.split("; "):
            for part in error.strip('"').split("..."):
                assert part.strip() in code, (rule, part)


def test_the_example_of_the_spec_is_a_manifest() -> None:
    example = re.search(r"```json\n(\{.*?\n\})\n```", SPEC, re.DOTALL)
    identity = re.search(r"Its id is `([0-9a-f]{64})`", SPEC)
    assert example
    assert identity
    assert decode(example[1].encode()).hex_id == identity[1]
