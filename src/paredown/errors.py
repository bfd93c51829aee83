"""Errors that paredown raises on purpose.

They have one root, and each also inherits a builtin where one fits. `exit_code` is the exit code of the command line.
A message says what was expected, what came, where, and what to do.
"""


class ParedownError(Exception):
    """Root of all errors. Exit code 1: the command failed, with a reason in one line."""

    exit_code = 1


class InputError(ParedownError, ValueError):
    """An input of the user that cannot be used: a task, a config, a spec, a profile, an argument."""

    exit_code = 2


class TaskError(InputError):
    """A wrong task file, or a wrong part that it names: a factory, weights, data, a metric."""


class SpecError(InputError):
    """A spec that does not apply to its layer."""


class ConfigError(InputError):
    """A config that does not parse, or belongs to another model."""


class MissingExtra(ParedownError, ImportError):
    """An optional package that is needed and not installed. The message says how to install it."""

    exit_code = 2


class IntegrityError(ParedownError, RuntimeError):
    """A stored file that does not match its checksum, or lies outside its folder."""

    exit_code = 2


class NothingVerified(ParedownError):
    """A search in which no compressed model could be evaluated, exported and measured. The message has the reason."""


class LimitsNotMet(ParedownError):
    """Limits that no point meets. The message gives the nearest point, and by how much it misses."""

    exit_code = 3


class Interrupted(ParedownError):
    """A run that the user stopped. It can be resumed."""

    exit_code = 130
