"""`python -m optiinfra.agents.resource_agent`."""

from optiinfra.kit.garbage import collection_paused

with collection_paused():
    from optiinfra.agents.resource_agent.app import main

if __name__ == "__main__":
    main()
