"""`python -m optiinfra.agents.resource_agent`."""

from optiinfra.agents.resource_agent.app import main

if __name__ == "__main__":
    main()
