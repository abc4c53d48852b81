"""`python -m optiinfra.portal`."""

from optiinfra.kit.garbage import collection_paused

with collection_paused():
    from optiinfra.kit.app import serve
    from optiinfra.kit.settings import load
    from optiinfra.portal.app import create
    from optiinfra.portal.settings import Settings

if __name__ == "__main__":
    settings = load(Settings)
    serve(create(settings), settings.host, settings.portal_port, settings.trusted_proxies)
