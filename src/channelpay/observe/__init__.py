"""Seeing what a payee does: events, metrics, logs and health.

``channelpay.observe.metrics`` needs the extra ``metrics``; nothing here imports it.
"""

from channelpay.observe.observer import Answered, Books, Currency, Observer, Observers, Outcome

__all__ = ["Answered", "Books", "Currency", "Observer", "Observers", "Outcome"]
