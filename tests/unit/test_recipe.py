"""Recipes: what they may say, and what each of their rules refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diachunk.errors import ManifestError
from diachunk.manifest.recipe import (
    RECIPE_BYTES_MAX,
    HubUpstream,
    Recipe,
    UrlUpstream,
    hub_upstream,
    parse_recipe,
)

COMMIT = "ef2795fcc29c5abe6ffc91fd33808588b49bbc66"
SHA256 = "a" * 64
MANIFESTS = Path(__file__).parents[2] / "manifests"

GOOD = f"""
name = "nari-labs/dia"
revision = "v1"

[[component]]
name = "model"
hub = "nari-labs/Dia-1.6B"
revision = "{COMMIT}"
files = ["*.json", "model.safetensors"]
exclude = ["test*.json"]
mirrors = ["https://mirror.test/dia", "http://other.test/{{path}}?x=1"]
places = ["hub", "dia"]

[[component]]
name = "vocoder"
url = "https://host.test/weights.pth"
path = "checkpoint.pth"
size = 306717287
sha256 = "{SHA256}"
places = ["descript"]
"""


def test_a_recipe_says_what_comes_from_where() -> None:
    recipe = parse_recipe(GOOD.encode())
    assert recipe.ref == "nari-labs/dia@v1"
    model, vocoder = recipe.components
    assert model.upstream == HubUpstream(
        "nari-labs/Dia-1.6B", COMMIT, ("*.json", "model.safetensors"), ("test*.json",)
    )
    assert model.mirrors == ("https://mirror.test/dia", "http://other.test/{path}?x=1")
    assert model.places == ("hub", "dia")
    assert isinstance(vocoder.upstream, UrlUpstream)
    assert [(file.label, file.size, file.sha256) for file in vocoder.upstream.files] == [
        ("vocoder/checkpoint.pth", 306717287, SHA256)
    ]
    assert recipe.pinned


def test_a_branch_is_not_pinned_and_main_is_what_is_left_out() -> None:
    recipe = parse_recipe(b'name = "a"\n[[component]]\nhub = "org/repo"\n')
    assert recipe.ref == "a@main"
    assert recipe.components[0].upstream == HubUpstream("org/repo", "main")
    assert not recipe.pinned


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.toml")), ids=lambda path: path.name)
def test_the_recipes_that_ship_are_pinned_and_named_as_their_files(path: Path) -> None:
    recipe = parse_recipe(path.read_bytes())
    assert recipe.pinned
    assert recipe.ref == f"{path.stem}@main"
    assert [each.name for each in recipe.components] == ["model", "vocoder"]


def test_several_files_at_one_template() -> None:
    text = (
        'name = "a"\n[[component]]\nurl = "https://h/{path}"\n'
        f'file = [{{path = "x/y.bin", size = 0, sha256 = "{SHA256}"}},'
        f' {{path = "z", size = 1, sha256 = "{SHA256}"}}]\n'
    )
    upstream = parse_recipe(text.encode()).components[0].upstream
    assert isinstance(upstream, UrlUpstream)
    assert [file.path for file in upstream.files] == ["x/y.bin", "z"]


X_TWICE = "".join(f'[[component.file]]\npath = "{x}"\nsize = 0\nsha256 = "{SHA256}"\n' for x in "xX")
HUB = '[[component]]\nname = "c"\nhub = "org/repo"\n'
URL = f'[[component]]\nname = "c"\nurl = "https://h/f"\npath = "f"\nsize = 1\nsha256 = "{SHA256}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no 'name'"),
        ("name = 1", "must be a str"),
        ("x = [", "not TOML"),
        ('name = "a"', "no 'component'"),
        ('name = "a"\ncomponent = []', "no component"),
        ('name = "a"\ncomponent = 3', "must be a list"),
        ('name = "a"\ncomponent = [3]', "not a table"),
        ('name = "../a"\n' + HUB, "not a name"),
        ('name = "a"\nrevision = "a b"\n' + HUB, "not a revision"),
        ('name = "a"\nsurprise = 1\n' + HUB, "'surprise', which no recipe has"),
        ('name = "a"\n' + HUB + "surprise = 1", "'surprise', which no recipe has"),
        ('name = "a"\n' + HUB + HUB, "names of their own"),
        ('name = "a"\n' + HUB + HUB.replace('"c"', '"C"'), "names of their own"),
        ('name = "a"\n' + HUB.replace('name = "c"', "") + HUB, "names of their own"),
        ('name = "a"\n' + HUB.replace('"c"', '"../c"'), "not a component's name"),
        ('name = "a"\n[[component]]\nname = "c"', "either `hub` or `url`"),
        ('name = "a"\n' + HUB + 'url = "https://h/f"', "either `hub` or `url`"),
        ('name = "a"\n' + HUB.replace("org/repo", "org/repo/more"), "not a repository"),
        ('name = "a"\n' + HUB.replace("org/repo", "../repo"), "not a repository"),
        ('name = "a"\n' + HUB.replace("org/repo", "org/re..po"), "not a repository"),
        ('name = "a"\n' + HUB + 'revision = "../x"', "not a revision of a repository"),
        ('name = "a"\n' + HUB + 'files = "x"', "must be a list"),
        ('name = "a"\n' + HUB + "files = [1]", "list of strings"),
        ('name = "a"\n' + HUB + 'files = [""]', "list of strings"),
        ('name = "a"\n' + HUB + f'files = ["{"x" * 2049}"]', "list of strings"),
        ('name = "a"\n' + HUB + 'places = ["/etc"]', "no kind of place"),
        ('name = "a"\n' + HUB + 'mirrors = ["ftp://h/"]', "not an http"),
        ('name = "a"\n' + HUB + 'mirrors = ["https://u:p@h/"]', "without a login"),
        ('name = "a"\n' + HUB + 'mirrors = ["https:///x"]', "not an http"),
        ('name = "a"\n' + URL.replace("https://h/f", "file:///etc/passwd"), "not an http"),
        ('name = "a"\n' + URL.replace("https://h/f", "https://a\\\\b/f"), "not an http"),
        ('name = "a"\n' + URL.replace("https://h/f", "https://h/\\u001b[2J"), "not an http"),
        ('name = "a"\n' + URL.replace('path = "f"', 'path = "../f"'), "the path"),
        ('name = "a"\n' + URL.replace('path = "f"', 'path = "/f"'), "the path is absolute"),
        ('name = "a"\n' + URL.replace("size = 1", "size = -1"), "not a size"),
        ('name = "a"\n' + URL.replace("size = 1", "size = 9007199254740992"), "not a size"),
        ('name = "a"\n' + URL.replace("size = 1", "size = 0x" + "f" * 9000), "not a size"),
        ('name = "a"\n' + URL.replace("size = 1", "size = " + "9" * 9000), "not TOML"),
        ('name = "a"\n' + URL.replace("size = 1", "size = true"), "must be a int"),
        ('name = "a"\n' + URL.replace("size = 1", "size = 1.0"), "must be a int"),
        ('name = "a"\n' + URL.replace("size = 1", ""), "no 'size'"),
        ('name = "a"\n' + URL.replace(SHA256, "A" * 64), "64 lower-case hex digits"),
        ('name = "a"\n' + URL.replace(SHA256, ""), "64 lower-case hex digits"),
        ('name = "a"\n' + URL + "revision = 'x'", "'revision', which no recipe has"),
        (
            f'name = "a"\n[[component]]\nurl = "https://h/f"\nfile = [{{path = "x", size = 0, sha256 = "{SHA256}"}}]',
            "needs {path}",
        ),
        ('name = "a"\n[[component]]\nurl = "https://h/{path}"\nfile = []', "needs files"),
        (
            f'name = "a"\n[[component]]\nurl = "https://h/{{path}}"\n{X_TWICE}',
            "a path of its own",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(said)) as caught:
        parse_recipe(text.encode())
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("data", [b"\xff\xfe", b'name = "\xff"', b"\0", b'name = "a\0b"'])
def test_what_is_no_text_is_no_recipe(data: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_recipe(data)


def test_one_byte_too_many_is_refused() -> None:
    padding = b"#" * (RECIPE_BYTES_MAX - len(GOOD.encode()))
    assert isinstance(parse_recipe(GOOD.encode() + padding), Recipe)
    with pytest.raises(ManifestError, match="more than"):
        parse_recipe(GOOD.encode() + padding + b"#")


@pytest.mark.parametrize("name", ["org/repo", "gpt2", "a.b/c_d-e"])
def test_names_of_repositories(name: str) -> None:
    assert hub_upstream(name).repository == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a/b/c", "a b", "a@b", "..", "a/..", "a--b/c", "a/b?x", "a/b#c", "á/b", "a/b\n"],
)
def test_what_is_no_name_of_a_repository(name: str) -> None:
    with pytest.raises(ManifestError):
        hub_upstream(name)


@pytest.mark.parametrize("revision", ["", "a b", "../main", "a/../b", "-x", "main\n", "a?b", "a#b", "%2e%2e"])
def test_what_is_no_revision(revision: str) -> None:
    with pytest.raises(ManifestError):
        hub_upstream("org/repo", revision)


def test_revisions_may_be_branches_with_slashes() -> None:
    assert hub_upstream("org/repo", "refs/pr/12").revision == "refs/pr/12"
