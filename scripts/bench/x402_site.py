"""x402's own server of its batch-settlement scheme, with its own storage in files, before the same
small page. It runs in an environment of its own (`.venv-bench`), is told what to do in lines of
JSON on standard input, and answers likewise.

Its channels stand in its storage as if its facilitator had just confirmed them on chain, so that it
checks every voucher by itself and asks nobody.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import time
from typing import Any

import uvicorn
from eth_account import Account
from fastapi import FastAPI, Response
from x402 import x402ResourceServer
from x402.http.middleware.fastapi import PaymentMiddlewareASGI
from x402.http.types import PaymentOption, RouteConfig
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.batch_settlement.constants import VOUCHER_TYPES
from x402.mechanisms.evm.batch_settlement.facilitator.utils import (
    verify_batch_settlement_voucher_typed_data,
)
from x402.mechanisms.evm.batch_settlement.server import (
    BatchSettlementEvmScheme,
    BatchSettlementEvmSchemeServerConfig,
    Channel,
    FileChannelStorage,
)
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig
from x402.mechanisms.evm.batch_settlement.utils import (
    coerce_bytes32,
    compute_channel_id,
    get_batch_settlement_eip712_domain,
)
from x402.schemas import AssetAmount, PaymentPayload, PaymentRequirements, SupportedKind
from x402.schemas.responses import SupportedResponse

CHAIN_ID = 84532
NETWORK = f"eip155:{CHAIN_ID}"
ASSET = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PAYEE = Account.from_key(b"\x11" * 32).address
AUTHORIZER = Account.from_key(b"\x12" * 32)
PRICE = 1_000
DEPOSIT = 10**12
WITHDRAW_SECONDS = 86_400
PATH = "/article"


class Authorizer:
    """Signs nothing here: it only has to be there."""

    address = AUTHORIZER.address

    def sign_typed_data(self, *_: Any) -> bytes:
        raise NotImplementedError


class Facilitator:
    """Says that the scheme is supported; it is never asked to check anything."""

    def get_supported(self) -> SupportedResponse:
        kind = SupportedKind(x402_version=2, scheme="batch-settlement", network=NETWORK, extra={})
        return SupportedResponse(kinds=[kind], extensions=[], signers={})

    async def verify(self, *_: Any) -> Any:
        raise RuntimeError("the facilitator was asked to verify")

    async def settle(self, *_: Any) -> Any:
        raise RuntimeError("the facilitator was asked to settle")


def application(storage: FileChannelStorage) -> FastAPI:
    """The page, behind x402's middleware for FastAPI."""
    scheme = BatchSettlementEvmScheme(
        PAYEE,
        BatchSettlementEvmSchemeServerConfig(
            storage=storage,
            receiver_authorizer_signer=Authorizer(),
            withdraw_delay=WITHDRAW_SECONDS,
            onchain_state_ttl_ms=86_400_000,
        ),
    )
    server = x402ResourceServer(Facilitator())
    server.register(NETWORK, scheme)
    price = AssetAmount(amount=str(PRICE), asset=ASSET, extra={"name": "USDC", "version": "2"})
    option = PaymentOption(scheme="batch-settlement", pay_to=PAYEE, price=price, network=NETWORK)
    app = FastAPI()
    app.add_middleware(
        PaymentMiddlewareASGI, routes={f"GET {PATH}": RouteConfig(accepts=option)}, server=server
    )

    @app.get(PATH)
    async def article() -> Response:
        return Response("<p>An article.</p>", media_type="text/html")

    return app


class Payer:
    """One channel and what it has signed."""

    def __init__(self, number: int) -> None:
        self.account = Account.from_key(number.to_bytes(32, "big"))
        address = self.account.address
        salt = "0x" + number.to_bytes(32, "big").hex()
        self.config = ChannelConfig(
            address, address, PAYEE, AUTHORIZER.address, ASSET, WITHDRAW_SECONDS, salt
        )
        self.channel_id = compute_channel_id(self.config, NETWORK)
        self.signed = 0

    def channel(self) -> Channel:
        return Channel(
            channel_id=self.channel_id,
            channel_config=self.config,
            balance=str(DEPOSIT),
            onchain_synced_at=int(time.time() * 1000),
        )

    def voucher(self) -> dict[str, str]:
        self.signed += PRICE
        message = {
            "channelId": coerce_bytes32(self.channel_id),
            "maxClaimableAmount": self.signed,
        }
        domain = get_batch_settlement_eip712_domain(CHAIN_ID)
        signed = self.account.sign_typed_data(domain, VOUCHER_TYPES, message)
        return {
            "channelId": self.channel_id,
            "maxClaimableAmount": str(self.signed),
            "signature": "0x" + signed.signature.hex(),
        }

    def request(self, accepted: PaymentRequirements) -> bytes:
        payload = {
            "type": "voucher",
            "channelConfig": self.config.to_dict(),
            "voucher": self.voucher(),
        }
        header = encode_payment_signature_header(
            PaymentPayload(x402_version=2, payload=payload, accepted=accepted)
        )
        return (
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
            f"PAYMENT-SIGNATURE: {header}\r\n\r\n"
        ).encode()


def accepted_terms(address: tuple[str, int]) -> PaymentRequirements:
    """What the 402 asks for."""
    with socket.create_connection(address) as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() == "payment-required":
            required = decode_payment_required_header(value)
            return PaymentRequirements.model_validate(required.accepts[0].model_dump())
    raise RuntimeError(head.decode("latin-1"))


def serve(app: FastAPI) -> tuple[str, int]:
    """The server, configured as ours is, in a thread of its own; where it listens."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, http="h11", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    host, port = listening.getsockname()
    return host, port


def verify_seconds(payer: Payer, seconds: float) -> float:
    """Time of the processor for the check of one voucher's signature."""
    voucher = payer.voucher()
    calls, started = 0, time.thread_time()
    while (elapsed := time.thread_time() - started) < seconds:
        assert verify_batch_settlement_voucher_typed_data(
            None,
            voucher["channelId"],
            voucher["maxClaimableAmount"],
            payer.config.payer_authorizer,
            payer.config.payer,
            voucher["signature"],
            CHAIN_ID,
        )
        calls += 1
    return elapsed / calls


def main() -> None:
    """Arguments: the folder of the storage, and the number of channels."""
    storage = FileChannelStorage(sys.argv[1])
    payers = [Payer(number) for number in range(1, int(sys.argv[2]) + 1)]
    for payer in payers:
        channel = payer.channel()
        storage.update_channel(payer.channel_id, lambda _, channel=channel: channel)
    address = serve(application(storage))
    print(json.dumps(address), flush=True)
    terms = accepted_terms(address)
    spare = Payer(len(payers) + 1)
    for line in sys.stdin:
        asked = json.loads(line)
        if "verify" in asked:
            print(verify_seconds(spare, asked["verify"]), flush=True)
        else:
            requests = [payers[n % len(payers)].request(terms) for n in range(asked["requests"])]
            print(json.dumps([base64.b64encode(one).decode() for one in requests]), flush=True)


if __name__ == "__main__":
    main()
