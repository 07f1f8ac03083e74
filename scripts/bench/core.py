"""What a voucher costs: checking it, reading it from the HTTP header, signing it.

"Raw" is libsecp256k1 called directly, with everything prepared: the floor under any implementation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from eth_account import Account
from eth_account.messages import encode_typed_data

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
from channelpay.protocol.types import NATIVE, Address, ChannelId, Deployment, Voucher
from channelpay.protocol.wire import (
    ChallengeIssuer,
    Credential,
    SessionRequest,
    VoucherPayload,
)
from scripts.bench.figures import Findings, Ratio, Table, Target, medians

SECONDS_PER_ROW = 0.02

DEPLOYMENT = Deployment(1, Address(keccak256(b"contract")[:20]))
SECRET = keccak256(b"a key for measurements only")
CHANNEL = ChannelId(keccak256(b"channel"))
AMOUNT = 123_456_789
NOW, EXPIRES = 1_800_000_000, 1_800_000_300
RAW_VERIFY, RAW_RECOVER, RAW_SIGN = "raw verify", "raw recover", "raw sign"

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """``seconds`` measures one call; it is compared with the row named ``against``."""

    name: str
    seconds: Callable[[], float]
    against: str = RAW_VERIFY
    reach: float | None = None


def seconds_per_call(run: Call) -> float:
    """Time of the processor for one call: an average over about SECONDS_PER_ROW."""
    calls, started = 0, time.thread_time()
    while (elapsed := time.thread_time() - started) < SECONDS_PER_ROW:
        for _ in range(10):
            run()
        calls += 10
    return elapsed / calls


def raw_calls() -> dict[str, Call]:
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
    return {RAW_VERIFY: verify, RAW_RECOVER: recover, RAW_SIGN: sign}


def typed_data(deployment: Deployment, channel_id: ChannelId, amount: int) -> dict[str, object]:
    """A voucher as eth-account wants it."""
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
            "chainId": deployment.chain_id,
            "verifyingContract": to_hex(deployment.contract),
        },
        "message": {"channelId": channel_id, "cumulativeAmount": amount},
    }


def recovered_by_eth_account(deployment: Deployment, voucher: Voucher) -> str:
    """Who signed a voucher, in the way that eth-account's documentation shows."""
    message = typed_data(deployment, voucher.channel_id, voucher.cumulative_amount)
    signable = encode_typed_data(full_message=message)
    return str(Account.recover_message(signable, signature=voucher.signature))


def own_rows() -> list[Row]:
    """The raw calls, ours, and eth-account's."""
    hasher, signer = VoucherHasher(DEPLOYMENT), VoucherSigner(DEPLOYMENT, SECRET)
    voucher = signer.sign(CHANNEL, AMOUNT)
    issuer = ChallengeIssuer(keccak256(b"challenge secret"), "bench")
    challenge = issuer.issue(SessionRequest(1, NATIVE, signer.address, DEPLOYMENT), EXPIRES)
    header = Credential(challenge, VoucherPayload(voucher)).to_header()
    message = typed_data(DEPLOYMENT, CHANNEL, AMOUNT)
    reader, checker = CredentialReader(issuer), VoucherChecker(hasher)

    def from_header() -> None:
        payload = reader.read(header, NOW).payload
        assert isinstance(payload, VoucherPayload)
        checker.check(payload.voucher, signer.address)

    def in_the_documented_way() -> None:
        recovered_by_eth_account(DEPLOYMENT, voucher)

    def row(name: str, run: Call, against: str = RAW_VERIFY, reach: float | None = None) -> Row:
        return Row(name, partial(seconds_per_call, run), against, reach)

    return [
        row("verify a voucher", lambda: checker.check(voucher, signer.address), reach=1.10),
        row("verify a voucher, from the HTTP header", from_header, reach=1.25),
        row("verify the first voucher of a signer", lambda: hasher.check(voucher, signer.address)),
        row("sign a voucher", lambda: signer.sign(CHANNEL, AMOUNT), RAW_SIGN, 1.25),
        row("eth-account: typed data, recover", in_the_documented_way),
        row(
            "eth-account: sign typed data",
            lambda: Account.sign_typed_data(SECRET, full_message=message),
            RAW_SIGN,
        ),
    ]


def measure(rounds: int, peers: list[Row]) -> Findings:
    """Every row once per round."""
    raw = [Row(name, partial(seconds_per_call, run)) for name, run in raw_calls().items()]
    compared = [*own_rows(), *peers]
    taken = [{row.name: row.seconds() for row in (*raw, *compared)} for _ in range(rounds)]
    typical = medians(taken)
    ratios = {
        row.name: Ratio.of(one[row.name] / one[row.against] for one in taken) for row in compared
    }
    targets = [
        Target(f"{row.name} / {row.against}", ratios[row.name], row.reach, at_most=True)
        for row in compared
    ]
    rows = [(row.name, typical[row.name] * 1e6) for row in (*raw, *compared)]
    note = "Microseconds of the processor, medians over the rounds."
    return Findings(targets, [Table("One voucher", note, ("", "µs"), tuple(rows))])
