"""How a listener serves its clients: one object that all of its connections read."""

from sidecar.proxy.client_limits import ClientLimits
from sidecar.proxy.handler import Handler


class Serving:
    """The handler and the limits, which a reload replaces. `is_closing`: each request is the last one of its connection."""

    def __init__(self, handler: Handler, limits: ClientLimits) -> None:
        self.handler = handler
        self.limits = limits
        self.is_closing = False
