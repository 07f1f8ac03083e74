"""Log lines: JSON for programs, text for people, and nothing that a line should not hold."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.observe import Outcome
from channelpay.observe.logs import (
    ACCESS_LOGGER,
    AccessLog,
    JsonFormatter,
    TextFormatter,
    configure_logging,
)
from channelpay.observe.redaction import REDACTED
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import AMOUNT_MAX
from tests.observe.events import CHANNEL_ID, DOLLAR, DOLLAR_ADDRESS, BooksOfNumbers, answered
from tests.observe.written import PRIVATE_KEYS, SECRETS, SIGNATURES, Written, shown_parts

FORMATTERS = [JsonFormatter(), TextFormatter()]
BY_BOTH = pytest.mark.parametrize("formatter", FORMATTERS, ids=["json", "text"])


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("channelpay")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    logging.captureWarnings(capture=False)


def record(message: object = "hello", *values: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("channelpay.test").makeRecord(
        "channelpay.test", logging.INFO, "file.py", 1, message, values, None, extra=extra
    )


def as_json(entry: logging.LogRecord) -> dict[str, Any]:
    members = json.loads(JsonFormatter().format(entry))
    assert isinstance(members, dict)
    return members


def failed(error: Exception) -> logging.LogRecord:
    entry = record("it failed")
    try:
        raise error
    except Exception as raised:  # noqa: BLE001  any error can be logged
        entry.exc_info = (type(raised), raised, raised.__traceback__)
    return entry


# --- shape -------------------------------------------------------------------------------------


def test_a_json_line_has_time_level_logger_message_and_extra_fields() -> None:
    members = as_json(record("paid %d", 5, outcome="paid", ms=1.5, charged=7, status=None))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", members.pop("ts"))
    assert members == {
        "level": "info",
        "logger": "channelpay.test",
        "message": "paid 5",
        "outcome": "paid",
        "ms": 1.5,
        "charged": 7,
        "status": None,
    }


def test_the_time_is_that_of_the_record_in_utc() -> None:
    entry = record()
    entry.created = 1_700_000_000.25
    assert as_json(entry)["ts"] == "2023-11-14T22:13:20.250Z"
    assert TextFormatter().format(entry).startswith("2023-11-14T22:13:20.250Z info ")


def test_a_text_line_has_the_same() -> None:
    line = TextFormatter().format(record("paid %d", 5, outcome="paid", path="/a b", ms=1.5))
    assert re.sub(r"^\S+ ", "", line) == (
        'info channelpay.test: paid 5 outcome=paid path="/a b" ms=1.5'
    )


def test_an_exception_is_one_member_of_json_and_indented_lines_of_text() -> None:
    entry = failed(ValueError("two\nlines"))
    assert as_json(entry)["exception"].splitlines()[-2:] == ["ValueError: two", "lines"]
    first, *rest = TextFormatter().format(entry).splitlines()
    assert first.endswith("it failed")
    assert all(line.startswith("    ") for line in rest)


@BY_BOTH
def test_a_wrong_placeholder_costs_no_line(formatter: logging.Formatter) -> None:
    assert "hello %d %d [the arguments do not fit]" in formatter.format(record("hello %d %d", 1))


@BY_BOTH
def test_a_broken_object_costs_no_line(formatter: logging.Formatter) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    assert "[Broken]" in formatter.format(record(thing=Broken()))


def test_an_extra_field_does_not_take_the_place_of_another() -> None:
    members = as_json(record("real", ts="forged", level="critical"))
    assert (members["level"], members["ts_"], members["level_"]) == ("info", "forged", "critical")


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name not in vars(record()) | {"message": 0}),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    )
)
def test_every_extra_field_makes_one_line_of_standard_json(extra: dict[str, Any]) -> None:
    entry = record("hello")
    vars(entry).update({name: value for name, value in extra.items() if name != "asctime"})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = JsonFormatter().format(entry)
    assert line.isprintable()
    json.loads(line, parse_constant=refuse)


# --- secrets -----------------------------------------------------------------------------------


def assert_hidden(written: Written, entry: logging.LogRecord) -> None:
    for formatter in FORMATTERS:
        line = formatter.format(entry)
        assert shown_parts(written, line) == [], line


@given(SECRETS)
def test_no_secret_in_a_message_comes_through(written: Written) -> None:
    assert_hidden(written, record(written.text))


@given(SECRETS)
def test_no_secret_in_an_argument_comes_through(written: Written) -> None:
    assert_hidden(written, record("it was %s", written.text))
    assert_hidden(written, record("it was %r", [written.text]))


@given(SECRETS)
def test_no_secret_in_an_extra_field_comes_through(written: Written) -> None:
    assert_hidden(written, record(detail=written.text))
    assert_hidden(written, record(detail={"a": [written.text]}))
    assert_hidden(written, record(channelId=written.text if "0x" not in written.text else ""))


@given(SECRETS)
def test_no_secret_in_an_exception_comes_through(written: Written) -> None:
    assert_hidden(written, failed(ValueError(written.text)))


@given(SECRETS)
def test_no_secret_in_the_cause_of_an_exception_comes_through(written: Written) -> None:
    error = ValueError("outer")
    error.__cause__ = OSError(written.text)
    assert_hidden(written, failed(error))


@given(PRIVATE_KEYS | SIGNATURES)
def test_bytes_and_numbers_as_large_as_keys_are_never_shown(secret: bytes) -> None:
    number = int.from_bytes(secret, "big") | 1 << 200
    members = as_json(record("%s %d", secret, number, raw=secret, number=number))
    assert members["raw"] == members["number"] == REDACTED
    assert members["message"] == f"{REDACTED} {REDACTED}"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_never_shown_however_few(kind: type[Any]) -> None:
    assert as_json(record(raw=kind(b"abc")))["raw"] == REDACTED


def test_every_amount_is_shown() -> None:
    assert as_json(record("%d", AMOUNT_MAX, amount=AMOUNT_MAX))["amount"] == AMOUNT_MAX
    assert as_json(record("%d", AMOUNT_MAX))["message"] == str(AMOUNT_MAX)


@pytest.mark.parametrize(
    "name", ["password", "authorization", "private_key", "apiKey", "signature", "challengeSecret"]
)
def test_a_field_with_the_name_of_a_secret_is_never_shown(name: str) -> None:
    assert as_json(record(**{name: "short"}))[name] == REDACTED


def test_channel_ids_and_transaction_hashes_are_shown_in_full_in_fields_of_that_name() -> None:
    name = to_hex(CHANNEL_ID)
    members = as_json(record("closed %s", name, channelId=name, txHash=name, other=name))
    assert (members["channelId"], members["txHash"]) == (name, name)
    assert members["other"] == "0xc4c4c4c4…"
    assert members["message"] == "closed 0xc4c4c4c4…"


@given(st.text(), st.text())
def test_nobody_can_forge_a_line(message: str, value: str) -> None:
    entry = record(message.replace("%", "%%"), detail=value)
    for formatter in FORMATTERS:
        assert formatter.format(entry).isprintable()


@given(st.text())
def test_a_value_cannot_pass_for_two_fields(value: str) -> None:
    line = TextFormatter().format(record("hello", path=value, status=200))
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
    assert outside.count("=") == 2


# --- configuration -----------------------------------------------------------------------------


def test_a_program_writes_its_own_news_and_the_warnings_of_others() -> None:
    stream = io.StringIO()
    configure_logging(stream, as_json=True)
    logging.getLogger("channelpay.payee").info("ours")
    logging.getLogger("channelpay.payee").debug("detail")
    logging.getLogger("uvicorn").info("theirs")
    logging.getLogger("uvicorn").warning("their warning")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["ours", "their warning"]


def test_configuring_again_writes_to_the_new_stream_alone() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(first, as_json=True)
    configure_logging(second, as_json=False, level=logging.DEBUG)
    logging.getLogger("channelpay").debug("hello")
    assert first.getvalue() == ""
    assert second.getvalue().endswith(" debug channelpay: hello\n")


def test_warnings_of_python_are_logged() -> None:
    stream = io.StringIO()
    configure_logging(stream, as_json=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("password=hunter2", UserWarning, stacklevel=1)
    assert json.loads(stream.getvalue())["logger"] == "py.warnings"
    assert "hunter2" not in stream.getvalue()


def test_a_stream_that_is_gone_prints_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure_logging(stream, as_json=True)
    stream.close()
    logging.getLogger("channelpay").warning("password=%s", "hunter2")
    assert capsys.readouterr() == ("", "")


# --- access log --------------------------------------------------------------------------------


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [as_json(entry) for entry in caplog.records if entry.name == ACCESS_LOGGER]


@pytest.fixture
def access_log(caplog: pytest.LogCaptureFixture) -> AccessLog:
    caplog.set_level(logging.INFO, logger=ACCESS_LOGGER)
    observer = AccessLog()
    observer.started([DOLLAR], BooksOfNumbers())
    return observer


def test_a_paid_request_is_one_line(
    access_log: AccessLog, caplog: pytest.LogCaptureFixture
) -> None:
    access_log.answered(
        answered(channel_id=CHANNEL_ID, token=DOLLAR_ADDRESS, charged=12_500, seconds=0.0021)
    )
    (members,) = access_lines(caplog)
    assert members | {"ts": ""} == {
        "ts": "",
        "level": "info",
        "logger": "channelpay.access",
        "message": "GET /page",
        "method": "GET",
        "path": "/page",
        "status": 200,
        "outcome": "paid",
        "ms": 2.1,
        "channelId": to_hex(CHANNEL_ID),
        "price": "0.0125 TUSD",
    }


def test_a_refused_request_has_neither_channel_nor_price(
    access_log: AccessLog, caplog: pytest.LogCaptureFixture
) -> None:
    access_log.answered(answered(Outcome.REFUSED, status=402))
    (members,) = access_lines(caplog)
    assert members.keys() & {"channelId", "price"} == set()
    assert (members["outcome"], members["status"]) == ("refused", 402)


def test_a_path_cannot_forge_a_line(
    access_log: AccessLog, caplog: pytest.LogCaptureFixture
) -> None:
    access_log.answered(answered(path='/a\n{"level": "critical"}\x1b[2J?apikey=hunter2'))
    (entry,) = [one for one in caplog.records if one.name == ACCESS_LOGGER]
    for formatter in FORMATTERS:
        line = formatter.format(entry)
        assert line.isprintable()
        assert "hunter2" not in line
