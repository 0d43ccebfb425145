"""What goes wrong with objects whose state is a message."""

from zeo_core.errors import InvalidObjectReference, ZeodError

__all__ = ["BrokenReferenceError", "StaleMessageError"]


class BrokenReferenceError(InvalidObjectReference, KeyError):
    """A message has a reference whose target its object does not know: it was set through another object's references.

    `refids` are the numbers in the message that lead nowhere.
    """

    def __init__(self, text: str, refids: tuple[int, ...]) -> None:
        super().__init__(text, refids)
        self.text, self.refids = text, refids

    def __str__(self) -> str:
        return self.text


class StaleMessageError(ZeodError, RuntimeError):
    """A part of a message was kept while its object got another state, in which the part cannot be found again."""
