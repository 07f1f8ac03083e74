"""What the package promises to its users."""

from __future__ import annotations

import subprocess
import sys

import pytest

import channelpay


@pytest.mark.parametrize("name", channelpay.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(channelpay, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        channelpay.Nothing  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys, channelpay; print([m for m in sys.modules if 'channelpay.' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_without_httpx2_the_adapter_is_one_of_httpx() -> None:
    """``httpx`` has the same interface; here httpx2 itself stands in for it."""
    program = (
        "import sys, httpx2\n"
        "sys.modules['httpx'], sys.modules['httpx2'] = httpx2, None\n"
        "from channelpay.payer.httpx import ChannelPayAuth, httpx\n"
        "assert httpx.__name__ == 'httpx2' and issubclass(ChannelPayAuth, httpx.Auth)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
