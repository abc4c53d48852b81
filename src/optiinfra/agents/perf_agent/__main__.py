"""`python -m optiinfra.agents.perf_agent`."""

from optiinfra.agents.perf_agent.app import main

if __name__ == "__main__":
    main()
