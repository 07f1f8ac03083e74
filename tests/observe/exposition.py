"""What Prometheus would read, as a table of values."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples(exposition: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def value(found: Samples, name: str, labels: Mapping[str, str] | None = None) -> float:
    return found["channelpay_" + name, frozenset((labels or {}).items())]


def read(registry: CollectorRegistry) -> Samples:
    return samples(generate_latest(registry).decode())
