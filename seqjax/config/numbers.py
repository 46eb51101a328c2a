"""Ranges of numbers that several keys share. Pydantic has names for the others, such as PositiveInt."""

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole: none and all of it included."""
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A part that never is the whole, such as a probability of dropping, or a decay."""
PositiveShare = Annotated[float, Field(gt=0, le=1)]
"""A part that never is nothing."""
