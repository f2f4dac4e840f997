"""What rules did to a model, place by place, as a pass told it."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxopt.context import Fired, Missed


@dataclass
class RulesTold:
    """A listener that keeps where rules fired and where they nearly did.

    Attributes:
        rule: The only one to listen for; all if None.
        fired: Applications, in order.
        missed: Places where a rule came close, with the reason.
    """

    rule: str | None = None
    fired: list[Fired] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)

    def __call__(self, event: object) -> None:
        """Take in an event."""
        match event:
            case Fired() if self.rule in (None, event.rule):
                self.fired.append(event)
            case Missed() if self.rule in (None, event.rule):
                self.missed.append(event)
