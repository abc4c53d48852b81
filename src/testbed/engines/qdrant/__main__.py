"""``python -m testbed.engines.qdrant``: serve until SIGTERM."""

import uvicorn

from testbed.engines import settings
from testbed.engines.qdrant.app import create_app


def main() -> None:
    """Serve the collections under ``$OPTIINFRA_STATE_DIR/qdrant``."""
    app = create_app(
        settings.data_dir("qdrant"),
        settings.required("OPTIINFRA_QDRANT_API_KEY"),
        settings.required("OPTIINFRA_QDRANT_READ_ONLY_API_KEY"),
    )
    uvicorn.run(
        app,
        host=settings.listen_host(),
        port=settings.port("qdrant"),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
