"""Passwords, keys and tokens in URLs: found, and left out of what people read."""

import re

_PASSWORD = re.compile(r"(^|//|\s)([^/\s:@]*):(?!//)\S*@")
_VALUE = re.compile(r"([?&;][^=&;\s]*(?:pass|pwd|secret|token|sig|key|cred|auth)[^=&;\s]*)=[^&;\s'\")]+", re.IGNORECASE)


def hide_secrets(text: str) -> str:
    """Return a URL, or a text that contains URLs, with `***` for passwords and for secret values of queries.

    Example:
        >>> hide_secrets("postgresql://me:ab12@host/name?sslmode=require&sslpassword=cd34")
        'postgresql://me:***@host/name?sslmode=require&sslpassword=***'
    """
    return _VALUE.sub(r"\1=***", _PASSWORD.sub(r"\1\2:***@", text))


def has_secrets(url: str) -> bool:
    """Return whether a URL contains a password, or a query with one."""
    return hide_secrets(url) != url
