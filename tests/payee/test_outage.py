"""The books cannot be written for a while: nobody is billed for that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from channelpay.protocol.rules import Outcome
from tests.payee.shop import PRICE, OpenChannel, Shop

pytestmark = pytest.mark.anyio
