"""`ape run deploy` does what `channelpay contract deploy` does."""

from __future__ import annotations

from typing import Any

import ape
import pytest

from channelpay.chain.connection import checksum
from channelpay.chain.create2 import predicted_address
from scripts import deploy


def test_ape_deploys_to_the_predicted_address_and_only_once(
    capsys: pytest.CaptureFixture[str], contract_types: dict[str, Any]
) -> None:
    deploy.main()
    assert "deployed by transaction 0x" in capsys.readouterr().out

    deploy.main()
    assert "already there" in capsys.readouterr().out

    address = checksum(predicted_address())
    channels = ape.Contract(address, contract_type=contract_types["PaymentChannels"].contract_type)
    assert channels.gracePeriod() == 86_400
