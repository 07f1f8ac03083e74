"""A folder of files as a paid site: Markdown as pages, other files as they are, an index with
prices.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from channelpay.observe.health import Health
from channelpay.payee.amounts import HumanPrice
from channelpay.payee.asgi import App, PaymentMiddleware, Receive, Scope, Send
from channelpay.payee.folder import Folder, url_of
from channelpay.payee.markdown import html_page, markdown_page, markdown_title
from channelpay.payee.payee import Payee
from channelpay.payee.prices import PriceRule
from channelpay.payee.request import Request
from channelpay.protocol.passes import PLACE
from channelpay.protocol.text import checksum_address

MARKDOWN_SUFFIX = ".md"
_READING = frozenset({"GET", "HEAD"})
# Pages of other people's Markdown may show pictures from anywhere, and run nothing.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src * data:; base-uri 'none';"
    " form-action 'none'"
)


def flat_rules(price: HumanPrice, free: Iterable[str]) -> list[PriceRule]:
    """One price for every file but those that match a pattern of ``free``."""
    return [*(PriceRule(path, "0") for path in free), PriceRule("/**", price)]


class PaidSite:
    """The ASGI application. What is not there is 404 before anybody pays for it; indexes and
    the health checks are free, whatever the prices say.
    """

    def __init__(self, folder: Folder, payee: Payee) -> None:
        self._folder = folder
        self._pages = _Pages(folder, payee)
        self._paid = PaymentMiddleware(self._pages.application, payee)
        self._application = Health(self._site, payee.checks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)

    async def _site(self, scope: Scope, receive: Receive, send: Send) -> None:
        application: App = self._paid
        if scope["type"] != "http" or not self._sells(scope["method"], scope["path"]):
            application = self._pages.application
        await application(scope, receive, send)

    def _sells(self, method: str, path: str) -> bool:
        if path.startswith(PLACE):
            return True
        return method in _READING and self._folder.find(path) is not None


class _Pages:
    """What is behind the payment, and what is free."""

    def __init__(self, folder: Folder, payee: Payee) -> None:
        self._folder = folder
        self._payee = payee
        # Anybody may ask for indexes, which read many files: paid pages need the threads.
        self._one_index = CapacityLimiter(1)
        self.application = Starlette(routes=[Route("/{path:path}", self._page)])

    async def _page(self, request: HttpRequest) -> Response:
        path = request.scope["path"]
        if path.endswith("/"):
            return await run_sync(self._index, path, limiter=self._one_index)
        return await run_sync(self._file, path)

    def _file(self, path: str) -> Response:
        file = self._folder.find(path)
        if file is None:
            return _not_found()
        if file.suffix.lower() == MARKDOWN_SUFFIX:
            return _html(markdown_page(file))
        return FileResponse(file)

    def _index(self, path: str) -> Response:
        if not self._folder.is_folder(path):
            return _not_found()
        title = "Pages" if path == "/" else f"Pages in {path}"
        payee = checksum_address(self._payee.terms.payee)
        how = f"Pay with <code>channelpay pay URL</code>. The payee is <code>{payee}</code>."
        body = [
            f"<h1>{escape(title)}</h1>",
            '<ul class="pages">',
            *map(self._entry, self._folder.list(path)),
            "</ul>",
            f"<p>{how}</p>",
        ]
        return _html(html_page(title, "\n".join(body)))

    def _entry(self, path: str) -> str:
        file = self._folder.find(path)
        title = path.lstrip("/")
        if file is not None and file.suffix.lower() == MARKDOWN_SUFFIX:
            title = markdown_title(file)
        quote = self._payee.prices.quote(Request("GET", path))
        cost = quote.format() if quote else "free"
        link = f'<a href="{escape(url_of(path))}">{escape(title)}</a>'
        return f'<li><span>{link}</span><span class="cost">{escape(cost)}</span></li>'


def _html(page: str) -> Response:
    return HTMLResponse(page, headers={"content-security-policy": _POLICY})


def _not_found() -> Response:
    body = '<h1>Not found</h1>\n<p>There is no such page. <a href="/">All pages</a></p>'
    return HTMLResponse(html_page("Not found", body), status_code=404)
