"""How settings are read: from variables, or from an entry of the datasets file that stands in their place.

Here: where a value comes from, and the words for one that is wrong. Not here: which settings there are
(``environment``), the datasets file (``datasets``).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Self, cast

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, ValidationInfo, field_validator

from event_archive.config.variables import HIDDEN, shown_quoted, value_of
from event_archive.errors import ConfigurationError

_QUOTED = re.compile(r"([\"']).*\1", re.DOTALL)
_MAY_BE_QUOTED = ("event_table", "dagster_pg_password")
"""Fields that may begin and end so: a name as SQL has it, and a password that another program reads as it is."""
_FALSE = ("", "0", "f", "false", "n", "no", "off")


@dataclass(frozen=True, slots=True)
class Entry:
    """One dataset of the datasets file. The one without a name is what the environment alone describes.

    Attributes:
        name: the dataset's.
        values: field, where its text stands, and the text; each overrules the field's variable.
        variables: field, and the variable that is read in place of the field's own.
        unread: fields whose own variables do not count.
        after: datasets whose days are purged first.
        bare_keys: its asset keys have no prefix.
    """

    name: str = ""
    values: tuple[tuple[str, str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    unread: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    bare_keys: bool = False


ENVIRONMENT = Entry()


class Given(NamedTuple):
    """A field's text, and what people know it by: a variable, or dataset and key."""

    field: str
    text: str
    source: str


class EnvironmentSettings(BaseModel):
    """Fields that are named as their variables are, in lower case."""

    # Defaults are given as the values they mean, which the parsers of text would refuse.
    model_config = ConfigDict(hide_input_in_errors=True, frozen=True, validate_default=False)
    _entry: Entry = PrivateAttr(ENVIRONMENT)

    @property
    def entry(self) -> Entry:
        """What these settings were read by."""
        return self._entry

    @classmethod
    def load(cls, entry: Entry = ENVIRONMENT) -> Self:
        """Reads the environment; once only, as long as it does not change.

        Args:
            entry: of the datasets file, for one of its datasets.

        Raises:
            ConfigurationError: with a line for every variable that is missing or wrong; it names the variable, what
                it holds unless that is a secret, and what is allowed.
        """
        loaded, problems = cls.attempt(entry)
        if loaded is None:
            raise ConfigurationError("The environment is not right:\n" + "\n".join(f"  {line}" for line in problems))
        return loaded

    @classmethod
    def attempt(cls, entry: Entry = ENVIRONMENT) -> tuple[Self | None, tuple[str, ...]]:
        """As ``load``; the settings, or what is wrong, a line each."""
        given = tuple(_given(cls.model_fields, entry))
        loaded, problems = _loaded(cls, given, entry, tuple(cls._misspelt(entry)))
        return cast("Self | None", loaded), problems

    @field_validator("*", mode="before")
    @classmethod
    def _without_quotes(cls, text: Any, info: ValidationInfo) -> Any:
        """Refuses quotes that nobody took away, as in a file of variables: they would become part of a name."""
        if isinstance(text, str) and _QUOTED.fullmatch(text) and info.field_name not in _MAY_BE_QUOTED:
            raise ValueError("must be without the quotes around it")
        return text

    @classmethod
    def _misspelt(cls, _entry: Entry) -> list[str]:
        """What is wrong with variables that are set and not read."""
        return []

    @classmethod
    def _read(
        cls, given: tuple[Given, ...], entry: Entry, misspelt: Iterable[str]
    ) -> "tuple[EnvironmentSettings | None, tuple[str, ...]]":
        sources = {of.field: of.source for of in given} | dict(entry.variables)
        problems = [*misspelt, *cls._contradictions({of.field.upper() for of in given})]
        settings = None
        try:
            settings = cls.model_validate({of.field: of.text for of in given})
            settings._entry = entry  # noqa: SLF001 (its own)
        except ValidationError as error:
            problems += [cls._problem(details, sources, entry.name) for details in error.errors(include_url=False)]
        return (None if problems else settings), tuple(problems)

    @classmethod
    def _contradictions(cls, _present: set[str]) -> list[str]:
        """What is wrong between the variables that are set."""
        return []

    @classmethod
    def _problem(cls, details: Any, sources: dict[str, str], dataset: str) -> str:
        message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = message.partition(", unable to ")[0].replace("a valid boolean", "true or false")
        field = str(details["loc"][0])
        source = sources.get(field, field.upper())
        if details["type"] == "missing":
            whose = f", which the dataset {dataset} needs" if dataset else ""
            return f"{source} is not set{whose}; it {cls.model_fields[field].description}."
        if details["input"] is None:
            return f"{source} is not set: {message}."
        secret = "Secret" in repr(cls.model_fields[field].annotation) or field == "azure_storage_account_url"
        held = HIDDEN if secret else shown_quoted(str(details["input"]))
        return f"{source} holds {held}: {message}."


def _given(fields: Iterable[str], entry: Entry) -> Iterable[Given]:
    values = {field: (place, text) for field, place, text in entry.values}
    variables = dict(entry.variables)
    for field in fields:
        source = variables.get(field, field.upper())
        text = "" if field in entry.unread else value_of(source)
        # A dry run that either asks for is dry.
        if field in values and not (field == "dry_run" and text.lower() not in _FALSE):
            source, text = values[field]
        if text:
            yield Given(field, text, source)


@cache
def _loaded(
    kind: type[EnvironmentSettings], given: tuple[Given, ...], entry: Entry, misspelt: tuple[str, ...]
) -> tuple[EnvironmentSettings | None, tuple[str, ...]]:
    return kind._read(given, entry, misspelt)  # noqa: SLF001
