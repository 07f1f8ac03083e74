"""Get paid for HTTP requests over payment channels.

Any ASGI application, in ten lines::

from channelpay.payee import Payee, PaymentMiddleware, PriceRule

payee = Payee.create(
    rpc="http://127.0.0.1:8545",
    payee="0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    token="eth",
    prices=[PriceRule("/articles/**", "0.0001")],
    store="sqlite:///books.sqlite3",
)
app = PaymentMiddleware(app, payee)
"""

from channelpay.payee.acceptance import Acceptance, Confirmations
from channelpay.payee.asgi import PaymentMiddleware
from channelpay.payee.payee import Payee
from channelpay.payee.payment import Payment
from channelpay.payee.prices import PriceRule, read_incentives, read_price_file
from channelpay.payee.selling.counter import Coupons
from channelpay.payee.selling.incentives import Incentive
from channelpay.payee.selling.passes import PassPlan
from channelpay.payee.selling.tabs import TabPlan

__all__ = [
    "Acceptance",
    "Confirmations",
    "Coupons",
    "Incentive",
    "PassPlan",
    "Payee",
    "Payment",
    "PaymentMiddleware",
    "PriceRule",
    "TabPlan",
    "read_incentives",
    "read_price_file",
]
