"""HTTP requests to this machine."""

import requests


def session() -> requests.Session:
    """A session that ignores the caller's proxy variables and `.netrc`."""
    made = requests.Session()
    made.trust_env = False
    return made
