"""What PostgreSQL's errors say of functions and files, in whatever language the server speaks."""

import psycopg
import pytest

from event_archive.postgres.errors import _function, in_a_function, is_of_a_copy


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ("PL/pgSQL function tr() line 12 at PERFORM", ": tr(), line 12"),
        ("PL/pgSQL-Funktion tr() Zeile 12 bei PERFORM", ": tr(), line 12"),
        ("función PL/pgSQL tr() en la línea 12 en PERFORM", ": tr(), line 12"),
        ("fonction PL/pgSQL app.tr(integer,text), ligne 12 à PERFORM", ": app.tr(integer,text), line 12"),
        ("PL/pgSQL関数tr()の12行目 - PERFORM", ": tr(), line 12"),
        ('PL/pgSQL 함수 "tr()" 의 12번째 PERFORM', ": tr(), line 12"),
        ("функция PL/pgSQL tr2(), строка 12, оператор PERFORM", ": tr2(), line 12"),
        ("tr() PL/pgSQL fonksiyonu, 12. satır, PERFORM içinde", ": tr(), line 12"),
        ("PL/pgSQL 函数 tr() 第 12 行的 PERFORM 处", ": tr(), line 12"),
        ("funkcja PL/pgSQL inline_code_block, wiersz 12 w RAISE", ": inline_code_block, line 12"),
        ('PL/pgSQL function "my fun"() line 12 at RAISE\nSQL statement "SELECT 1"', ': "my fun"(), line 12'),
        (
            'PL/pgSQL assignment "x:=abs(a)+(SELECT 1)"\nPL/pgSQL function g(integer) line 3 at x',
            ": g(integer), line 3",
        ),
        ('JSON data, line 1: {"a": "PL/pgSQL function f() line 3 at x"', ""),
        ('COPY event_archive_readback, line 3, column id: "PL/pgSQL f() 3"', ""),
        ("", ""),
    ],
)
def test_the_function_that_failed_is_named_in_any_language(context: str, told: str):
    assert _function(context) == told


class Diagnosed(psycopg.errors.ProgramLimitExceeded):
    """An error as a server sent it."""

    class diag:  # noqa: N801 (as psycopg has it)
        """Its fields."""

        context = internal_query = source_function = None


@pytest.mark.parametrize(
    "context",
    [
        'COPY event_archive_readback, line 3: "1,x"',
        'event_archive_landing_logsのCOPY、行 3、列 id: "x"',
        "event_archive_verbatim 복사, 3번째 줄",
    ],
)
def test_what_a_copy_finds_wrong_is_no_functions_fault_in_any_language(context: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Diagnosed.diag, "context", context)
    assert (is_of_a_copy(Diagnosed()), in_a_function(Diagnosed())) == (True, False)
    monkeypatch.setattr(Diagnosed.diag, "context", f"PL/pgSQL-Funktion f() Zeile 1 bei RAISE\n{context}")
    assert (is_of_a_copy(Diagnosed()), in_a_function(Diagnosed())) == (False, True)
