"""Who may do what: reading is for everybody who reaches the port, actions are for who has given the token.

A page of another site must neither read (DNS rebinding: its name made to point here) nor act (forged forms): the host
that a browser thinks it speaks to must be one of ours, and an action must come from a page of this dashboard, by its
origin and by a token of the session's that only such a page holds.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

COOKIE = "straggler_session"

_SESSION_LIFETIME = 12 * 3600.0
_MOST_SESSIONS = 200
# Wrong tokens that may be tried a minute.
_TRIES, _TRIES_EVERY = 10, 60.0

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has given the token.

    Args:
        csrf: What each of their forms carries.
        until: When it ends, on the monotonic clock.
        notices: What their last actions came to; the next page says it.
    """

    csrf: str
    until: float
    notices: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Access:
    """Sessions of those who may act.

    Args:
        token: What is to be given; None: nobody may act.
        hosts: Names that browsers may know this server by; empty: any.
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    _sessions: OrderedDict[str, Session] = field(default_factory=OrderedDict)
    _failures: list[float] = field(default_factory=list)

    @property
    def allows_actions(self) -> bool:
        """Whether there are any actions."""
        return self.token is not None

    def knows_host(self, host: str) -> bool:
        """Whether a `Host` header names this server."""
        return not self.hosts or (urlsplit(f"//{host}").hostname or "") in self.hosts

    @property
    def is_throttled(self) -> bool:
        """Whether too many wrong tokens were given within the last minute."""
        now = time.monotonic()
        self._failures = [at for at in self._failures if at > now - _TRIES_EVERY]
        return len(self._failures) >= _TRIES

    def log_in(self, token: str) -> str | None:
        """Begin a session if this is the token; returns its id."""
        if self.token is None or not hmac.compare_digest(token.encode(), self.token.encode()):
            self._failures.append(time.monotonic())
            return None
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = Session(secrets.token_urlsafe(32), time.monotonic() + _SESSION_LIFETIME)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session_id

    def log_out(self, session_id: str) -> None:
        """End a session."""
        self._sessions.pop(session_id, None)

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        """Find the session that a request belongs to."""
        found = self._sessions.get(cookies.get(COOKIE, ""))
        return found if found is not None and found.until > time.monotonic() else None


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a request comes from a page of this server: by either header, and by none against."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is None:
        return site is not None
    return urlsplit(origin).netloc == headers.get("host") != ""


def is_csrf_token(session: Session, given: str) -> bool:
    """Whether a form carries its session's token."""
    return hmac.compare_digest(session.csrf.encode(), given.encode())


def known_hosts(host: str, further: Iterable[str]) -> frozenset[str]:
    """Name what browsers may call a server that listens on `host`; empty where it cannot be told."""
    names = {name.casefold() for name in further}
    if is_loopback(host):
        return frozenset({"localhost", "127.0.0.1", "::1", host.casefold(), *names})
    return frozenset(names | {host.casefold()}) if names else frozenset()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
