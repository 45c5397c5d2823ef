"""What a user of this package can cause."""


class UserError(ValueError):
    """An argument, file or setting that this package cannot work with; the message says what was expected.

    The command line reports it in one line. Any other exception is a defect of the package.
    """


class MissingExtraError(UserError, ImportError):
    """A library is missing that one of the package's extras brings; the message names the extra."""
