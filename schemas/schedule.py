"""When a deployed flow starts: the key `schedule` of a pipeline's YAML and of its sections."""

from __future__ import annotations

from pydantic import field_validator

from schemas import cron
from schemas.rules import Frozen


class Schedule(Frozen):
    """When a deployed retraining starts: five fields of cron, read in that time zone."""

    cron: str
    timezone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        try:
            cron.check(value)
        except ValueError as error:
            said = "minute, hour, day of month, month, day of week, such as 0 3 * * 1 for Mondays at 3:00"
            raise ValueError(f"five fields of cron that Prefect can schedule: {said} ({error})") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(value)
        except (LookupError, ValueError, OSError):  # unknown, no name at all, a folder's name
            raise ValueError("a time zone of the IANA database, such as UTC or Europe/Berlin") from None
        return value
