"""The admin page: a few static files that load nothing from other hosts."""

from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).with_name("static")
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/codes": ("codes.json", "application/json"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
} | {f"/{module.name}": (module.name, "text/javascript") for module in sorted(FOLDER.glob("*.js"))}
# No other origins, no inline code, no form that could put a token into a URL, no frames.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


async def page(request: web.Request) -> web.Response:
    """Serve one of FILES."""
    name, content_type = FILES[request.path]
    return web.Response(
        body=(FOLDER / name).read_bytes(),
        content_type=content_type,
        charset="utf-8",
        headers={"Content-Security-Policy": POLICY},
    )
