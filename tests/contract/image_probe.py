"""Run inside an image: prints who runs there, what that account could change, and tools that could build something."""

import importlib.util
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

SHARED = 0o1000  # everybody may add files, and change only their own, as in /tmp
SKIPPED = ("/proc", "/sys", "/dev")
TOOLS = ("cc", "gcc", "g++", "make", "ld", "git", "pip", "pip3", "uv", "curl", "wget")


def writable() -> Iterator[str]:
    """Every file and folder that this account may change, except for folders that everybody shares."""
    for folder, names, files in os.walk("/"):
        here = Path(folder)
        names[:] = [name for name in names if str(here / name) not in SKIPPED]
        for path in (here, *(here / file for file in files)):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and os.access(path, os.W_OK) and not mode & SHARED:
                yield str(path)


packages = [name for name in ("pip", "setuptools", "wheel") if importlib.util.find_spec(name)]
tools = [name for name in TOOLS if shutil.which(name)]
found = {"uid": os.getuid(), "gid": os.getgid(), "writable": list(writable()), "tools": [*tools, *packages]}
sys.stdout.write(json.dumps(found))
