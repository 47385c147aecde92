"""``make bench-definitions``: how long a code location with many datasets takes to load, beside Dagster alone.

Each load is a process of its own, as a code server is: imports, definitions, and the repository made of them.
Not here: what a run takes (``suites``).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

DATASETS = 50
MOST_SECONDS = 1
"""Beyond what Dagster takes for as many definitions that do nothing."""
_ROUNDS = 5

_MEASURED = """
import json, sys, time
began = time.process_time()
{imports}
imported = time.process_time()
{build}
definitions.get_repository_def().load_all_definitions()
print(json.dumps([imported - began, time.process_time() - imported]))
"""
_OURS = (
    "from event_archive.config.datasets import load_datasets; from event_archive.defs.build import build_definitions",
    "definitions = build_definitions(*load_datasets())",
)
_DATASET = """
def dataset(name):
    days = dg.DailyPartitionsDefinition("2015-01-01", end_offset=-365)
    def asset(asset_name, deps):
        return dg.asset(name=asset_name, key_prefix=[name], group_name=name, partitions_def=days, deps=deps)(body)
    def body():
        pass
    def passed():
        return dg.AssetCheckResult(passed=True)
    keys = [dg.AssetKey([name, asset]) for asset in ("aged_events", "archive_csv", "purged_events")]
    assets = [asset(key.path[-1], keys[:n][-1:]) for n, key in enumerate(keys)]
"""
_PLAIN_ASSETS = (
    "import dagster as dg",
    _DATASET
    + """
    return dg.Definitions(assets=assets)
definitions = dg.Definitions.merge(*(dataset(f"table_{n}") for n in range(int(sys.argv[1]))))
""",
)
_PLAIN_ALIKE = (
    "import dagster as dg",
    _DATASET
    + """
    checks = [dg.asset_check(asset=keys[n != 0], name=f"check_{n}")(passed) for n in range(3)]
    @dg.op(name=f"op_{name}")
    def op():
        pass
    @dg.job(name=f"restore_{name}")
    def restore():
        op()
    job = dg.define_asset_job(f"job_{name}", dg.AssetSelection.assets(*assets))
    @dg.schedule(name=f"schedule_{name}", job=job, cron_schedule="0 2 * * *")
    def schedule():
        return dg.SkipReason("")
    return dg.Definitions(assets=assets, asset_checks=checks, jobs=[job, restore], schedules=[schedule])
definitions = dg.Definitions.merge(*(dataset(f"table_{n}") for n in range(int(sys.argv[1]))))
""",
)


def load_seconds(code: tuple[str, str], count: int, rounds: int) -> tuple[float, float]:
    """The seconds of CPU that imports and definitions take: medians of some processes, after one to warm up."""
    imports, build = code
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "datasets.yaml"
        tables = "\n".join(f"  table_{n}: {{table: public.table_{n}}}" for n in range(count))
        path.write_text(f"datasets:\n{tables}\n")
        for _ in range(rounds + 1):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _MEASURED.format(imports=imports, build=build), str(count)],
                env=os.environ | {"DATASETS_FILE": str(path)},
                capture_output=True,
                text=True,
                check=True,
            )
            found.append(json.loads(done.stdout))
    imported, built = zip(*found[1:], strict=True)
    return median(imported), median(built)


def measured(count: int = DATASETS, rounds: int = _ROUNDS) -> dict[str, tuple[float, float]]:
    """Imports and definitions of each, ours last."""
    return {
        f"Dagster, {count} x 3 plain assets": load_seconds(_PLAIN_ASSETS, count, rounds),
        "the same with as many checks, jobs and schedules": load_seconds(_PLAIN_ALIKE, count, rounds),
        f"event_archive, {count} datasets": load_seconds(_OURS, count, rounds),
    }


def main() -> None:
    """Prints a table for docs/performance.md; fails where ours takes more than a second beyond what is alike."""
    found = measured()
    print("| seconds of CPU | imports | definitions | together |\n| --- | ---: | ---: | ---: |")
    for name, (imported, built) in found.items():
        print(f"| {name} | {imported:.2f} | {built:.2f} | {imported + built:.2f} |")
    *_, alike, ours = (sum(seconds) for seconds in found.values())
    if ours - alike > MOST_SECONDS:
        sys.exit(f"{ours - alike:.2f} s beyond Dagster's own: more than {MOST_SECONDS} s")


if __name__ == "__main__":
    main()
