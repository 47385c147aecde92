"""A file that was read back, and the conditions by which the table's rows are compared with it.

Append, purge and restore compare by these conditions alone. Not here: how the file gets into the temporary table
(``loading``), what is done about a difference.

The column ``line`` numbers the rows in file order. Of several rows with one key only the last is current. The numbers
of the others are negative: that takes them out of every comparison.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from event_archive.domain.manifest import Hashes, Manifest, names_hash
from event_archive.postgres.catalogue.relations import KeyColumn
from event_archive.postgres.session import listed
from event_archive.table.shape import TABLE_ALIAS, TIME_TYPES, Table

READBACK = sql.Identifier("pg_temp", "event_archive_readback")
"""The temporary table that holds a file's rows, where one file is read."""
ARCHIVED = sql.Identifier("archived_")
"""The alias of ``Readback.current`` and ``Readback.former``."""
_TEXT_EQUALITY = "pg_catalog.="
_SAME_TIME_AS_TEXT = """{1}::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY[
  {0}::pg_catalog.timestamp::pg_catalog.text,
  {0}::pg_catalog.timestamptz::pg_catalog.text,
  CASE WHEN {0} OPERATOR(pg_catalog.=) {0}::pg_catalog.date THEN {0}::pg_catalog.date::pg_catalog.text END
])"""
"""As whichever of the types that a time column may have had when it was archived."""


