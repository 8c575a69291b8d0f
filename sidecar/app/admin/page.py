"""The page for people at the root of the admin listener: a few files that need nothing but this listener."""

from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).with_name("static")
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/codes": ("codes.json", "application/json"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
} | {f"/{module.name}": (module.name, "text/javascript") for module in sorted(FOLDER.glob("*.js"))}
# Nothing from elsewhere, nothing inline, no form that could put a token into an address, no frame around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


async def page(request: web.Request) -> web.Response:
    """One of FILES."""
    name, content_type = FILES[request.path]
    return web.Response(
        body=(FOLDER / name).read_bytes(),
        content_type=content_type,
        charset="utf-8",
        headers={"Content-Security-Policy": POLICY},
    )
