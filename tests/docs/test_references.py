"""The reference says what the code says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import channelpay
import channelpay.testing
from channelpay import errors
from channelpay.cli import config
from channelpay.cli.consent import DRY_RUN_PASSED
from channelpay.cli.output import INTERRUPTED
from channelpay.cli.root import cli
from channelpay.errors import ChannelPayError
from channelpay.protocol.sse import NeedVoucher
from channelpay.protocol.wire import (
    Challenge,
    Credential,
    Receipt,
    SessionRequest,
    decode_base64url,
    encode_base64url,
)
from scripts.docs.blocks import blocks_of
from scripts.docs.commands import command_reference
from scripts.docs.error_codes import error_reference, tree_of

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
REFERENCE = DOCS / "reference"
WIRE = blocks_of(REFERENCE / "wire.md")
SOURCE = "did:pkh:eip155:31337:0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
CHALLENGE = Challenge("id", "channelpay", "evm", "session", "request")
VARIABLE = re.compile(r"CHANNELPAY_[A-Z_]*[A-Z]")


# --- commands ------------------------------------------------------------------------------------


def commands_of(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}".lstrip(), command
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path} {name}".lstrip())


assert isinstance(cli, click.Group)
COMMANDS = dict(commands_of(cli, ""))


def typed_commands() -> Iterator[tuple[str, str]]:
    """Each ``channelpay`` that a page has somebody type, in a block or a sentence."""
    pages = [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *REPOSITORY.glob("examples/*.md")]
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        sentences = re.findall(r"`(channelpay [^`\n]+)`", text)
        lines = re.findall(r"^\s*(channelpay [^\n#|]*)", blocks, re.MULTILINE)
        yield from ((page.relative_to(REPOSITORY).as_posix(), line) for line in lines + sentences)


@pytest.mark.parametrize(("page", "line"), sorted(set(typed_commands())))
def test_every_command_that_a_page_names_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if words[0].startswith("-") or words[0] == "COMMAND":
        return
    named = [" ".join(words[:count]) for count in (3, 2, 1)]
    name = next(name for name in named if name in COMMANDS)
    rest = words[len(name.split()) :]
    command = COMMANDS[name]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    options = {word.partition("=")[0] for word in rest if re.match("--?[a-zA-Z]", word)}

    assert options <= known | {"--help", "-h"}
    assert not isinstance(command, click.Group) or not rest or rest[0].startswith("-")


def test_the_reference_has_every_command_and_option() -> None:
    text = command_reference(cli, "channelpay")
    options = {
        option
        for command in COMMANDS.values()
        for p in command.params
        if isinstance(p, click.Option) and not p.hidden
        for option in p.opts
    }

    assert [name for name in COMMANDS if f"# {name}\n" not in text] == []
    assert [option for option in options if option not in text] == []


# --- errors --------------------------------------------------------------------------------------


def test_the_reference_has_every_error() -> None:
    text = error_reference()
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    codes = {one.code for one in classes if issubclass(one, ChannelPayError)}

    assert [code for code in codes - {"error"} if f'id="{code}"' not in text] == []


def test_the_exit_codes_are_those_of_the_errors() -> None:
    table = re.findall(r"^\| (\d+) \|", (REFERENCE / "errors.md").read_text(), re.MULTILINE)
    codes = {error.exit_code for error in tree_of(ChannelPayError)}

    assert set(map(int, table)) == codes | {0, DRY_RUN_PASSED, INTERRUPTED}


def test_every_code_that_a_page_names_exists() -> None:
    codes = {error.code for error in tree_of(ChannelPayError)}
    named = {
        code
        for page in (REFERENCE / "wire.md", DOCS / "proxy.md", DOCS / "stores.md")
        for code in re.findall(r"\bcode `([a-z-]+)`|\(`([a-z-]+)`\)", page.read_text())
    }

    assert {code or other for code, other in named} <= codes


# --- wire ----------------------------------------------------------------------------------------


def json_of(member: str) -> list[Any]:
    found = [json.loads(block.text) for block in WIRE if block.language == "json"]
    return [members for members in found if member in members]


def test_the_request_of_the_page_reads_and_writes_back() -> None:
    (members,) = json_of("methodDetails")
    encoded = encode_base64url(json.dumps(members).encode())

    written = SessionRequest.decode(encoded).encode()

    assert json.loads(decode_base64url(written, "request")) == members


@pytest.mark.parametrize("payload", json_of("action"), ids=lambda payload: payload["action"])
def test_every_payload_of_the_page_reads_and_writes_back(payload: dict[str, Any]) -> None:
    members = {"challenge": CHALLENGE.members(), "payload": payload, "source": SOURCE}
    header = f"Payment {encode_base64url(json.dumps(members).encode())}"

    assert Credential.parse(header).payload.members() == payload


def test_the_page_has_every_action() -> None:
    assert {payload["action"] for payload in json_of("action")} == {
        "open",
        "topUp",
        "voucher",
        "close",
    }


def test_the_receipt_of_the_page_reads_and_writes_back() -> None:
    (members,) = json_of("challengeId")

    assert json.loads(Receipt.from_json(json.dumps(members)).to_json()) == members


def test_the_event_of_the_page_reads_and_writes_back() -> None:
    (data,) = re.findall(r"payment-need-voucher\ndata: (.*)", (REFERENCE / "wire.md").read_text())

    assert json.loads(NeedVoucher.from_json(data).to_json()) == json.loads(data)


# --- configuration -------------------------------------------------------------------------------


def test_the_page_has_every_variable_that_the_code_reads() -> None:
    sources = (REPOSITORY / "src").rglob("*.py")
    read = {name for source in sources for name in VARIABLE.findall(source.read_text())}
    described = set(VARIABLE.findall((REFERENCE / "configuration.md").read_text()))

    assert described == read


def test_the_settings_file_of_the_page_is_one(tmp_path: Path) -> None:
    (block,) = [b for b in blocks_of(REFERENCE / "configuration.md") if b.language == "toml"]
    (tmp_path / "config.toml").write_text(block.text)

    read = config.read_config(tmp_path / "config.toml")

    assert (read.network, read.account) == ("staging", "publisher")
    assert len(read.named("staging").rpc) == 2


def test_the_page_has_every_key_of_the_settings_file() -> None:
    text = (REFERENCE / "configuration.md").read_text()

    assert [key for key in config._NETWORK_MEMBERS if f"`{key}`" not in text] == []


# --- Python and costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", [channelpay, channelpay.testing])
def test_the_reference_has_every_public_name(module: Any) -> None:
    pages = "\n".join(page.read_text() for page in (REFERENCE / "python").glob("*.md"))
    names = [f"::: {module.__name__}.{name}\n" for name in module.__all__]
    elsewhere = "::: channelpay.ChannelPayError\n"  # in the reference of errors

    assert [name for name in names if name not in pages and name != elsewhere] == []


@pytest.mark.parametrize(
    ("row", "ether", "token"),
    [
        ("open", "open, ETH", "open, ERC-20"),
        ("close", "close, ETH", "close, ERC-20"),
        ("one plain transfer", "plain transfer, ETH", "plain transfer, ERC-20"),
        ("open again, same two, after a close", "re-open, ETH", "re-open, ERC-20"),
        ("settle, channel stays open", "settle, ETH", "settle, ERC-20"),
        (
            "one more settlement in the same transaction",
            "one more settlement in a batch, ETH",
            "one more settlement in a batch, ERC-20",
        ),
    ],
)
def test_the_costs_are_those_that_were_measured(row: str, ether: str, token: str) -> None:
    gas = json.loads((DOCS / "gas.json").read_text())
    page = (DOCS / "explanation" / "costs.md").read_text()

    assert f"| {row} | {gas[ether]:,} | {gas[token]:,} |" in page


def test_what_is_added_up_from_the_costs_is_right() -> None:
    gas = json.loads((DOCS / "gas.json").read_text())
    page = (DOCS / "explanation" / "costs.md").read_text()
    ether, token = (gas[f"open, {kind}"] + gas[f"close, {kind}"] for kind in ("ETH", "ERC-20"))
    cheaper = [
        whole // gas[f"plain transfer, {kind}"] + 1
        for whole, kind in ((ether, "ETH"), (token, "ERC-20"))
    ]

    assert f"| both: one channel | {ether:,} | {token:,} |" in page
    assert f"cheaper from | {cheaper[0]} payments | {cheaper[1]} payments |" in page
    assert f"costs {ether / 10**9:.6f} ETH, at 20 gwei {ether * 20 / 10**9:.3f} ETH" in page
    for count in (10, 1000, 100_000):
        assert f"| {count:,} | {ether / count:,.1f} | {token / count:,.1f} |" in page
