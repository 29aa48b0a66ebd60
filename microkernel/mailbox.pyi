class Mailbox:
    """Who decides when the calls of an actor run."""

class Method:
    """A method of one actor."""
