"""`python -m optiinfra.runtime`."""

import asyncio
import signal
from logging import WARNING, getLogger

from optiinfra.kit.garbage import collection_paused

with collection_paused():
    import uvloop

    from optiinfra.kit import logging
    from optiinfra.kit.settings import load
    from optiinfra.runtime.settings import RuntimeSettings
    from optiinfra.runtime.supervisor import Supervisor


async def _main() -> None:
    settings = load(RuntimeSettings)
    logging.configure("runtime", settings.version)
    getLogger("watchfiles").setLevel(WARNING)  # it logs every file change, our own included
    stop = asyncio.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wanted, stop.set)
    await Supervisor(settings).run(stop)


if __name__ == "__main__":
    uvloop.run(_main())
