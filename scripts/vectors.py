"""Write the golden vectors of tests/vectors/, or check (``--check``) that they are as written here.

Nothing of channelpay is imported: ids, digests and signatures come from eth-abi and eth-account,
headers from the standard library. So the vectors can tell when channelpay is wrong.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"

MNEMONIC = "test test test test test test test test test test test junk"
ZERO_ADDRESS = "0x" + "00" * 20
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
CHANNEL_WORDS = ["address", "address", "address", "bytes32", "address"]
VOUCHER, CLOSE_AUTHORIZATION = "Voucher", "CloseAuthorization"
MESSAGE_FIELDS = [
    {"name": "channelId", "type": "bytes32"},
    {"name": "cumulativeAmount", "type": "uint128"},
]


def known_account(index: int) -> LocalAccount:
    """An account whose key everybody knows; a development chain funds it."""
    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return account


DEPLOYER, PAYER, PAYEE, SESSION_KEY, STRANGER = map(known_account, range(5))


def created_by_deployer(nonce: int) -> str:
    """Where the deployer's transaction with this nonce (0 to 127) puts a contract."""
    nonce_rlp = bytes([nonce or 0x80])
    return "0x" + keccak(b"\xd6\x94" + bytes.fromhex(DEPLOYER.address[2:]) + nonce_rlp)[12:].hex()


# On every chain: the contract is the deployer's first transaction, the test token its second.
CONTRACT, TOKEN, OTHER_CONTRACT = map(created_by_deployer, range(3))


