"""A query's result as a pandas data frame that can also be had as an Arrow table or a Polars data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from schemas.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


class QueryResult(pd.DataFrame):
    """A data frame. What pandas makes of it (a selection, a join) is a plain `pandas.DataFrame`."""

    # How pandas is told of an attribute that is no column (its guide, "Define original properties").
    _internal_names = [*pd.DataFrame._internal_names, "_table"]  # type: ignore[attr-defined]  # noqa: RUF012
    _internal_names_set = set(_internal_names)  # noqa: RUF012

    _table: pa.Table

    @classmethod
    def of(cls, table: pa.Table) -> QueryResult:
        """The table as pandas converts it: a column of whole numbers with a null becomes float."""
        frame = cls(table.to_pandas())
        frame._table = table
        return frame

    def arrow(self) -> pa.Table:
        """The query's result as an Arrow table, with its own types and nulls, without later changes of the frame."""
        return self._table

    def polars(self) -> Any:
        """As `arrow`, as a `polars.DataFrame`. Raises UsageError where polars is not installed."""
        try:
            from polars import from_arrow
        except ModuleNotFoundError:
            raise UsageError(
                "polars is not installed", expected="the package polars beside leptonflow", received="none",
                hint="pip install polars; or use .arrow()",
            ) from None  # fmt: skip
        return from_arrow(self._table)
