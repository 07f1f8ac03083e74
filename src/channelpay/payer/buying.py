"""Buying what is not a page: passes, their refunds, gifts, and what coupons bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from channelpay.errors import InputError, NotFound
from channelpay.payer.client import Payer
from channelpay.payer.httpx import NO_HEADERS, error_of_response, is_final, paid_get
from channelpay.payer.origins import origin_of
from channelpay.payer.passes import HeldPass, PassSale, PassState
from channelpay.payer.steps import PROBLEM_BYTES_MAX, Paid
from channelpay.protocol.coupons import CODE_HEADER, parse_code
from channelpay.protocol.parse import parse_amount, parse_json_object, parse_text
from channelpay.protocol.passes import HEADER, PLACE
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address

_TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a coupon brought: ``worth`` is ``value`` (then ``amount`` base units of ``token`` are
    credit), ``percent`` (in hundredths of one, off the next ``sales``) or ``pass``, then in
    ``held``.
    """

    worth: str
    amount: int = 0
    token: str = ""
    percent: int = 0
    sales: int = 0
    held: HeldPass | None = None


@dataclass(frozen=True, slots=True)
class Gift:
    """A coupon that was bought. ``code`` is for whoever gets it; ``expires`` is an RFC 3339
    time.
    """

    code: str
    amount: int
    expires: str


def buy_pass(payer: Payer, url: str, plan: str, *, renews: bool = False) -> HeldPass:
    """Buy a pass of the site of ``url``, which :func:`channelpay.payer.asking.offers_in` lists.
    With ``renews`` it is bought again when it ends, for the same price at most. What was begun and
    broken off is continued: it is paid for once.

    Raises what :func:`channelpay.payer.page.get` raises, and :class:`InputError` for an answer that
    is no pass, or a redirect.
    """
    got = _post(payer, url, f"passes/{parse_text(plan, 'plan', _TEXT_MAX)}")
    return _kept(payer, url, got, renews=renews)


def refund_pass(payer: Payer, held: HeldPass) -> int:
    """Have the site give back what is left of a pass, which ends it; how much that was, in base
    units.
    """
    got = _post(payer, held.origin, f"pass/{to_hex(held.pass_id)}/refund")
    payer.state.passes.end(held.pass_id, "refunded")
    return parse_amount(got.members.get("refunded"), "refunded")


def redeem(payer: Payer, url: str, code: str) -> Redeemed:
    """Redeem a coupon at the site of ``url``. Raises
    :class:`~channelpay.errors.CouponNotValid` for a code that is mistyped or not taken.
    """
    typed = parse_code(code)
    got = _post(payer, url, "coupons/redeem", {CODE_HEADER: typed})
    if got.state is not None:
        return Redeemed("pass", held=_kept(payer, url, got, renews=False))
    members = got.members
    return Redeemed(
        parse_text(members.get("worth"), "worth", _TEXT_MAX),
        parse_amount(members.get("amount", "0"), "amount"),
        parse_text(members.get("token", "-"), "token", _TEXT_MAX),
        parse_amount(members.get("percent", "0"), "percent"),
        parse_amount(members.get("sales", "0"), "sales"),
    )


def buy_gift(payer: Payer, url: str, amount: int, token: Address) -> Gift:
    """Buy a coupon of ``amount`` base units at the site of ``url``."""
    place = f"coupons/gift?amount={amount}&token={checksum_address(token)}"
    members = _post(payer, url, place).members
    return Gift(
        parse_code(parse_text(members.get("code"), "code", _TEXT_MAX)),
        parse_amount(members.get("amount"), "amount"),
        parse_text(members.get("expires"), "expires", _TEXT_MAX),
    )


@dataclass(frozen=True, slots=True)
class _Got:
    members: Mapping[str, Any]
    state: PassState | None
    paid: Paid | None


def _post(payer: Payer, url: str, place: str, headers: Mapping[str, str] = NO_HEADERS) -> _Got:
    """What the payee's answer says. A purchase that was killed before is continued."""
    target = f"{origin_of(url)}{PLACE}{place}"
    named = "".join([target, *headers.values()])
    with payer.purchase(named) as purchase:
        with paid_get(payer, target, purchase.key, headers, "POST") as response:
            purchase.is_over = is_final(response)
            if response.next_request is not None:
                raise _moved(target, str(response.next_request.url))
            if not response.is_success:
                raise error_of_response(response, payer)
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > PROBLEM_BYTES_MAX:
                    raise InputError("the answer is too long")
        state = PassState.parse(response.headers.get(HEADER))
        paid = response.extensions["channelpay"]
    return _Got(parse_json_object(body, "answer"), state, paid)


def _kept(payer: Payer, url: str, got: _Got, *, renews: bool) -> HeldPass:
    """The pass of an answer, entered in the books."""
    if got.state is None or got.paid is None:
        raise InputError("the answer is no pass")
    passes, bought = payer.state.passes, (got.paid.channel_id, got.paid.cost)
    sale = PassSale(payer.address, origin_of(url), *bought, passes.now())
    held = replace(HeldPass.bought(sale, got.members, got.state), renews=renews)
    passes.add(held)
    passes.renew(held.pass_id, renews=renews)
    return held


def _moved(url: str, to: str) -> InputError:
    return InputError(
        f"{url} leads to {to[:_TEXT_MAX]}",
        hint="No redirect is followed here. If you trust that site, name it instead.",
    )


def pass_named(held: list[HeldPass], name: str) -> HeldPass:
    """A pass that is good, by the name that its site gives its kind; or any by its id, or the first
    digits of that. Raises :class:`~channelpay.errors.NotFound`.
    """
    digits = name.lower().removeprefix("0x")
    found = [one for one in held if one.plan == name and one.ended is None]
    found = found or [one for one in held if digits and one.pass_id.hex().startswith(digits)]
    if len(found) == 1:
        return found[0]
    what = "several passes are" if found else "no pass is"
    raise NotFound(f"{what} called {name[:40]}", hint="List them with: channelpay pass list")
