"""Who may do what. Here: the role's own privileges, those of others on a table, row-level security."""

from dataclasses import dataclass

from event_archive.postgres.session import Connection, one

# By oid, since names need USAGE on the schema. SELECT column by column is not enough: where there are triggers, columns
# of the system are read, which nobody can grant.
_HAS = """
SELECT pg_catalog.has_table_privilege(c.oid, %s)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE nspname = %s AND relname = %s
"""
_MAY_USE_SCHEMA = "SELECT pg_catalog.has_schema_privilege(oid, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = %s"
# An array lies where what it is of does, and who may use it is who may use that. So it is with a multirange and its
# range from PostgreSQL 17 on.
_TYPES = """
SELECT DISTINCT s.nspname::text, t.typname::text, pg_catalog.has_type_privilege(t.oid, 'USAGE')
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
JOIN pg_catalog.pg_attribute AS a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_catalog.pg_type AS own ON own.oid = atttypid
CROSS JOIN LATERAL (
  SELECT CASE WHEN own.typcategory = 'A' AND own.typelem <> 0 THEN own.typelem ELSE own.oid END AS oid_) AS element
LEFT JOIN pg_catalog.pg_range AS r ON r.rngmultitypid = oid_
  AND pg_catalog.current_setting('server_version_num')::int >= 170000
JOIN pg_catalog.pg_type AS t ON t.oid = coalesce(r.rngtypid, oid_)
JOIN pg_catalog.pg_namespace AS s ON s.oid = t.typnamespace
WHERE n.nspname = %s AND relname = %s ORDER BY 1, 2
"""
# What else a copy of the table names, and a comparison by its key: collations, and the operators of its primary key, or
# of any that may be its key.
_SCHEMAS = """
SELECT DISTINCT s.nspname::text
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
CROSS JOIN LATERAL (
  SELECT l.collnamespace FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION SELECT o.oprnamespace FROM pg_catalog.pg_index AS i
  CROSS JOIN LATERAL pg_catalog.unnest(i.indclass::pg_catalog.oid[]) AS class_
  JOIN pg_catalog.pg_opclass AS k ON k.oid = class_
  JOIN pg_catalog.pg_amop AS m ON m.amopfamily = k.opcfamily AND m.amopstrategy = 3
    AND m.amoplefttype = k.opcintype AND m.amoprighttype = k.opcintype
  JOIN pg_catalog.pg_operator AS o ON o.oid = m.amopopr
  WHERE i.indrelid = c.oid AND i.indisunique AND (i.indisprimary OR NOT EXISTS (
    SELECT FROM pg_catalog.pg_index AS p WHERE p.indrelid = c.oid AND p.indisprimary))) AS of_(oid)
JOIN pg_catalog.pg_namespace AS s ON s.oid = of_.oid
WHERE n.nspname = %s AND relname = %s ORDER BY 1
"""
_MAY_SEE_REPLICAS = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"
_MAY_MAKE_TEMPORARY = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')"
_GRANTEES = """
SELECT DISTINCT rolname FROM pg_catalog.pg_class AS c
CROSS JOIN pg_catalog.aclexplode(coalesce(relacl, pg_catalog.acldefault('r', relowner))) AS granted
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = grantee
WHERE c.oid = %s AND privilege_type = %s AND (grantee = 0 OR rolname IS NOT NULL)
"""
_ROW_SECURITY = """
SELECT relrowsecurity, pg_catalog.row_security_active(oid) FROM pg_catalog.pg_class WHERE oid = %s
"""
# A member of the table's or the database's owner may, and from PostgreSQL 17 on who has MAINTAIN on the table.
_OWNS = """
SELECT pg_catalog.pg_has_role(relowner, 'USAGE') OR (SELECT pg_catalog.pg_has_role(datdba, 'USAGE')
  FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
FROM pg_catalog.pg_class WHERE oid = %s
"""
_MAINTAIN_SINCE = 170000


@dataclass(frozen=True, slots=True)
class RowSecurity:
    """Row-level security of a table.

    Attributes:
        enabled: on the table.
        applies: whether it hides rows from this role.
    """

    enabled: bool
    applies: bool


def may(connection: Connection, privilege: str, schema: str, table: str) -> bool:
    """Whether this role has a privilege on a table; one that does not exist has none to lack."""
    row = connection.execute(_HAS, (privilege, schema, table)).fetchone()
    return bool(row[0]) if row else True


def may_use_schema(connection: Connection, schema: str) -> bool:
    """Whether this role has USAGE on a schema; one that does not exist has none to lack."""
    row = connection.execute(_MAY_USE_SCHEMA, (schema,)).fetchone()
    return bool(row[0]) if row else True


def schemas_of(connection: Connection, schema: str, table: str) -> list[str]:
    """The schemas of a table's collations, and of the operators by which its key is compared."""
    return [found for (found,) in connection.execute(_SCHEMAS, (schema, table)).fetchall()]


def types_of(connection: Connection, schema: str, table: str) -> list[tuple[str, str, bool]]:
    """The types of a table's columns: schema, name, and whether this role has USAGE on it."""
    return connection.execute(_TYPES, (schema, table)).fetchall()


def may_make_temporary_tables(connection: Connection) -> bool:
    """Whether this role has TEMPORARY on the database."""
    return bool(one(connection, _MAY_MAKE_TEMPORARY)[0])


def may_see_replicas(connection: Connection) -> bool:
    """Whether this role may see how far streaming replicas are, were there one."""
    return bool(one(connection, _MAY_SEE_REPLICAS)[0])


def may_vacuum(connection: Connection, oid: int) -> bool:
    """Whether this role may vacuum a table; PostgreSQL itself only warns where it may not."""
    if one(connection, _OWNS, oid)[0]:
        return True
    if connection.info.server_version < _MAINTAIN_SINCE:
        return False
    return bool(one(connection, "SELECT pg_catalog.has_table_privilege(%s::pg_catalog.oid, 'MAINTAIN')", oid)[0])


def to_vacuum(connection: Connection) -> str:
    """What a role that may not vacuum a table needs, for messages."""
    return (
        "the owner's role"
        if connection.info.server_version < _MAINTAIN_SINCE
        else "MAINTAIN on it, or the owner's role"
    )


def grantees(connection: Connection, oid: int, privilege: str) -> list[str | None]:
    """The roles that have a privilege on a table, its owner included; None stands for PUBLIC."""
    return [role for (role,) in connection.execute(_GRANTEES, (oid, privilege)).fetchall()]


def row_security(connection: Connection, oid: int) -> RowSecurity:
    """A table's row-level security."""
    return RowSecurity(*one(connection, _ROW_SECURITY, oid))
