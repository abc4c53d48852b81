"""`python -m optiinfra.orchestrator`: serve until SIGTERM."""

from optiinfra.kit.allocator import return_free_memory
from optiinfra.kit.garbage import collection_paused

return_free_memory()
with collection_paused():
    from optiinfra.kit.app import serve
    from optiinfra.kit.settings import load
    from optiinfra.orchestrator.app import create
    from optiinfra.orchestrator.settings import Settings

if __name__ == "__main__":
    settings = load(Settings)
    serve(create(settings), settings.host, settings.orchestrator_port, settings.trusted_proxies)
