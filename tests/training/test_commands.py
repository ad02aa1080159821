"""The command line itself: its help, overrides among options, and options that are refused."""

from __future__ import annotations

import re

import pytest

from tests.training.runs import quiet_logs, say  # noqa: F401 (the former is a fixture of this module, too)
from vc2.training import __main__ as command


def test_recipes_of_a_folder_without_any_is_an_error(tmp_path, capsys):
    assert say(capsys, "recipes", tmp_path)[0] == 2
    assert say(capsys, "recipes", tmp_path / "absent") == (2, "", f"error: {tmp_path / 'absent'}: no such folder\n")


@pytest.mark.parametrize("name", ["run", "recipes", "check", "prepare", "profile", "export", "merge"])
def test_every_argument_says_what_it_is(name, capsys):
    with pytest.raises(SystemExit):
        command.parse([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    options = [line for line in lines if re.match(r"  (-|[a-z])", line)]
    assert len(options) > 1
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line in options:
            assert re.search(r"\S {2,}\S", line) or after.startswith(" " * 10), line


def test_overrides_may_stand_behind_options(capsys):
    with pytest.raises(SystemExit):
        command.parse(["run", "x.yaml", "--runs", "r", "--stepps", "3"])
    assert "unrecognized arguments: --stepps" in capsys.readouterr().err
    assert command.parse(["run", "x.yaml", "a=1", "--runs", "r", "b=2"]).overrides == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "--processes: expected a whole number from 1 on, found '0'"),
        (["--processes", "-2"], "--processes: expected a whole number from 1 on, found '-2'"),
        (["--memory", "0"], "--memory: expected gigabytes, such as 24, found '0'"),
        (["--memory", "24GB"], "--memory: expected gigabytes, such as 24, found '24GB'"),
    ],
)
def test_options_that_are_no_numbers_of_theirs_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        command.parse(["check", "F-base", *options])
    assert message in capsys.readouterr().err