@dataclass(frozen=True, slots=True)
class Readback:
    """A file as it was read, and how the table is compared with it.

    Attributes:
        table: the table that is compared.
        relation: the temporary table that holds the file's rows.
        columns: the file's header.
        rows: rows in the file, superseded ones included.
        superseded: rows that a later row of the same key replaces.
        unparsed: rows that are left out, since their key does not parse as the table's types: they are none of its.
        as_text: the columns that were loaded as text, because not all values parse as the table's types.
        takes_more_rows: whether rows may be appended to the file's bytes as they are.
        may_say_today: whether a value may be ``today`` or the like, in whatever column.
        hashes: of the bytes read; who appends goes on with them.
        line: the column that numbers the rows.
        former_time: the column by which the rows were archived, where that is another one of the header; else empty.
        reach: a condition on ``TABLE_ALIAS`` that every row with a key of the file meets, and by which PostgreSQL
            leaves out partitions; None where there is none.
    """

    table: Table
    relation: sql.Identifier
    columns: tuple[str, ...]
    rows: int
    superseded: int
    unparsed: int
    as_text: frozenset[str]
    takes_more_rows: bool
    may_say_today: bool
    hashes: Hashes
    line: sql.Identifier
    former_time: str
    reach: sql.Composable | None = None

    @property
    def lacks_of_key(self) -> list[str]:
        """The columns of the table's key that the file's header lacks."""
        return [name for name in self.table.key if name not in self.columns]

    @property
    def current(self) -> sql.Composable:
        """The current rows of the file, as a FROM item: ``line``, ``key_0`` …, and the table's columns as ``image``."""
        keys = [
            sql.SQL("{} AS {}").format(sql.Identifier(name), sql.Identifier(f"key_{place}"))
            for place, name in enumerate(self.table.key)
        ]
        image = listed(self.table.names)
        return sql.SQL(
            "(SELECT {line} AS line, {keys}, ROW({image}) AS image FROM {rows} "
            "WHERE {line} OPERATOR(pg_catalog.>) 0) AS {alias}"
        ).format(line=self.line, keys=sql.SQL(", ").join(keys), image=image, rows=self.relation, alias=ARCHIVED)

    @property
    def former(self) -> sql.Composable:
        """The current row of the file with the key and time of ``TABLE_ALIAS``, with all its columns: for a LEFT JOIN.

        One of another time may be another row, which had that key before. Where rows are archived by another column
        than before, or it is called otherwise, the former one may tell as well.
        """
        time, former = self.table.dataset.time_column, self.former_time
        times = [self._same_time(time, time)]
        if former:
            times.append(self._same_time(time, former))
        if any(of.name == former and of.plain_type in TIME_TYPES for of in self.table.columns):
            times.append(self._same_time(former, former))
        return sql.SQL(
            "{rows} AS {alias} ON {alias}.{line} OPERATOR(pg_catalog.>) 0 AND {same_key} AND ({times})"
        ).format(
            rows=self.relation,
            alias=ARCHIVED,
            line=self.line,
            same_key=self.equal_keys(self.table.key),
            times=sql.SQL(" OR ").join(times),
        )

    def _same_time(self, name: str, in_file: str) -> sql.Composable:
        column, archived = (
            sql.SQL("{}.{}").format(alias, sql.Identifier(of))
            for alias, of in ((TABLE_ALIAS, name), (ARCHIVED, in_file))
        )
        is_text = in_file in self.as_text or in_file != name
        return sql.SQL(_SAME_TIME_AS_TEXT if is_text else "{0} OPERATOR(pg_catalog.=) {1}").format(column, archived)

    @property
    def same_key(self) -> sql.Composable:
        """The condition that ``TABLE_ALIAS`` and a row of ``current`` have one key."""
        return self.equal_keys([f"key_{place}" for place in range(len(self.table.key))])

    def equal_keys(self, names: Sequence[str]) -> sql.Composable:
        """The condition that the key of ``TABLE_ALIAS`` equals these columns of ``ARCHIVED``, as its index has it."""
        equal = [self._equal(column, name) for column, name in zip(self.table.key_columns, names, strict=True)]
        return sql.SQL(" AND ").join([*equal, self.reach] if self.reach else equal)

    def equal_parts(self, key: Collection[str]) -> sql.Composable:
        """The same for those columns alone that are in a former key."""
        of_key = (column for column in self.table.key_columns if column.name in key)
        return sql.SQL(" AND ").join(self._equal(column, column.name) for column in of_key)

    def _equal(self, column: KeyColumn, name: str) -> sql.Composable:
        return sql.SQL("{} OPERATOR({}) {}.{}").format(
            self._source(column.name),
            sql.SQL(_TEXT_EQUALITY if column.name in self.as_text else column.equality),
            ARCHIVED,
            sql.Identifier(name),
        )

    @property
    def identical(self) -> sql.Composable:
        """The condition that ``TABLE_ALIAS`` and a row of ``current`` have one key and agree in every column.

        ``*=`` compares the bytes of the values. Equal values may differ in them after a round trip through text; the
        comparison as text finds those.
        """
        return sql.SQL(
            "{same_key} AND (ROW({row}) OPERATOR(pg_catalog.*=) {archived}.image "
            "OR ROW({row})::pg_catalog.text OPERATOR(pg_catalog.=) {archived}.image::pg_catalog.text)"
        ).format(
            same_key=self.same_key,
            row=sql.SQL(", ").join(self._source(name) for name in self.table.names),
            archived=ARCHIVED,
        )

    @property
    def manifest(self) -> Manifest:
        """What a manifest of exactly these bytes says; not whose they are."""
        return self.hashes.manifest(str(self.table.dataset.table), self.columns, self.rows)

    def is_as_written(self, manifest: Manifest) -> bool:
        """Whether the file was read by the types it was written by; where that is not known, it was not."""
        return bool(manifest.types) and manifest.types in types_hashes(self.table, self.columns)

    def _source(self, name: str) -> sql.Composable:
        column = sql.SQL("{}.{}").format(TABLE_ALIAS, sql.Identifier(name))
        if name not in self.as_text:
            return column
        # format() takes the type's output function, as COPY does; a cast to text does not (boolean, bpchar, inet …).
        return sql.SQL(
            "(CASE WHEN {0} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {0}) END COLLATE pg_catalog.\"C\")"
        ).format(column)


def types_hash(table: Table, columns: Sequence[str]) -> str:
    """What ``Manifest.types`` is for these columns of a table, as it is today.

    Empty where the table lacks one of them, or where a type's name does not say what it means, as a domain's. By what
    the locale makes of the key's letters, rows are told apart.
    """
    return _types_hash(table, columns, {of.name: of.small_letters for of in table.columns if of.name in table.key})


def types_hashes(table: Table, columns: Sequence[str]) -> tuple[str, ...]:
    """As ``types_hash``, and what a former version took for it, without the letters."""
    return types_hash(table, columns), _types_hash(table, columns, {})


def _types_hash(table: Table, columns: Sequence[str], letters: Mapping[str, str]) -> str:
    types = {of.name: f"{of.type_and_collation}{letters.get(of.name, '')}" for of in table.columns if of.is_base}
    return names_hash([types[name] for name in columns]) if types.keys() >= set(columns) else ""
