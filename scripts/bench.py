"""What a voucher costs, as ratios measured side by side in one run: ``make bench``.

"Raw" is libsecp256k1 called directly, with everything prepared: the floor under any implementation.
Each round times every row once; a row's ratio is the median over the rounds of its time by the raw
time of the same round, so a drift of the machine's speed cancels.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from eth_account import Account
from eth_account.messages import encode_typed_data
from rich.console import Console
from rich.table import Table

from channelpay.protocol.eip712 import (
    DOMAIN_NAME,
    DOMAIN_VERSION,
    VoucherChecker,
    VoucherHasher,
    VoucherSigner,
)
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelId, Deployment
from channelpay.protocol.wire import (
    ChallengeIssuer,
    Credential,
    SessionRequest,
    VoucherPayload,
)

ROUNDS = 15
SECONDS_PER_ROW = 0.02

DEPLOYMENT = Deployment(1, Address(keccak256(b"contract")[:20]))
SECRET = keccak256(b"a key for measurements only")
CHANNEL = ChannelId(keccak256(b"channel"))
AMOUNT = 123_456_789
NOW, EXPIRES = 1_800_000_000, 1_800_000_300


@dataclass(frozen=True)
class Row:
    """One line of the table: ``run`` is compared with the row named ``against``."""

    name: str
    run: Callable[[], object]
    against: str
    reach: float | None = None


def raw_calls() -> tuple[Callable[[], object], ...]:
    """libsecp256k1's own verify, recover and sign of one digest, all parsed beforehand."""
    context, digest = GLOBAL_CONTEXT.ctx, VoucherHasher(DEPLOYMENT).digest(CHANNEL, AMOUNT)
    signature = ffi.new("secp256k1_ecdsa_signature *")
    public_key = ffi.new("secp256k1_pubkey *")
    assert lib.secp256k1_ec_pubkey_create(context, public_key, SECRET)
    assert lib.secp256k1_ecdsa_sign(context, signature, digest, SECRET, ffi.NULL, ffi.NULL)
    signed = ffi.new("secp256k1_ecdsa_signature *")
    recoverable = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    recovered = ffi.new("secp256k1_pubkey *")
    assert lib.secp256k1_ecdsa_sign_recoverable(
        context, recoverable, digest, SECRET, ffi.NULL, ffi.NULL
    )

    def verify() -> object:
        return lib.secp256k1_ecdsa_verify(context, signature, digest, public_key)

    def recover() -> object:
        return lib.secp256k1_ecdsa_recover(context, recovered, recoverable, digest)

    def sign() -> object:
        return lib.secp256k1_ecdsa_sign(context, signed, digest, SECRET, ffi.NULL, ffi.NULL)

    assert verify() == recover() == 1
    return verify, recover, sign


def typed_data() -> dict[str, object]:
    """The same voucher as eth-account wants it."""
    fields = ("name", "string"), ("version", "string"), ("chainId", "uint256")
    voucher = ("channelId", "bytes32"), ("cumulativeAmount", "uint128")
    return {
        "types": {
            "EIP712Domain": [
                {"name": name, "type": kind}
                for name, kind in (*fields, ("verifyingContract", "address"))
            ],
            "Voucher": [{"name": name, "type": kind} for name, kind in voucher],
        },
        "primaryType": "Voucher",
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": DEPLOYMENT.chain_id,
            "verifyingContract": to_hex(DEPLOYMENT.contract),
        },
        "message": {"channelId": CHANNEL, "cumulativeAmount": AMOUNT},
    }


def rows() -> list[Row]:
    """Everything that is measured, the raw calls first."""
    raw_verify, raw_recover, raw_sign = raw_calls()
    hasher, signer = VoucherHasher(DEPLOYMENT), VoucherSigner(DEPLOYMENT, SECRET)
    voucher = signer.sign(CHANNEL, AMOUNT)
    issuer = ChallengeIssuer(keccak256(b"challenge secret"), "bench")
    challenge = issuer.issue(SessionRequest(1, NATIVE, signer.address, DEPLOYMENT), EXPIRES)
    header = Credential(challenge, VoucherPayload(voucher)).to_header()
    message = typed_data()

    reader, checker = CredentialReader(issuer), VoucherChecker(hasher)

    def from_header() -> None:
        payload = reader.read(header, NOW).payload
        assert isinstance(payload, VoucherPayload)
        checker.check(payload.voucher, signer.address)

    def eth_account_verify() -> None:
        signable = encode_typed_data(full_message=message)
        Account.recover_message(signable, signature=voucher.signature)

    return [
        Row("raw verify", raw_verify, "raw verify"),
        Row("raw recover", raw_recover, "raw verify"),
        Row("verify a voucher", lambda: checker.check(voucher, signer.address), "raw verify", 1.10),
        Row("verify from the HTTP header", from_header, "raw verify", 1.25),
        Row("the first of a signer", lambda: hasher.check(voucher, signer.address), "raw verify"),
        Row("eth-account, typed data, recover", eth_account_verify, "raw verify"),
        Row("raw sign", raw_sign, "raw sign"),
        Row("sign a voucher", lambda: signer.sign(CHANNEL, AMOUNT), "raw sign", 1.25),
        Row(
            "eth-account, sign typed data",
            lambda: Account.sign_typed_data(SECRET, full_message=message),
            "raw sign",
        ),
    ]


def seconds_per_call(run: Callable[[], object]) -> float:
    """Average over a slice of time of about SECONDS_PER_ROW."""
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS_PER_ROW:
        for _ in range(10):
            run()
        calls += 10
    return elapsed / calls


def measure(table: list[Row]) -> list[dict[str, object]]:
    """One result per row: microseconds (median) and the ratio against its raw row."""
    rounds = [{row.name: seconds_per_call(row.run) for row in table} for _ in range(ROUNDS)]
    return [
        {
            "name": row.name,
            "microseconds": round(statistics.median(r[row.name] for r in rounds) * 1e6, 1),
            "ratio": round(statistics.median(r[row.name] / r[row.against] for r in rounds), 2),
            "reach": row.reach,
        }
        for row in table
    ]


def main() -> None:
    """Print a table on a terminal, JSON on a pipe."""
    results = measure(rows())
    if not sys.stdout.isatty():
        print(json.dumps(results, indent=2))
        return
    table = Table(title="one voucher, times raw libsecp256k1")
    for heading in ("", "µs", "ratio", "to reach"):
        table.add_column(heading, justify="left" if not heading else "right")
    for result in results:
        reach = result["reach"]
        cells = (result["name"], result["microseconds"], result["ratio"], reach or "")
        table.add_row(*map(str, cells))
    Console().print(table)


if __name__ == "__main__":
    main()
