"""The one exception a user can cause."""


class UserError(Exception):
    """A mistake or a lack that the user can mend.

    The message is one sentence that says what was found, what was expected and what to do. The command line prints
    it without a traceback and exits with code 2.
    """
