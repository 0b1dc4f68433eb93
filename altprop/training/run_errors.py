"""What can go wrong in a run, each as one sentence for the user."""


class TrainingError(Exception):
    """A run that cannot start or go on."""


class ConfigError(TrainingError):
    """A run's configuration that does not hold."""
