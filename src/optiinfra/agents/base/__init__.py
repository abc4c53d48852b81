"""What all agents share: registration, heartbeats, tasks, validation rules, and the performance model of serving."""
