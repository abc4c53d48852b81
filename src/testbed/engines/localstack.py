"""The mock cloud: moto's server, from which LocalStack takes EC2, STS and IAM too. Its state is in memory."""

import gc
import logging
import signal
import sys

from testbed import local_only
from testbed.engines import settings


def main() -> None:
    """Serve until SIGTERM."""
    gc.disable()  # collecting garbage while moto loads takes a third of that time, and finds hardly any
    from moto.ec2 import responses as _ec2  # noqa: F401  moto would load it at the first call, with collection on
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A line for each request would hide everything else.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    run_simple(
        settings.listen_host(),
        settings.port("localstack"),
        local_only.wsgi(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )


if __name__ == "__main__":
    main()
