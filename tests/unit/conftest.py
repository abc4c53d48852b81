"""Properties are tried on the same examples each time; `--hypothesis-profile=default` looks for new ones."""

from hypothesis import HealthCheck, settings

# A slow machine is no failure: pytest's own deadlines are enough.
settings.register_profile(
    "same",
    derandomize=True,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)
settings.load_profile("same")
