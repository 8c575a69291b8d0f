"""What makes a start quick: a container that is replaced is not there until its sidecar is."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# aiohttp reads all authorities of the system when it is imported, for clients that bring no context of their own. Ours do
# (`tls.system_context`), and keys on loopback or in a file need none. Nor has a plugin of pydantic any business here.
_ENVIRON = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull, "PYDANTIC_DISABLE_PLUGINS": "__all__"}


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import within what a server needs. Nothing that is imported is ever garbage, so nobody looks for any."""
    before = {name: os.environ[name] for name in _ENVIRON if name in os.environ}
    os.environ.update(_ENVIRON)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in _ENVIRON:
            del os.environ[name]
        os.environ.update(before)
