"""`python -m optiinfra.agents.cost_agent`."""

from optiinfra.agents.cost_agent.app import main

if __name__ == "__main__":
    main()
