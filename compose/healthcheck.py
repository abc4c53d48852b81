"""The health check of an image: `HEALTH_URL` answers, or `HEALTH_FILE` in the state folder was written lately."""

import os
import sys
import time
import urllib.request
from pathlib import Path

FRESH_SECONDS = 10

try:
    if url := os.environ.get("HEALTH_URL"):
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310  the image's own address
    else:
        file = Path(os.environ["OPTIINFRA_STATE_DIR"], os.environ["HEALTH_FILE"])
        age = time.time() - file.stat().st_mtime
        if age > FRESH_SECONDS:
            sys.exit(f"{file.name} is {age:.0f} s old")
except OSError as error:
    sys.exit(str(error))
