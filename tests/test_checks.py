"""The checks that a study file and a config file share."""

from slopesearch.checks import size_misfits, unknown_names
from tests.conftest import make_config


def test_each_unknown_name_gets_a_sentence_and_what_is_no_text_gets_none() -> None:
    known = {"model": ["cnn"], "activation": {"relu": 1, "elu": 2}}
    assert unknown_names({"model": "cnn", "activation": ["relu", "rellu", 3], "norm": "?"}, known) == [
        "unknown activation 'rellu'; choose from relu, elu"
    ]
    assert unknown_names({"model": None}, known) == unknown_names({}, known) == []


def test_all_images_may_be_trained_on_where_none_validate() -> None:
    assert size_misfits(make_config(train_size=1397, val_size=0)) == []
    assert size_misfits(make_config(train_size=1001, val_size=398, batch_size=2000)) == [
        "train_size: at most 1,000 for digits, given 1,001",
        "val_size: at most 397 for digits, given 398",
        "batch_size: at most train_size, which is 1,001, given 2,000",
    ]
