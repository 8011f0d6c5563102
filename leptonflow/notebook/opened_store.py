"""The object that `leptonflow.open` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leptonflow.runs import stored_pipelines
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import require
from schemas.errors import UsageError
from schemas.settings import quiet, store_uri

if TYPE_CHECKING:
    from leptonflow.notebook.champion import Champion
    from leptonflow.notebook.original_example import Example
    from leptonflow.notebook.query_result import QueryResult


class OpenedStore:
    """A store, for reading. Every call reads what lies there now. What goes wrong is a LeptonflowError of one line."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"leptonflow.open({self.uri!r})"

    @property
    def uri(self) -> str:
        """The store's address."""
        return self._store.uri

    def query(self, sql: str) -> QueryResult:
        """The result of one reading SQL statement over the tables, as `leptonflow query` runs it: a pandas data frame.

        `.arrow()` and `.polars()` give the same result as those libraries' tables. Raises UsageError for an error in
        the SQL, Damaged where a table's file cannot be read, LeptonflowError where the query takes too much.
        """
        from leptonflow.notebook.query_result import QueryResult
        from leptonflow.tables import queries

        return QueryResult.of(queries.query(self._store, sql))

    def pipelines(self) -> list[str]:
        """The names of the pipelines that the store holds something of, sorted."""
        return stored_pipelines.names(self._store)

    def runs(self, pipeline: str) -> QueryResult:
        """The pipeline's finished runs, newest last: the rows of the table `runs`."""
        return self.query(f"FROM runs WHERE pipeline = '{self._known(pipeline)}' ORDER BY started_at, run_id")

    def champion(self, pipeline: str) -> Champion:
        """The pipeline's champion: `.version`, `.metrics`, `.predict(...)`. Raises NotFound where it has none."""
        from leptonflow.notebook.champion import champion

        return champion(self._store, self._known(pipeline))

    def example(self, id: str) -> Example:
        """An accepted example by its id, or the beginning of it: its `.source`, `.label` and `.bytes`.

        Raises UsageError where the id is too short or fits several, NotFound where it fits none, Damaged where the
        landed bytes are not those that were accepted.
        """
        from leptonflow.notebook.original_example import example

        return example(self._store, self.pipelines(), id)

    def _known(self, pipeline: str) -> str:
        there = self.pipelines()
        if pipeline not in there:
            raise UsageError(
                "the store has no such pipeline", expected=f"one of {', '.join(there)}" if there else "none yet",
                received=repr(pipeline),
            )  # fmt: skip
        return pipeline


def opened(uri: str | None) -> OpenedStore:
    """The store at `uri`, by default the command line's. Raises LeptonflowError where there is none."""
    quiet()
    store = open_store(store_uri(uri))
    require(store)
    return OpenedStore(store)
