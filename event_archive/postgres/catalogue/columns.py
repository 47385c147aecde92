"""The columns of a table, their types and defaults, and what a type's definition says of values. Not here: indexes."""

from dataclasses import dataclass, replace

from psycopg import sql

from event_archive.postgres.session import Connection, one

# A column that was dropped has no type. A type is looked up by search_path where its name is none of SQL's own words,
# as those of bpchar and "bit", which without a length are not SQL's CHARACTER and BIT.
_COLUMNS = """
SELECT attname, pg_catalog.format_type(atttypid, atttypmod), pg_catalog.format_type(atttypid, NULL),
       NOT attnotnull, attgenerated <> '',
       t.typtype = 'b' AND (t.typelem = 0 OR t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace),
       CASE WHEN attcollation <> t.typcollation THEN
         (SELECT pg_catalog.format('%%I.%%I', n.nspname, l.collname) FROM pg_catalog.pg_collation AS l
          JOIN pg_catalog.pg_namespace AS n ON n.oid = l.collnamespace WHERE l.oid = attcollation) ELSE '' END,
       t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
       AND pg_catalog.replace(pg_catalog.format_type(atttypid, atttypmod), '[]', '') IN (
         pg_catalog.quote_ident(t.typname), pg_catalog.quote_ident(e.typname)),
       attnum, attgenerated = 'v'
FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type AS t ON t.oid = atttypid
LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND e.typarray = t.oid
WHERE attrelid = %s AND attnum > 0 ORDER BY attnum
"""
_SMALL_LETTERS = 'SELECT pg_catalog.lower(%s::pg_catalog.text COLLATE pg_catalog."default")'
_LETTERS = f"I {''.join(map(chr, range(0xC0, 0x180)))} ẞЖԱ𐐀 ΟΣ"
"""Of which locales make different small letters, or none: those of Latin as far as U+017F, and some others."""
# Other encodings lack some of these letters. Versions of PostgreSQL call the locale by several names.
_LOCALE = """
SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_encoding_to_char(encoding), datctype, of_ ->> 'datlocprovider',
                            of_ ->> 'datlocale', of_ ->> 'daticulocale')
FROM pg_catalog.pg_database AS d CROSS JOIN LATERAL pg_catalog.to_jsonb(d) AS of_
WHERE datname = pg_catalog.current_database()
"""
# The types of each column: its own, and those that an array, a domain, a range or a composite type is made of.
TYPES_OF_COLUMNS = """
WITH RECURSIVE types_(name_, oid) AS (
  SELECT attname::text, atttypid FROM pg_catalog.pg_attribute
  WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped
  UNION SELECT name_, inner_.oid FROM types_ JOIN pg_catalog.pg_type AS t USING (oid) CROSS JOIN LATERAL (
    SELECT t.typelem UNION SELECT t.typbasetype
    UNION SELECT rngsubtype FROM pg_catalog.pg_range WHERE t.oid IN (rngtypid, rngmultitypid)
    UNION SELECT atttypid FROM pg_catalog.pg_attribute
          WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) AS inner_(oid)),
kinds_ AS (SELECT DISTINCT oid FROM types_)
"""
# What a stored value reads as, where its type's own definition says so: the labels of enums, the attributes of
# composite types.
_MEANINGS = """
SELECT coalesce(pg_catalog.string_agg(meaning_, E'\n' ORDER BY meaning_), '') FROM (
  SELECT pg_catalog.format('%%s %%s', e.oid, enumlabel)
  FROM pg_catalog.pg_enum AS e JOIN kinds_ ON kinds_.oid = enumtypid
  UNION ALL
  SELECT pg_catalog.format('%%s %%s %%s', t.oid, attnum, attname)
  FROM kinds_ JOIN pg_catalog.pg_type AS t USING (oid) JOIN pg_catalog.pg_attribute ON attrelid = t.typrelid
  WHERE attnum > 0 AND NOT attisdropped) AS of_(meaning_)
"""
_DEFAULT = """
SELECT pg_catalog.pg_get_expr(adbin, adrelid)
FROM pg_catalog.pg_attrdef JOIN pg_catalog.pg_attribute ON attrelid = adrelid AND attnum = adnum
WHERE adrelid = %s AND attname = %s AND attgenerated = ''
"""
_OF_TIME = """
SELECT DISTINCT name_ FROM types_ WHERE oid IN (
  'pg_catalog.date'::pg_catalog.regtype, 'pg_catalog.time'::pg_catalog.regtype, 'pg_catalog.timetz'::pg_catalog.regtype,
  'pg_catalog.timestamp'::pg_catalog.regtype, 'pg_catalog.timestamptz'::pg_catalog.regtype)
"""

