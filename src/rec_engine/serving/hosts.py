"""By which names the service may be asked: a web page whose name leads to this machine must not ask for who visits it.

A browser names in `Host` what stands in its address bar. Where that is the page's own name, whose owner lets it lead to
127.0.0.1 (DNS rebinding), the browser takes the service for the page's own origin and lets it read all answers.
"""

import re
from dataclasses import dataclass

from rec_engine.serving.security import Keyring, is_loopback
from rec_engine.utils.config import ServingConfig

OWN = frozenset({"localhost", "127.0.0.1", "[::1]"})
ANY = "*"
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)\.?(:\d*)?")


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names in `Host`, in lower case, without a port or a dot at the end.

    Attributes:
        names: that are answered; None for all.
    """

    names: frozenset[str] | None = None

    @classmethod
    def of(cls, config: ServingConfig) -> "Hosts":
        """Return those that are named, beside this machine's own; all where none is, but for who needs no key here."""
        allowed, host = config.security.allowed_hosts, config.api.host
        is_open_here = not Keyring.of(config.security).keys and is_loopback(host)
        if ANY in allowed or not (allowed or is_open_here):
            return cls()
        return cls(OWN | {_plain(name) for name in (*allowed, f"[{host}]" if ":" in host else host)})

    def allow(self, host: bytes | None) -> bool:
        """Return whether a request with this header is answered; one without it comes from no browser."""
        if self.names is None or host is None:
            return True
        found = _HOST.fullmatch(host.decode("latin-1").lower())
        return found is not None and _plain(found["name"]) in self.names


def _plain(name: str) -> str:
    """Return a name as it is compared: in lower case, and without the dot that ends a name of the DNS's root."""
    return name.lower().rstrip(".")
