"""The variables of the API: what of them is refused before anything is asked."""

import pytest

from event_archive.config.sources import ApiSettings
from event_archive.errors import ConfigurationError


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ApiSettings:
    given = {"API_BASE_URL": "https://api.example.com/v1/", "PG_CONNECTION_STRING": "postgresql://h/d"}
    for name, value in (given | variables).items():
        monkeypatch.setenv(name, value)
    return ApiSettings.load()


@pytest.mark.parametrize("path", ["/events", "events", "//events"])
def test_the_path_stands_below_the_base(monkeypatch: pytest.MonkeyPatch, path: str):
    assert load(monkeypatch, API_EVENTS_PATH=path).url == "https://api.example.com/v1/events"


@pytest.mark.parametrize("path", ["/events?type=a", "/events#a", "/my events", "/e\tx"])
def test_a_path_with_more_than_a_path_in_it_is_refused(monkeypatch: pytest.MonkeyPatch, path: str):
    with pytest.raises(ConfigurationError, match="API_EVENTS_PATH .* must be a path without a query"):
        load(monkeypatch, API_EVENTS_PATH=path)


def test_an_address_is_no_path(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="a path behind API_BASE_URL, not an address") as caught:
        load(monkeypatch, API_EVENTS_PATH="https://user:hunter2@host/events")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:99999", "http://h:port/v1", "http://[::1", "http://h:0"])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str):
    with pytest.raises(ConfigurationError, match="API_BASE_URL .* must be an http or https URL"):
        load(monkeypatch, API_BASE_URL=url)


def test_an_address_of_ipv6_is_one(monkeypatch: pytest.MonkeyPatch):
    assert load(monkeypatch, API_BASE_URL="http://[::1]:8080").url == "http://[::1]:8080/events"


@pytest.mark.parametrize("name", ['we"ird', "back\\slash", "two\nlines"])
@pytest.mark.parametrize("variable", ["API_ID_FIELD", "API_TYPE_FIELD", "API_TIME_FIELD"])
def test_a_field_that_cannot_be_looked_for_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, name: str):
    with pytest.raises(ConfigurationError, match=f"{variable} .* must be a field's name without quotes, backslashes"):
        load(monkeypatch, **{variable: name})
