"""HTTP to what runs on this machine."""

import requests


def session() -> requests.Session:
    """A session that nothing of the caller's own reaches: neither their proxies nor their ``.netrc``."""
    made = requests.Session()
    made.trust_env = False
    return made
