"""What Prometheus reads at /metrics. A registry of its own for each application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from serving.predicting import Arrival
from serving.service import Log, Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counted as requests are answered; everything else is read from the services when it is asked for."""

    def __init__(self, services: Sequence[Service], log: Log | None) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "leptonflow_requests", "Requests by the version that answered and the HTTP status",
            ["pipeline", "version", "status"], registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "leptonflow_request_seconds", "From a request's arrival to its answer", ["pipeline"], buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        sizes = Histogram(
            "leptonflow_batch_examples", "Examples that were predicted at once", ["pipeline"], buckets=SIZES,
            registry=self._registry,
        )  # fmt: skip
        for service in services:
            service.batcher.on_batch = sizes.labels(service.name).observe
        self._registry.register(_State(services, log))

    def request(self, service: Service, response: Response, arrival: Arrival) -> None:
        """Count an answered request."""
        version = response.headers.get("x-model-version", "")
        self._requests.labels(service.name, version, str(response.status_code)).inc()
        self._seconds.labels(service.name).observe(time.monotonic() - arrival.began)

    def page(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """Gauges of what is now so."""

    def __init__(self, services: Sequence[Service], log: Log | None) -> None:
        self._services, self._log = services, log

    def collect(self) -> Iterable[Metric]:
        yield from _versions(self._services)
        label = ["pipeline"]
        values: dict[str, tuple[str, Callable[[Service], float]]] = {
            "queue_examples": ("Examples that wait for the model", lambda s: s.batcher.waiting),
            "ready": ("Whether a version is loaded", lambda s: s.live is not None),
            "serves_champion": ("Whether the version that answers is the promotions log's", _serves_champion),
            "pinned": ("Whether a version is served by `serve --pin`", lambda s: s.pin is not None),
            "store_reachable": ("Whether the last look at the store went well", lambda s: s.store_problem is None),
        }
        for name, (words, value) in values.items():
            gauge = GaugeMetricFamily(f"leptonflow_{name}", words, labels=label)
            for service in self._services:
                gauge.add_metric([service.name], value(service))
            yield gauge
        counters: dict[str, tuple[str, Callable[[Service], float]]] = {
            "swaps": ("Versions that replaced another one", lambda s: s.swaps),
            "failed_loads": ("Versions that could not be loaded", lambda s: s.failed_loads),
        }
        for name, (words, value) in counters.items():
            counter = CounterMetricFamily(f"leptonflow_{name}", words, labels=label)
            for service in self._services:
                counter.add_metric([service.name], value(service))
            yield counter
        waiting, dropped = (self._log.waiting, self._log.dropped) if self._log is not None else (0, 0)
        yield GaugeMetricFamily(
            "leptonflow_log_rows_waiting", "Rows of the prediction log that are not on the store yet", value=waiting
        )
        yield CounterMetricFamily(
            "leptonflow_log_rows_dropped", "Rows of the prediction log that were lost", value=dropped
        )


def _serves_champion(service: Service) -> bool:
    live, champion = service.live, service.champion
    return live is not None and champion is not None and live.version == champion.version


def _versions(services: Sequence[Service]) -> Iterator[Metric]:
    served = InfoMetricFamily("leptonflow_served", "The version that answers", labels=["pipeline"])
    champions = InfoMetricFamily(
        "leptonflow_champion", "The promotions log's version, as far as it was read", labels=["pipeline"]
    )
    beside = InfoMetricFamily(
        "leptonflow_candidate", "The version that predicts beside it, and its share of the answers", labels=["pipeline"]
    )
    problems = InfoMetricFamily(
        "leptonflow_problem", "Why the version that should be served is not", labels=["pipeline"]
    )
    for service in services:
        if service.live is not None:
            told = {"version": service.live.version, "runtime": service.live.served.runtime}
            served.add_metric([service.name], told)
        if service.champion is not None:
            champions.add_metric([service.name], {"version": service.champion.version})
        other = service.beside
        if other is not None:
            beside.add_metric([service.name], {"version": other.live.version, "share": f"{other.share:g}"})
        if problem := service.problem or service.problem_beside:
            problems.add_metric([service.name], {"problem": problem[:300]})
    yield served
    yield beside
    yield champions
    yield problems
