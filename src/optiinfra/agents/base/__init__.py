"""What every agent is: registered, alive, and answering tasks; and the model of serving that two of them share."""
