"""Every error that paredown raises on purpose.

One root; a leaf also inherits the builtin that it is. `exit_code` is what the command line ends with.
A message says what was expected, what came, where, and what to do.
"""


class ParedownError(Exception):
    """Root of the tree. Exit code 1: failed, with a reason in one line."""

    exit_code = 1


class InputError(ParedownError, ValueError):
    """Something that the user gave cannot be used: a task, a config, a spec, a profile, an argument."""

    exit_code = 2


class TaskError(InputError):
    """A task file, or what it names (a factory, weights, data, a metric), is wrong."""


class SpecError(InputError):
    """A layer cannot be given this treatment."""


class ConfigError(InputError):
    """A config does not parse, or belongs to another model."""


class MissingExtra(ParedownError, ImportError):
    """An optional package is needed and not installed; the message says how to get it."""

    exit_code = 2


class IntegrityError(ParedownError, RuntimeError):
    """A stored file is not what its checksum says, or lies outside the folder that it must lie in."""

    exit_code = 2


class LimitsNotMet(ParedownError):
    """The search ended and no point met the limits. The message gives the nearest and by how much it misses."""

    exit_code = 3


class Interrupted(ParedownError):
    """Stopped by the user; the run can be resumed."""

    exit_code = 130
