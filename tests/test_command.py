"""Command lines of programs: what is refused, and how."""

import argparse

import pytest

from dreamer.command import Parser, say, whole_number
from dreamer.options import ConfigError
from dreamer.places import given, home


@pytest.fixture
def parser():
    made = Parser("nothing", "Does nothing.")
    made.add_argument("dirs", nargs="*", type=home)
    made.add_argument("--window", type=whole_number(2, 50))
    return made


def test_what_is_right_is_read(parser, tmp_path):
    flags = parser.parse_args([str(tmp_path), "--window", "050"])
    assert flags.window == 50
    assert given(flags.dirs, None) == [tmp_path]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--windo 3", "--windo: unknown flag; did you mean window?"),
        ("a --windo=3,4", "--windo: unknown flag; did you mean window?"),
        ("--qqq", "--qqq: unknown flag; --help lists them"),
        ("-w 3", "-w: expected no such argument"),
        ("--window 1", "--window: 1: expected a whole number from 2 to 50"),
        ("--window 51", "--window: 51: expected a whole number from 2 to 50"),
        ("--window 1e1", "--window: 1e1: expected a whole number from 2"),
        ("--window", "--window: expected one argument"),
        ("--window --", "--window: expected one argument"),
        ("--window=--", "--window=--: expected another value than --"),
    ],
)
def test_what_is_wrong_is_one_line(parser, words, line):
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(words.split())
    assert str(caught.value).startswith(line)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("a\nb", r"a\nb"),
        (ConfigError("two  spaces"), "two  spaces"),
        (OSError(28, "No space left", "a\nb"), r"a\nb: No space left"),
        (OSError("weird"), "?: weird"),
    ],
)
def test_what_is_said_is_one_line(error, line, capsys):
    say("program", error)
    assert capsys.readouterr().err == f"program: {line}\n"


def test_a_path_that_is_empty_is_not_the_current_folder(parser):
    with pytest.raises(ConfigError, match="expected a path, and it is empty"):
        parser.parse_args([""])
    with pytest.raises(argparse.ArgumentTypeError):
        home("")
    with pytest.raises(ConfigError, match="required: DIR"):
        given([], None)


def test_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home("~/x") == tmp_path / "x"
