"""What every service needs once: application, authentication, problem details, logging, metrics, settings."""
