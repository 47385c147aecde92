"""``event-archive rejected``: records that could not be rows. Not here: where they are kept."""

import sys
from typing import TYPE_CHECKING

import click

from event_archive.config.variables import output_is_json
from event_archive.domain.wording import counted
from event_archive.errors import printable

if TYPE_CHECKING:
    from event_archive.sources.rejected import RejectedRecord, RejectedRecords, Replay

_SOURCES = ("api", "logs", "stream")
_LISTED = 50
_MOST = 2**63 - 1
"""As PostgreSQL counts."""
_REASONS_SHOWN = 20
"""The most frequent: some hold a position, which makes each of them another."""


@click.command("rejected", short_help="Lists records that could not be rows, and says why.")
@click.option("--source", type=click.Choice(_SOURCES), help="Of this source alone.")
@click.option("--limit", type=click.IntRange(1, _MOST), help=f"How many are listed.  [default: {_LISTED}]")
@click.option(
    "--explain", "number", type=click.IntRange(1, _MOST), metavar="ID", help="Say more of one, without its values."
)
@click.option("--replay", is_flag=True, help="Try them again: those that are rows by now land.")
def list_rejected(*, source: str | None, limit: int | None, number: int | None, replay: bool) -> None:
    """Lists records of sources that could not be rows, and says why; or tries them again."""
    from event_archive.config.datasets import load_datasets
    from event_archive.config.sources import LandingSettings
    from event_archive.domain.dataset import TableName
    from event_archive.observability import logs
    from event_archive.sources.rejected import RejectedRecords

    if replay and number is not None:
        raise click.UsageError("--explain and --replay exclude one another.")
    if source is not None and number is not None:
        raise click.UsageError("--explain and --source exclude one another: an ID is that of one record.")
    if limit is not None and (replay or number is not None):
        raise click.UsageError("--limit is for listing alone.")
    settings = LandingSettings.load()
    # What is wrong with any setting that decides what is deleted ends each command.
    load_datasets()
    as_json = output_is_json(settings.log_format)
    logs.configure(as_json=as_json, verbose=False, stream=sys.stderr)
    with settings.postgres.session() as session:
        records = RejectedRecords(session, TableName(settings.ingest_schema, "rejected_records"))
        if replay:
            _replay(records, source or _the_only(records), as_json=as_json)
        elif number is not None:
            _explain(records, number, as_json=as_json)
        else:
            _list(records, source, limit or _LISTED, as_json=as_json)


def _list(records: "RejectedRecords", source: str | None, most: int, *, as_json: bool) -> None:
    from event_archive.observability.json_lines import write_line

    found, reasons = records.newest(source, most), records.by_reason(source)
    total = sum(number for *_, number in reasons)
    if as_json:
        for of in found:
            _write(of)
        write_line("done", records=total, listed=len(found))
        return
    for name, reason, number in reasons[:_REASONS_SHOWN]:
        click.echo(f"{number:>8,}  {name}: {printable(reason)}")
    if others := sum(number for *_, number in reasons[_REASONS_SHOWN:]):
        click.echo(f"{others:>8,}  for other reasons")
    if total:
        click.echo(f"\nThe newest {len(found)} of {total:,}:")
    for of in found:
        click.echo(
            f"{of.id:>8}  {of.at:%Y-%m-%d %H:%M:%S} UTC  {of.source}  {counted(of.size_bytes, 'byte', 'bytes')}  "
            f"{printable(of.locator)}"
        )
    if not total:
        click.echo(_none(source))


def _explain(records: "RejectedRecords", number: int, *, as_json: bool) -> None:
    of, look = records.explained(number)
    if as_json:
        _write(of, look=look)
        return
    where, why = printable(of.locator), printable(f"{of.reason}. {look}")
    click.echo(f"{of.source}, {where}, rejected {of.at:%Y-%m-%d %H:%M:%S} UTC: {why}")
    if of.size_bytes:
        kept = counted(of.size_bytes, "byte is", "bytes are")
        click.echo(f"Its {kept} in {records.table}, column raw, id {of.id}.")


def _write(of: "RejectedRecord", **more: str) -> None:
    from event_archive.observability.json_lines import write_line

    write_line(
        "rejected",
        id=of.id,
        source=of.source,
        locator=of.locator,
        reason=of.reason,
        bytes=of.size_bytes,
        rejected_at=of.at,
        **more,
    )


def _replay(records: "RejectedRecords", source: str | None, *, as_json: bool) -> None:
    from event_archive.observability.json_lines import write_line
    from event_archive.sources.landing import Counts

    # Without any, no source's settings are needed.
    counts = records.replay(_replay_of(source)) if source and records.newest(source, 1) else Counts()
    left = sum(number for *_, number in records.by_reason(source))
    if as_json:
        write_line("done", source=source, new=counts.new, known=counts.known, superseded=counts.superseded, left=left)
    elif not (counts.taken or left):
        click.echo(_none(source))
    else:
        others = {"known before": counts.known, "superseded": counts.superseded, "too old": counts.too_old}
        told = ", ".join(f"{number} {what}" for what, number in others.items() if number)
        landed = counted(counts.new, "record", "records") + " landed" + (f" ({told})" if told else "")
        click.echo(f"{source}: {landed}, {counted(left, 'is', 'are')} rejected still.")


def _none(source: str | None) -> str:
    return f"There is no rejected record of {source}." if source else "There is no rejected record."


def _replay_of(source: str) -> "Replay":
    """How the records of a source are read, by its settings."""
    from event_archive.config.sources import ApiSettings, LogsReading, StreamReading

    if source == "api":
        from event_archive.sources.http_api import replay as api

        return api.replay(ApiSettings.load())
    if source == "logs":
        from event_archive.sources.log_files import replay as logs

        return logs.replay(LogsReading.load())
    from event_archive.sources.redis_stream import replay as stream

    return stream.replay(StreamReading.load())


def _the_only(records: "RejectedRecords") -> str | None:
    """The source of all rejected records; None where there are none."""
    found = sorted({name for name, *_ in records.by_reason(None)})
    if len(found) > 1:
        raise click.UsageError(f"Name one with --source: there are rejected records of {', '.join(found)}.")
    return next(iter(found), None)