_IGNORING_CASE = "SELECT DISTINCT name_ FROM types_ JOIN pg_catalog.pg_type USING (oid) WHERE typname = 'citext'"

# A column's own collation counts; where it has none, those of what it is made of. "C" and "POSIX" are of no library.
_SORTED_AS_TEXT = """
SELECT DISTINCT name_ FROM types_ JOIN pg_catalog.pg_type AS t USING (oid)
JOIN pg_catalog.pg_attribute ON attrelid = %(oid)s AND attname = name_
WHERE coalesce(nullif(attcollation, 0), typcollation) NOT IN (
        0, 'pg_catalog."C"'::pg_catalog.regcollation, 'pg_catalog."POSIX"'::pg_catalog.regcollation)
   OR (attcollation = 0 AND t.oid = 'pg_catalog.jsonb'::pg_catalog.regtype)
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: as it is, unquoted.
        type: as ``format_type`` writes it, with its modifiers, and with its schema where that is not
            ``pg_catalog``: ``timestamp(3) without time zone``, ``public.citext``.
        plain_type: the same without modifiers.
        nullable: whether it may hold NULL.
        generated: whether PostgreSQL computes it.
        is_base: whether the type is PostgreSQL's own or an extension's, so that its name says all; a domain's or an
            enum's does not.
        collation: quoted for SQL, with its schema; empty where it is the type's own.
        is_looked_up: whether another type of that name may hide it, in a schema that ``search_path`` names first.
        number: in the catalogue; 0 where the column is in none. A renamed column keeps it, and no other ever gets it.
        is_virtual: whether PostgreSQL computes it whenever it is read, so that it cannot be indexed.
        ignores_case: whether its values are compared in small letters: of ``citext``, or made of it.
        small_letters: how the locale of the database writes some letters small, or which it is, where it
            ``ignores_case``; else empty.
    """

    name: str
    type: str
    plain_type: str
    nullable: bool
    generated: bool = False
    is_base: bool = False
    collation: str = ""
    is_looked_up: bool = False
    number: int = 0
    is_virtual: bool = False
    ignores_case: bool = False
    small_letters: str = ""

    @property
    def type_and_collation(self) -> str:
        """For comparisons, as the type is called where no other hides it."""
        return self.type + (f" COLLATE {self.collation}" if self.collation else "")

    @property
    def sql_type(self) -> sql.SQL:
        """The type for SQL, whatever ``search_path`` is."""
        return sql.SQL(self._schema + self.type)

    @property
    def definition(self) -> sql.Composable:
        """Type and collation, for a table that is to hold the same values, whatever ``search_path`` is."""
        return sql.SQL(self._schema + self.type_and_collation)

    @property
    def _schema(self) -> str:
        return "pg_catalog." if self.is_looked_up else ""


def columns(connection: Connection, oid: int) -> tuple[Column, ...]:
    """A table's columns, in its order."""
    found = tuple(Column(*row) for row in connection.execute(_COLUMNS, (oid,)).fetchall())
    # Of a domain, the name does not say what it is made of.
    if all(of.is_base and "citext" not in of.type for of in found):
        return found
    names = {name for (name,) in connection.execute(TYPES_OF_COLUMNS + _IGNORING_CASE, {"oid": oid}).fetchall()}
    if not names:
        return found
    if connection.info.parameter_status("server_encoding") == "UTF8":
        (small,) = one(connection, _SMALL_LETTERS, _LETTERS)
    else:
        (small,) = one(connection, _LOCALE)
    return tuple(replace(of, ignores_case=True, small_letters=small) if of.name in names else of for of in found)


def meanings(connection: Connection, oid: int) -> str:
    """What the definitions of a table's types say of its values: equal texts, equal meanings. No lock keeps them."""
    row = connection.execute(TYPES_OF_COLUMNS + _MEANINGS, {"oid": oid}).fetchone()
    return str(row[0]) if row else ""


def columns_of_time(connection: Connection, oid: int) -> set[str]:
    """The columns that hold a time or a date, in whatever arrays, domains, ranges and composite types."""
    return {name for (name,) in connection.execute(TYPES_OF_COLUMNS + _OF_TIME, {"oid": oid}).fetchall()}


def columns_sorted_as_text(connection: Connection, oid: int) -> set[str]:
    """The columns whose values, or texts within them, are sorted by an order that a library has."""
    return {name for (name,) in connection.execute(TYPES_OF_COLUMNS + _SORTED_AS_TEXT, {"oid": oid}).fetchall()}


def default_of(connection: Connection, oid: int, column: str) -> str | None:
    """The expression of a column's default; None where it has none."""
    row = connection.execute(_DEFAULT, (oid, column)).fetchone()
    return row[0] if row else None
