"""The places of a token in a request."""

from tests.real.corpus.making import Cases, get, good_token


def transport() -> Cases:
    """Schemes, and places for a token."""
    alice, bob = good_token().encode(), good_token(sub="bob").encode()
    bad = good_token(exp=1).encode()
    yield "no header", get()
    for scheme in (
        b"bearer ",
        b"BEARER ",
        b"Basic ",
        b"Token ",
        b"",
        b"Bearer  ",
        b"Bearer\t",
        b"Bearer:",
        b"Bearer=",
        b"xBearer ",
    ):
        yield f"scheme: {scheme.decode()!r} and a good token", get(b"Authorization: " + scheme + alice)
    credentials = {
        "Bearer alone": b"Bearer",
        "Bearer and a space": b"Bearer ",
        "Bearer a b": b"Bearer a b",
        "Bearer, a good token and another word": b"Bearer " + alice + b" x",
        "Bearer, a good token and a tab": b"Bearer " + alice + b"\t",
        "Bearer Bearer": b"Bearer Bearer " + alice,
        "an empty header": b"",
        "a parameter after it": b"Bearer " + alice + b", x=y",
    }
    yield from ((f"scheme: {how}", get(b"Authorization: " + value)) for how, value in credentials.items())
    pairs = {
        "good, bad": (alice, bad),
        "bad, good": (bad, alice),
        "alice, bob": (alice, bob),
        "alice, alice": (alice, alice),
    }
    for how, pair in pairs.items():
        yield f"duplicate Authorization: {how}", get(*(b"Authorization: Bearer " + token for token in pair))
    yield "duplicate Authorization: comma-joined", get(b"Authorization: Bearer " + alice + b", Bearer " + bob)
    yield (
        "duplicate Authorization: Basic, then Bearer",
        get(b"Authorization: Basic eDp5", b"Authorization: Bearer " + alice),
    )
    yield (
        "duplicate Authorization: another case",
        get(b"Authorization: Bearer " + alice, b"authorization: Bearer " + bob),
    )
    yield "token elsewhere: query access_token", get(target=b"/?access_token=" + alice)
    yield "token elsewhere: query token", get(target=b"/?token=" + alice)
    for name in (b"Proxy-Authorization", b"X-Forwarded-Authorization", b"Authorization_", b"X-Authorization"):
        yield f"token elsewhere: {name.decode()}", get(name + b": Bearer " + alice)
    for name in (b"access_token", b"token", b"Authorization"):
        yield f"token elsewhere: cookie {name.decode()}", get(b"Cookie: " + name + b"=" + alice)
    form = b"access_token=" + alice
    yield (
        "token elsewhere: form",
        (
            b"POST / HTTP/1.1\r\nHost: sidecar.test\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(form), form)
        ),
    )
    yield (
        "two places: header alice, query bob",
        get(b"Authorization: Bearer " + alice, target=b"/?access_token=" + bob),
    )
    yield (
        "two places: header alice, query junk",
        get(b"Authorization: Bearer " + alice, target=b"/?access_token=x"),
    )
    yield (
        "two places: header bad, query alice",
        get(b"Authorization: Bearer " + bad, target=b"/?access_token=" + alice),
    )
    yield (
        "two places: header Basic, query alice",
        get(b"Authorization: Basic eDp5", target=b"/?access_token=" + alice),
    )
