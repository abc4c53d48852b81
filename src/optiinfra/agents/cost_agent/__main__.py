"""`python -m optiinfra.agents.cost_agent`."""

from optiinfra.kit.garbage import collection_paused

with collection_paused():
    from optiinfra.agents.cost_agent.app import main

if __name__ == "__main__":
    main()