@dataclass(frozen=True)
class Case:
    description: str
    cumulative_amount: int
    chain_id: int = 31337
    contract: str = CONTRACT
    token: str = ZERO_ADDRESS
    session_key: bool = False
    salt_high: int = 0
    epoch: int = 0

    @property
    def signer(self) -> LocalAccount:
        return SESSION_KEY if self.session_key else PAYER

    @property
    def authorized_signer(self) -> str:
        return SESSION_KEY.address.lower() if self.session_key else ZERO_ADDRESS

    @property
    def salt(self) -> bytes:
        return ((self.salt_high << 32) | self.epoch).to_bytes(32, "big")

    def words(self, salt: bytes) -> list[Any]:
        return [PAYER.address, PAYEE.address, self.token, salt, self.authorized_signer]

    @property
    def channel_id(self) -> bytes:
        types = [*CHANNEL_WORDS, "address", "uint256"]
        return keccak(encode(types, [*self.words(self.salt), self.contract, self.chain_id]))

    @property
    def lane(self) -> bytes:
        salt = self.salt_high.to_bytes(32, "big")
        return keccak(encode(CHANNEL_WORDS, self.words(salt)))

    def typed_data(self, kind: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        domain = {
            "name": "EVM Payment Channel",
            "version": "1",
            "chainId": self.chain_id,
            "verifyingContract": self.contract,
        }
        message = {"channelId": self.channel_id, "cumulativeAmount": self.cumulative_amount}
        return domain, {kind: MESSAGE_FIELDS}, message


CASES = [
    Case("native currency, nothing promised yet, salt zero", 0),
    Case("native currency, one base unit, epoch 1", 1, epoch=1),
    Case("native currency, the largest deposit a channel can hold", 2**96 - 1),
    Case("native currency, the largest amount a voucher can say", 2**128 - 1),
    Case("native currency, session key, the last epoch", 10**18, session_key=True, epoch=2**32 - 1),
    Case("token, payer's own key, random salt", 1_500_000, token=TOKEN, salt_high=7**79),
    Case(
        "token, session key, salt of ones",
        2_000_000,
        token=TOKEN,
        session_key=True,
        salt_high=2**224 - 1,
        epoch=2**32 - 1,
    ),
    Case("chain 1", 250_000, chain_id=1, token=TOKEN, session_key=True),
    Case("chain 196, epoch 1", 250_000, chain_id=196, token=TOKEN, epoch=1),
    Case("the largest chain id", 1, chain_id=2**53 - 1),
]


def to_hex(data: bytes) -> str:
    return "0x" + bytes(data).hex()


def channel_of(case: Case) -> dict[str, str]:
    return {
        "payer": PAYER.address.lower(),
        "payee": PAYEE.address.lower(),
        "token": case.token,
        "authorizedSigner": case.authorized_signer,
        "salt": to_hex(case.salt),
    }


def sign(case: Case, key: LocalAccount, kind: str = VOUCHER) -> bytes:
    signed = key.sign_typed_data(*case.typed_data(kind))
    return bytes(signed.signature)


def voucher_vector(case: Case) -> dict[str, Any]:
    signable = encode_typed_data(*case.typed_data(VOUCHER))
    return {
        "description": case.description,
        "chainId": case.chain_id,
        "contract": case.contract,
        "channel": channel_of(case),
        "epoch": case.epoch,
        "channelId": to_hex(case.channel_id),
        "lane": to_hex(case.lane),
        "domainSeparator": to_hex(signable.header),
    } | signed_members(case, case.signer, VOUCHER)


def close_authorization_vector(case: Case) -> dict[str, Any]:
    return {
        "description": case.description,
        "chainId": case.chain_id,
        "contract": case.contract,
        "channel": channel_of(case),
        "channelId": to_hex(case.channel_id),
    } | signed_members(case, PAYEE, CLOSE_AUTHORIZATION)


def signed_members(case: Case, key: LocalAccount, kind: str) -> dict[str, str]:
    signable = encode_typed_data(*case.typed_data(kind))
    return {
        "cumulativeAmount": str(case.cumulative_amount),
        "structHash": to_hex(signable.body),
        "digest": to_hex(keccak(b"\x19" + signable.version + signable.header + signable.body)),
        "privateKey": to_hex(key.key),
        "signature": to_hex(sign(case, key, kind)),
        "signer": key.address.lower(),
    }


def high_s(signature: bytes) -> bytes:
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def invalid_vectors() -> list[dict[str, Any]]:
    case = CASES[1]
    good = sign(case, case.signer)
    order = CURVE_ORDER.to_bytes(32, "big")
    mismatch, malleable = "signer-mismatch", "malleable-signature"
    wrong_v, invalid = "wrong-recovery-id", "invalid-signature"
    rows = [
        ("high s", malleable, high_s(good)),
        ("v is the other one", wrong_v, good[:64] + bytes([55 - good[64]])),
        ("v is 0 or 1", wrong_v, good[:64] + bytes([good[64] - 27])),
        ("v is 29", wrong_v, good[:64] + b"\x1d"),
        ("signed for another chain", mismatch, sign(replace(case, chain_id=1), PAYER)),
        (
            "signed for another contract",
            mismatch,
            sign(replace(case, contract=OTHER_CONTRACT), PAYER),
        ),
        ("signed for another epoch", mismatch, sign(replace(case, epoch=2), PAYER)),
        ("signed for another amount", mismatch, sign(replace(case, cumulative_amount=2), PAYER)),
        ("signed by a stranger", mismatch, sign(case, STRANGER)),
        ("64 bytes", invalid, good[:64]),
        ("66 bytes", invalid, good + b"\0"),
        ("empty", invalid, b""),
        ("r is zero", invalid, bytes(32) + good[32:]),
        ("s is zero", invalid, good[:32] + bytes(32) + good[64:]),
        ("r is the curve's order", invalid, order + good[32:]),
    ]
    return [
        {
            "description": description,
            "code": code,
            "chainId": case.chain_id,
            "contract": case.contract,
            "channel": channel_of(case),
            "channelId": to_hex(case.channel_id),
            "cumulativeAmount": str(case.cumulative_amount),
            "signer": case.signer.address.lower(),
            "signature": to_hex(signature),
        }
        for description, code, signature in rows
    ]


def voucher_vectors() -> dict[str, Any]:
    return {
        "description": "Channel ids, vouchers, and the payee's close authorizations. "
        "Everybody knows the private keys: tests only.",
        "vouchers": [voucher_vector(case) for case in CASES],
        "invalid": invalid_vectors(),
        "closeAuthorizations": [close_authorization_vector(case) for case in CASES],
    }


# --- headers ---------------------------------------------------------------------------------

SECRET = bytes(range(32))
REALM = "content.example"
EXPIRES = "2026-01-31T12:00:00Z"
TRANSACTION_HASH = to_hex(keccak(text="a transaction"))


def base64url(members: dict[str, Any]) -> str:
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def challenge_vector(description: str, request: dict[str, Any]) -> dict[str, Any]:
    encoded = base64url(request)
    slots = [REALM, "evm", "session", encoded, EXPIRES, "", ""]
    mac = hmac.digest(SECRET, "|".join(slots).encode(), hashlib.sha256)
    members = {
        "id": base64.urlsafe_b64encode(mac).rstrip(b"=").decode(),
        "realm": REALM,
        "method": "evm",
        "intent": "session",
        "request": encoded,
        "expires": EXPIRES,
    }
    params = ", ".join(f'{name}="{value}"' for name, value in members.items())
    return {
        "description": description,
        "header": f"Payment {params}",
        "challenge": members,
        "request": request,
    }


def challenge_vectors() -> list[dict[str, Any]]:
    details = {"chainId": 31337, "escrowContract": to_checksum_address(CONTRACT)}
    native = {
        "amount": "1000",
        "currency": ZERO_ADDRESS,
        "recipient": PAYEE.address,
        "unitType": "request",
        "methodDetails": details,
    }
    token = native | {
        "amount": str(2**128 - 1),
        "currency": to_checksum_address(TOKEN),
        "suggestedDeposit": "5000000",
        "description": 'Notes on "caf\u00e9", \\ and \u4f60\U0001f600',
    }
    return [
        challenge_vector("native currency, required members only", native),
        challenge_vector("token, every member, text beyond ASCII", token),
    ]


def voucher_members(case: Case) -> dict[str, str]:
    return {
        "channelId": to_hex(case.channel_id),
        "cumulativeAmount": str(case.cumulative_amount),
        "signature": to_hex(sign(case, case.signer)),
    }


def payloads() -> dict[str, dict[str, Any]]:
    own, session = CASES[1], CASES[4]
    by_hash = {"type": "hash", "hash": TRANSACTION_HASH}
    opened = {"action": "open"} | by_hash
    top_up = {"channelId": to_hex(own.channel_id), "additionalDeposit": "7"}
    session_open = {"salt": to_hex(session.salt), "authorizedSigner": session.authorized_signer}
    return {
        "open, payer's own key": opened | voucher_members(own) | {"salt": to_hex(own.salt)},
        "open, session key": opened | voucher_members(session) | session_open,
        "topUp": {"action": "topUp"} | by_hash | top_up,
        "voucher": {"action": "voucher"} | voucher_members(own),
        "close": {"action": "close"} | voucher_members(own),
    }


def credential_vectors() -> list[dict[str, Any]]:
    challenge = challenge_vectors()[0]["challenge"]
    vectors = []
    for description, payload in payloads().items():
        members: dict[str, Any] = {"challenge": challenge, "payload": payload}
        if "type" in payload:
            members["source"] = f"did:pkh:eip155:31337:{PAYER.address.lower()}"
        header = f"Payment {base64url(members)}"
        vectors.append({"description": description, "header": header, "members": members})
    return vectors


def receipt_vectors() -> list[dict[str, Any]]:
    paid = {
        "method": "evm",
        "intent": "session",
        "status": "success",
        "timestamp": "2026-01-31T11:59:30Z",
        "reference": to_hex(CASES[1].channel_id),
        "challengeId": challenge_vectors()[0]["challenge"]["id"],
        "channelId": to_hex(CASES[1].channel_id),
        "chainId": 31337,
        "acceptedCumulative": str(2**128 - 1),
        "spent": "250000",
    }
    rows = {"a paid request": paid, "a close": paid | {"txHash": TRANSACTION_HASH}}
    return [
        {"description": description, "header": base64url(members), "members": members}
        for description, members in rows.items()
    ]


def wire_vectors() -> dict[str, Any]:
    return {
        "description": "Header values of the Payment scheme, with what they say.",
        "secret": to_hex(SECRET),
        "realm": REALM,
        "challenges": challenge_vectors(),
        "credentials": credential_vectors(),
        "receipts": receipt_vectors(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    stale = 0
    for name, vectors in (("vouchers", voucher_vectors()), ("wire", wire_vectors())):
        path = VECTORS / f"{name}.json"
        text = json.dumps(vectors, indent=2, ensure_ascii=True) + "\n"
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            print(f"{path} is not what this script writes; run it without --check")
            stale += 1
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
