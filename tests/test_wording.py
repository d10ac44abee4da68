"""Sentences about files, configs and differences; text that is safe on a terminal."""

from pathlib import Path

import pytest

from slopesearch.config import StudySpec
from slopesearch.search.space import check, resolve
from slopesearch.wording import RequestError, counted, describe, differences, printable, read_toml, unknown
from tests.conftest import make_config

LONGEST = make_config(slope_mode="learnable", negative_slope=0.012345, norm="before", init="kaiming_uniform")


def test_differences_name_only_what_was_given() -> None:
    stored = resolve(check({"dataset": "digits"}), "float32")
    assert differences(stored, StudySpec()) == []
    assert differences(stored, check({"dataset": "auto", "epochs": 12})) == []
    given = check({"epochs": 3, "space": {"lr": {"low": 1e-3, "high": 1e-2, "log": True}, "norm": "none"}})
    assert differences(stored, given) == [
        "epochs: stored 12, given 3",
        "space.lr: stored 0.0001 to 0.03 (log), given 0.001 to 0.01 (log)",
        "space.norm: stored none, before, after, given none",
    ]


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", None])
def test_a_study_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "study.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=r"study\.toml"):
        read_toml(path)


def test_one_thing_is_no_plural() -> None:
    assert [counted(number, "epoch") for number in (0, 1, 2, 1000)] == [
        "0 epochs",
        "1 epoch",
        "2 epochs",
        "1,000 epochs",
    ]


def test_describe_names_what_was_searched() -> None:
    assert (
        describe(LONGEST)
        == "leaky_relu learned from 0.0123 (at most 0.1) norm before kaiming_uniform lr 0.001"
    )
    assert describe(make_config(activation="elu")) == "elu norm none kaiming_normal lr 0.001"


def test_what_steers_a_terminal_is_shown_as_its_escape() -> None:
    assert printable("a\x1b[31mb\n\u202ec é") == "a\\x1b[31mb\\n\\u202ec é"
    assert printable("a\nb", keep="\n") == "a\nb"


def test_an_unknown_name_is_shortened_and_the_choices_are_named() -> None:
    sentence = unknown("init", "x" * 100, ["default", "lsuv"])
    assert sentence.startswith("unknown init 'xxx")
    assert sentence.endswith("'; choose from default, lsuv")
    assert len(sentence) < 110
