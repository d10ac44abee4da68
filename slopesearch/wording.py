"""Sentences: errors, unknown names, the mistakes of a file, configs, differences; safe text; reading TOML."""

import reprlib
import tomllib
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from slopesearch.config import Range, Space, StudySpec, TrialConfig

LARGEST_TOML = 2**14  # bytes; a study file has some hundred, and tomllib takes 20 s over 64 kB of dots


class RequestError(Exception):
    """The request cannot be met: sentences on what is wrong with it, what was given and what to do."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class StudyFailedError(Exception):
    """The work failed (trial after trial, a broken disk, a diverged loss): the fault and what to do."""


def read_toml(path: Path, kind: str = "study file") -> dict[str, Any]:
    """A TOML file as a plain mapping; `kind` is the file's name in the sentences.

    Raises RequestError where the file is missing, unreadable, too large or no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TOML + 1)  # not stat: /dev/zero has no size
        if len(content) > LARGEST_TOML:
            raise RequestError(
                f"'{path}' is no {kind}: it has more than {LARGEST_TOML:,} bytes; check the path"
            )
        return parse_toml(content.decode())
    except FileNotFoundError:
        raise RequestError(f"there is no {kind} '{path}'; check the path") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"the {kind} '{path}' is not UTF-8 text: {error}; save it as UTF-8") from None
    except OSError as error:
        raise RequestError(f"cannot read the {kind} '{path}': {error.strerror}; check the path") from None
    except ValueError as error:
        raise RequestError(f"'{path}' is not valid TOML: {error} (text needs quotes)") from None


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as a plain mapping. Raises ValueError for anything else."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def mistakes(error: ValidationError, noun: type[BaseModel]) -> list[str]:
    """Every mistake in data for a noun, as a sentence that names the field and the value given."""
    return [_sentence(dict(detail), noun) for detail in error.errors(include_url=False)]


def _sentence(detail: Mapping[str, Any], owner: type[BaseModel]) -> str:
    # The third part of a place in the space may be the tag of a union, which no user has seen.
    place = [
        str(part) for i, part in enumerate(detail["loc"]) if (i, part) not in ((2, "range"), (2, "choices"))
    ]
    name = ".".join(place)
    if detail["type"] == "extra_forbidden":
        for part in place[:-1]:
            kind = owner.model_fields[part].annotation
            parts = (kind, *get_args(kind))
            owner = next((k for k in parts if isinstance(k, type) and issubclass(k, BaseModel)), Range)
        if owner is StudySpec and name in Space.model_fields:
            return f"unknown key '{name}'; it is a part of the space: space.{name}"
        return unknown("key", name, owner.model_fields)
    if detail["type"] == "missing":
        return f"{name}: is missing"
    if detail["type"] == "literal_error":
        field = ".".join(part for part in place if not part.isdigit())
        return unknown(field, str(detail["input"]), [detail["ctx"]["expected"]])
    if detail["type"] == "too_short":
        return f"{name}: an empty list; give at least one value"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if "given" in message else f", given {short(detail['input'])}"
    return f"{name}: {message[0].lower()}{message[1:]}{given}"


_REPR = reprlib.Repr()  # it limits the depth: a file may nest deeply
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 60


def short(value: object) -> str:
    """A value as Python writes it, at most 60 characters of it."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        text = "a number of thousands of digits"
    return printable(text if len(text) <= 60 else f"{text[:57]}...")


# These reorder the text of a line, as control characters (Cc) steer a terminal and Zl, Zp split lines.
_BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, keep: str = "") -> str:
    """Text with escapes in place of the characters that would steer a terminal, but for those to `keep`."""
    return "".join(
        char.encode("unicode_escape").decode()
        if char not in keep and (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _BIDI)
        else char
        for char in text
    )


def unknown(kind: str, given: str, choices: Mapping[str, object] | list[str]) -> str:
    """The sentence for a name that does not exist: the given one, and those to choose from."""
    return f"unknown {kind} {short(given)}; choose from {', '.join(choices)}"


def counted(number: int, thing: str) -> str:
    """A number of things: 1 epoch, 2 epochs, 1,000 epochs."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def describe(config: TrialConfig, without: Collection[str] = ()) -> str:
    """A config in a few words: the searched parameters alone, but for those to leave out.

    A learnable slope starts at its upper bound where its start lies above it.
    """
    words = []
    if "activation" not in without:
        words.append(config.activation)
    if config.negative_slope is not None:
        start = min(config.negative_slope, config.slope_max or config.negative_slope)
        learned = config.slope_mode == "learnable"
        words += ["slope"] if "activation" in without else []
        words.append(
            f"learned from {start:.3g} (at most {config.slope_max:g})" if learned else f"{start:.3g}"
        )
    found = {"norm": f"norm {config.norm}", "init": config.init, "lr": f"lr {config.lr:.3g}"}
    words += [text for name, text in found.items() if name not in without]
    return " ".join(words) or "the only config"


def fixed_choices(spec: StudySpec) -> set[str]:
    """The parameters of which a space has one value, so that no table has to repeat it."""
    axes = ((name, getattr(spec.space, name)) for name in ("activation", "norm", "init", "lr"))
    return {name for name, axis in axes if isinstance(axis, tuple) and len(axis) == 1}


def differences(stored: StudySpec, given: StudySpec) -> list[str]:
    """Each field that was given and differs from the stored spec, as `field: stored X, given Y`."""
    pairs = [
        (name, getattr(stored, name), getattr(given, name)) for name in given.model_fields_set - {"space"}
    ]
    if "space" in given.model_fields_set:
        pairs += [
            (f"space.{name}", getattr(stored.space, name), getattr(given.space, name))
            for name in given.space.model_fields_set
        ]
    # None asks for a default, and the stored spec holds the default of its time.
    return [
        f"{name}: stored {plain(old)}, given {plain(new)}"
        for name, old, new in sorted(pairs)
        if new is not None and old != new and (name, new) != ("dataset", "auto")
    ]


def plain(value: object) -> str:
    """A field of a spec as a sentence gives it."""
    if isinstance(value, Range):
        return f"{value.low} to {value.high}{' (log)' if value.log else ''}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
