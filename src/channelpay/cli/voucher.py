"""``channelpay voucher``: look into what goes over the wire, check who signed it, sign by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from channelpay.cli.common import (
    Setting,
    format_amount_of,
    named_channel,
    open_payer,
    parse_amount_of,
    pass_output,
    setting_options,
)
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, Preview, consent_options
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import InputError, SignerMismatch
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_channel_id,
    parse_json_object,
    parse_signature,
)
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Deployment, Voucher

if TYPE_CHECKING:
    from channelpay.payer.client import Payer
    from channelpay.payer.records import PayerChannel, Token
    from channelpay.protocol.wire import Challenge

TEXT_CHARACTERS_MAX = 64 * 1024
_FORMS = "an Authorization, a WWW-Authenticate or a Payment-Receipt"


@click.group()
def voucher() -> None:
    """Read what a payer and a payee tell each other, check a voucher, or sign one by hand."""


@voucher.command(epilog="Example: curl -sI https://example.org/page | channelpay voucher decode")
@click.argument("file", type=click.File("r"), default="-")
@json_option
@pass_output
def decode(output: Output, file: TextIO) -> None:
    """Show what a header says: of a 402, of a paid request, or of its answer.

    FILE holds the value of one header, or the lines of several, as curl prints them; without it
    they are read from standard input, since a voucher is not for everybody's eyes. No signature is
    checked.
    """
    said = [_decoded(name, value) for name, value in _headers(_text(file))]
    if not said:
        raise InputError(f"no header of a payment was found: {_FORMS}")
    for members in said:
        output.show(members, lambda shown=members: facts_table(_flat(shown)))  # type: ignore[misc]


@voucher.command(
    epilog="Example: channelpay voucher verify voucher.json --chain-id 8453"
    " --contract 0xC0FFEE0000000000000000000000000000000000"
)
@click.argument("file", type=click.File("r"), default="-")
@click.option("--chain-id", type=click.IntRange(1, 2**53 - 1), required=True, help="Its chain.")
@click.option("--contract", metavar="ADDRESS", help="Its contract (default: the canonical one).")
@click.option("--signer", metavar="ADDRESS", help="Refuse every other signer.")
@json_option
@pass_output
def verify(
    output: Output, file: TextIO, *, chain_id: int, contract: str | None, signer: str | None
) -> None:
    """Check a voucher as the contract would, and say who signed it.

    FILE is JSON with channelId, cumulativeAmount and signature, as 'voucher decode' and 'payee
    export' write them. A voucher that the contract would not take ends with code 4. An export says
    who has to have signed; else somebody is always found: compare, or name the --signer.
    """
    from channelpay.chain.create2 import predicted_address
    from channelpay.protocol.eip712 import VoucherHasher

    address = predicted_address() if contract is None else parse_address(contract, "contract")
    deployment = Deployment(chain_id, address)
    members = parse_json_object(_text(file).encode(), "voucher")
    _check_export(members, deployment)
    hasher, found = VoucherHasher(deployment), _voucher(members)
    recovered = hasher.recover(found)
    hasher.check(found, recovered if signer is None else parse_address(signer, "signer"))
    said = {
        "channelId": to_hex(found.channel_id),
        "cumulativeAmount": str(found.cumulative_amount),
        "signer": checksum_address(recovered),
    }
    output.show(said, lambda: facts_table(said))


@voucher.command(epilog="Example: channelpay voucher sign 0x1f2e3d4c 0.002 > voucher.json")
@click.argument("channel_name", metavar="CHANNEL")
@click.argument("amount")
@consent_options
@setting_options
@json_option
@pass_output
def sign(
    output: Output, channel_name: str, amount: str, *, consent: Consent, setting: Setting
) -> int:
    """Sign a voucher for AMOUNT in all, to test a payee or to pay by hand.

    Whoever holds it can have the payee paid that much out of the deposit, without asking you again.
    AMOUNT is what the channel has paid in all, never what is added. The books keep it, so that
    programs that pay go on from there. The same amount gives the same voucher again.
    """
    with open_payer(setting, output) as payer:
        entries = payer.state.channels(payer.address)
        entry = named_channel(entries, channel_name, "channelpay channel list")
        token = _token(payer, entry)
        cumulative = parse_amount_of(amount, token, "amount")
        if not consent.given(output, lambda: _preview(entry, token, cumulative)):
            return DRY_RUN_PASSED
        signed = payer.sign_by_hand(entry.channel_id, cumulative)
    said = {
        "channelId": to_hex(signed.channel_id),
        "cumulativeAmount": str(signed.cumulative_amount),
        "signature": to_hex(signed.signature),
    }
    output.show(said, lambda: facts_table(said))
    return 0


def _preview(entry: PayerChannel, token: Token, cumulative: int) -> Preview:
    """Raises what signing raises."""
    entry.require_signable(cumulative)
    payee = checksum_address(entry.channel.payee)
    result = {
        "channelId": to_hex(entry.channel_id),
        "payee": payee,
        "cumulativeAmount": str(cumulative),
        "signed": str(entry.signed),
    }
    facts = {
        "Channel": to_hex(entry.channel_id),
        "Payee": payee,
        "May take in all": format_amount_of(cumulative, token),
        "So far": format_amount_of(entry.signed, token),
        "Deposit": format_amount_of(entry.deposit, token),
    }
    return Preview("sign", (), result, facts, "Sign it? A voucher cannot be taken back.")


def _token(payer: Payer, entry: PayerChannel) -> Token:
    """How its amounts are written; the chain is asked if the books do not know."""
    from channelpay.payer.records import ETHER

    address = entry.channel.token
    if address == NATIVE:
        return ETHER
    return payer.state.token(entry.deployment.chain_id, address) or payer.token(address)


def _text(file: TextIO) -> str:
    try:
        text = file.read(TEXT_CHARACTERS_MAX + 1)
    except (OSError, UnicodeDecodeError):
        raise InputError("the input cannot be read as text") from None
    if len(text) > TEXT_CHARACTERS_MAX:
        raise InputError(f"the input is longer than {TEXT_CHARACTERS_MAX} characters")
    return text


def _headers(text: str) -> list[tuple[str, str]]:
    """The lines that are headers of a payment; one value alone is named by its form."""
    named = [
        line.partition(":")[::2] for line in text.splitlines() if ":" in line.partition(" ")[0]
    ]
    found = [(name.lower(), value.strip()) for name, value in named]
    found = [(name, value) for name, value in found if _is_of_payment(name, value)]
    value = text.strip()
    if found or not value or "\n" in value:
        return found
    if not value.lower().startswith("payment "):
        return [("payment-receipt", value)]
    return [("www-authenticate" if "=" in value.partition(" ")[2][:40] else "authorization", value)]


def _is_of_payment(name: str, value: str) -> bool:
    """A server may ask for other credentials as well, and a browser may send them."""
    from channelpay.protocol.wire import parse_challenges

    if name == "authorization":
        return value.lower().startswith("payment ")
    if name == "www-authenticate":
        return bool(parse_challenges([value]))
    return name == "payment-receipt"


def _decoded(name: str, value: str) -> dict[str, Any]:
    from channelpay.protocol.wire import Credential, Receipt, parse_challenges

    if name == "www-authenticate":
        challenges = parse_challenges([value])
        if not challenges:
            raise InputError("the WWW-Authenticate header has no challenge of a payment")
        return {"header": name, "challenges": [_challenge(one) for one in challenges]}
    if name == "payment-receipt":
        return {"header": name, **parse_json_object(Receipt.parse(value).to_json().encode(), name)}
    credential = Credential.parse(value)
    said = {"payload": credential.payload.members(), "challenge": _challenge(credential.challenge)}
    return {"header": name, **said, "source": str(credential.source or "")}


def _challenge(challenge: Challenge) -> dict[str, Any]:
    """With its request as an object, as far as it is one of ours."""
    from channelpay.protocol.wire import decode_base64url

    request = parse_json_object(decode_base64url(challenge.request, "request"), "request")
    return {**challenge.members(), "request": request}


def _check_export(members: dict[str, Any], deployment: Deployment) -> None:
    """What an export says of the channel has to fit, if it is one."""
    from channelpay.payee.watchtower import parse_line

    if "chainId" not in members:
        return
    exported = parse_line(json.dumps(members).encode()).deployment
    if exported != deployment:
        raise SignerMismatch(
            f"it was exported for chain {exported.chain_id} and the contract"
            f" {checksum_address(exported.contract)}",
            hint="Give that --chain-id and --contract.",
        )


def _voucher(members: dict[str, Any]) -> Voucher:
    held = members.get("payload")
    members = held if isinstance(held, dict) else members
    return Voucher(
        parse_channel_id(members.get("channelId")),
        parse_amount(members.get("cumulativeAmount"), "cumulativeAmount"),
        parse_signature(members.get("signature")),
    )


def _flat(members: dict[str, Any], before: str = "") -> dict[str, str]:
    """Names with dots and texts, for two columns."""
    flat: dict[str, str] = {}
    for name, value in members.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            flat |= _flat(
                {f"{number}": one for number, one in enumerate(value, 1)}, f"{before}{name}."
            )
        else:
            flat[before + name] = str(value)
    return flat
