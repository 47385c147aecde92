"""The Dockerfile as it reads, and that its replay notices a step that fails. The replay itself: make image-steps."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from event_archive_tests.deploy.manifests import ROOT
from event_archive_tests.image.dockerfile import Instruction, build_context, parse, replay

INSTRUCTIONS = parse((ROOT / "Dockerfile").read_text())
FROM = "FROM python:3.12-slim\n"


def last_stage() -> list[Instruction]:
    start = max(index for index, instruction in enumerate(INSTRUCTIONS) if instruction.name == "FROM")
    return INSTRUCTIONS[start:]


def value(name: str) -> str:
    (found,) = [instruction.value for instruction in last_stage() if instruction.name == name]
    return found


def test_the_image_ends_as_a_numeric_user_without_an_entrypoint():
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", value("USER"))
    assert "ENTRYPOINT" not in {instruction.name for instruction in INSTRUCTIONS}
    assert "RUN" not in {instruction.name for instruction in last_stage()}


def test_everything_that_is_installed_has_its_hash():
    installs = [
        command
        for instruction in INSTRUCTIONS
        if instruction.name == "RUN"
        for command in instruction.value.split("&&")
        if " install " in command
    ]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-deps /src/dist/" in command, command


def test_the_labels_tell_the_versions_and_licences_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = next(instruction.pairs for instruction in last_stage() if instruction.name == "LABEL")
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_the_build_gets_what_it_copies_and_no_more(tmp_path: Path):
    build_context(ROOT, tmp_path / "context")
    copied = {
        source
        for instruction in INSTRUCTIONS
        if instruction.name == "COPY" and "--from=" not in instruction.value
        for source in instruction.value.split()[:-1]
    }
    assert {path.name for path in (tmp_path / "context").iterdir()} == copied
    assert not list((tmp_path / "context").rglob("__pycache__"))


def built(text: str, tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir(exist_ok=True)
    (tmp_path / "context" / "given").write_text("given")
    return replay(parse(text), tmp_path / "context", tmp_path, tmp_path).root


def test_a_replay_copies_and_runs_below_its_folder(tmp_path: Path):
    first = "FROM python:3.12-slim AS build\nENV NAME=made\nWORKDIR /src\nCOPY given ./\n"
    step = "RUN mkdir -p /opt/x \\\n # a comment between\n && cp given /opt/x/$NAME\n"
    root = built(first + step + FROM + "COPY --from=build /opt/x /opt/x\n", tmp_path)
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == ["opt", "opt/x", "opt/x/made"]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("COPY absent ./\n", AssertionError),
        ("COPY --from=build /opt/x /opt/x\n", AssertionError),
        ("RUN false && true\n", subprocess.CalledProcessError),
        ("RUN no-such-command\n", subprocess.CalledProcessError),
        ("COPPY given ./\n", ValueError),
    ],
)
def test_a_broken_step_is_found(step: str, error: type[Exception], tmp_path: Path):
    with pytest.raises(error):
        built(FROM + "WORKDIR /src\n" + step, tmp_path)
