"""A plain Faust agent in its best form: batches by ``take``, sends gathered."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.stream.faust_worker import Arguments, categorize, load_serving, make_app, run

# Larger batches gain nothing here; the wait only matters when the input runs dry.
_MAX_EVENTS = 1_000
_WITHIN_S = 0.1


def main() -> None:
    arguments = Arguments.parse()
    serving = load_serving(arguments.release)
    app = make_app(arguments)
    categories = app.topic(arguments.categories)
    attributes = app.topic(arguments.attributes)

    @app.agent(app.topic(arguments.input))
    async def categorize_products(stream: Any) -> None:
        async for events in stream.take_events(_MAX_EVENTS, within=_WITHIN_S):
            results = categorize(serving, [event.message for event in events])
            sends = [categories.send(key=r.key, value=r.categories) for r in results]
            sends += [attributes.send(key=r.key, value=r.attributes) for r in results]
            await asyncio.gather(*await asyncio.gather(*sends))

    run(app)


if __name__ == "__main__":
    main()
