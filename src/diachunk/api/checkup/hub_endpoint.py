"""The Hub: does it answer, and is it the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from diachunk.api.checkup.base import Finding, Level, Online, Patient, age
from diachunk.api.checkup.origins import ask, context, found, from_fault, unreachable
from diachunk.api.recipes import HUB_SCHEME, bundled_recipes, read_recipe
from diachunk.errors import DiachunkError, UsageError
from diachunk.manifest.recipe import HubUpstream, Recipe
from diachunk.sources.base import SourceFault
from diachunk.sources.http import HttpOrigin
from diachunk.sources.reply import is_page, retry_after_s
from diachunk.within import within

_DEFAULT = "https://huggingface.co"
_READ_S = 2.0
_ASKED = "api/models/nari-labs/Dia-1.6B-0626"


def wanted(patient: Patient) -> bool:
    """Whether to ask the Hub: because the user said so, or a checkpoint of the settings comes from there."""
    if patient.online is not Online.CONFIGURED:
        return patient.online is Online.ALL
    named = {target.partition("@")[0] for target in patient.targets}
    return (
        any(target.startswith(HUB_SCHEME) for target in patient.targets)
        or any(_file_is_of_hub(Path(target)) for target in patient.targets if target.endswith(".toml"))
        or any(recipe.name in named and _is_of_hub(recipe) for recipe in (bundled_recipes() if named else ()))
    )


def _file_is_of_hub(path: Path) -> bool:
    """One that cannot be read may be."""
    try:
        return _is_of_hub(within(_READ_S, lambda: read_recipe(path)))
    except (DiachunkError, OSError):
        return True


def _is_of_hub(recipe: Recipe) -> bool:
    return any(isinstance(each.upstream, HubUpstream) for each in recipe.components)


def hub(patient: Patient) -> Iterator[Finding]:
    """The endpoint that the Hub's clients use."""
    endpoint = (patient.environment.get("HF_ENDPOINT") or _DEFAULT).rstrip("/")
    elsewhere = (
        "" if endpoint == _DEFAULT else "unset HF_ENDPOINT  # it names another Hub than huggingface.co"
    )
    try:
        opened = HttpOrigin(endpoint, context())
    except UsageError as error:
        yield found(Level.FAULT, f"HF_ENDPOINT: {error.message}", "unset HF_ENDPOINT")
        return
    try:
        if problem := unreachable(urlsplit(endpoint).hostname or "", endpoint):
            yield found(problem.level, f"the Hub: {problem.what}", elsewhere or problem.cure)
            return
        with ask(opened, f"{endpoint}/{_ASKED}", patient) as response:
            headers, status = response.headers, response.status
    except SourceFault as fault:
        problem = from_fault(opened.label, fault, urlsplit(endpoint).scheme)
        if "the proxy:" in problem.what:
            elsewhere = ""  # another Hub would not be reached either
        yield found(problem.level, f"the Hub: {problem.what}", elsewhere or problem.cure)
        return
    finally:
        opened.close()
    if is_page(headers):
        what = f"the Hub: {opened.label} sent an HTML page: a login page stands in between, or it is no Hub"
        yield found(Level.FAULT, what, elsewhere or f"curl -sSL {endpoint} | head")
    elif status == 429:
        wait = retry_after_s(headers)
        what = f"the Hub: too many requests from here; come back in {age(wait or 300)}"
        yield found(
            Level.WARNING,
            what,
            f"sleep {wait or 300:.0f} && diachunk doctor --online  # HF_TOKEN raises the limit",
        )
    elif status >= 500:
        yield found(
            Level.WARNING, f"the Hub: {opened.label} answers {status}", "sleep 60 && diachunk doctor --online"
        )
    elif status < 300 or headers.get("X-Error-Code"):
        yield found(Level.OK, f"the Hub: {opened.label} answers")
    else:
        yield found(Level.WARNING, f"the Hub: {opened.label} answers {status}, as no Hub would", elsewhere)
