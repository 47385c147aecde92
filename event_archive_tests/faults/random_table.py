"""A table at random: of which shape, and what others do to it, as statements of one session. Not here: what must be."""

import random
from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive_tests.fixtures.statements import CI

MARK = "wvqx"
"""Part of every text in the table, and of no message."""

_NUMBERS = [str(number) for number in range(1, 20)]
_TEXTS = [MARK, MARK.upper(), f"{MARK} ", f'"{MARK}",\n', f"\\.{MARK}", "", "1.0", *(f"{MARK}{n}" for n in range(9))]
# Of many types, values that are equal and spelled in two ways.
VALUES = {
    "smallint": _NUMBERS,
    "integer": _NUMBERS,
    "bigint": _NUMBERS,
    "positive": _NUMBERS,
    "numeric": ["1", "1.0", "1.00", "-0.0", "1e-20", "NaN", "12345678901234567890.5"],
    "numeric(9,3)": ["1", "1.5", "-0.001", "999999"],
    "real": ["0", "-0", "0.1", "NaN"],
    "double precision": ["0", "-0", "0.1", "1e300", "Infinity", "NaN"],
    "boolean": ["t", "f"],
    "text": _TEXTS,
    "character varying": _TEXTS,
    "ext.ci": _TEXTS,
    "character(8)": [MARK, f"{MARK} b", "", "a"],
    '"char"': ["a", '"', ""],
    "uuid": [f"{n}0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" for n in range(9)],
    "date": ["2024-02-29", "infinity", "0044-03-15 BC"],
    "timestamp without time zone": ["2024-03-01 10:00", "-infinity", "0044-03-15 BC", "2024-03-01 10:00:00.000001"],
    "timestamp with time zone": ["2024-03-01 10:00+02", "2024-03-01 08:00Z", "infinity"],
    "time with time zone": ["10:00+02", "08:00Z"],
    "interval": ["1 day", "24:00:00", "1 mon", "30 days", "-1 year -2 days 03:04:05.678"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1"],
    "bytea": ["", "\\x00ff", "\\x5c78"],
    "jsonb": [f'{{"{MARK}": 1.0}}', f'{{"{MARK}": 1.00}}', "null", '""', "[]"],
    "json": [f'{{"{MARK}": 1,  "{MARK}": 2}}', " null"],
    "integer[]": ["{1,2}", "{}", "{NULL}", "[0:1]={1,2}"],
    "numeric[]": ["{1.0}", "{1.00}", "{1}"],
    "pair": [f"(1.0,{MARK}", f"(1.00,{MARK}", "(,", '(1,""'],
    "mood": [],
    "int4range": ["[1,5)", "[1,4]", "empty", "(,)"],
    "numrange": ["[1.0,2]", "[1.00,2]", "empty"],
    "point": ["(1.1,-0)", "(0,0)"],
}
NO_KEY = {"json", "point"}
WHOLE = {"smallint", "integer", "bigint"}
WIDER = {
    "smallint": "integer",
    "integer": "bigint",
    "bigint": "numeric",
    "numeric(9,3)": "numeric",
    "numeric": "text",
    "real": "double precision",
    "mood": "text",
    "uuid": "text",
    "character varying": "text",
    "text": "character varying",
    "jsonb": "text",
}
NAMES = ["id", "Select", "wei rd", 'q"uote', "ümlaut", "line_", "a.b", "per%cent", "it's", "key_0", "image", "n" * 63]
NAMES += ["archived_", "{}", "ctid_", "day", "src_", "table_"]
TABLE = TableName("public", 'ta"ble')
TYPES = f"""{CI} CREATE TYPE mood AS ENUM ('sad', 'ok', 'ha,"ppy', ''); CREATE TYPE pair AS (a numeric, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TABLE audit (row_ text);
CREATE FUNCTION each() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.audit VALUES (OLD::text); RETURN NULL; END $$;
CREATE FUNCTION all_() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.audit SELECT gone_::text FROM gone_; RETURN NULL; END $$;
CREATE FUNCTION let() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RETURN CASE WHEN pg_catalog.hashtext(OLD::text) % 2 = 0 THEN OLD END; END $$;
CREATE FUNCTION style() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_catalog.set_config('DateStyle', 'SQL', true); RETURN OLD; END $$;"""
TRIGGERS = {
    "each": "AFTER DELETE ON {} FOR EACH ROW EXECUTE FUNCTION each()",
    "all_": "AFTER DELETE ON {} REFERENCING OLD TABLE AS gone_ FOR EACH STATEMENT EXECUTE FUNCTION all_()",
    "let": "BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION let()",
    "keep": "BEFORE DELETE ON {} FOR EACH ROW EXECUTE FUNCTION keep()",
    "style": "BEFORE DELETE ON {} FOR EACH ROW EXECUTE FUNCTION style()",
}
"""By what they do: the first two write what went into ``audit``, the last two keep a purge from its end."""
COLUMNS = """SELECT attname, format_type(atttypid, atttypmod), coalesce(attnum = ANY (indkey), false)
FROM pg_attribute LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"""

CREATE = "CREATE TABLE {name} PARTITION OF {table} {bounds}"
ATTACH = "ALTER TABLE {table} ATTACH PARTITION {name} {bounds}"
BY_NUMBER = ("both", "hash", "list")
"""Partitions by time and number: of several columns, or each day's has partitions of its own."""
TIMES = ["timestamp without time zone", "timestamp with time zone", "date"]

Row = tuple[tuple[str, str | None], ...]
"""Columns and their texts; None for NULL."""


def named(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def literal(text: str | None) -> str:
    return sql.Literal(text).as_string(None)


class RandomTable:
    """A table of random columns, key and partitions: what befalls it goes by the dice."""

    def __init__(self, dice: random.Random, session: psycopg.Connection[Any], days: list[date]) -> None:
        self.dice, self.session, self.days = dice, session, days
        self.at = dice.choice(["at", "T me"])
        self.span = dice.choice(["", "", "day", "half", "month", "zone", *BY_NUMBER])
        self.midnight = dice.choice(["00:00+02", "00:00-08", "22:00+00"]) if self.span == "zone" else "00:00+00"
        self.fixed = {self.at, "number"} if self.span in BY_NUMBER else {self.at}
        self.key_changed = False
        session.execute(TYPES.encode())

    def create(self) -> None:
        kinds = [kind for kind in VALUES if kind not in NO_KEY]
        columns = [(name, self.dice.choice(list(VALUES))) for name in self.dice.sample(NAMES, self.dice.randint(2, 6))]
        columns += [("number", self.dice.choice(sorted(WHOLE) if "number" in self.fixed else kinds))]
        columns.insert(self.dice.randint(0, len(columns)), (self.at, self.dice.choice(TIMES)))
        definitions = ", ".join(f"{named(name)} {kind}" for name, kind in columns)
        if text := next((name for name, kind in columns if kind == "text"), None):
            definitions += f", made_ int GENERATED ALWAYS AS (octet_length({named(text)})) STORED"
        of = f"{named(self.at)}, number" if self.span == "both" else named(self.at)
        by = f"PARTITION BY RANGE ({of})" if self.span else ""
        self.do(f"CREATE TABLE {TABLE} ({definitions}) {by}; CREATE TABLE neighbour (LIKE {TABLE})")
        self.do(f"ALTER TABLE {TABLE} ADD CONSTRAINT its_key PRIMARY KEY ({self.new_key()})")
        for first in sorted({day.replace(day=1) if self.span == "month" else day for day in self.days if self.span}):
            self.do(self.partition(first, CREATE))
        if self.span == "zone" or (self.span and self.dice.random() < 0.25):
            self.do(f"CREATE TABLE part_rest PARTITION OF {TABLE} DEFAULT")
        self.do(self.insert())
        self.do(f"INSERT INTO neighbour SELECT * FROM {TABLE}")
        is_whole = any(name == "number" and kind in WHOLE and is_key for name, kind, is_key in self.columns())
        if is_whole and self.dice.random() < 0.5:
            how = self.dice.choice(["ALWAYS", "BY DEFAULT"])
            self.do(f"ALTER TABLE {TABLE} ALTER number ADD GENERATED {how} AS IDENTITY")
        if self.dice.random() < 0.3:
            self.do(self.trigger())

    def columns(self) -> list[tuple[str, str, bool]]:
        """The table's columns, without generated ones: name, type, whether it belongs to the key."""
        return self.session.execute(COLUMNS.encode(), (str(TABLE),)).fetchall()

    def do(self, statement: str) -> None:
        """Does it, or raises what PostgreSQL says: soon, where a command has locked what it needs."""
        print("   ", statement)
        self.session.execute(f"SET LOCAL lock_timeout TO '40ms'; {statement}".encode())

    def value(self, kind: str) -> str:
        if kind == "mood":
            labels = self.session.execute("SELECT enumlabel FROM pg_enum ORDER BY enumsortorder").fetchall()
            return literal(self.dice.choice(labels)[0])
        text = self.dice.choice(VALUES[kind])
        if kind == "pair":
            more: Any = self.session.execute("SELECT relnatts - 2 FROM pg_class WHERE relname = 'pair'").fetchone()
            text += "," * more[0] + ")"
        return literal(text)

    def day(self) -> date:
        """Any of the days, mostly one of those that are aged."""
        return self.dice.choices(self.days, [2, 4, 4, 1])[0]

    def time(self) -> str:
        return f"'{self.day()} {self.dice.choice(['00:00', '07:30:00.5', '23:59:59.999999'])}+00'"

    def insert(self) -> str:
        columns, time, rows = self.columns(), self.time(), list[str]()
        for _ in range(self.dice.randint(1, 12)):
            values = [
                time if name == self.at else "NULL" if not key and self.dice.random() < 0.2 else self.value(kind)
                for name, kind, key in columns
            ]
            rows.append(f"({', '.join(values)})")
        names = ", ".join(named(name) for name, _, _ in columns)
        return f"""INSERT INTO {TABLE} ({names}) OVERRIDING SYSTEM VALUE VALUES {", ".join(rows)}
        ON CONFLICT DO NOTHING"""

    def change(self) -> str:
        """A DELETE or UPDATE of some row."""
        total: Any = self.session.execute(f"SELECT count(*) FROM {TABLE}".encode()).fetchone()
        offset = self.dice.randrange(max(1, *total))
        where = f"""WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM {TABLE} AS t ORDER BY t::text COLLATE "C"
        OFFSET {offset} LIMIT {self.dice.choice([1, 1, 3])})"""
        name, kind, _ = self.dice.choice(self.columns())
        kind_of = self.dice.randrange(6)
        if kind_of == 0:
            return f"DELETE FROM {TABLE} {where}"
        value = self.time() if name == self.at or kind_of == 1 else self.value(kind)
        return f"UPDATE {TABLE} SET {named(self.at if kind_of == 1 else name)} = {value} {where}"

    def again(self, row: Row) -> str:
        """A row comes again as a file has it, or goes back to that form."""
        columns = [column for column in self.columns() if column[0] in dict(row)]
        names = ", ".join(named(name) for name, _, _ in columns)
        values = ", ".join(literal(dict(row)[name]) for name, _, _ in columns)
        key = ", ".join(named(name) for name, _, is_key in self.columns() if is_key)
        change = ", ".join(f"{named(name)} = EXCLUDED.{named(name)}" for name, _, is_key in columns if not is_key)
        otherwise = f"UPDATE SET {change}" if change else "NOTHING"
        insert = f"INSERT INTO {TABLE} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"
        return f"{insert} ON CONFLICT ({key}) DO {otherwise}"

    def ddl(self) -> str:
        if self.span and self.dice.random() < 0.6:
            return self.repartition()
        columns = [column for column in self.columns() if column[0] not in self.fixed]
        if not columns:
            return "-- no column to change"
        name, kind, key = self.dice.choice(columns)
        table, column = f"ALTER TABLE {TABLE}", named(name)
        doing = self.dice.randrange(9)
        new = self.dice.choice(NAMES)
        if doing == 0:
            kind = self.dice.choice(list(VALUES))
            default = self.dice.choice(["", f"DEFAULT {self.value(kind)}"])
            return f"{table} ADD COLUMN {named(new)} {kind} {default}"
        if doing == 1 and not key:
            return f"{table} DROP COLUMN {column}"
        if doing == 8:
            return self.trigger()
        self.key_changed = self.key_changed or key or doing > 3
        if doing == 2:
            return f"{table} RENAME COLUMN {column} TO {named(new)}"
        if doing == 3:
            return f"{table} ALTER COLUMN {column} TYPE {WIDER.get(kind, kind)}"
        if doing == 4:
            return f"ALTER TYPE mood RENAME VALUE {self.value('mood')} TO 'label {self.dice.randrange(9)}'"
        if doing == 5:
            return f"ALTER TYPE pair ADD ATTRIBUTE {named(new)} text CASCADE"
        return f"{table} DROP CONSTRAINT its_key; {table} ADD CONSTRAINT its_key PRIMARY KEY ({self.new_key()})"

    def trigger(self) -> str:
        """Drops what triggers there are, and creates another, or none."""
        statement = "; ".join(f"DROP TRIGGER IF EXISTS {name} ON {TABLE}" for name in TRIGGERS)
        name = self.dice.choice([*TRIGGERS, ""])
        return f"{statement}; CREATE TRIGGER {name} {TRIGGERS[name].format(TABLE)}" if name else statement

    def triggers(self) -> set[str]:
        """Those that the table has."""
        query = "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
        return {name for (name,) in self.session.execute(query.encode(), (str(TABLE),))}

    def new_key(self) -> str:
        fit = [name for name, kind, _ in self.columns() if kind not in NO_KEY and name not in self.fixed]
        key = self.dice.sample(fit, min(len(fit), self.dice.choice([1, 1, 2, 3])))
        for name in sorted(self.fixed) if self.span or self.dice.random() < 0.2 else ():
            key.insert(self.dice.randint(0, len(key)), name)
        return ", ".join(map(named, key))

    def repartition(self) -> str:
        first = self.dice.choice(self.days)
        return self.partition(
            first.replace(day=1) if self.span == "month" else first,
            self.dice.choice([*[CREATE, ATTACH] * 2, "ALTER TABLE {table} DETACH PARTITION {name}"]),
        )

    def partition(self, first: date, statement: str) -> str:
        end = (first + timedelta(days=31)).replace(day=1) if self.span == "month" else first + timedelta(days=1)
        start, stop = (f"'{of} {self.midnight}'" + ", MINVALUE" * (self.span == "both") for of in (first, end))
        bounds = f"FOR VALUES FROM ({start}) TO ({stop})"
        name = f"part_{first:%Y_%m_%d}"
        done = statement.format(table=TABLE, name=name, bounds=bounds)
        noon = f"('{first} 12:00+00')"
        parts = {
            "half": (f"RANGE ({named(self.at)})", f"FROM (MINVALUE) TO {noon}", f"FROM {noon} TO (MAXVALUE)"),
            "hash": ("HASH (number)", "WITH (MODULUS 2, REMAINDER 0)", "WITH (MODULUS 2, REMAINDER 1)"),
            "list": ("LIST (number)", "IN (1, 2, 3, 4, 5, 6)", ""),
        }
        if self.span not in parts or statement != CREATE:
            return done
        by, *below = parts[self.span]
        return f"{done} PARTITION BY {by}" + "".join(
            f"; CREATE TABLE {name}_{n} PARTITION OF {name} {f'FOR VALUES {of}' if of else 'DEFAULT'}"
            for n, of in enumerate(below)
        )
